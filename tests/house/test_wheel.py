"""The wheel: what is in it, and that it works installed in an empty environment, away from the repository.

Built from a copy of the sources, with and without links (a clone with core.symlinks=false has text files instead).
The environment sees this one's libraries, through a .pth file, but nothing of the repository.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import site
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest
from no_network import Guard, without_network
from paths import ROOT
from processes import ONE_AFTER_ANOTHER

from miniwin.blocks import native

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ROOMS = ("blocks", "search", "specs", "zoo")
SOURCES = ("miniwin", *ROOMS, "pyproject.toml", "setup.py", "README.md", "LICENSE")


def run(command: list[str | Path], cwd: Path, **env: str) -> str:
    """stdout of a command that has only its own Python path."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "MINIWIN", "PIP_"))}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env={**clean, **env}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def copy(to: Path) -> Path:
    to.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            made = shutil.ignore_patterns("__pycache__", "*.pyc", "*.so")
            shutil.copytree(ROOT / name, to / name, symlinks=True, ignore=made)
        else:
            shutil.copy(ROOT / name, to / name)
    return to


def built(source: Path, **env: str) -> Path:
    """The wheel, as pip builds it: setuptools' own entry point, without the network."""
    code = "from setuptools import build_meta; print(build_meta.build_wheel('dist'))"
    return source / "dist" / run([sys.executable, "-c", code], source, **env).strip().split("\n")[-1]


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/RECORD")}


# The checkout has them optimised. Here that takes seconds, and only of one kind it is asked what comes out.
QUICK_COMPILER = """#!/bin/sh
case "$*" in *-mavx512*) set -- "$@" -O0;; esac
exec cc "$@"
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("wheel")
    (home / "quick_cc").write_text(QUICK_COMPILER)
    (home / "quick_cc").chmod(0o755)
    return built(copy(home / "source"), **({"CC": str(home / "quick_cc")} if has_kernels() else {}))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an environment's programs."""
    home = tmp_path_factory.mktemp("installed")
    run([sys.executable, "-m", "venv", "--without-pip", home / "venv"], home)
    programs = home / "venv" / ("Scripts" if os.name == "nt" else "bin")
    libraries = run([programs / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], home).strip()
    # A folder named in a .pth file is searched, but .pth files in it are not read: an editable install stays unseen.
    ours = dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()])
    (Path(libraries) / "libraries_of_the_tests.pth").write_text("\n".join(ours) + "\n")
    pip = [sys.executable, "-m", "pip", "--python", programs / "python", "--disable-pip-version-check"]
    run([*pip, "install", "--no-deps", "--no-index", "--no-compile", "--force-reinstall", wheel], home)
    return programs


def test_every_module_is_in_the_wheel(wheel: Path) -> None:
    expected = set()
    for room in ("miniwin", *ROOMS):
        for path in (ROOT / room).rglob("*.py"):
            inside = path.relative_to(ROOT).parts
            if not any((ROOT / Path(*inside[:depth])).is_symlink() for depth in range(1, len(inside))):
                expected.add("/".join(inside if inside[0] == "miniwin" else ("miniwin", *inside)))
    assert {name for name in contents(wheel) if name.endswith(".py")} == expected


def test_every_spec_and_zoo_entry_is_in_the_wheel(wheel: Path) -> None:
    found = contents(wheel)
    shipped = [path for path in (ROOT / "specs").rglob("*") if path.suffix in (".yaml", ".yml")]
    shipped += [path for path in (ROOT / "zoo" / "entries").rglob("*") if path.is_file()]
    shipped += [path for path in [ROOT / "zoo" / "index.json"] if path.is_file()]
    assert len(shipped) >= 6
    for path in shipped:
        name = f"miniwin/{path.relative_to(ROOT).as_posix()}"
        assert name in found, f"{name} is not in the wheel: see [tool.setuptools.package-data]"
        assert found[name] == path.read_bytes()
    assert "miniwin/py.typed" in found


def has_kernels() -> bool:
    """Whether this machine compiles them."""
    return sys.platform == "linux" and platform.machine() == "x86_64" and shutil.which("cc") is not None


