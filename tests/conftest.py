"""The order of the files: the longest first, so that no worker is left alone with one of them at the end."""

from __future__ import annotations

import pytest

LONGEST = (
    "test_readme.py",
    "test_contract.py",
    "test_resume.py",
    "test_search_kill.py",
    "test_import_more.py",
    "test_import_dense.py",
    "test_benchmarks.py",
    "test_search_run.py",
    "test_attention_ops_features.py",
    "test_wheel.py",
    "test_distributed.py",
    "test_plugins.py",
    "test_soundness.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))
