"""The house: packages and folders, links, who may import whom, what `miniwin --help` loads, what git holds."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from paths import ROOT

ROOMS = ("blocks", "search", "specs", "zoo")  # top-level folders that are packages of miniwin
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]
LONGEST = 500  # lines of any file
LONG = 350  # lines of all but a few


def sources(folder: str) -> list[Path]:
    """Python files below a folder. Links are not followed."""
    found = []
    for here, folders, files in os.walk(ROOT / folder):
        folders[:] = sorted(name for name in folders if name != "__pycache__" and not (Path(here) / name).is_symlink())
        found += [Path(here) / name for name in sorted(files) if name.endswith(".py")]
    return found


def name_of(path: Path) -> str:
    """miniwin.specs.loading for specs/loading.py."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    parts = parts if parts[0] == "miniwin" else ["miniwin", *parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = [path for folder in ("miniwin", *ROOMS) for path in sources(folder)]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


# -- packages


def test_the_packages_of_the_wheel_are_the_folders() -> None:
    """A folder that is missing from the list works with `pip install -e`, and is missing from the wheel."""
    folders = {name_of(path) if path.name == "__init__.py" else name_of(path).rpartition(".")[0] for path in FILES}
    assert sorted(SETUPTOOLS["packages"]) == sorted(folders)
    assert len(SETUPTOOLS["packages"]) == len(set(SETUPTOOLS["packages"]))


def test_every_package_has_an_init() -> None:
    for path in FILES:
        assert (path.parent / "__init__.py").is_file(), f"{path.parent} is no package"


def test_every_room_is_mapped() -> None:
    assert SETUPTOOLS["package-dir"] == {"miniwin": "miniwin", **{f"miniwin.{room}": room for room in ROOMS}}


def test_the_version_is_said_once() -> None:
    import miniwin

    assert PROJECT["project"].get("version", miniwin.__version__) == miniwin.__version__