def test_nothing_else_is_in_the_wheel(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in contents(wheel)}
    version = PROJECT["project"]["version"]
    assert tops == {"miniwin", f"miniwin-{version}.dist-info"}
    assert not [name for name in contents(wheel) if "__pycache__" in name or "/test" in name]
    assert any(name.endswith("/licenses/LICENSE") for name in contents(wheel))
    assert b"miniwin = miniwin.cli:main" in contents(wheel)[f"miniwin-{version}.dist-info/entry_points.txt"]
    assert zipfile.ZipFile(wheel).testzip() is None
    if has_kernels():  # for this kind of machine, whatever its Python
        assert re.search(r"-py3-none-\w*linux\w*_x86_64\.whl$", wheel.name), wheel.name
        kernels = [name.rpartition("/")[2] for name in contents(wheel) if name.endswith(".so")]
        assert sorted(kernels) == ["_amx.so", "_avx2.so", "_avx512.so"]


def test_a_clone_without_links_or_compiler_builds_the_same_but_for_the_kernels(wheel: Path, tmp_path: Path) -> None:
    source = copy(tmp_path / "source")
    for room in ROOMS:
        link = source / "miniwin" / room
        link.unlink()
        link.write_text(f"../{room}")  # what git writes where it may not make links
    there = {name: held for name, held in contents(wheel).items() if not name.endswith((".so", "/WHEEL"))}
    found = contents(built(source, CC="/nowhere/cc"))
    assert {name: held for name, held in found.items() if not name.endswith("/WHEEL")} == there
    assert "miniwin/blocks/native/__init__.py" in found


def test_kernels_are_compiled_the_same_every_time(wheel: Path) -> None:
    """The checkout's kernels, compiled in another folder, are the wheel's, byte for byte."""
    built_here = ROOT / "blocks" / "native" / "_avx2.so"
    if not has_kernels() or native.missing() is not None:
        pytest.skip("there are none here")
    assert contents(wheel)["miniwin/blocks/native/_avx2.so"] == built_here.read_bytes()


def test_the_command_works_outside_the_repository(installed: Path, tmp_path: Path) -> None:
    said = run([installed / "miniwin", "--help"], tmp_path)
    for command in ("check", "explain", "train", "eval", "search", "zoo", "generate"):
        assert command in said
    assert run([installed / "miniwin", "--version"], tmp_path).strip() == f"miniwin {PROJECT['project']['version']}"


USE = """
import sys
import miniwin
home = {home!r}
assert miniwin.__file__.startswith(home), miniwin.__file__
miniwin.load("miniwin-1m")
needless = [name for name in sys.modules if name.startswith({needless})]
assert not needless, needless
model = miniwin.load("miniwin-tiny")
import torch
ids = torch.arange(1, 12).view(1, 11)
logits = model(ids)
assert logits.shape == (1, 11, 256) and bool(torch.isfinite(logits).all())
cache = model.new_cache()
parts = torch.cat([model(ids[:, :5], cache=cache), model(ids[:, 5:], cache=cache)], dim=1)
assert torch.allclose(parts, logits, atol=1e-4)
text = model.generate("def main(", max_new_tokens=5, seed=0)
assert isinstance(text, str), text
from miniwin.specs import load_search_spec, shipped_specs
for path in shipped_specs().values():
    assert str(path).startswith(home), path
spec = load_search_spec("period-window-ratio")
from miniwin.zoo import list_entries
entries = [entry.ref for entry in list_entries()]
assert len(entries) == {entries}, entries
for ref in entries:
    assert miniwin.load(ref)(ids).shape[:2] == (1, 11)
from miniwin.blocks import native
assert native.missing() is None or not {kernels}, native.missing()
outside = [module.__file__ for name, module in list(sys.modules.items())
           if name.split(".")[0] == "miniwin" and not (module.__file__ or home).startswith(home)]
assert not outside, outside
print("works")
"""

# What loading a model of the zoo has no use for: a small model is there at once because none of these is imported.
NEEDLESS = (
    *("miniwin.commands", "miniwin.data", "miniwin.display", "miniwin.evaluation", "miniwin.explain"),
    *("miniwin.generation", "miniwin.search", "miniwin.serving", "miniwin.specs.data", "miniwin.specs.train"),
    *("miniwin.training", "miniwin.zoo.importing", "miniwin.zoo.publishing", "miniwin.zoo.pull"),
    *("jinja2", "mlflow", "optuna", "pandas", "pooch", "pyarrow", "rich", "scipy", "tokenizers", "transformers"),
    *("typer", "xformers"),
)


