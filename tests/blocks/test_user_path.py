"""`~` means the home folder wherever a path is given: in options, in Python, in YAML and in the environment."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from search_helpers import tried, write_search
from tiny import run_cli
from tiny_runs import tiny_model, tiny_train, write_text
from zoo_runs import make_run

import miniwin
from miniwin.blocks.user_path import user_path
from miniwin.data import prepare, preparing
from miniwin.files import folders
from miniwin.files.folders import home
from miniwin.runs import read_metrics, read_result
from miniwin.search.creation import create_study
from miniwin.search.report import write_report
from miniwin.search.space import check_search
from miniwin.search.study import find_study
from miniwin.specs import UserError, dump_yaml, load_search_spec
from miniwin.tokenizer import load_tokenizer
from miniwin.tracking import tracking_uri
from miniwin.zoo import add, list_entries, write_index
from miniwin.zoo.locations import index_location

LLAMA: dict[str, Any] = {"num_heads": 2, "num_kv_heads": 1, "position": {"type": "rope"}}


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home folder, another one to stand in; at the end nothing called `~` may be there."""
    folder, here = tmp_path / "home", tmp_path / "here"
    for path in (folder, here):
        path.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("MINIWIN_CACHE", "~/cache")
    monkeypatch.setenv("MINIWIN_HOME", "~/runs")
    monkeypatch.setenv("MINIWIN_ZOO", "~/zoo")
    monkeypatch.chdir(here)
    yield folder
    assert not list(here.iterdir())


def ran(*arguments: str) -> str:
    code, out, err = run_cli(*arguments)
    assert code == 0, err
    return out


