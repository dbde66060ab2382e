"""Every command and every line of Python in the README and docs/ runs, page by page, each once.

Output shown below a command is what the command prints. Commands of docs/errors.md fail, as is shown there.
test_docs.py is about words and tables.

Commands run in this process; workers of a search, and the processes of torchrun, are forked.
`CHEAPER` adds options that make long training short, and a confirmation reads less text than it would. `ELSEWHERE`
names what does not run here, and why. The authors' checkpoint is a small stand-in with the same names.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path
from threading import Thread

import pytest
import torch
from float64 import assert_exact, doubled, in_float64
from forked import torchrun, workers_forked
from pages import PAGES, README, blocks, commands
from paths import ROOT
from typer.testing import CliRunner

from miniwin.cli import app
from miniwin.specs import ModelSpec, UserError, load_model_spec, parse_spec
from miniwin.specs.confirmation import ConfirmSpec
from miniwin.specs.yaml_document import Document
from miniwin.zoo.importing.families import FAMILIES

TINY = "--set-train tokens=4e3 --set-train batch_size=2 --set-train seq_len=64"
SEARCH = (
    "--workers 1 --set budget.trials=1 --set budget.tokens_per_trial=4e3 --set report_lengths=[64,512] --tracking off"
)
CHEAPER = {  # the first that fits
    "miniwin train ": f"{TINY} --tracking off",
    "miniwin calibrate ": "--set seq_len=32 --set batch_size=1 --quiet",
    "miniwin eval runs/first --suite ": "",  # whose file says what is measured
    "miniwin eval ": "--no-recall --no-speed",
    "miniwin search run layers-of-weights ": f"{SEARCH} --set eval_tokens=2048 --set confirm.tokens=4096",
    "miniwin search run ": f"{SEARCH} --set eval_tokens=4096 --set rung_eval_tokens=4096",
    "miniwin search confirm ": "--top 1 --seeds 1 --workers 1 --tracking off",
    "miniwin search ladder ": "--plan",  # tests/search/test_ladder.py trains one
    "miniwin search promote ": f"{TINY} --lengths 64,512 --tracking off",
    "miniwin adapt ": "--seq-len 1400 --search-len 1000 --search-rows 1 --rows 4 --questions 3 --harder 2 --gates 2 "
    "--quiet --evaluations 9",
    "miniwin generate ": "--max-new-tokens 8",
}
ELSEWHERE = {
    "make demo": "minutes; its parts run here one by one",
    "make bench": "minutes; tests/benchmarks/test_benchmarks.py runs its parts",
    "python -m benchmarks --full": "hours; tests/benchmarks/test_benchmarks.py runs its parts",
    "python -m benchmarks --full --continue FILE.json": "hours; likewise",
    "python benchmarks/compare.py OLD.json NEW.json": "tests/benchmarks/test_benchmarks.py calls it",
    "miniwin lm-eval --model miniwin --model_args pretrained=miniwin-1m --include_path tests/fixtures/lm-eval "
    "--tasks shop_choice": "reads 14,000 tasks; tests/miniwin/evaluation/test_lm_eval.py runs it with a few",
    "miniwin zoo publish miniwin-tasks --to s3://models/zoo": "needs an object store; tests/zoo/publishing/test_s3.py "
    "starts one",
    "miniwin zoo publish miniwin-tasks --to mlflow:sqlite:///registry.db": "makes the tables of a database; "
    "tests/zoo/publishing/test_mlflow_registry.py publishes there",
    "miniwin zoo publish miniwin-tasks --to hf:organisation/repository": "likewise; tests/zoo/publishing/test_hub.py",
    "python benchmarks/beside.py --write docs/benchmarks.md": "tests/benchmarks/test_benchmarks.py calls it",
}
for launched in (
    "run period-window-ratio --workers 8 --launcher ray --set-launcher cpus=2 --set-launcher gpus=0.25",
    "run period-window-ratio --workers 8 --launcher slurm --set-launcher partition=gpu --set-launcher gpus=1",
    "resume period-window-ratio --workers 8 --launcher site.yaml",
):
    ELSEWHERE[f"miniwin search {launched}"] = "needs a cluster with GPUs; tests/search/launchers starts small ones"
FAILING = "errors.md"
SERVER = "python -m http.server 8000 --directory "


def save_stand_in(path: Path) -> None:
    """A checkpoint with the names of the authors' full_sft_768.pth, much narrower."""
    data = load_model_spec("miniwin-768").model_dump(mode="json") | {"hidden_size": 64, "vocab_size": 256}
    for block in data["blocks"].values():
        block["attention"]["head_dim"] = None
        block["mlp"]["intermediate_size"] = 128
    spec: ModelSpec = parse_spec(data, "model")
    ours = spec.build().state_dict()
    theirs: dict[str, torch.Tensor] = {}
    for rule in FAMILIES["miniwin"].rules(spec):
        theirs |= dict(zip(rule.theirs, rule.write([ours[name] for name in rule.ours]), strict=True))
    torch.save(theirs, path)


