"""Whether the text and the tokenizer that a train spec names exist, before a run needs them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from miniwin.data.examples import check_task
from miniwin.data.sources import list_source
from miniwin.specs import TrainSpec, UserError
from miniwin.specs.data import ExamplesData, PythonStdlibData
from miniwin.specs.loading import at_their_places
from miniwin.specs.validation_errors import Problem
from miniwin.tokenizer import load_tokenizer

_FIELD = re.compile(r"(data(?:\.\w+)?|tokenizer): ")


def check_data(spec: TrainSpec, path: Path, overrides: Sequence[str] = ()) -> None:
    """Raise UserError if text or tokenizer cannot be found or read, with the place in the YAML file at `path`."""
    base = path.resolve().parent
    looks: dict[str, Callable[[], object]] = {"tokenizer": lambda: load_tokenizer(spec.tokenizer, base)}
    data = spec.data
    if isinstance(data, ExamplesData):
        looks["data.task"] = lambda: check_task(data.parsed_task, min(spec.lengths))
    elif not isinstance(data, PythonStdlibData):  # which is always there
        looks["data"] = lambda: list_source(data, base)
    problems = []
    for field, look in looks.items():
        try:
            look()
        except UserError as error:
            named = _FIELD.match(str(error))
            at = tuple((named[1] if named else field).split("."))
            problems.append(Problem(at, _FIELD.sub("", str(error), count=1)))
    if problems:
        raise at_their_places(problems, path, "train", overrides)
