"""Is this folder free, and is the run in it the same run? Asked before anything is written to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from miniwin import runs
from miniwin.blocks.messages.listing import some
from miniwin.specs import ModelSpec, TrainSpec, UserError
from miniwin.training.start import same_start

LOCK_SECONDS = 10.0
PATHS = ("paths", "valid_paths", "test_paths")
FRESH = "choose another --out, or start over with --fresh"


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Make the folder, and keep other processes from training in it at the same time."""
    lock = FileLock(folder / runs.LOCK)
    try:
        _refuse_foreign(folder)
        folder.mkdir(parents=True, exist_ok=True)
        # After a process is killed, the processes that read data for it hold the lock for a few seconds more.
        lock.acquire(timeout=LOCK_SECONDS)
    except Timeout:
        raise UserError(f"another process is training in {folder}: wait for it, or choose another --out") from None
    except OSError as error:
        raise UserError(
            f"{folder}: no run folder can be made there ({error.strerror or error}); choose another --out"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _refuse_foreign(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; expected a folder for the run: choose another --out")
    if (folder / runs.RUN).exists():
        return
    foreign = [name for name in runs.FILES if (folder / name).exists()]
    if foreign:
        raise UserError(
            f"{folder} has a {foreign[0]} but no {runs.RUN}: it is not a run folder, and training would "
            "write over what is there: choose another --out"
        )
    # Hidden files, such as .gitignore or .DS_Store, make a folder nobody's own. The lock is one of them.
    others = sorted(one.name for one in folder.iterdir() if not one.name.startswith(".")) if folder.exists() else []
    if others:
        raise UserError(
            f"{folder} holds {some(others)} but no {runs.RUN}: it is not a run folder, and a run's files would lie "
            f"among what is there: choose another --out, such as {folder / 'run'}"
        )


def recorded(
    folder: Path,
    model: ModelSpec,
    train: TrainSpec,
    fingerprint: str,
    origin: dict[str, Any] | None = None,
    teacher: dict[str, Any] | None = None,
) -> dict[str, Any] | None:
    """The contents of run.json, if the folder holds this run.

    origin, teacher: what it would say of the weights it began with, and of the model that it learns from.

    None if the folder holds no run, or another run that never took a step.

    Raises:
        UserError: the folder holds another run, or run.json does not say what was trained.
    """
    if not (folder / runs.RUN).exists():
        return None
    before = runs.read_run(folder)
    try:
        other = _other(before, model, train, fingerprint, origin, teacher)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{folder / runs.RUN} does not say what was trained ({error!r}): put back the file, or {FRESH}"
        ) from None
    if other is None:
        return before
    if before.get("steps") == 0 and not any((folder / name).exists() for name in (runs.CHECKPOINT, runs.WEIGHTS)):
        return None
    raise UserError(f"{folder} holds a run {other}")


def _other(
    before: dict[str, Any],
    model: ModelSpec,
    train: TrainSpec,
    fingerprint: str,
    origin: dict[str, Any] | None,
    teacher: dict[str, Any] | None,
) -> str | None:
    """How the recorded run differs from this one, and what the user can do about it. None: it is the same run."""
    if before["spec_hash"] != model.hash:
        return (
            f"of another architecture ('{before['model']}', {before['spec_hash'][:12]} there; '{model.name}', "
            f"{model.hash[:12]} now): {FRESH}"
        )
    if began := same_start(before.get(runs.FROM), origin):
        return f"{began}, {FRESH}"
    taught = before.get(runs.TEACHER)
    if teacher is not None and taught is not None and taught["sha256"] != teacher["sha256"]:
        return (
            f"that learns from other weights (of {taught['ref']}, sha256 {taught['sha256'][:12]}; {teacher['ref']} has "
            f"{teacher['sha256'][:12]} now): put those back, {FRESH}"
        )
    now = train.model_dump(mode="json")
    if before["train"]["tokens"] < train.tokens:  # whether it can grow is asked later (growing.py)
        now["tokens"] = before["train"]["tokens"]
    if train.dtype == "auto":  # means what it meant when the run began
        now["dtype"] = before["train"]["dtype"]
    found = differences(_decisive(before["train"]), _decisive(now), "train")
    if found:
        return f"with other settings ({'; '.join(found)}): {FRESH}"
    if before["data"]["fingerprint"] != fingerprint:
        return (
            f"on other data (its fingerprint was {before['data']['fingerprint'][:12]}, and is {fingerprint[:12]} now): "
            f"put the data back, {FRESH}"
        )
    return None


def differences(before: Any, now: Any, path: str = "") -> list[str]:
    """The fields in which two dumped specs differ, as `train.optimizer.lr: 0.003 there, 0.001 now`."""
    if isinstance(before, dict) and isinstance(now, dict):
        found: list[str] = []
        for key in dict.fromkeys([*before, *now]):
            found += differences(before.get(key), now.get(key), f"{path}.{key}".lstrip("."))
        return found
    return [] if before == now else [f"{path}: {before!r} there, {now!r} now"]


def _decisive(train: dict[str, Any]) -> dict[str, Any]:
    """The fields that decide the result. Paths do not, as files may move: the fingerprint covers text and tokenizer."""
    left_out = ("name", "checkpoint_seconds", "tokenizer")
    found = {
        **{key: value for key, value in train.items() if key not in left_out},
        "data": _without_paths(train["data"]),
    }
    if distill := train.get("distill"):  # the teacher is known by its hash, and a cache changes nothing
        found["distill"] = {key: value for key, value in distill.items() if key not in ("teacher", "cache")}
    return found


def _without_paths(data: Any) -> Any:
    """A dumped data spec without its paths, those of a mixture's parts included."""
    if isinstance(data, list):
        return [_without_paths(part) for part in data]
    if not isinstance(data, dict):
        return data
    left_out = (*PATHS, "template")
    return {key: _without_paths(value) for key, value in data.items() if key not in left_out}