class Workplace:
    """A folder, empty at first, to run commands in, and what each command printed."""

    def __init__(self, folder: Path, open_until_the_end: ExitStack) -> None:
        self.folder, self.until_the_end = folder, open_until_the_end
        self.printed: dict[str, str] = {}
        self.ports: dict[str, str] = {}

    def run(self, shown: str, fails: bool) -> None:
        if shown.startswith(SERVER):
            port = self.until_the_end.enter_context(serving(self.folder / shown.removeprefix(SERVER)))
            self.ports["127.0.0.1:8000"] = f"127.0.0.1:{port}"
            self.printed[shown] = ""
            return
        command = shown.replace("--tokens 2e7", "") if shown.startswith("miniwin search promote ") else shown
        for port_shown, port in self.ports.items():
            command = command.replace(port_shown, port)
        if not fails:
            start = command[command.index("miniwin ") :]
            command += f" {next((more for words, more in CHEAPER.items() if start.startswith(words)), '')}"
        program, _, target = command.partition(" > ")
        words = shlex.split(program)
        settings = {}
        while re.fullmatch(r"[A-Z_]+=.*", words[0]):
            name, _, settings[name] = words.pop(0).partition("=")
        if words[0] == "torchrun":
            code, out, err = torchrun(*words[1:])
            output = out + err
        else:
            code, output = miniwin(words[1:], settings)
        assert code == (2 if fails else 0), f"{command}\n{output[-3000:]}"
        assert "Traceback" not in output
        if target:
            Path(target.strip()).write_text(output, encoding="utf-8")
            assert len(output) > 100
        self.printed[shown] = output


def miniwin(words: list[str], settings: dict[str, str]) -> tuple[int, str]:
    done = CliRunner().invoke(app, words, env=settings)
    if isinstance(done.exception, UserError):  # as miniwin.cli.main says it
        return 2, f"{done.output}error: {done.exception}"
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


@contextmanager
def serving(folder: Path) -> Iterator[int]:
    """As `python -m http.server` does, at a port that is free."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    """All commands have run there, in order."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "specs").symlink_to(ROOT / "specs")
    save_stand_in(folder / "full_sft_768.pth")
    with pytest.MonkeyPatch.context() as patch, ExitStack() as until_the_end, workers_forked():
        patch.chdir(folder)
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])))
        patch.setenv("MINIWIN_HOME", str(folder / "runs"))
        patch.setenv("MINIWIN_ZOO", str(folder / "zoo"))
        patch.setenv("MINIWIN_CONFIG", str(folder / "config"))
        for name in ("MINIWIN_ZOO_INDEX", "MINIWIN_ZOO_MIRROR", "MINIWIN_OFFLINE", "MINIWIN_PRODUCTS"):
            patch.delenv(name, raising=False)
        patch.setattr("miniwin.search.confirm.asking.ConfirmSpec", partial(ConfirmSpec, tokens=8192))
        place = Workplace(folder, until_the_end)
        patch.setattr("miniwin.training.calibration.WARM", 1)
        patch.setattr("miniwin.training.calibration.MEASURED", 1)
        for command in commands():
            if command.line not in place.printed and command.line not in ELSEWHERE:
                place.run(command.line, fails=command.page == FAILING)
        yield place
    shutil.rmtree(folder)  # a quarter of a GB


def test_every_command_runs_in_order(workplace: Workplace) -> None:
    assert len(workplace.printed) > 60
    shown = {command.line for command in commands()}
    assert shown == set(workplace.printed) | set(ELSEWHERE), "ELSEWHERE names what no page shows any more"


def test_the_output_shown_is_what_is_printed(workplace: Workplace) -> None:
    checked = set()
    for command in commands():
        lines = [line.rstrip() for line in workplace.printed.get(command.line, "").splitlines()]
        for shown in command.below:
            wanted = ".*".join(map(re.escape, shown.split("...")))
            assert any(re.fullmatch(wanted, line) for line in lines), f"$ {command.line}\n{shown}\n" + "\n".join(lines)
        if command.below:
            checked.add(command.page)
    assert checked >= {"README.md", "errors.md", "soundness.md", "window-and-period.md"}


# A client of a server at a port of its own: tests/miniwin/serving has both. A plugin: tests/blocks/test_plugins.py.
BY_OTHERS = ("serving.md", "blocks.md")


@pytest.mark.parametrize(
    "path",
    [path for path in PAGES if blocks(path, "python") and path.name not in BY_OTHERS],
    ids=lambda path: path.stem,
)
def test_the_python_runs(workplace: Workplace, path: Path) -> None:
    names: dict[str, object] = {}
    with redirect_stdout(StringIO()) as said:
        exec(compile("\n".join(blocks(path, "python")), path.name, "exec"), names)
    if path.name == "import-export.md":
        ids = torch.arange(40)[None]
        assert_exact(in_float64(names["theirs"])(ids).logits, doubled(names["ours"].decoder)(ids))
    else:
        assert len(said.getvalue()) > 10


def test_the_yaml_is_the_shipped_one() -> None:
    text = next(block for block in blocks(README, "yaml") if "kind: model" in block)
    path = re.search(r"# (specs/\S+\.yaml)", text)
    assert path is not None
    data = {key: value for key, value in Document(text, "README.md").data.items() if key != "layer"}
    assert parse_spec(data, "model") == load_model_spec(ROOT / path.group(1))