def test_what_the_wheel_takes_besides_python_is_there() -> None:
    for package, patterns in SETUPTOOLS["package-data"].items():
        if package == "miniwin.zoo":  # entries, and their index, come with releases: tests/house/test_wheel.py
            continue
        folder = ROOT / (SETUPTOOLS["package-dir"].get(package) or package.replace(".", "/"))
        for pattern in patterns:
            assert list(folder.glob(pattern)), f"{package}: nothing is called {pattern}"


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_are_linked_for_editors_and_mypy(room: str) -> None:
    link = ROOT / "miniwin" / room
    if not link.is_symlink():
        pytest.skip("this clone has no links (core.symlinks is false)")
    assert os.readlink(link) == f"../{room}"


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_cannot_be_imported_under_its_bare_name(room: str) -> None:
    """The refusal comes first, before PyTorch is imported."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {room}"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode != 0
    message = done.stderr.strip().split("\n")[-1]
    assert message.startswith("ImportError: ") and f"miniwin.{room} import " in message, done.stderr


# -- layers

CORE = {"torch", "numpy", "pydantic", "pydantic_core"}
SPECS = CORE | {"yaml"}
ENGINE = SPECS | {"mlflow", "sqlalchemy", "tokenizers", "safetensors", "rich", "platformdirs", "filelock", "jinja2"}
ENGINE |= {"lm_eval", "tqdm", "pyarrow", "peft", "fastapi", "starlette", "uvicorn", "prometheus_client"}
ZOO = ENGINE | {"pooch", "gguf", "s3fs", "minisign", "huggingface_hub"}
SEARCH = ZOO | {"optuna", "optunahub", "submitit", "pandas", "grpc", "fsspec"}

# layer -> the libraries it may import, and the layers of miniwin
ALLOWED: dict[str, tuple[set[str], set[str]]] = {
    "blocks": (CORE | {"xformers", "triton"}, {"blocks"}),
    "tasks": (CORE - {"torch"}, {"blocks", "tasks"}),  # specs of their own, as blocks are
    "specs": (SPECS, {"blocks", "tasks", "specs"}),
    "engine": (ENGINE, {"blocks", "tasks", "specs", "engine"}),
    "zoo": (ZOO, {"blocks", "tasks", "specs", "engine", "zoo"}),
    "search": (SEARCH, {"blocks", "tasks", "specs", "engine", "zoo", "search"}),
    "commands": (SEARCH | {"typer"}, {"blocks", "tasks", "specs", "engine", "zoo", "search", "commands"}),
}
# Only inside functions: `miniwin.load("name", verify=True)` asks the zoo, which stands above the engine.
LAZILY = {"miniwin.references": {"zoo"}, "miniwin.loading": {"zoo"}}
# Optional dependencies: imported only where they are used.
ALWAYS_LAZY = {
    *("mlflow", "sqlalchemy", "xformers", "lm_eval", "tqdm", "pyarrow", "pandas", "optunahub", "submitit"),
    *("grpc", "fsspec", "gguf", "peft", "s3fs", "minisign", "huggingface_hub"),
}
# Files that are nothing without their library, and the library. They are themselves imported only inside functions.
ONLY_WITH = {
    "miniwin.evaluation.lm_eval_model": {"lm_eval", "tqdm"},
    "miniwin.search.optuna_tables": {"sqlalchemy"},
}


def layer_of(module: str) -> str:
    part = [*module.split("."), ""][1]
    if part in ROOMS:
        return part
    if f"{module}.".startswith("miniwin.evaluation.tasks."):
        return "tasks"
    return "commands" if part in ("cli", "commands", "without_torch", "__main__") else "engine"


@cache
def imports(path: Path) -> list[tuple[str, bool, int]]:
    return list(imported_by(tree(path), path))


def imported_by(source: ast.Module, path: Path) -> Iterator[tuple[str, bool, int]]:
    """Each module that a file imports, whether inside a function, and the line. Imports for type checkers are left
    out."""
    pending: list[tuple[ast.AST, bool]] = [(source, False)]
    while pending:
        node, inside = pending.pop()
        if isinstance(node, ast.Import):
            yield from ((alias.name, inside, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; write the whole name"
            assert node.module is not None
            if node.module == "miniwin":  # from miniwin import loading
                yield from ((f"miniwin.{alias.name}", inside, node.lineno) for alias in node.names)
            else:
                yield node.module, inside, node.lineno
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += [(child, inside) for child in node.orelse]
            continue
        within = inside or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        pending += [(child, within) for child in ast.iter_child_nodes(node)]


def follows_the_layers(path: Path) -> None:
    module = name_of(path)
    layer = layer_of(module)
    libraries, layers = ALLOWED[layer]
    for imported, inside, line in imports(path):
        top = imported.split(".")[0]
        where = f"{path.relative_to(ROOT)}:{line}: {layer} imports {imported}"
        if top == "miniwin":
            other = layer_of(imported)
            assert other in layers or (inside and other in LAZILY.get(module, ())), where
        elif top not in sys.stdlib_module_names:
            assert top in libraries, where
            lazily = ALWAYS_LAZY - ONLY_WITH.get(module, set())
            assert inside or top not in lazily, f"{where} at the top; it may not be installed"
        assert inside or imported not in ONLY_WITH, f"{where} at the top; its library may not be installed"
        if layer == "commands" and not inside:
            mine = top == "miniwin" and layer_of(imported) == "commands"
            assert mine or top == "typer" or top in sys.stdlib_module_names, f"{where} at the top; the help would wait"


def test_layers() -> None:
    for path in FILES:
        follows_the_layers(path)


def test_layers_are_tested_on_something() -> None:
    """The walk above finds imports inside functions, and skips imports for type checkers."""
    source = """
import a
def f():
    import b
if TYPE_CHECKING:
    import c
else:
    import d
try:
    import e
