"""Whether the text and the tokenizer that a spec names exist, before a run needs them, and where it names them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from miniwin.chat.format import template_text
from miniwin.data.examples import check_task
from miniwin.data.sources import check_apart, check_source, list_source
from miniwin.evaluation.tasks import draw
from miniwin.references import resolve
from miniwin.specs import SuiteSpec, TrainSpec, UserError, user_path
from miniwin.specs.data import ChatData, DataSpec, ExamplesData, MixtureData, PythonStdlibData, Stored
from miniwin.specs.loading import SET, at_their_places
from miniwin.specs.validation_errors import Problem
from miniwin.tokenizer import Tokenizer, load_tokenizer
from miniwin.tokenizer.characters import Characters

OF_SUITES = "loss."  # where a suite has its data
_FIELD = re.compile(r"((?:data|tokenizer|eval|tokens|freeze|distill)(?:\.\w+)*): ")


def check_data(spec: TrainSpec, path: Path, overrides: Sequence[str] = (), option: str = SET) -> None:
    """Raise UserError if text, tokenizer or teacher cannot be found or read, with the place in the YAML file at `path`.

    overrides, option: those that the spec was loaded with.
    """
    base = path.resolve().parent
    looks: dict[str, Callable[[], object]] = {"tokenizer": lambda: load_tokenizer(spec.tokenizer, base)}
    looks |= _looks(spec.data, base, min(spec.lengths))
    if spec.distill is not None:
        looks["distill.teacher"] = partial(resolve, spec.distill.resolved(base).teacher)
    if spec.eval is not None:
        looks["eval"] = lambda: check_eval_tasks(spec, load_tokenizer(spec.tokenizer, base))
    if problems := _problems(looks):
        raise at_their_places(problems, path, "train", overrides, option)


def check_suite_data(spec: SuiteSpec, path: Path, overrides: Sequence[str] = ()) -> None:
    """The same for the text that a suite names itself, as `loss.data`."""
    if spec.loss is None or spec.loss.data is None:
        return
    if problems := _problems(_looks(spec.loss.data, path.resolve().parent, 1), OF_SUITES):
        raise at_their_places(problems, path, "suite", overrides)


def data_problem(error: UserError, field: str = "data", within: str = "") -> Problem:
    """What is wrong with data, at the field that the message begins with.

    field: where it is if the message names none; of a part of a mixture, the part's data. within: where the spec has
    its data, such as `loss.`.
    """
    message = str(error)
    named = _FIELD.match(message)
    at = named[1] if named else field
    if field.startswith("data.parts."):  # said of the part's own data
        at = field + at.removeprefix("data") if named else field
    loc = tuple(int(part) if part.isdecimal() else part for part in f"{within}{at}".split("."))
    return Problem(loc, message[named.end() :] if named else message)


def _looks(data: DataSpec, base: Path, shortest: int) -> dict[str, Callable[[], object]]:
    """What to call to see whether data is there, by its field."""
    looks: dict[str, Callable[[], object]] = {}
    parts = {"data": data}
    if isinstance(data, MixtureData):
        parts = {f"data.parts.{place}.data": part.data for place, part in enumerate(data.parts)}
    for place, one in parts.items():
        if isinstance(one, ExamplesData):
            looks[f"{place}.task"] = partial(check_task, one.parsed_task, shortest)
        elif not isinstance(one, PythonStdlibData | MixtureData):  # the library is always there
            looks[place] = partial(_look, one, base)
    if isinstance(data, MixtureData):
        looks["data.parts"] = partial(check_apart, data, base)
    return looks


def _problems(looks: Mapping[str, Callable[[], object]], within: str = "") -> list[Problem]:
    problems = []
    for field, look in looks.items():
        try:
            look()
        except UserError as error:
            problems.append(data_problem(error, field, within))
    return problems


@contextmanager
def at_their_fields(path: Path, overrides: Sequence[str] = (), option: str = SET) -> Iterator[None]:
    """Give an error in the block that names a field of the train spec its place in the YAML file at `path`.

    overrides, option: those that the spec was loaded with.
    """
    try:
        yield
    except UserError as error:
        if _FIELD.match(str(error)) is None:
            raise
        raise at_their_places([data_problem(error)], path, "train", overrides, option) from None


def _look(data: Stored, base: Path) -> None:
    if isinstance(data, ChatData) and data.template is not None:
        template_text(base / user_path(data.template))
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
