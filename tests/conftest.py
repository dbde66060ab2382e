"""The order of the test files, the longest first, so that no worker ends up alone with a long file; and shared
fixtures.
"""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import postgres as postgres_server
import pytest
import room
import typer.testing
from disk import do_not_wait

# Of our many commands one is invoked at a time, and making all of them anew takes longer than most of the tests.
typer.testing._get_command = cache(typer.testing._get_command)


do_not_wait()

os.environ["PYTEST_DEBUG_TEMPROOT"] = str(room.place())  # pytest's name for the folder that has all tmp_path
CHILDREN = str(Path(__file__).parent / "support" / "children")  # what all processes do that a test starts
if CHILDREN not in os.environ.get("PYTHONPATH", ""):
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [CHILDREN, os.environ.get("PYTHONPATH", "")]))

LONGEST = (
    "test_contract.py",
    "test_slurm.py",
    "test_first_weights.py",
    "test_distributed.py",
    "test_readme.py",
    "test_native_attention.py",
    "test_search_kill.py",
    "test_resume.py",
    "test_train.py",
    "test_search_chaos.py",
    "test_import_more.py",
    "test_wheel.py",
    "test_writing.py",
    "test_benchmarks.py",
    "test_confirm.py",
    "test_study_damage.py",
    "test_zoo_network.py",
    "test_stopping.py",
    "test_zoo_pull.py",
    "test_zoo.py",
    "test_search_on_tasks.py",
    "test_seeds.py",
    "test_gguf_real.py",
    "test_chat.py",
    "test_distilling.py",
    "test_lora.py",
    "test_taught_trials.py",
    "test_adapt.py",
    "test_ladder_kill.py",
    "test_machines_postgres.py",
    "test_tracking.py",
    "test_search_overhead.py",
    "test_claims.py",
    "test_dashboards.py",
    "test_seeds_kill.py",
    "test_flex.py",
    "test_storage.py",
    "test_import_dense.py",
    "test_search_run.py",
    "test_compilation.py",
    "test_attention_ops_features.py",
    "test_native_step.py",
    "test_proposing.py",
    "test_importance.py",
    "test_cleaning.py",
)


def pytest_collectstart() -> None:
    """Modules and tests are no garbage, and to look for some among them takes longer than to make them."""
    gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()  # nor is there any among them later
    gc.set_threshold(20_000)  # and what a test leaves is small
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


KERNELS = ("_amx", "_avx512", "_avx2")  # of blocks/native; miniwin itself, and torch, wait until they are needed


@pytest.fixture(params=KERNELS)
def build(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each build of our kernels in turn, in place of the build that this processor would choose."""
    from miniwin.blocks import native

    name = str(request.param)
    assert name in native.BUILDS
    if native.missing() is not None or name not in native.able():
        pytest.skip(f"this machine cannot run {name}")
    library = ctypes.CDLL(str(Path(native.__file__).parent / f"{name}.so"))
    assert library.miniwin_start() == 0
    monkeypatch.setattr(native, "_found", lambda: (name, library))
    return name


@pytest.fixture(scope="session", autouse=True)
def configuration(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What a test says about zoos is no matter of whoever runs it; tests of zoos have a folder each."""
    os.environ["MINIWIN_CONFIG"] = str(tmp_path_factory.mktemp("config"))


@pytest.fixture(scope="session")
def postgres() -> Iterator[postgres_server.Postgres]:
    """A real PostgreSQL server, which a test may stop if it starts it again. Each test makes a database of its own."""
    if reason := postgres_server.missing():
        pytest.skip(reason)
    with postgres_server.running_postgres() as server:
        yield server
