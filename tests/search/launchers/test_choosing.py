"""Which launcher is meant, and what is refused before a study is made."""

from __future__ import annotations

import shlex
import socket
import sys
from pathlib import Path

import pytest
from pages import blocks, commands, in_backticks, table
from paths import ROOT
from search_helpers import write_search
from tiny import run_cli

from miniwin.search.launchers.choosing import LAUNCHERS, choose
from miniwin.search.launchers.local import Local
from miniwin.search.launchers.on_ray import Ray
from miniwin.search.launchers.on_slurm import Slurm
from miniwin.specs import UserError


@pytest.fixture(autouse=True)
def without_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    for launcher in LAUNCHERS.values():
        monkeypatch.setattr(launcher, "check", lambda self: None)


def test_a_launcher_by_name_by_file_and_with_options(tmp_path: Path) -> None:
    assert choose("local") == Local() and choose("ray") == Ray()
    assert choose("ray", ["gpus=0.25", "address=10.0.0.1:6379"]) == Ray(gpus=0.25, address="10.0.0.1:6379")
    file = tmp_path / "site.yaml"
    file.write_text("type: slurm\npartition: gpu\nsetup: [module load cuda]\n")
    asked = Slurm(partition="gpu", setup=("module load cuda",), cpus=2)
    assert choose(file, ["cpus=2"]) == asked and choose(asked) == asked
    assert choose(asked, ["cpus=3"]) == asked.model_copy(update={"cpus": 3})


def test_the_file_and_the_options_that_the_page_shows(tmp_path: Path) -> None:
    page = ROOT / "docs" / "machines.md"
    (shown,) = (text for text in blocks(page, "yaml") if text.startswith("type: slurm"))
    (tmp_path / "site.yaml").write_text(shown)
    assert choose(tmp_path / "site.yaml") == Slurm(
        partition="gpu", gpus=1, cpus=4, time_min=240, setup=("module load cuda",)
    )
    listed: dict[str, set[str]] = {}
    for row in table(page.read_text(encoding="utf-8"), "| launcher | option |"):
        listed.setdefault(row[0].strip("`"), set()).update(in_backticks(row[1]))
    options = {name: set(launcher.model_fields) - {"type"} for name, launcher in LAUNCHERS.items()}
    assert listed == {name: known for name, known in options.items() if known}
    for command in commands():
        if "--launcher" in command.line and "site.yaml" not in command.line:
            words = shlex.split(command.line)
            changes = [words[at + 1] for at, word in enumerate(words) if word == "--set-launcher"]
            choose(words[words.index("--launcher") + 1], changes)


@pytest.mark.parametrize(
    ("launcher", "options", "message"),
    [
        ("rya", [], "--launcher rya: did you mean 'ray'?"),
        ("local", ["gpus=1"], "--set-launcher gpus=1: the launcher local has no options"),
        ("ray", ["gpus=2"], "--set-launcher gpus=2: gpus: got 2; expected at most 1"),
        ("ray", ["gpu=1"], "--set-launcher gpu=1: gpu: unknown field 'gpu'; did you mean 'gpus'?"),
        ("ray", ["address=ray://head:10001"], "address: got ray://head:10001; expected auto, local or HOST:PORT"),
        ("slurm", ["time_min=1"], "time_min: got 1; expected at least 5"),
        ("slurm", ["gpus=0.5"], "gpus: got 0.5; expected a whole number"),
        ("slurm", ["sbatch={nodes: 2}"], "sbatch: got nodes, which the launcher sets"),
        ("slurm", ["sbatch={no-requeue: true}"], "sbatch: got no-requeue, which the launcher sets"),
        (
            "slurm",
            ["sbatch={gres: 'gpu:a100:1'}"],
            "sbatch: got gres: gpu:a100:1, and gpus is 0, so no worker would use",
        ),
        ("slurm", ["sbatch={gpus: 1}"], "sbatch: got gpus: 1, and gpus is 0"),
        ("slurm", ["cluster=local", "partition=gpu"], "cluster: got local beside partition, which submitit's local"),
        ("slurm", ["cluster=local", "setup=[a]"], "cluster: got local beside setup"),
    ],
)
def test_what_cannot_be_honoured_is_refused(launcher: str, options: list[str], message: str) -> None:
    with pytest.raises(UserError) as refused:
        choose(launcher, options)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("type: slurm\npartitoin: gpu\n", ":2:1: partitoin: unknown field 'partitoin'; did you mean 'partition'?"),
        ("type: slrum\n", ":1:7: type: got 'slrum'; did you mean 'slurm'?"),
        ("cpus: 2\n", ": type: is missing; known: local, ray, slurm"),
        ("- 2\n", ":1:1: got [2]; expected a mapping, such as `type: slurm`"),
    ],
)
def test_a_file_is_refused_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "site.yaml").write_text(text)
    with pytest.raises(UserError) as refused:
        choose(tmp_path / "site.yaml")
    assert f"{tmp_path}/site.yaml" in str(refused.value) and message in str(refused.value)


@pytest.mark.parametrize(("launcher", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_without_its_extra_a_launcher_makes_no_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launcher: str, package: str
) -> None:
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, package, None)
    out = tmp_path / "study"
    code, _, said = run_cli("search", "run", str(write_search(tmp_path)), "--out", str(out), "--launcher", launcher)
    assert code == 2 and f"needs {package}, which is not installed: pip install 'miniwin[{launcher}]'" in said
    assert not out.exists()


def test_where_no_jobs_can_be_submitted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match=r"there are no srun and sbatch here; .* --set-launcher cluster=local"):
        choose("slurm")


def test_a_cluster_that_is_not_there_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    for launcher in (Ray(address=address), Ray()):
        monkeypatch.setenv("RAY_ADDRESS", address)
        opened = launcher.opened(tmp_path, print)
        with pytest.raises(UserError, match=rf"cannot join a cluster at address={address}: .*refused"), opened:
            pass
