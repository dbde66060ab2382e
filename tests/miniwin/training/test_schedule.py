"""Learning rate schedules, by hand-computed values."""

from __future__ import annotations

import math

import pytest
from tiny_runs import tiny_train

from miniwin.specs import UserError, parse_spec
from miniwin.specs.train import CosineSchedule, WSDSchedule
from miniwin.training.schedule import learning_rate


def rates(schedule: CosineSchedule | WSDSchedule, steps: int, peak: float = 1.0) -> list[float]:
    return [learning_rate(schedule, step, steps, peak) for step in range(steps)]


def test_cosine_by_hand() -> None:
    got = rates(CosineSchedule(warmup=0.4, final=0.2), steps=10, peak=2.0)
    # 4 steps of warm-up, then 6 of the cosine: x = 0, 1/6 ... 5/6, cos(60 degrees) = 1/2 at x = 1/3
    assert got[:5] == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0])
    assert got[6] == pytest.approx(2 * (0.2 + 0.8 * 0.75))
    assert got[7] == pytest.approx(2 * (0.2 + 0.8 * 0.5))
    assert got[9] == pytest.approx(2 * (0.2 + 0.8 * (1 + math.cos(math.pi * 5 / 6)) / 2))
    assert min(got[4:]) > 2 * 0.2, "the final rate belongs to the step after the last"


def test_wsd_by_hand() -> None:
    got = rates(WSDSchedule(warmup=0.2, decay=0.4, final=0.0), steps=10, peak=4.0)
    assert got == pytest.approx([2.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 3.0, 2.0, 1.0])


def test_wsd_falls_to_its_final_fraction() -> None:
    got = rates(WSDSchedule(warmup=0.0, decay=1.0, final=0.5), steps=4)
    assert got == pytest.approx([1.0, 0.875, 0.75, 0.625])


@pytest.mark.parametrize("schedule", [CosineSchedule(warmup=0.0), WSDSchedule(warmup=0.0, decay=0.0)])
def test_no_warmup_starts_at_the_peak(schedule: CosineSchedule | WSDSchedule) -> None:
    assert rates(schedule, steps=7)[0] == 1.0


@pytest.mark.parametrize("steps", [1, 2, 3, 50])
@pytest.mark.parametrize("warmup", [0.0, 0.03, 0.5, 1.0])
def test_every_step_learns_something(steps: int, warmup: float) -> None:
    for schedule in (CosineSchedule(warmup=warmup, final=0.0), WSDSchedule(warmup=warmup, decay=1 - warmup)):
        got = rates(schedule, steps)
        assert all(0 < rate <= 1 for rate in got)
        peak = got.index(max(got))
        assert got[: peak + 1] == sorted(got[: peak + 1]) and got[peak:] == sorted(got[peak:], reverse=True)


def test_warmup_and_decay_must_fit() -> None:
    with pytest.raises(UserError, match=r"add up to 1\.2; expected at most 1: make one of them smaller"):
        tiny_train(schedule={"type": "wsd", "warmup": 0.5, "decay": 0.7})


def test_steps_cover_the_budget() -> None:
    spec = tiny_train(seq_len=10, batch_size=3, gradient_accumulation=2, tokens=61)
    assert (spec.tokens_per_step, spec.steps) == (60, 2)
    assert tiny_train(seq_len=10, batch_size=3, gradient_accumulation=2, tokens=60).steps == 1


def test_unknown_schedule_is_refused() -> None:
    with pytest.raises(UserError, match="schedule"):
        parse_spec({**tiny_train().model_dump(mode="json"), "schedule": {"type": "cosin"}}, "train")