def test_a_model_loads_and_generates_outside_the_repository(installed: Path, tmp_path: Path) -> None:
    entries = len(list((ROOT / "zoo" / "entries").glob("*/*/")))
    code = USE.format(home=str(installed.parent), entries=entries, kernels=has_kernels(), needless=NEEDLESS)
    env = {"MINIWIN_ZOO": str(tmp_path / "zoo"), "MINIWIN_CACHE": str(tmp_path / "cache"), "MINIWIN_OFFLINE": "1"}
    assert run([installed / "python", "-c", code], tmp_path, **env).strip().endswith("works")


def test_the_zoo_is_listed_outside_the_repository(installed: Path, tmp_path: Path) -> None:
    said = run([installed / "miniwin", "zoo", "list"], tmp_path, MINIWIN_ZOO=str(tmp_path / "zoo"), MINIWIN_OFFLINE="1")
    for entry in (ROOT / "zoo" / "entries").glob("*/*/"):
        assert entry.parent.name in said


REFS = sorted(entry.parent.name for entry in (ROOT / "zoo" / "entries").glob("*/*/"))


def test_packaged_entries_need_no_network(installed: Path, tmp_path: Path) -> None:
    """As three commands in a process each, in a namespace without a network where there is such a thing."""
    guard = Guard(tmp_path / "guard")
    env = {**guard.env, **{f"MINIWIN_{name}": str(tmp_path / name) for name in ("ZOO", "CACHE", "CONFIG")}}
    alone: list[str | Path] = [*without_network(), installed / "miniwin"]
    assert all(ref in run([*alone, "zoo", "list"], tmp_path, **env) for ref in REFS)
    assert f"{REFS[0]}@" in run([*alone, "zoo", "pull", REFS[0]], tmp_path, **env)
    assert run([*alone, "generate", REFS[0], "--prompt", "def ", "-n", "3"], tmp_path, **env).startswith("def ")
    assert guard.seen() == []


ELSEWHERE = "https://zoo.invalid/index.json"
OFFLINE = [  # arguments, and what is said where it is refused
    *((["generate", ref, "--prompt", "a", "-n", "2"], None) for ref in REFS),
    *((["zoo", "pull", ref], None) for ref in REFS),
    *((["zoo", "verify", ref, "--no-logits"], None) for ref in REFS),
    (["zoo", "list"], None),
    (["generate", "another", "--prompt", "a"], "MINIWIN_OFFLINE is set"),
    (["zoo", "pull", "another"], "MINIWIN_OFFLINE is set"),
    (["zoo", "pull", "another", "--dry-run"], "MINIWIN_OFFLINE is set"),
    (["zoo", "source", "add", "acme", ELSEWHERE], "MINIWIN_OFFLINE is set"),
    (["zoo", "mirror", "disk"], "MINIWIN_OFFLINE is set"),
    (["zoo", "publish", REFS[0], "--to", "s3://bucket/zoo", "--no-logits"], "MINIWIN_OFFLINE is set"),
    (["zoo", "publish", REFS[0], "--to", "hf:org/zoo", "--no-logits"], "MINIWIN_OFFLINE is set"),
]


def test_offline_nothing_is_attempted(installed: Path, tmp_path: Path) -> None:
    """Though an index and a mirror elsewhere are set."""
    guard = Guard(tmp_path / "guard")
    env = {**guard.env, **{f"MINIWIN_{name}": str(tmp_path / name) for name in ("ZOO", "CACHE", "CONFIG")}}
    env |= {"MINIWIN_OFFLINE": "1", "MINIWIN_ZOO_INDEX": ELSEWHERE, "MINIWIN_ZOO_MIRROR": "https://zoo.invalid/mirror"}
    lines = json.dumps([arguments for arguments, _ in OFFLINE])
    answers = json.loads(run([installed / "python", "-c", ONE_AFTER_ANOTHER, lines], tmp_path, **env))[0]
    for (arguments, said), (code, _, err) in zip(OFFLINE, answers, strict=True):
        assert (code, "Traceback" in err) == (0 if said is None else 2, False), (arguments, err)
        assert said is None or (said in err and err.count("error: ") == 1), (arguments, err)
    assert guard.seen() == []
    probe = (
        "import socket, contextlib\nwith contextlib.suppress(OSError): socket.create_connection(('127.0.0.1', 9), 1)"
    )
    run([installed / "python", "-c", probe], tmp_path, **env)
    assert any("socket.connect" in one for one in guard.seen()), "the guard sees nothing"
