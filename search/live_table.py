"""What a person sees while a search runs: a live table of trials, or one line for each trial that ends."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

from miniwin.blocks.messages.escaping import escaped, escaped_line
from miniwin.display.cells import cell
from miniwin.display.formats import duration, plural, rate
from miniwin.files.json_files import parse_json
from miniwin.search.confirm import words
from miniwin.search.forecast import tokens_left
from miniwin.search.ladder.words import lines as ladder_lines
from miniwin.search.study_data import StudyData, TrialRecord
from miniwin.search.trainings import progress

if TYPE_CHECKING:
    from rich.table import Table

PROBLEMS = 5  # trials with a problem that are named
ROWS = 16  # trials that have ended, or paused, in the live table
ENDED = ("complete", "pruned", "paused", "failed")
STYLES = {
    "complete": "green",
    "pruned": "yellow",
    "paused": "yellow",
    "running": "cyan",
    "failed": "red",
    "infeasible": "dim",
    "duplicate": "dim",
}
CODES = {"bold": 1, "dim": 2, "red": 31, "green": 32, "yellow": 33, "cyan": 36}
Justify = Literal["left", "right"]


class SearchDisplay:
    """Shows a study as it goes on, by default on standard error. With `enabled=False` it shows nothing."""

    def __init__(self, enabled: bool = True, stream: TextIO | None = None) -> None:
        self._enabled = enabled
        self._stream = sys.stderr if stream is None else stream
        self._live: Any = None
        self._shown: dict[int, str] = {}
        self._anew: set[Path] = set()  # folders of trainings
        self._began = time.monotonic()
        self._tokens_before: int | None = None

    def __enter__(self) -> SearchDisplay:
        if self._enabled and self._stream.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(file=self._stream), auto_refresh=False)
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()

    def note(self, text: str) -> None:
        if self._live is not None:
            self._live.console.print(escaped(text), markup=False, highlight=False)
        elif self._enabled:
            print(escaped(text), file=self._stream, flush=True)

    def update(self, data: StudyData) -> None:
        if not self._enabled:
            return
        if self._live is not None:
            self._live.update(study_table(data, self._summary(data)), refresh=True)
            return
        first = not self._shown
        for trial in [*([data.baseline] if data.baseline else []), *data.trials]:
            if self._shown.get(trial.number) != trial.state:
                self._shown[trial.number] = trial.state
                # Trials that had ended before this session are counted, not listed.
                if trial.state in ENDED and not first:
                    self.note(_line(trial, data))
        self._update_trainings(data, first)
        if first:
            self._shown.setdefault(-2, "seen")
            if data.trained:
                self.note(f"{data.name}: {len(data.trained)} of {data.spec.budget.trials} trials are there; going on")

    def _update_trainings(self, data: StudyData, first: bool) -> None:
        """A line for each training of the confirmation or of the ladder that has ended."""
        for doing, trainings in data.anew:
            for one in trainings:
                if one.over and one.folder not in self._anew:
                    self._anew.add(one.folder)
                    if not first:
                        self.note(f"{one.label}: {one.state}  ({progress(doing, trainings) or f'{doing}: all over'})")

    def _summary(self, data: StudyData) -> str:
        """`5 of 12 trials, 2 pruned · 21.3k tokens/s · 1m20s left`."""
        trained = data.trained
        parts = [f"{len(trained)} of {data.spec.budget.trials} trials"]
        for state in ("pruned", "paused", "failed", "infeasible", "duplicate"):
            if number := sum(trial.state == state for trial in data.trials):
                parts.append(f"{number} {state}")
        if now := next(filter(None, (progress(*one) for one in data.anew if data.searched)), None):
            return " · ".join([*parts, now])
        running = [trial for trial in data.trials if trial.state == "running"]
        paused = [trial for trial in data.trials if trial.state == "paused"]
        tokens = sum(trial.tokens for trial in trained + paused) + sum(tokens_so_far(trial) for trial in running)
        if data.baseline is not None:
            tokens += tokens_so_far(data.baseline)
        if self._tokens_before is None:
            self._tokens_before, self._began = tokens, time.monotonic()
        speed = (tokens - self._tokens_before) / max(time.monotonic() - self._began, 1e-9)
        if speed > 0 and time.monotonic() - self._began > 5:
            parts += [rate(speed), f"{duration(tokens_left(data, tokens_so_far) / speed)} left"]
        return " · ".join(parts)


def study_table(data: StudyData, caption: str = "", rows: int | None = ROWS) -> Table:
    """The trials of a study that have ended or paused, the latest last, then those that run. rows: how many of the
    former."""
    from rich.table import Table

    table = Table(
        title=cell(f"search {data.name}"),
        caption=cell(caption) if caption else None,
        caption_justify="left",
        title_justify="left",
    )
    for name, justify in _headings(data):
        table.add_column(cell(name), justify=justify)
    for trial, best in _listed(data, rows):
        table.add_row(*(cell(*one) for one in _cells(trial, data, best)), style="bold" if best else None)
    return table


def study_lines(data: StudyData, colours: bool = False) -> list[str]:
    """The table of every trial, as lines of text: for thousands of rows rich takes seconds."""
    headings = _headings(data)
    rows = [[(name, "bold") for name, _ in headings]]
    for trial, best in _listed(data, None):
        rows.append([(text, style or ("bold" if best else "")) for text, style in _cells(trial, data, best)])
    columns = []
    for (_, justify), column in zip(headings, zip(*rows, strict=True), strict=True):
        texts = aligned([escaped_line(text) for text, _ in column], justify)
        if colours:
            codes = [CODES.get(style) for _, style in column]
            texts = [f"\x1b[{code}m{text}\x1b[0m" if code else text for text, code in zip(texts, codes, strict=True)]
        columns.append(texts)
    return [f"search {data.name}", *("  ".join(row).rstrip() for row in zip(*columns, strict=True))]


def aligned(texts: list[str], justify: Justify) -> list[str]:
    """The texts with spaces, so that all are as wide on a terminal as the widest."""
    width: Callable[[str], int] = len
    if not all(map(str.isascii, texts)):
        from rich.cells import cell_len  # some characters take two columns of a terminal

        width = cell_len
    most = max(map(width, texts))
    spaces = [" " * (most - width(text)) for text in texts]
    return [space + text if justify == "right" else text + space for text, space in zip(texts, spaces, strict=True)]


def _headings(data: StudyData) -> list[tuple[str, Justify]]:
    variables: list[tuple[str, Justify]] = [(name, "right") for name in data.spec.variables]
    values: list[tuple[str, Justify]] = [(objective.name, "right") for objective in data.objectives]
    rate: list[tuple[str, Justify]] = [] if data.spec.learning_rate is None else [("learning rate", "left")]
    ends: list[tuple[str, Justify]] = [*rate, ("tokens", "right"), ("time", "right")]
    return [("trial", "right"), ("layers", "left"), *variables, ("state", "left"), *values, *ends]


def _listed(data: StudyData, rows: int | None) -> list[tuple[TrialRecord, bool]]:
    """The trials to list, each with whether it is on the front."""
    front = {trial.number for trial in data.front}
    ended = [trial for trial in data.trials if trial.state in ENDED]
    latest = {trial.number for trial in ended[-rows:]} | front if rows is not None else None
    chosen = [trial for trial in ended if latest is None or trial.number in latest]
    running = [trial for trial in data.trials if trial.state == "running"]
    return [(t, t.number in front) for t in [*([data.baseline] if data.baseline else []), *chosen, *running]]


def _cells(trial: TrialRecord, data: StudyData, best: bool) -> list[tuple[str, str]]:
    """What stands under each heading for a trial, with its style."""
    state = "waiting" if trial.state == "running" and not trial.alive else trial.state
    tokens = trial.tokens if trial.trained else tokens_so_far(trial)
    values = trial.values if trial.values else (trial.rungs[-1]["values"] if trial.rungs else {})
    mark = "" if trial.values else "~"  # measured at a rung, on less text
    texts = [
        "base" if trial.number < 0 else str(trial.number),
        shortened(trial.layout),
        *(shown(trial.params.get(name, "")) for name in data.spec.variables),
        f"{state if state == 'waiting' else trial.standing}{' *' if best else ''}",
        *(mark + _with_spread(values, o.name, trial) if o.name in values else "" for o in data.objectives),
        *([] if data.spec.learning_rate is None else [trial.rate_text]),
        f"{tokens / 1e6:.2f}M",
        duration(trial.seconds) if trial.seconds else "",
    ]
    cells = [(text, "") for text in texts]
    place = 2 + len(data.spec.variables)
    cells[place] = (texts[place], STYLES.get(state, "dim"))
    return cells


def _line(trial: TrialRecord, data: StudyData) -> str:
    values = trial.values or (trial.rungs[-1]["values"] if trial.rungs else {})
    parts = [
        f"{trial.label:<9}",
        f"{trial.state:<8}",
        shortened(trial.layout),
        " ".join(f"{name}={shown(value)}" for name, value in trial.params.items()),
        " ".join(f"{name} {_with_spread(values, name, trial)}" for name in values),
        duration(trial.seconds),
        f"({len(data.trained)}/{data.spec.budget.trials})",
    ]
    return "  ".join(part for part in parts if part.strip()) + (f"  {trial.reason}" if trial.reason else "")


def _with_spread(values: Mapping[str, float], name: str, trial: TrialRecord) -> str:
    """A value; of several seeds, the mean and its standard error."""
    spread = trial.spread.get(name) if values is trial.values else None
    return shown(values[name]) + ("" if spread is None else f" ±{spread:.2g}")


def shortened(layout: str, most: int = 24) -> str:
    return layout if len(layout) <= most else layout[: most - 3] + "..."


def shown(value: Any) -> str:
    """A number as a person reads it: 1.234, 131,072, 3e-05."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return escaped_line(str(value))
    if isinstance(value, int) or (value.is_integer() and abs(value) >= 1000):
        return f"{int(value):,}"
    return f"{value:.4f}" if 0.01 <= abs(value) < 1000 else f"{value:.3g}"


