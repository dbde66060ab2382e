"""What the README shows is so: every command and every line of Python runs, in the order in which it shows them; output
shown below a command is what it prints; the tables hold what the specs and registries say.

What would train for long is given a smaller budget by options of the same command, named in `CHEAPER`; nothing is left
out and nothing else is changed. The authors' checkpoint is a small stand-in with the same names.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import torch

from benchmarks import beside
from miniwin.blocks import LOGIT_SCALES, MLPS, NORMS, POSITIONS, ROUTERS, SCALINGS, AttentionSpec, LayerSpec
from miniwin.blocks.registry import Registry
from miniwin.specs import ModelSpec, load_model_spec, parse_spec, shipped_specs
from miniwin.specs.yaml_text import Document
from miniwin.zoo.importing.converting import FROM_SETTINGS
from miniwin.zoo.importing.families import FAMILIES

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")

CHEAPER = {
    "miniwin train ": "--set-train tokens=4e3 --set-train batch_size=2 --set-train seq_len=64 --tracking off",
    "miniwin eval ": "--no-recall --no-speed",
    "miniwin search run ": "--set budget.trials=1 --set budget.tokens_per_trial=4e3 --set eval_tokens=4096 "
    "--set report_lengths=[64,512] --tracking off",
    "miniwin search promote ": "--set-train tokens=4e3 --set-train batch_size=2 --set-train seq_len=64 "
    "--lengths 64,512 --tracking off",
    "miniwin generate ": "--max-new-tokens 8",
}


def blocks(language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.M | re.S)
    return [text for tag, text in fenced if tag == language]


def commands() -> list[tuple[str, list[str]]]:
    """Each command, and the lines of output that are shown below it."""
    found: list[tuple[str, list[str]]] = []
    for block in blocks(""):
        below: list[str] | None = None
        for line in block.replace("\\\n    ", "").splitlines():
            if line.startswith("$ "):
                below = []
                if line.startswith("$ miniwin"):
                    found.append((re.sub(r"\s{2,}#.*", "", line)[2:], below))
            elif below is not None and line.strip() not in ("", "..."):
                below.append(line)
    return found


def table(header: str) -> list[list[str]]:
    """The cells of the rows of the table whose header line begins so."""
    lines = README[README.index(f"\n{header}") + 1 :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def in_backticks(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


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


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("readme")
    (folder / "specs").symlink_to(ROOT / "specs")
    places = {"MINIWIN_HOME": str(folder / "runs"), "MINIWIN_ZOO": str(folder / "zoo")}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return folder, {**os.environ, **places, "PYTHONPATH": path}


@pytest.fixture(scope="module")
def printed(workplace: tuple[Path, dict[str, str]]) -> dict[str, str]:
    """Every command, run in order, and what it printed."""
    folder, environment = workplace
    save_stand_in(folder / "full_sft_768.pth")
    outputs = {}
    for shown, _ in commands():
        cheaper = next((more for start, more in CHEAPER.items() if shown.startswith(start)), "")
        command = shown.replace("--tokens 2e7", "") if shown.startswith("miniwin search promote ") else shown
        program, redirect, target = f"{command} ".partition(" > ")
        run = f"'{sys.executable}' -m {program} {cheaper}{redirect}{target}"
        done = subprocess.run(run, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{run}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        assert "Traceback" not in done.stderr
        if target:
            assert (folder / target.strip()).stat().st_size > 100
        outputs[shown] = done.stdout
    return outputs


def test_every_command_runs_in_order(printed: dict[str, str]) -> None:
    assert len(printed) > 20


def test_the_output_shown_is_what_is_printed(printed: dict[str, str]) -> None:
    checked = 0
    for command, shown in commands():
        lines = [line.rstrip() for line in printed[command].splitlines()]
        for line in shown:
            assert line in lines, f"$ {command}\n{printed[command]}"
        checked += bool(shown)
    assert checked >= 2


def test_the_python_runs(workplace: tuple[Path, dict[str, str]], printed: dict[str, str]) -> None:
    folder, environment = workplace
    code = "\n".join(blocks("python"))
    assert "miniwin.load" in code
    same = (
        f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from float64 import assert_exact, doubled, in_float64\nids = torch.arange(40)[None]\n"
        "assert_exact(in_float64(theirs)(ids).logits, doubled(ours.decoder)(ids))"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{same}"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout) > 10


def test_the_train_spec_is_one() -> None:
    (text,) = [block for block in blocks("yaml") if "kind: train" in block]
    spec = parse_spec(Document(text, "README.md").data, "train")
    assert spec.data.paths == ("novels/*.txt",) and spec.tokens == 4_000_000


def test_the_yaml_is_the_shipped_one() -> None:
    text = next(block for block in blocks("yaml") if "kind: model" in block)
    path = re.search(r"# (specs/\S+\.yaml)", text)
    assert path is not None
    data = {key: value for key, value in Document(text, "README.md").data.items() if key != "layer"}
    assert parse_spec(data, "model") == load_model_spec(ROOT / path.group(1))


# -- the tables


@pytest.mark.parametrize("row", table("| spec | what |"), ids=lambda row: row[0].strip("`"))
def test_the_gallery_says_what_the_specs_say(row: list[str]) -> None:
    spec = load_model_spec(row[0].strip("`"))
    pattern, *last = in_backticks(row[2])
    assert int(row[2].split(" of ")[0]) == spec.num_layers
    layout = (pattern * spec.num_layers)[: spec.num_layers]
    assert spec.layout == (layout[:-1] + last[0] if last else layout)
    sees = {}
    for letter in dict.fromkeys(spec.layout):
        attention = spec.blocks[letter].attention
        assert isinstance(attention, AttentionSpec)
        chunk = f"chunk {attention.chunk:,}" if attention.chunk else "all"
        sees[letter] = f"{attention.window:,}" if attention.window else chunk
    assert row[3] == ", ".join(f"{letter} {seen}" for letter, seen in sees.items())
    active = f" ({spec.active_parameters():,} a token)" if spec.active_parameters() != spec.parameters() else ""
    assert row[4] == f"{spec.parameters():,}{active}"


def test_the_gallery_has_every_full_size_spec() -> None:
    names = shipped_specs("model")
    rows = [row[0].strip("`") for row in table("| spec | what |")]
    assert sorted(rows) == sorted(name for name in names if f"{name}-tiny" in names)
    section = README[README.index("## The gallery") : README.index("| spec | what |")]
    others = {name for name in in_backticks(section) if name in names and name not in rows}
    assert others - {"llama-3-8b-tiny"} == {name for name in names if name.removesuffix("-tiny") not in rows}


def own(registry: Registry) -> set[str]:
    """What the package itself registers, whatever plugins this process has met."""
    return {name for name in registry.names() if registry[name].__module__.startswith("miniwin.")}


def test_what_a_spec_can_say_is_all_there_is() -> None:
    rows = {row[0].strip("`"): set(in_backticks(row[1])) for row in table("| field | values |")}
    for field, registry in {"position": POSITIONS, "mlp": MLPS, "norm": NORMS}.items():
        assert rows[field] == own(registry), field
    assert rows["position.logit_scale"] - {"nope"} == own(LOGIT_SCALES)
    assert rows["position.scaling"] - {"rope", "resonance"} == own(SCALINGS)
    assert rows["mlp.router"] - {"moe", "balance_loss"} == own(ROUTERS)
    assert rows["residual"] == set(get_args(LayerSpec.model_fields["residual"].annotation))
    plain = {"type", "num_heads", "position"}
    assert rows["attention"] == set(AttentionSpec.model_fields) - plain
    assert rows["the model"] == ModelSpec.LATER | {"tie_word_embeddings"}


def test_the_architectures_are_those_that_can_be_imported() -> None:
    paragraph = README[README.index("Architectures, in and out") :].split("\n\n")[0]
    assert set(in_backticks(paragraph)) == set(FAMILIES) - set(FROM_SETTINGS)


def test_the_benchmarks_shown_are_the_newest_committed_ones() -> None:
    """Of each machine: `python benchmarks/beside.py --write README.md` puts them there."""
    found = beside.newest(list((ROOT / "benchmarks" / "results").glob("*.json")))
    shown = README.partition(beside.FROM)[2].partition(beside.TO)[0]
    assert found and shown.strip() == beside.markdown(found).strip()
    for path, result in found:
        assert result["date"] in shown and f"benchmarks/results/{path.stem}.md" in shown
        assert path.with_suffix(".md").is_file() and path.with_suffix(".svg").is_file()