except X: pass
"""
    path = ROOT / "blocks" / "registry.py"
    assert any(name == "pydantic" and not inside for name, inside, _ in imports(path))
    assert sorted((name, inside) for name, inside, _ in imported_by(ast.parse(source), path)) == [
        ("a", False),
        ("b", True),
        ("d", False),
        ("e", False),
    ]


def files_imported(source: ast.Module, files: set[str]) -> set[str]:
    """The files that a source imports anywhere: at the top, inside functions, and for type checkers only."""
    found: set[str] = set()
    for node in ast.walk(source):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            whole = (f"{node.module}.{alias.name}" for alias in node.names)
            found |= {name if name in files else node.module for name in whole}
    return found & files


def circle(sources: dict[str, ast.Module]) -> list[str] | None:
    """Files that import one another, the first of them again at the end."""
    graph = {name: files_imported(source, set(sources)) - {name} for name, source in sources.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))
    return None


def test_no_files_import_one_another() -> None:
    """Not even by way of others, inside functions or for type checkers: each file is read after those it imports."""
    found = circle({name_of(path): tree(path) for path in FILES})
    assert found is None, " imports ".join(found)


@pytest.mark.parametrize(
    "lazy", ["import m.a", "def f():\n    from m.a import x", "if TYPE_CHECKING:\n    from m import a"]
)
def test_a_circle_is_found(lazy: str) -> None:
    texts = {"m": "from m.a import x", "m.a": "from m.b import y", "m.b": "import os\nfrom m.c import z"}
    files = {name: ast.parse(text) for name, text in texts.items()}
    assert circle({**files, "m.c": ast.parse("")}) is None
    assert set(circle({**files, "m.c": ast.parse(lazy)}) or ()) == {"m.a", "m.b", "m.c"}


def test_every_library_is_a_declared_dependency() -> None:
    named = PROJECT["project"]["dependencies"] + [
        item for extra in PROJECT["project"]["optional-dependencies"].values() for item in extra
    ]
    declared = {re.split(r"[^A-Za-z0-9_-]", item)[0].lower().replace("-", "_") for item in named}
    distribution = {"yaml": "pyyaml", "pydantic_core": "pydantic", "triton": "torch"}  # torch for CUDA brings triton
    distribution |= {"sqlalchemy": "mlflow", "tqdm": "lm_eval"}  # which bring them
    distribution |= {"grpc": "grpcio", "minisign": "py_minisign", "starlette": "fastapi"}
    for path in FILES:
        for imported, _, line in imports(path):
            top = imported.split(".")[0]
            if top != "miniwin" and top not in sys.stdlib_module_names:
                assert distribution.get(top, top) in declared, f"{path.relative_to(ROOT)}:{line}: {top} is not declared"


def test_no_module_has_the_name_of_a_public_function() -> None:
    """`miniwin.train` is a function: a module of that name would take its place once it is imported."""
    import miniwin

    modules = {path.stem for path in (ROOT / "miniwin").glob("*.py")} | {
        path.name for path in (ROOT / "miniwin").iterdir() if path.is_dir()
    }
    assert not modules & set(miniwin.__all__)


HEAVY = ("torch", "numpy", "mlflow", "optuna", "pydantic", "yaml", "safetensors", "tokenizers", "xformers", "pooch")


def test_importing_is_light() -> None:
    """`miniwin --help` answers at once because none of these is loaded for it."""
    parts = ["import miniwin; dir(miniwin)", "import miniwin.cli", "import miniwin.search"]
    probe = "import sys\n" + "".join(
        f"{part}\nprint([name for name in {HEAVY!r} if name in sys.modules])\n" for part in parts
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["[]"] * len(parts), f"after each of {parts}"


@pytest.mark.parametrize("arguments", [["check", "miniwin-tiny"], ["schema", "model"], ["specs"]])
def test_commands_that_only_describe_do_not_load_torch(arguments: list[str]) -> None:
    """A mistake in a file is answered in less time than torch takes to import."""
    probe = f"""
