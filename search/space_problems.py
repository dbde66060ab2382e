"""What is wrong with a search spec beside the specs that it names: paths that they do not have, unknown names,
variables that nothing uses, placements that do not fit the base model."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from miniwin.blocks.messages.listing import some
from miniwin.search.candidate import put
from miniwin.search.spec_errors import SpaceError
from miniwin.search.variables import OTHER
from miniwin.specs import ModelSpec, SearchSpec, TrainSpec, UserError
from miniwin.specs.conditional import conditions, same
from miniwin.specs.data import without_test
from miniwin.specs.expressions import Expression
from miniwin.specs.objectives import costs
from miniwin.specs.placements import NUM_LAYERS, Placement, SequenceVariable, SubsetVariable
from miniwin.specs.validation_errors import Problem
from miniwin.specs.variable_links import implies, numbers, placement_problems, where
from miniwin.specs.yaml_lines import Loc

MOST_CASES = 10_000  # combinations of conditions that are looked at

# Fields that a search may not set, and why.
_FIXED = {
    "kind": "it says what kind of file this is",
    "format": "it says how the file is written",
    "name": "names do not change an architecture",
    "train.kind": "it says what kind of file this is",
    "train.format": "it says how the file is written",
    "train.name": "names do not change a run",
    "train.tokens": "every trial has the same budget: set budget.tokens_per_trial",
    "train.data": "trials on different data cannot be compared",
    "train.eval": "it does not change what is trained",
    "train.tokenizer": "trials share one tokenised corpus",
}


@dataclass(frozen=True)
class Parts:
    """A search spec with the specs that it names. model: the base as data, with the blocks that the search adds. lines:
    those of `set`, text as an Expression."""

    spec: SearchSpec
    base: ModelSpec
    model: dict[str, Any]
    train: TrainSpec
    lines: Mapping[str, Any]
    constraints: Mapping[str, Expression]

    @property
    def known(self) -> list[str]:
        """The names that an expression may use."""
        return [*self.spec.variables, *self.model["blocks"]]


def check_links(parts: Parts) -> None:
    """SpaceError for every mistake that does not depend on the values of the variables."""
    problems = [
        *_names(parts),
        *_placements(parts),
        *_fields(parts),
        *_constraints(parts),
        *_unused(parts),
        *_sizes(parts),
        *_trainings(parts),
        *_confirmation(parts),
        *_blocks(parts),
        *(_untrained(parts) if parts.train.tokens == 0 else ()),
    ]
    problems += [
        Problem(path, text) for path, text in parts.spec.misfits(parts.train.tokens, parts.train.tokens_per_step)
    ]
    if problems := problems or _left_without_use(parts):
        raise SpaceError(problems)


def _names(parts: Parts) -> Iterator[Problem]:
    for name in parts.spec.variables:
        if name in parts.model["blocks"]:
            message = f"{name!r} is also a block of {parts.base.name}; call the variable something else"
            yield Problem(("variables", name), message, on_key=True)


def _sizes(parts: Parts) -> Iterator[Problem]:
    match = parts.spec.match
    if match is not None and match.resize == "width" and "hidden_size" in parts.lines:
        message = "match resizes the width, and would undo this: remove it, or take resize: mlp"
        yield Problem(("set", "hidden_size"), message, on_key=True)


def _trainings(parts: Parts) -> Iterator[Problem]:
    """Lines of `set` that the trainings of a trial would undo, and adapters around nothing."""
    if parts.train.lora is not None and parts.spec.weights is None:
        message = (
            "its lora trains adapters around the weights of a model, and there are none: set `weights`, or no lora"
        )
        yield Problem(("train",), message)
    if parts.spec.seeds > 1 and "train.seed" in parts.lines:
        message = f"each trial is trained with {parts.spec.seeds} seeds (seeds): remove this, or take seeds: 1"
        yield Problem(("set", "train.seed"), message, on_key=True)
    asked = parts.spec.learning_rate
    if asked is None or not parts.train.tokens:
        return
    for path in ("train.optimizer", "train.optimizer.lr"):
        if path in parts.lines:
            message = (
                "each trial tunes its learning rate (learning_rate: tuned), and would undo this: remove one of them"
            )
            yield Problem(("set", path), message, on_key=True)
    tokens, step = round(asked.share * parts.train.tokens), parts.train.tokens_per_step
    if tokens < step:
        yield Problem(
            ("learning_rate", "share") if "share" in asked.model_fields_set else ("learning_rate",),
            f"got a share of {asked.share:g}, and no step fits: that is {tokens:,} of {parts.train.tokens:,} tokens, "
            f"and a step of training has {step:,}; expected at least {min(1.0, step / parts.train.tokens):.2g}",
        )


def _confirmation(parts: Parts) -> Iterator[Problem]:
    confirm = parts.spec.confirm
    if confirm is not None and (lacking := without_test(parts.train.data)):
        place, source = lacking
        message = (
            f"got {confirm.split}, and the data of train spec {parts.train.name} keep none back ({place}, source "
            f"{source}): set test_fraction, such as 0.05, or test_paths there; the trials are then trained without it"
        )
        yield Problem(("confirm", "split"), message)


def _untrained(parts: Parts) -> Iterator[Problem]:
    """What makes no sense where nothing is trained."""
    spec = parts.spec
    if spec.weights is None:
        yield Problem(("train",), "its tokens are 0; expected at least 1, or `weights`, which are measured as they are")
        return
    nothing = "trials have 0 tokens, so"
    asked: list[tuple[Loc, bool, str]] = [
        (("pruner",), spec.pruner is not None, f"{nothing} there is nothing to stop early: set pruner: null"),
        (("seeds",), spec.seeds > 1, f"got {spec.seeds}; {nothing} a seed changes nothing: leave seeds out"),
        (("learning_rate",), spec.learning_rate is not None, f"{nothing} no rate is used: leave learning_rate out"),
        (("match",), spec.match is not None, f"{nothing} the weights have one size only: leave match out"),
        (
            ("budget", "seconds_per_trial"),
            spec.budget.seconds_per_trial is not None,
            f"{nothing} none is spent on training: leave it out",
        ),
        (
            ("confirm", "seeds"),
            spec.confirm is not None and spec.confirm.seeds > 1,
            f"{nothing} a seed changes nothing: set confirm.seeds: 1; the interval is over the text alone",
        ),
    ]
    for path, wrong, message in asked:
        if wrong:
            yield Problem(path, message)
    for line in parts.lines:
        if line.startswith("train."):
            yield Problem(("set", line), f"{nothing} it would change nothing: remove it", on_key=True)


def _blocks(parts: Parts) -> Iterator[Problem]:
    """Blocks that the search adds and does not use."""
    placed = [one.sequence.letters for one in parts.spec.variables.values() if isinstance(one, SequenceVariable)]
    texts = [*map(str, parts.spec.set.values()), *("".join(letters) for letters in placed)]
    for letter in parts.spec.blocks:
        if not any(letter in text for text in texts):
            message = "nothing under `set` uses it: use it in a pattern, such as place(layers, G, W), or remove it"
            yield Problem(("blocks", letter), message, on_key=True)


def _fields(parts: Parts) -> Iterator[Problem]:
    documents = {"model": deepcopy(parts.model), "train": parts.train.model_dump(mode="json")}
    for path, value in parts.lines.items():
        try:
            _check_path(documents, path, None if isinstance(value, Expression) else value)
        except UserError as error:
            yield Problem(("set", path), str(error), on_key=True)
        if isinstance(value, Expression):
            yield from _unknown_names(("set", path), value, parts.known, ())


def _constraints(parts: Parts) -> Iterator[Problem]:
    short, long = ([row.name for row in costs().values() if row.by_length is wanted] for wanted in (False, True))
    for index, expression in enumerate(parts.constraints.values()):
        yield from _unknown_names(("constraints", index), expression, [*parts.known, *short], long)


def _unused(parts: Parts) -> Iterator[Problem]:
    variables = parts.spec.variables
    used = {name for line in parts.lines.values() if isinstance(line, Expression) for name in line.names}
    for variable in variables.values():
        used.update(conditions(variable), numbers(variable).values())
    if unused := [name for name in variables if name not in used]:
        message = f"nothing under `set` uses it ({', '.join(unused)}); use it in an expression or remove it"
        yield Problem(("variables", unused[0]), message, on_key=True)


def _placements(parts: Parts) -> Iterator[Problem]:
    variables, base = parts.spec.variables, parts.base
    for path, message in placement_problems(variables, base.num_layers):
        yield Problem(("variables", *path.split(".")), message)
    for name, variable in variables.items():
        if isinstance(variable, SubsetVariable):
            yield from _layers_set(parts, ("variables", name, "subset", "of"), variable.subset.of)
        elif isinstance(variable, SequenceVariable):
            yield from _layers_set(parts, ("variables", name, "sequence", "length"), variable.sequence.length)
            for index, letter in enumerate(variable.sequence.letters):
                if letter not in parts.model["blocks"]:
                    known = some(sorted(parts.model["blocks"]), 30)
                    message = f"no block of {base.name} is called {letter} (blocks: {known})"
                    yield Problem(("variables", name, "sequence", "letters", index), message)
    pattern = parts.lines.get("pattern")
    names = pattern.names if isinstance(pattern, Expression) and "last" not in parts.lines else ()
    by = [name for name in names if isinstance(variables.get(name), Placement)]
    if by and base.last is not None:
        yield Problem(
            ("set", "pattern"),
            f"{by[0]} says every layer, but `last: {base.last}` of {base.name} replaces the last one: add `last: null` "
            "to `set`",
        )


def _layers_set(parts: Parts, path: Loc, number: int | str) -> Iterator[Problem]:
    if number == NUM_LAYERS and NUM_LAYERS in parts.lines:
        yield Problem(
            path,
            f"num_layers is that of {parts.base.name}, {parts.base.num_layers}, and `set` changes it: write the "
            "number, or the variable that it is set to",
        )


def _left_without_use(parts: Parts) -> list[Problem]:
    """Lines of `set` that are left out where a variable has no value, though it takes another one's only use away.

    A line with `if`, `and` or `or` may have a value all the same. It is taken to be what its writer wants.
    """
    variables = parts.spec.variables
    plain: dict[str, list[str]] = {
        path: [name for name in line.names if name in variables]
        for path, line in parts.lines.items()
        if isinstance(line, Expression) and not line.chooses
    }
    guarded = {
        name for line in parts.lines.values() if isinstance(line, Expression) and line.chooses for name in line.names
    }
    asked_for = {
        other for variable in variables.values() for other in [*conditions(variable), *numbers(variable).values()]
    }
    problems = []
    for name in variables:
        lines = [path for path, names in plain.items() if name in names]
        if name in guarded or name in asked_for or not lines:
            continue
        lost = _lost(name, {path: plain[path] for path in lines}, variables)
        if lost:
            problems.append(
                Problem(
                    ("set", lines[0]),
                    f"where {lost} has no value this line is left out, and nothing else uses {name}: write what holds "
                    f"there, such as 'A if TEST else B', or give {name} the same `when`",
                )
            )
    return problems


def _lost(name: str, lines: Mapping[str, list[str]], variables: Mapping[str, Any]) -> str | None:
    """A variable without which all these lines are left out in a case where `name` has a value; None if there is no
    such case."""
    own = where(name, variables)
    missing = [[other for other in names if not implies(own, where(other, variables))] for names in lines.values()]
    if not all(missing):
        return None  # a line has a value wherever the variable has one
    # Each line can be left out; whether all can at once is asked case by case.
    asked = [own, *(where(other, variables) for names in missing for other in names)]
    cases = {other: _cases(other, variables) for conditions in asked for other in conditions}
    for case in itertools.islice(itertools.product(*cases.values()), MOST_CASES):
        given = dict(zip(cases, case, strict=True))
        gone = [[other for other in names if not _holds(where(other, variables), given)] for names in missing]
        if _holds(own, given) and all(gone):
            return gone[0][0]
    return None


def _cases(name: str, variables: Mapping[str, Any]) -> list[Any]:
    """The values of a variable that conditions ask for, and OTHER if it has more."""
    found: list[Any] = []
    for variable in variables.values():
        for value in conditions(variable).get(name, []):
            if not any(same(value, one) for one in found):
                found.append(value)
    return [*found, OTHER] if variables[name].size > len(found) else found


def _holds(wanted: Mapping[str, list[Any]], given: Mapping[str, Any]) -> bool:
    return all(any(same(given[name], value) for value in values) for name, values in wanted.items())


def _check_path(documents: dict[str, dict[str, Any]], path: str, value: Any) -> None:
    for fixed, why in _FIXED.items():
        if path == fixed or path.startswith(fixed + "."):
            raise UserError(f"this field cannot be searched; {why}")
    kind = "train" if path.startswith("train.") else "model"
    put(documents[kind], path.removeprefix("train."), value, checking=True)


def _unknown_names(where: Loc, expression: Expression, known: list[str], costs: Sequence[str]) -> list[Problem]:
    try:
        expression.check_names(known, costs)
    except UserError as error:
        return [Problem(where, str(error))]
    return []
