"""What is written down about a piece of work: who holds it (a lease), and what came of it so far (an outcome).

A piece of work is a trial, the baseline, or a training when the trials are over. A study with a journal has files for
both (FileEntry). A study in a database, or behind a proxy, has attributes of Optuna's trial or study (StoredEntry), so
that a worker has to see nothing but the storage:

    lease, outcome                          of a trial
    lease:baseline, outcome:baseline        of the study, since Optuna knows no such trial
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from miniwin.search.leases import Lease, LeaseFile, lease_of
from miniwin.search.outcome import Outcome
from miniwin.specs import UserError

LEASE, OUTCOME = "lease", "outcome"


class LeaseLost(Exception):
    """Another process has taken the work over: what this one knows of it is not to be written down."""


class Entry(Protocol):
    def lease(self) -> Lease | None:
        """The lease, if there is one that can be read."""

    def hold(self, lease: Lease) -> None: ...

    def begin(self, outcome: Outcome, lease: Lease) -> None:
        """Write the outcome of an attempt that begins, then take the lease."""

    def let_go(self) -> None: ...

    def outcome(self) -> Outcome | None:
        """The outcome, if there is one that can be read; without its specs, if they are not kept there."""

    def write(self, outcome: Outcome, holder: Lease | None = None) -> None:
        """holder: who has to hold the lease for this. LeaseLost if it is somebody else by now."""


class FileEntry(LeaseFile):
    """A lease in a file, and trial.json in a folder."""

    def __init__(self, lease: Path, folder: Path) -> None:
        super().__init__(lease)
        self.folder = folder

    def begin(self, outcome: Outcome, lease: Lease) -> None:
        self.write(outcome)
        self.hold(lease)

    def outcome(self) -> Outcome | None:
        return Outcome.read_sound(self.folder)

    def write(self, outcome: Outcome, holder: Lease | None = None) -> None:
        outcome.write(self.folder)


class StoredEntry:
    """Attributes of a trial or of a study. of: in their names. read, write: all attributes, and some of them, in this
    order. seen: the attributes as they were read a moment ago, to be used in place of new ones."""

    def __init__(
        self,
        read: Callable[[], Mapping[str, Any]],
        write: Callable[[Mapping[str, Any]], None],
        of: str = "",
        seen: Mapping[str, Any] | None = None,
    ) -> None:
        self._read = read if seen is None else lambda: seen
        self._write = write
        self._lease, self._outcome = (f"{name}:{of}" if of else name for name in (LEASE, OUTCOME))

    def lease(self) -> Lease | None:
        return lease_of(self._read().get(self._lease))

    def hold(self, lease: Lease) -> None:
        self._write({self._lease: asdict(lease)})

    def begin(self, outcome: Outcome, lease: Lease) -> None:
        self._write({self._outcome: outcome.to_attribute(), self._lease: asdict(lease)})

    def let_go(self) -> None:
        from optuna.exceptions import UpdateFinishedTrialError

        try:
            if self._read().get(self._lease) is not None:
                self._write({self._lease: None})
        except UpdateFinishedTrialError:  # nobody asks for the lease of a trial that has ended
            pass

    def outcome(self) -> Outcome | None:
        return outcome_in(self._read(), self._outcome)

    def write(self, outcome: Outcome, holder: Lease | None = None) -> None:
        from optuna.exceptions import UpdateFinishedTrialError

        said = outcome.to_attribute()
        if holder is not None:
            attributes = self._read()
            if not holder.same_holder(lease_of(attributes.get(self._lease))):
                raise LeaseLost
        try:
            self._write({self._outcome: said})
        except UpdateFinishedTrialError:
            if self._read().get(self._outcome) != said:  # or an earlier try has arrived
                raise LeaseLost from None


def outcome_in(attributes: Mapping[str, Any], name: str = OUTCOME) -> Outcome | None:
    """The outcome among attributes; None if there is none that can be read."""
    said = attributes.get(name)
    if said is None:
        return None
    try:
        return Outcome.of_attribute(said)
    except UserError:
        return None
