"""An entry in the model registry of MLflow: `models:/miniwin-1m@1` there is `miniwin-1m@1` here.

A registered model has the entry's name, and a version of it holds the entry's folder. MLflow numbers versions itself,
so tags say which entry one is. Aliases say what a release stands for, with dashes where MLflow allows no dot: `1-2-0`
is 1.2.0, `1-2` the newest 1.2, `1` the newest 1, and `newest`.

The order: files, version, aliases. Killed at any moment, the next call uses the files that came.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from miniwin.blocks.messages.passwords import without_secrets_of
from miniwin.specs import UserError
from miniwin.tracking import mlflow_client, sqlite_file
from miniwin.zoo.entry import Entry
from miniwin.zoo.errors import ZooError
from miniwin.zoo.http_client import offline
from miniwin.zoo.index import Release
from miniwin.zoo.references import Version

PLACE = "mlflow"
EXPERIMENT = "miniwin-zoo"
REF, DIGEST = "miniwin.ref", "miniwin.digest"
NEWEST = "newest"


def is_registry(to: str) -> bool:
    return to == PLACE or to.startswith(f"{PLACE}:")


def uri_of(to: str) -> str:
    """`mlflow:URI`, or `mlflow`, which is where MLFLOW_TRACKING_URI says.

    Raises:
        ZooError: nothing says where, or the network may not be used.
    """
    uri = to.partition(":")[2] or os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri:
        raise ZooError(f"{to}: set MLFLOW_TRACKING_URI, or name the server: --to {PLACE}:https://host")
    if offline() and uri.startswith(("http:", "https:")):
        raise ZooError(f"{to}: not asked, because MINIWIN_OFFLINE is set; unset it to use the network")
    return uri


class Registry:
    """uri: of a tracking server, or of its database, which also keeps the registered models."""

    def __init__(self, uri: str) -> None:
        if find_spec("mlflow") is None:
            raise UserError(f"{PLACE} needs the package mlflow, which is not installed: pip install 'miniwin[mlflow]'")
        self.uri, self.name = uri, without_secrets_of(uri, uri)
        with self._said():
            self._client = mlflow_client(uri)

    def publish(self, entry: Entry, release: Release) -> bool:
        """Register an entry. Returns whether it is new.

        Raises:
            ZooError: the registry has another entry of this name and version, or cannot be written to.
        """
        with self._said():
            if not self._known(release.name):
                self._client.create_registered_model(release.name)
            new = not self._has(release)
            if new:
                run = self._files(entry, release)
                self._client.create_model_version(
                    release.name,
                    source=f"{run.info.artifact_uri}/{release.ref}",
                    run_id=run.info.run_id,
                    tags={REF: release.ref, DIGEST: release.digest},
                    description=f"{release.ref}, an entry of a zoo of MiniWin",
                )
                self._has(release)  # raises where another publisher came first
            self._set_aliases(release.name)
            return new

    def _known(self, name: str) -> bool:
        return bool(self._client.search_registered_models(f"name = '{name}'", max_results=1))

    def _versions(self, name: str) -> list[Any]:
        """Of this model, those that are entries, in the order in which MLflow got them."""
        found: list[Any] = []
        token = None
        while token != "":
            page = self._client.search_model_versions(f"name = '{name}'", page_token=token)
            found += [one for one in page if REF in one.tags]
            token = page.token or ""
        return sorted(found, key=lambda one: int(one.version))

    def _has(self, release: Release) -> bool:
        """Whether a version is this release. The first one counts: two publishers may have come at once."""
        same = [one for one in self._versions(release.name) if one.tags[REF] == release.ref]
        for later in same[1:]:
            self._client.delete_model_version(release.name, later.version)
        if same and same[0].tags[DIGEST] != release.digest:
            raise ZooError(
                f"{release.ref} was not published: {self.name} has another {release.ref} (digest "
                f"{same[0].tags[DIGEST][:12]}..., yours is {release.digest[:12]}...), and a version never changes once "
                "published; add yours with a new version"
            )
        return bool(same)

    def _files(self, entry: Entry, release: Release) -> Any:
        """A finished run that has the entry's files: an earlier one, if a publisher was killed after it."""
        client = self._client
        found = client.get_experiment_by_name(EXPERIMENT)
        experiment = self._experiment() if found is None else found.experiment_id
        wanted = f"tags.`{DIGEST}` = '{release.digest}' and attributes.status = 'FINISHED'"
        for run in client.search_runs([experiment], wanted, max_results=1):
            return run
        run = client.create_run(experiment, run_name=release.ref, tags={REF: release.ref, DIGEST: release.digest})
        for file in release.files:
            inside = Path(release.ref) / Path(file.path).parent
            client.log_artifact(run.info.run_id, str(entry.folder / file.path), inside.as_posix())
        client.set_terminated(run.info.run_id, "FINISHED")
        return client.get_run(run.info.run_id)

    def _experiment(self) -> str:
        """A new one. Beside a database file its artifacts are, too, and not where the command happened to run."""
        file = sqlite_file(self.uri)
        place = None if file is None else (file.parent / "mlartifacts").as_uri()
        return str(self._client.create_experiment(EXPERIMENT, artifact_location=place))

    def _set_aliases(self, name: str) -> None:
        wanted: dict[str, tuple[Version, str]] = {}
        for one in self._versions(name):
            version = Version.parse(one.tags[REF].partition("@")[2])
            for alias in (*_aliases(version), NEWEST):
                if alias not in wanted or version > wanted[alias][0]:
                    wanted[alias] = (version, one.version)
        there = self._client.get_registered_model(name).aliases
        for alias, (_, number) in wanted.items():
            if str(there.get(alias)) != str(number):
                self._client.set_registered_model_alias(name, alias, number)

    @contextmanager
    def _said(self) -> Iterator[None]:
        """Turn what MLflow, a server or a database raises into an error of the zoo."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            said = without_secrets_of(self.uri, " ".join(str(error).split())[:400]) or type(error).__name__
            raise ZooError(f"{self.name}: {said}") from error


def _aliases(version: Version) -> tuple[str, ...]:
    numbers = [str(number) for number in (version.major, version.minor, version.patch)]
    return tuple("-".join(numbers[:count]) for count in (1, 2, 3))
