"""Entries to publish, made once: each a version of `tiny` that follows from the one before it."""

from __future__ import annotations

from pathlib import Path

import pytest
from zoo_runs import METRICS, make_run

from miniwin.zoo import Entry, add


@pytest.fixture(scope="session")
def entries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Entry]:
    """1.0.0, its new card 1.0.1, other weights 1.1.0, another architecture 2.0.0; and `another@1.0.0`."""
    folder = tmp_path_factory.mktemp("entries")
    zoo = folder / "zoo"
    first = make_run(folder / "first")
    made = [
        add(first, name="tiny", metrics=METRICS, zoo=zoo),
        add(first, name="tiny", metrics=METRICS, description="A better card.", zoo=zoo),
        add(make_run(folder / "second", seed=1), name="tiny", metrics=METRICS, zoo=zoo),
        add(make_run(folder / "third", window=4), name="tiny", metrics=METRICS, zoo=zoo),
        add(first, name="another", metrics=METRICS, zoo=zoo),
    ]
    assert [entry.ref for entry in made] == ["tiny@1.0.0", "tiny@1.0.1", "tiny@1.1.0", "tiny@2.0.0", "another@1.0.0"]
    return {entry.ref: entry for entry in made}


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ZOO", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"MINIWIN_{name}", str(tmp_path / name.lower()))
    for name in ("MINIWIN_ZOO_INDEX", "MINIWIN_ZOO_MIRROR", "MINIWIN_OFFLINE", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
