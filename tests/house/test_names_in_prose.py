"""Paths and modules that prose names exist: in comments, docstrings, Markdown, pyproject.toml and the Makefile.

A path may be whole (`blocks/norms/rmsnorm.py`) or an end of one (`rmsnorm.py`). The README's tree has every folder.
"""

from __future__ import annotations

import ast
import io
import os
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
from pages import README, blocks
from paths import ROOT

ROOMS = ("benchmarks", "blocks", "docs", "miniwin", "search", "specs", "tests", "zoo")
DATA = ("fixtures", "golden", "entries", "results")  # folders of data, whose prose is about other repositories
PROSE = (".py", ".md", ".toml", ".c", ".h", ".txt")
# Files of other repositories, and files that a user would write.
ELSEWHERE = {
    "model/model_miniwin.py": "of MiniWin's authors",
    "eval_llm.py": "of MiniMind's authors",
    "modeling_miniwin.py": "lies in exported folders",
    "blocks/positions/my_position.py": "CONTRIBUTING's example",
    "my_position.py": "docs/specs.md's example",
    "kerple.py": "docs/blocks.md's example",
    "my-model.yaml": "an example",
    "my-train.yaml": "docs/training.md's example",
    "my-suite.yaml": "docs/evaluating.md's example",
    "site.yaml": "docs/machines.md's example",
    "speeds.yaml": "docs/searching.md's example",
    "specs/models/my-model.yaml": "an example",
    "baseline.yaml": "lies in study folders",
    "ladder.md": "lies in study folders",
    "A.txt": "an example",
    "text.txt": "made by a test",
    "novel.txt": "docs/tasks.md's example",
    "novel-melville-moby-dick.txt": "of Project Gutenberg, read by benchmarks/adapt",
    "novel-eliot-middlemarch.txt": "of Project Gutenberg, read by benchmarks/adapt",
    "novel-dickens-bleak-house.txt": "of Project Gutenberg, read by benchmarks/adapt",
    "specs/run": "docs/errors.md's example",
    "miniwin.plugins": "a group of entry points",
}
FILE = re.compile(r"(?<![\w./~$<>*{-])(?:[\w-]+/)*[\w-]+\.(?:py|c|h|md|yaml|txt|toml|svg|cff)\b(?![.(\w])")
FOLDER = re.compile(rf"(?<![\w./~$<>*{{:-])(?:{'|'.join(ROOMS)})(?:/[\w-]+)+(?![\w.*<-])")
MODULE = re.compile(r"(?<![\w./-])miniwin(?:\.[A-Za-z_]\w*)+")


@cache
def paths() -> frozenset[str]:
    """Every file and folder of the repository, and every end of its path. Links count, for they have names too."""
    found = {path.name for path in ROOT.iterdir()}
    for room in ROOMS:
        for here, folders, files in os.walk(ROOT / room):
            folders[:] = [name for name in folders if name != "__pycache__"]
            for name in (*folders, *files):
                parts = (Path(here) / name).relative_to(ROOT).parts
                found |= {"/".join(parts[start:]) for start in range(len(parts))}
    return frozenset(found)


def written() -> list[Path]:
    """The files whose prose is held: those of the rooms without data, and those at the top."""
    found = [path for path in ROOT.iterdir() if path.suffix in (".md", ".py", ".toml") or path.name == "Makefile"]
    found.append(ROOT / "tests" / "golden" / "README.md")
    for room in ROOMS:
        for here, folders, files in os.walk(ROOT / room):
            folders[:] = [name for name in folders if name not in (*DATA, "__pycache__")]
            found += [Path(here) / name for name in files if name.endswith(PROSE)]
    return sorted(found)


def prose(path: Path) -> str:
    """Of Python the comments and docstrings; of the changelog what is not yet released; of other files everything."""
    text = path.read_text(encoding="utf-8")
    if path.name == "CHANGELOG.md":
        return text.partition("\n## [0.1.0]")[0]
    if path.suffix != ".py":
        return text
    said = [t.string for t in tokenize.generate_tokens(io.StringIO(text).readline) if t.type == tokenize.COMMENT]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            said.append(ast.get_docstring(node) or "")
    return "\n".join(said)


def module_exists(name: str) -> bool:
    """Whether a dotted name is a module, or a name in one. A module that needs a missing library is found, not run."""
    parts = name.split(".")
    try:
        if find_spec(name) is not None:
            return True
    except ModuleNotFoundError:  # what stands before the last dot is no package
        pass
    for end in range(len(parts) - 1, 0, -1):
        try:
            value: object = import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            if not hasattr(value, part):
                return False
            value = getattr(value, part)
        return True
    return False


def stale(text: str) -> Iterator[str]:
    for name in sorted({*FILE.findall(text), *FOLDER.findall(text)} - set(ELSEWHERE)):
        if name not in paths():
            yield name
    for name in sorted({*MODULE.findall(text)} - set(ELSEWHERE)):
        if not module_exists(name):
            yield name


def test_every_path_and_module_that_prose_names_exists() -> None:
    # Most files name nothing stale in their code either: to look at all of the text is quicker than to find the prose.
    doubtful = [path for path in written() if any(stale(path.read_text(encoding="utf-8")))]
    found = [f"{path.relative_to(ROOT)}: {name}" for path in doubtful for name in stale(prose(path))]
    assert not found, "mend them, or say in ELSEWHERE whose they are"


@pytest.mark.parametrize(
    "text",
    [
        "see `blocks/rmsnorm.py`",
        "blocks/norms/rms_norm.py says why",
        "as steps_of_old.py does",
        "kernels in blocks/natives",
        "miniwin.blocks.joined puts caches side by side",
        "`miniwin.blocks.Atention`",
    ],
)
def test_a_stale_name_is_found(text: str) -> None:
    assert len(list(stale(text))) == 1


def test_what_exists_is_not_stale() -> None:
    text = "blocks/norms/rmsnorm.py, norms/rmsnorm.py, rmsnorm.py. tests/golden; miniwin.blocks.Attention and"
    assert not list(stale(f"{text} miniwin.specs.yaml_document; runs/first/metrics.jsonl; https://a.org/docs/x.md"))


def test_the_readmes_tree_has_every_folder_of_code() -> None:
    (tree,) = [text for text in blocks(README, "") if text.startswith("blocks/")]
    named: set[str] = set()
    room = ""
    for line in tree.splitlines():
        folders, _, said = line.strip().partition("   ")
        assert said.strip(), f"{line}: say what is in there"
        if not line.startswith(" "):
            room = folders
            named.add(room)
        else:
            named |= {f"{room}{folder}" for folder in folders.split()}
    assert all((ROOT / folder).is_dir() for folder in named), named
    code = {
        path.parent for top in ("blocks", "specs", "miniwin", "search", "zoo") for path in (ROOT / top).glob("*/*.py")
    }
    linked = {ROOT / "miniwin" / top for top in ROOMS}
    wanted = {f"{path.relative_to(ROOT).as_posix()}/" for path in code - linked} | {f"{top}/" for top in ROOMS}
    assert wanted <= named
