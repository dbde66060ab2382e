"""What YAML means: model, train, search and suite specs, their loading and errors, and the gallery of YAML files."""

if __name__ == "specs":
    raise ImportError("this folder is the package miniwin.specs: write 'from miniwin.specs import load_spec'")

from typing import Any

from miniwin.specs.base import Count, Strict, UserError, user_path
from miniwin.specs.loading import (
    dump_yaml,
    load_model_spec,
    load_search_spec,
    load_spec,
    load_train_spec,
    overridden,
    parse_spec,
    resolve_spec_path,
    shipped_specs,
)
from miniwin.specs.model import ModelSpec
from miniwin.specs.schema import json_schema

__all__ = [
    "Count",
    "DataSpec",
    "ModelSpec",
    "SearchSpec",
    "Strict",
    "SuiteSpec",
    "TrainSpec",
    "UserError",
    "dump_yaml",
    "json_schema",
    "load_model_spec",
    "load_search_spec",
    "load_spec",
    "load_train_spec",
    "overridden",
    "parse_spec",
    "resolve_spec_path",
    "shipped_specs",
    "user_path",
]

_LAZY = {"DataSpec": "data", "TrainSpec": "train", "SearchSpec": "search", "SuiteSpec": "suite"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(f"miniwin.specs.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'miniwin.specs' has no attribute '{name}'")