def tokens_so_far(trial: TrialRecord) -> int:
    """The tokens that a run has logged. The log is ahead of the last checkpoint."""
    if trial.trained or trial.state == "paused" or trial.run_folder is None:
        return trial.tokens
    return sum(map(_logged, trial.run_folders)) or trial.tokens


def _logged(run: Path) -> int:
    try:
        with open(run / "metrics.jsonl", "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 65536))  # the line of an evaluation is long
            lines = file.read().decode(errors="replace").rpartition("\n")[0].splitlines()
        return int(parse_json(lines[-1])["tokens"])
    except (OSError, IndexError, KeyError, TypeError, ValueError):
        return 0


def summary(data: StudyData) -> list[str]:
    """How a study stands, in a few lines: counts, the best, the baseline."""
    counts = {state: sum(trial.state == state for trial in data.trials) for state in STYLES}
    parts = [f"{len(data.trained)} of {data.spec.budget.trials} trials trained"]
    parts += [f"{counts[state]} {state}" for state in STYLES if counts[state] and state != "complete"]
    lines = [f"{data.name}: {', '.join(parts)}"]
    if data.exhausted and len(data.trained) < data.spec.budget.trials:
        lines.append(f"all {data.assignments:g} assignments of the variables have been tried")
    if data.best is not None:
        if len(data.objectives) > 1:
            front = f"{len(data.front)} {'trial' if len(data.front) == 1 else 'trials'}"
            lines.append(f"front: {front} that no other beats in every objective; of these the lowest loss is")
        lines.append(f"best: {_result(data.best)}")
        variables = ", ".join(f"{name} {shown(value)}" for name, value in data.best.params.items())
        lines.append(f"      {shortened(data.best.layout)}, {variables}")
    if data.baseline is not None and data.baseline.losses:
        lines.append(f"base: {_result(data.baseline)}")
    elif data.baseline is not None and data.baseline.reason:
        lines.append(f"base: {data.baseline.state}, {data.baseline.reason}")
    if data.spec.seeds > 1:
        lines.append(f"values are means over {data.spec.seeds} seeds, ± their standard errors")
    if at_edge := sum(bool(trial.rate_at_edge) for trial in data.tuned):
        of = f"{at_edge} of {plural(len(data.tuned), 'sweep')}"
        lines.append(f"learning rate: the best is at the edge in {of}; a wider `learning_rate` may have a better one")
    if data.confirmation is not None:
        lines += words.lines(data.confirmation, data.spec.objectives, data.train.longest)
    if data.ladder is not None:
        lines += ladder_lines(data.ladder)
    return lines + _problems(data)


def _problems(data: StudyData) -> list[str]:
    """What is wrong with the files of trials, a line each."""
    broken = [trial for trial in [*([data.baseline] if data.baseline else []), *data.trials] if trial.problem]
    lines = [f"note: {trial.label}: {trial.problem}" for trial in broken[:PROBLEMS]]
    return lines + ([f"note: and {len(broken) - PROBLEMS} more trials"] if len(broken) > PROBLEMS else [])


def _result(trial: TrialRecord) -> str:
    values = ", ".join(f"{name} {_with_spread(trial.values, name, trial)}" for name in trial.values)
    losses = " ".join(f"{length}:{loss:.3f}" for length, loss in sorted(trial.bits_per_byte.items()))
    return f"{trial.label}, {values}; bits per byte by length {losses}"


def free_lines(data: StudyData) -> list[str]:
    """The trials that cost no training, and why."""
    return [
        f"{trial.label}: {trial.state}, {trial.reason}  " + " ".join(f"{k}={shown(v)}" for k, v in trial.params.items())
        for trial in data.trials
        if trial.state in ("infeasible", "duplicate")
    ]
