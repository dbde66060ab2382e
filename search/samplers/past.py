"""A history, as an Optuna study: what samplers ask.

Nothing is copied into the study, which is made anew for each proposal and costs next to nothing. So a sampler knows
what the history says, and nothing else: the same history leads to the same proposal in every process.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence, Set
from copy import copy
from copy import deepcopy as copied
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from random import Random
from typing import TYPE_CHECKING, Any, Literal, Protocol

from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from miniwin.specs import SearchSpec

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import BaseTrial


class Variables(Protocol):
    """What a space has to answer."""

    @property
    def spec(self) -> SearchSpec: ...

    def __hash__(self) -> int: ...

    def suggest(self, trial: BaseTrial) -> dict[str, Any]:
        """Ask a trial for its parameters, some of which may depend on others. Returns the values of the variables."""

    def decode(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The values of the variables that these parameters stand for."""

    def encode(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters of these values. UserError if they are no assignment."""

    def enumerate(self) -> Iterator[dict[str, Any]] | None:
        """Every assignment, as Optuna's parameters; None if there are too many."""

    def distributions(self) -> dict[str, BaseDistribution]:
        """Every parameter that a trial may be asked for."""

    def draw(self, random: Random) -> dict[str, Any]:
        """Values at random."""

    def mutate(self, values: Mapping[str, Any], random: Random, far: bool = False) -> dict[str, Any]:
        """The values with a small change of one variable. far: a placement swaps any two places, not neighbours."""

    def cross(self, one: Mapping[str, Any], other: Mapping[str, Any], random: Random) -> dict[str, Any]:
        """A mixture of two assignments."""

    def places(self, name: str) -> int:
        """How many places a placement variable has at most."""

    def most_placements(self) -> int:
        """How many values a placement has at most; of several, the one with the most. 0: there is none."""

    def recoded(self, placements: str) -> Variables:
        """The same variables with another coding of placements."""


@dataclass(frozen=True)
class Past:
    """What a sampler knows.

    tell: gives the trials that it is told of. number: how many there were in all. seen: the keys (keys.py) of all that
    were tried.
    """

    tell: Callable[[], Sequence[FrozenTrial]]
    directions: tuple[Literal["minimize", "maximize"], ...]  # for each objective
    space: Variables
    number: int
    seen: Set[str]

    @cached_property
    def trials(self) -> Sequence[FrozenTrial]:
        """Their numbers are their places in the list."""
        return self.tell()  # not every sampler looks

    @property
    def complete(self) -> list[FrozenTrial]:
        """The trials that have values, oldest first."""
        return [trial for trial in self.trials if trial.state is TrialState.COMPLETE]

    @property
    def ended(self) -> int:
        """How many trials have ended, with values or without."""
        return sum(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in self.trials)

    @property
    def common(self) -> dict[str, BaseDistribution]:
        """The parameters that all ended trials have, by name. Equal distributions are one object here: Optuna's own
        search compares all choices of all trials, which takes longer than the proposal."""
        found: dict[str, BaseDistribution] | None = None
        for trial in self.trials:
            if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
                own = trial.distributions
                found = own if found is None else {name: one for name, one in found.items() if own.get(name) is one}
        return dict(sorted((found or {}).items()))

    def draw(self, seed: int) -> dict[str, Any]:
        """Parameters at random, each value of a variable with the same chance."""
        return self.space.encode(self.space.draw(Random(seed)))

    def ask(self, sampler: BaseSampler) -> dict[str, Any]:
        """The parameters that a sampler of Optuna proposes."""
        trial = self.study(sampler).ask()
        self.space.suggest(trial)
        return dict(trial.params)

    def study(self, sampler: BaseSampler) -> Study:
        import optuna

        return optuna.create_study(storage=_Storage(self.trials), sampler=sampler, directions=list(self.directions))


class _Storage(BaseStorage):
    """One study, whose trials are given, and the trials that are asked for next. The given ones never change."""

    def __init__(self, past: Sequence[FrozenTrial]) -> None:
        self._past = past
        self._new: list[FrozenTrial] = []
        self._name = "history"
        self._directions: list[StudyDirection] = []
        self._user: dict[str, Any] = {}
        self._system: dict[str, Any] = {}

    # -- the study

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        self._directions = list(directions)
        return 0

    def delete_study(self, study_id: int) -> None:
        raise NotImplementedError

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self._user = {**self._user, key: value}

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._system = {**self._system, key: value}

    def get_study_id_from_name(self, study_name: str) -> int:
        return 0

    def get_study_name_from_id(self, study_id: int) -> str:
        return self._name

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self._directions

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self._user

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self._system

    def get_all_studies(self) -> list[Any]:
        raise NotImplementedError

    # -- its trials: a trial's id is its number

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        number = len(self._past) + len(self._new)
        new = template_trial and copied(template_trial)
        new = new or FrozenTrial(
            number=number,
            state=TrialState.RUNNING,
            value=None,
            datetime_start=datetime.now(),
            datetime_complete=None,
            params={},
            distributions={},
            user_attrs={},
            system_attrs={},
            intermediate_values={},
            trial_id=number,
        )
        new.number = new._trial_id = number
        self._new.append(new)
        return number

    def _change(self, trial_id: int) -> FrozenTrial:
        """The trial of this id, to be changed."""
        index = trial_id - len(self._past)
        assert index >= 0, "a trial of the history never changes"
        self.check_trial_is_updatable(trial_id, self._new[index].state)
        self._new[index] = copy(self._new[index])  # who has read the trial keeps what was read
        return self._new[index]

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        trial = self._change(trial_id)
        trial.params = {**trial.params, param_name: distribution.to_external_repr(param_value_internal)}
        trial.distributions = {**trial.distributions, param_name: distribution}

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        return trial_number

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        trial = self._change(trial_id)
        trial.state = state
        if values is not None:
            trial.values = values
        return True

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        trial = self._change(trial_id)
        trial.intermediate_values = {**trial.intermediate_values, step: intermediate_value}

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        trial = self._change(trial_id)
        trial.user_attrs = {**trial.user_attrs, key: value}

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        trial = self._change(trial_id)
        trial.system_attrs = {**trial.system_attrs, key: value}

    def get_trial(self, trial_id: int) -> FrozenTrial:
        index = trial_id - len(self._past)
        return self._new[index] if index >= 0 else self._past[trial_id]

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        if states == (TrialState.WAITING,):  # asked for before each proposal; nothing waits in a history
            return []
        trials = [t for t in (*self._past, *self._new) if states is None or t.state in states]
        return copied(trials) if deepcopy else trials