import sys
sys.argv = ["miniwin", *{arguments!r}]
from miniwin.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print([name for name in ("torch", "mlflow", "optuna") if getattr(sys.modules.get(name), "__file__", None)])
"""
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_help_names_every_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "miniwin", "--help"], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert done.returncode == 0, done.stderr
    for command in ("check", "explain", "schema", "specs", "train", "eval", "search", "zoo", "generate"):
        assert re.search(rf"\b{command}\b", done.stdout), command


# -- files


def test_files_say_what_they_are_and_are_short() -> None:
    for path in FILES:
        assert ast.get_docstring(tree(path)), f"{path}: a file begins with what it is"
        assert path.read_text().count("\n") <= LONGEST, f"{path}: one idea per file: split it"


FLAT = {"miniwin": 22, "blocks": 12}  # Python files that lie in no folder of their own


@pytest.mark.parametrize("folder", FLAT)
def test_few_files_lie_flat(folder: str) -> None:
    found = sorted(path.name for path in (ROOT / folder).glob("*.py"))
    assert len(found) <= FLAT[folder], f"give a part of these a folder: {found}"


def test_most_files_are_shorter_still() -> None:
    long = [str(path.relative_to(ROOT)) for path in FILES if path.read_text().count("\n") > LONG]
    assert len(long) <= len(FILES) // 20, long


def stray(tests: list[Path]) -> list[Path]:
    """Those that stand in no folder of the code: tests in tests/blocks/cache are of blocks/cache."""
    folders = {path: ROOT / path.parent for path in tests}
    house = [path for path in tests if path.parts[0] == "house"]  # these are about the repository as a whole
    real = [path for path in tests if path.parent.parts and folders[path].resolve() == folders[path]]
    return [path for path in tests if path not in house and not (path in real and folders[path].is_dir())]


def test_tests_mirror_the_code() -> None:
    found = [path.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(found) > 50 and not stray(found)
    for wrong in ("test_x.py", "blocks/caches/test_x.py", "miniwin/blocks/test_x.py", "blocks/cache.py/test_x.py"):
        assert stray([Path(wrong)]), wrong


def test_the_files_that_run_first_are_there() -> None:
    named = re.findall(r'"(test_\w+\.py)"', (ROOT / "tests" / "conftest.py").read_text())
    assert named and set(named) <= {path.name for path in (ROOT / "tests").rglob("test_*.py")}


def tracked() -> list[Path]:
    """What is in the repository, or would be, by git. A copy without git has nothing else."""
    if not (ROOT / ".git").exists():
        return [path for path in ROOT.rglob("*") if path.is_file() and ".venv" not in path.parts]
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        timeout=60,
    )
    if listed.returncode != 0:  # no git, or a repository of somebody else's
        pytest.skip(listed.stderr.decode())
    names = [os.fsdecode(name) for name in listed.stdout.split(b"\0") if name]
    return [path for path in map(ROOT.joinpath, names) if path.is_file() and not path.is_symlink()]


# Written apart, so that this file does not match itself.
MACHINE = re.compile(
    rb"(?<![\w.])/(?:work|root|tmp" + rb"/w)/|/(?:home|User" + rb"s)/(?!somebody)[a-z]\w*/|[A-Z]:\\\\User" + rb"s"
)


def test_no_path_of_anybodys_machine_is_in_the_repository() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {match.group().decode()}"
        for path in tracked()
        for match in MACHINE.finditer(path.read_bytes())
        if path.suffix not in (".safetensors", ".npz", ".npy", ".bin")
    ]
    assert not found


def test_the_search_for_paths_finds_some() -> None:
    for text in (
        b"/ro" + b"ot/x",
        b"see /wo" + b"rk/main",
        b"/ho" + b"me/jo/x",
        b"/Us" + b"ers/jo/x",
        b"/tm" + b"p/w/v",
    ):
        assert MACHINE.search(text)
    for text in (b"the framework/x", b"https://example.org/root/", b"/tmp/x", b"~/x"):
        assert not MACHINE.search(text)


def test_nothing_large_or_made_is_in_the_repository() -> None:
    for path in tracked():
        assert path.suffix not in (".pyc", ".pt", ".ckpt", ".db", ".part"), path
        assert path.stat().st_size < 25_000_000, path
    weights = sum(path.stat().st_size for path in (ROOT / "zoo").rglob("*.safetensors"))
    assert weights < 20_000_000, "weights of the shipped entries together"