def test_what_a_path_stands_for(mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert user_path("~") == mine and user_path("~/a b") == mine / "a b" and user_path(Path("~/x")) == mine / "x"
    assert user_path("a/~/b") == Path("a/~/b") and user_path("./~x") == Path("~x")
    with pytest.raises(UserError, match=r"~nobody-here/x: user 'nobody-here' is not known here, so ~nobody-here"):
        user_path("~nobody-here/x")
    monkeypatch.chdir(tmp_path)
    Path("~$draft.txt").touch()  # as an office program writes them
    assert user_path("~$draft.txt") == Path("~$draft.txt")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as where there is no HOME and no such user
    with pytest.raises(UserError, match=r"~/x: your home folder is not known \(no HOME\).* write the whole path"):
        user_path("~/x")


def test_every_option_that_is_a_path_is_tried_here() -> None:
    """A new one belongs into a test below, and into this list."""

    from miniwin.cli import app

    def paths(typer_app: Any, above: str) -> Iterator[str]:
        for group in typer_app.registered_groups:
            yield from paths(group.typer_instance, f"{group.name} ")
        for command in typer_app.registered_commands:
            for name, hint in get_type_hints(command.callback).items():
                if hint in (Path, Path | None):
                    yield f"{above}{command.name or command.callback.__name__} {name}"

    assert sorted(paths(app, "")) == [
        "chat template",
        "compare json_file",
        "compare out",
        "compare page",
        "demo out",
        "eval json_file",
        "eval out",
        "explain html",
        "generate load_session",
        "generate save_session",
        "import src",
        "import to",
        "search compare json_file",
        "search export to",
        "search promote zoo",
        "search report out",
        "search run out",
        "serve cache_dir",
        "serve chat_template",
        "zoo add metrics",
        "zoo add source",
        "zoo add suite_result",
        "zoo add zoo",
        "zoo deprecate sign",
        "zoo index zoo",
        "zoo keygen path",
        "zoo lock file",
        "zoo mirror folder",
        "zoo publish sign",
        "zoo pull locked",
        "zoo restore sign",
        "zoo site folder",
        "zoo yank sign",
    ]


def test_zoos_of_ones_own(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIWIN_CONFIG", "~/config")
    ran("zoo", "keygen", "~/my.key", "--no-password")
    assert (mine / "my.key").is_file() and (mine / "my.pub").is_file()
    ran("zoo", "publish", "miniwin-1m", "--to=~/mine", "--no-logits", "--sign=~/my.key")
    (listed,) = json.loads((mine / "mine" / "index.json").read_text())["releases"]
    ref = f"{listed['name']}@{listed['version']}"
    for command in ("yank", "deprecate"):
        ran("zoo", command, ref, "--at=~/mine", "--reason", "a test", "--sign=~/my.key")
    ran("zoo", "restore", ref, "--at=~/mine", "--sign=~/my.key")
    ran("zoo", "source", "add", "acme", "~/mine", "--key=~/my.pub")
    ran("zoo", "mirror", "~/mirror")
    ran("zoo", "site", "~/pages", "--source", "built-in")
    assert list((mine / "mirror").glob("*/index.json"))
    ran("zoo", "lock", "~/models.lock", "miniwin-1m")
    ran("zoo", "pull", "--locked=~/models.lock")


def test_where_a_server_keeps_states(mine: Path) -> None:
    code, _, errors = run_cli("serve", "miniwin-1m", "--chat-template=~/none.jinja")
    assert code == 2 and str(mine / "none.jinja") in errors


def test_training_and_what_follows_it(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(mine)
    (mine / "model.yaml").write_text(dump_yaml(tiny_model()))
    data = {"source": "text", "paths": ["~/text.txt"]}
    (mine / "train.yaml").write_text(dump_yaml(tiny_train(data=data, tokens=256)))
    (mine / "tokenizer.json").write_text('{"type": "byte"}')
    tracked = ("--tracking", "off", "--quiet", "--set-train", "tokenizer=~/tokenizer.json")
    assert "complete: " in ran("train", "~/model.yaml", "--train=~/train.yaml", "--out=~/run", *tracked)
    assert (mine / "run" / "run.json").is_file()
    ran(
        "eval", "~/run", "--data=~/text.txt", "--lengths", "32", "--tokens", "64", "--no-speed", "--json=~/m.json", "-q"
    )
    assert json.loads((mine / "m.json").read_text())["data"]["source"] == "text"
    ran("generate", "~/run", "-n", "2", "--save-session=~/session")
    ran("generate", "~/run", "-n", "2", "--load-session=~/session")
    (mine / "chat.jinja").write_text("{% for message in messages %}{{ message.content }}\n{% endfor %}")
    monkeypatch.setattr("sys.stdin", io.StringIO("Hello\n"))
    ran("chat", "~/run", "-n", "2", "--template=~/chat.jinja")
    ran("explain", "~/model.yaml", "--length", "64", "--html=~/page.html")
    assert (mine / "page.html").is_file()
    ran("check", "~/model.yaml")
    ran("zoo", "add", "~/run", "--name", "mine", "--metrics=~/m.json", "--zoo=~/other")
    ran("zoo", "index", "~/other")
    assert (mine / "other" / "index.json").is_file()
    # In Python, and without a name to go by.
    result = miniwin.train("~/model.yaml", "~/train.yaml", out="~/again", progress=False, tracking="off")
    assert result.folder == mine / "again" and read_result("~/again").folder == mine / "again" and read_metrics("~/run")
    assert miniwin.build("~/model.yaml").spec == miniwin.load_spec("~/model.yaml") == tiny_model()
    assert home() == mine / "runs" and preparing.cache_folder() == folders.cache_folder() == mine / "cache"
    assert load_tokenizer("~/tokenizer.json").name == "byte"
    prepare(tiny_train(data=data).data, load_tokenizer("byte"), cache_dir=Path("~/elsewhere"))
    assert (mine / "elsewhere" / "data").is_dir()


def test_suites(mine: Path) -> None:
    make_run(mine / "run")
    (mine / "suite.yaml").write_text("{kind: suite, format: 1, name: small, lengths: [32], cache: {}}")
    suite = ("--suite=~/suite.yaml", "-q")
    ran("eval", "~/run", *suite, "--out=~/measured", "--json=~/measured.json")
    assert list((mine / "measured").iterdir())
    wanted = ("~/measured.json", "~/measured", "~/run")
    ran("compare", *wanted, *suite, "--out=~/more", "--json=~/compared.json", "--page=~/compared.html")
    for result in ("~/measured.json", "~/measured"):
        ran("zoo", "add", "~/run", "--name", "measured", "--no-evaluate", f"--suite-result={result}", "--zoo=~/other")
    assert [entry.ref for entry in list_entries("~/other") if entry.suite] == ["measured@1.0.0", "measured@1.0.1"]
    assert list((mine / "more").iterdir()) and (mine / "compared.json").is_file() and (mine / "compared.html").is_file()


def test_export_and_import(mine: Path) -> None:
    block = {"attention": LLAMA, "mlp": {"type": "swiglu", "intermediate_size": 32}}
    (mine / "model.yaml").write_text(dump_yaml(tiny_model(pattern="G", blocks={"G": block})))
    ran("export", "~/model.yaml", "--to=~/out", "--as", "stock")
    ran("import", "~/out", "--to=~/in", "--tokenizer", "none")
    assert (mine / "in" / "import.json").is_file()


def test_the_zoo(mine: Path) -> None:
    make_run(mine / "run")
    assert add("~/run", name="mine", zoo="~/other").folder.is_relative_to(mine / "other")
    assert [entry.name for entry in list_entries("~/other")] == ["mine"]
    assert write_index("~/other") == index_location("~/other/index.json") == mine / "other" / "index.json"
    add(mine / "run", name="mine")
    assert (mine / "zoo" / "mine").is_dir()  # MINIWIN_ZOO


def test_searches(mine: Path) -> None:
    path = write_search(mine, constraints=[])
    text = path.read_text()
    for name in ("base", "train", "baseline"):
        text = text.replace(f"{name}: {name}.yaml", f"{name}: ~/{name}.yaml")
    path.write_text(text)
    assert check_search(f"~/{path.name}")
    study = create_study(load_search_spec(f"~/{path.name}"), mine, out=Path("~/study"))
    assert study.folder == find_study("~/study") == mine / "study"
    assert write_report("~/study", "~/report.html") == mine / "report.html"
    tried(study)
    ran("search", "export", "~/study", "--to=~/trials.csv")
    ran("search", "compare", "~/study", "~/study", "--json=~/compared.json")
    assert (mine / "trials.csv").is_file() and (mine / "compared.json").is_file()


def test_where_tracking_goes(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri() == f"sqlite:///{mine / 'runs' / 'mlflow.db'}"
    assert tracking_uri("~/ml") == f"{mine / 'ml'}" and tracking_uri("sqlite:///~/a.db") == f"sqlite:///{mine}/a.db"
    assert tracking_uri("off") == "off" and tracking_uri("http://host/~me") == "http://host/~me"
