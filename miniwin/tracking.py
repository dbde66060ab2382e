"""MLflow as a view of runs: parameters, metrics and status, in a local SQLite file or at any tracking URI.

The run folder is the truth. MLflow is optional, and imported only when a tracker opens. Nothing that MLflow does can
fail a run: the first error is reported in one line, and from then on that tracker does nothing.

The URI is the argument, else $MLFLOW_TRACKING_URI, else `sqlite:///<home>/mlflow.db`; "off" is no tracking.
"""

from __future__ import annotations

import logging
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from miniwin.blocks.messages.escaping import escaped
from miniwin.blocks.messages.passwords import masked, without_secrets_of
from miniwin.files.folders import home
from miniwin.specs import user_path

OFF = "off"
FLUSH_SECONDS = 10.0
BATCH = 1000  # metrics in one call: what MLflow accepts


def tracking_uri(uri: str | None = None) -> str:
    """The URI to track to, or "off"."""
    asked = uri or os.environ.get("MLFLOW_TRACKING_URI")
    if not asked:
        return _sqlite_url(home().resolve() / "mlflow.db")
    scheme = "sqlite:///" if asked.startswith("sqlite:///~") else ""
    return scheme + str(user_path(asked.removeprefix(scheme))) if scheme or asked.startswith("~") else asked


