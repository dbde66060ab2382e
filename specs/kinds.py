"""The kinds of spec: the class, the folder of shipped files and the newest format of each."""

from __future__ import annotations

from pydantic import BaseModel

from miniwin.blocks.plugins import load_plugins
from miniwin.specs.base import UserError
from miniwin.specs.model import ModelSpec

KINDS = {"model": "models", "train": "train", "search": "searches", "suite": "suites"}
FORMATS = {"model": 1, "train": 1, "search": 2, "suite": 1}


def spec_class(kind: str) -> type[BaseModel]:
    """The class of a kind of spec. Plugins are loaded first: the class knows their blocks.

    Raises:
        UserError: there is no such kind.
    """
    load_plugins()
    if kind == "model":
        return ModelSpec
    if kind == "train":
        from miniwin.specs.train import TrainSpec

        return TrainSpec
    if kind == "search":
        from miniwin.specs.search import SearchSpec

        return SearchSpec
    if kind == "suite":
        from miniwin.specs.suite import SuiteSpec

        return SuiteSpec
    raise UserError(f"unknown kind of spec '{kind}': expected one of {', '.join(KINDS)}")
