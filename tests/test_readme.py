"""Every command and every line of Python that the README shows runs, in the order in which it shows them.

What would train for long is given a smaller budget by options of the same command, named in `CHEAPER`; nothing is left
out and nothing else is changed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

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


def commands() -> list[str]:
    lines = [line for block in blocks("") for line in block.splitlines()]
    return [re.sub(r"\s{2,}#.*", "", line)[2:] for line in lines if line.startswith("$ miniwin")]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("readme")
    (folder / "specs").symlink_to(ROOT / "specs")
    places = {"MINIWIN_HOME": str(folder / "runs"), "MINIWIN_ZOO": str(folder / "zoo")}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return folder, {**os.environ, **places, "PYTHONPATH": path}


def test_every_command_runs_in_order(workplace: tuple[Path, dict[str, str]]) -> None:
    folder, environment = workplace
    shown = commands()
    assert len(shown) > 10
    for command in shown:
        cheaper = next((more for start, more in CHEAPER.items() if command.startswith(start)), "")
        if command.startswith("miniwin search promote "):
            command = command.replace("--tokens 2e7", "")
        program, redirect, target = f"{command} ".partition(" > ")
        run = f"'{sys.executable}' -m {program} {cheaper}{redirect}{target}"
        done = subprocess.run(run, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{run}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        assert "Traceback" not in done.stderr
        if target:
            assert (folder / target.strip()).stat().st_size > 100


def test_the_python_runs(workplace: tuple[Path, dict[str, str]]) -> None:
    folder, environment = workplace
    code = "\n".join(blocks("python"))
    assert "miniwin.load" in code
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout) > 10


def test_the_yaml_is_the_shipped_one() -> None:
    from miniwin.specs.loading import parse_spec
    from miniwin.specs.yaml_text import Document

    text = next(block for block in blocks("yaml") if "kind: model" in block)
    path = re.search(r"# (specs/\S+\.yaml)", text)
    assert path is not None
    data = {key: value for key, value in Document(text, "README.md").data.items() if key != "layer"}
    from miniwin.specs import load_model_spec

    assert parse_spec(data, "model") == load_model_spec(ROOT / path.group(1))