class Tracker:
    """One MLflow run. Every method returns at once, without raising, when there is nothing to track to."""

    def __init__(self, uri: str = OFF) -> None:
        self.uri = uri
        self.run_id: str | None = None
        self._client: Any = None  # None: there is nothing to track to, or no longer
        self._waiting: list[Any] = []
        self._flushed = time.monotonic()
        self._last: dict[str, int] = {}  # the last step that an earlier session logged, by metric

    @classmethod
    def open(
        cls,
        uri: str | None = None,
        experiment: str = "miniwin",
        run_name: str | None = None,
        parent_run: str | None = None,
        resume: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Tracker:
        """Start a run below `parent_run`, if given; or continue run `resume`, where it still exists."""
        asked_for = uri or os.environ.get("MLFLOW_TRACKING_URI")
        tracker = cls(asked_for or "a file")
        try:
            tracker.uri = tracking_uri(uri)
            if tracker.uri == OFF or not _have_mlflow(asked_for):
                return tracker
            tracker._open(experiment, run_name, parent_run, resume, dict(tags or {}))
        except Exception as error:  # whatever a server, a database or MLflow itself may throw
            tracker._give_up(error)
        return tracker

    def _open(
        self,
        experiment: str,
        run_name: str | None,
        parent_run: str | None,
        resume: str | None,
        tags: dict[str, str],
    ) -> None:
        from filelock import FileLock

        client = mlflow_client(self.uri)
        local = sqlite_file(self.uri)
        if local is None:
            self.run_id = _start(client, experiment, None, run_name, parent_run, resume, tags)
        else:
            # Two processes that create the tables of one file at the same time trip over each other.
            local.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(local.with_name(f".{local.name}.lock"), timeout=60):
                artifacts = (local.parent / "mlartifacts").resolve().as_uri()
                self.run_id = _start(client, experiment, artifacts, run_name, parent_run, resume, tags)
        self._client = client
        if resume == self.run_id:
            run = client.get_run(self.run_id)
            for name in run.data.metrics:
                history = client.get_metric_history(self.run_id, name)
                self._last[name] = max(point.step for point in history)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log what went into the run; nested mappings become `a.b.c`. Parameters logged before stay as they are."""

        def log() -> None:
            from mlflow.entities import Param

            known = self._client.get_run(self.run_id).data.params
            fresh = [Param(key, str(value)[:6000]) for key, value in _flat(params) if key not in known]
            for start in range(0, len(fresh), 100):
                self._client.log_batch(self.run_id, params=fresh[start : start + 100])

        self._safely(log)

    def log_metrics(self, metrics: Mapping[str, Any], step: int) -> None:
        """Log the numbers of one step, in batches. Steps that an earlier session logged are skipped."""
        if self._client is None:
            return
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        for name, value in metrics.items():
            known = step <= self._last.get(name, -1)
            if not known and isinstance(value, int | float) and math.isfinite(value):
                self._waiting.append(Metric(name, float(value), now, step))
        if len(self._waiting) >= BATCH or time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self.flush()

    def catch_up(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Log those lines of metrics.jsonl that no earlier session has logged."""
        for line in lines:
            self.log_metrics(_metrics(line), line["step"])

    def flush(self) -> None:
        """Send what waits."""
        waiting, self._waiting = self._waiting, []
        self._flushed = time.monotonic()
        for start in range(0, len(waiting), BATCH):
            self._safely(partial(self._send, waiting[start : start + BATCH]))

    def _send(self, metrics: list[Any]) -> None:
        self._client.log_batch(self.run_id, metrics=metrics)

    def set_status(self, status: str, reason: str | None = None, run: str | None = None) -> None:
        """Log how a run ended, in our words (a tag) and in MLflow's. run: another one than this tracker's own."""
        known = {"complete": "FINISHED", "pruned": "KILLED", "interrupted": "KILLED", "paused": "SCHEDULED"}
        ended = run or self.run_id

        def log() -> None:
            self._client.set_tag(ended, "status", status)
            self._client.set_tag(ended, "reason", (reason or "")[:5000])
            self._client.set_terminated(ended, status=known.get(status, "FAILED"))

        self.flush()
        self._safely(log)

    def close(self) -> None:
        """Send what waits. From then on the tracker does nothing."""
        self.flush()
        self._client = None

    def _safely(self, action: Callable[[], Any]) -> None:
        """Run an action of MLflow, as long as there is something to track to."""
        if self._client is not None:
            try:
                action()
            except Exception as error:  # as in `open`
                self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        """The first error ends the tracking, never the run."""
        text = without_secrets_of((str(error).strip() or type(error).__name__).splitlines()[0], self.uri)
        _warn(f"tracking to {masked(self.uri)} stopped, the run goes on: {text[:300]}")
        self._client, self._waiting = None, []


def _metrics(line: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a line of metrics.jsonl, by names that MLflow takes: it has no @."""
    if "eval" in line:
        return {f"eval/{name.replace('@', '_at_')}": row["value"] for name, row in line["eval"].items()}
    return dict(_flat({name: value for name, value in line.items() if name != "step"}))  # losses.NAME of parts


def _have_mlflow(asked_for: str | None) -> bool:
    from importlib.util import find_spec

    if find_spec("mlflow") is not None:
        return True
    if asked_for:
        _warn(f"tracking to {masked(asked_for)} needs MLflow, going on without: pip install 'miniwin[mlflow]'")
    return False


def _warn(line: str) -> None:
    print(escaped(line), file=sys.stderr, flush=True)  # the line may quote a server


def mlflow_client(uri: str) -> Any:
    """MLflow's client: no telemetry, no chatter, and no waiting for minutes when a server is away."""
    for name, value in (
        ("MLFLOW_DISABLE_TELEMETRY", "true"),
        ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2"),
        ("MLFLOW_HTTP_REQUEST_TIMEOUT", "20"),
    ):
        os.environ.setdefault(name, value)
    import mlflow

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return mlflow.MlflowClient(tracking_uri=uri)


def _start(
    client: Any,
    experiment: str,
    artifacts: str | None,
    run_name: str | None,
    parent_run: str | None,
    resume: str | None,
    tags: dict[str, str],
) -> str:
    """The id of the MLflow run: the one to resume where it still exists, otherwise a new one."""
    from mlflow.exceptions import MlflowException

    if resume:
        try:
            client.update_run(resume, status="RUNNING")
            return resume
        except MlflowException:
            pass  # another database than last time: start over in this one
    found = client.get_experiment_by_name(experiment)
    if found is None:
        number = client.create_experiment(experiment, artifact_location=artifacts)
    else:
        number = found.experiment_id
    if parent_run:
        tags = {**tags, "mlflow.parentRunId": parent_run}
    run_id: str = client.create_run(number, run_name=run_name, tags=tags).info.run_id
    return run_id


def _sqlite_url(path: Path) -> str:
    """The URL that means the file at `path` to SQLAlchemy."""
    if not re.search("[?#%]", str(path)):
        return f"sqlite:///{path}"
    from sqlalchemy import __version__
    from sqlalchemy.engine import URL, make_url

    url = URL.create("sqlite", database=str(path)).render_as_string()
    if make_url(url).database != str(path):
        raise ValueError(f"SQLAlchemy {__version__} has no URL for {path}; set MINIWIN_HOME to a folder without ?")
    return url


def sqlite_file(uri: str) -> Path | None:
    """The file that a URL means to SQLAlchemy."""
    if not uri.startswith("sqlite:///"):
        return None
    from sqlalchemy.engine import make_url

    name = make_url(uri).database
    return None if name in (None, "", ":memory:") or name.startswith("file:") else Path(name).absolute()


def _flat(params: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    items: list[tuple[str, Any]] = []
    for key, value in params.items():
        if isinstance(value, Mapping):
            items += _flat(value, f"{prefix}{key}.")
        else:
            items.append((f"{prefix}{key}", value))
    return items
