"""Whether the text and the tokenizer that a train spec names exist, before a run needs them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from miniwin.data.examples import check_task
from miniwin.data.sources import check_apart, check_source, list_source
from miniwin.evaluation.tasks import draw
from miniwin.specs import TrainSpec, UserError
from miniwin.specs.data import ExamplesData, MixtureData, PythonStdlibData, Stored
from miniwin.specs.loading import SET, at_their_places
from miniwin.specs.validation_errors import Problem
from miniwin.tokenizer import Tokenizer, load_tokenizer
from miniwin.tokenizer.characters import Characters

_FIELD = re.compile(r"((?:data|tokenizer|eval)(?:\.\w+)*): ")


def check_data(spec: TrainSpec, path: Path, overrides: Sequence[str] = (), option: str = SET) -> None:
    """Raise UserError if text or tokenizer cannot be found or read, with the place in the YAML file at `path`.

    overrides, option: those that the spec was loaded with.
    """
    base = path.resolve().parent
    looks: dict[str, Callable[[], object]] = {"tokenizer": lambda: load_tokenizer(spec.tokenizer, base)}
    parts = {"data": spec.data}
    if isinstance(spec.data, MixtureData):
        parts = {f"data.parts.{place}.data": part.data for place, part in enumerate(spec.data.parts)}
    for place, data in parts.items():
        if isinstance(data, ExamplesData):
            looks[f"{place}.task"] = partial(check_task, data.parsed_task, min(spec.lengths))
        elif not isinstance(data, PythonStdlibData | MixtureData):  # the library is always there
            looks[place] = partial(_look, data, base)
    if isinstance(spec.data, MixtureData):
        looks["data.parts"] = partial(check_apart, spec.data, base)
    if spec.eval is not None:
        looks["eval"] = lambda: check_eval_tasks(spec, load_tokenizer(spec.tokenizer, base))
    problems = []
    for field, look in looks.items():
        try:
            look()
        except UserError as error:
            named = _FIELD.match(str(error))
            at = named[1] if named else field
            if field.startswith("data.parts."):  # said of the part's own data
                at = field + at.removeprefix("data") if named else field
            problems.append(_problem(at, error))
    if problems:
        raise at_their_places(problems, path, "train", overrides, option)


@contextmanager
def at_their_fields(path: Path, overrides: Sequence[str] = (), option: str = SET) -> Iterator[None]:
    """Give an error in the block that names a field of the train spec its place in the YAML file at `path`.

    overrides, option: those that the spec was loaded with.
    """
    try:
        yield
    except UserError as error:
        named = _FIELD.match(str(error))
        if named is None:
            raise
        raise at_their_places([_problem(named[1], error)], path, "train", overrides, option) from None


def _problem(field: str, error: UserError) -> Problem:
    loc = tuple(int(part) if part.isdecimal() else part for part in field.split("."))
    return Problem(loc, _FIELD.sub("", str(error), count=1))


def _look(data: Stored, base: Path) -> None:
    check_source(list_source(data, base))


def check_eval_tasks(spec: TrainSpec, tokenizer: Tokenizer) -> None:
    """Raise UserError if the tokenizer lacks a character of a task that `eval` names."""
    assert spec.eval is not None
    for number, task in enumerate(spec.eval.tasks):
        example = draw(task, spec.eval.at(spec.lengths)[0], seed=0, index=0, split="valid")
        try:
            Characters(tokenizer, task.type).ids(np.frombuffer(example.text, dtype=np.uint8))
        except UserError as error:
            raise UserError(f"eval.tasks.{number}: {error}") from None
