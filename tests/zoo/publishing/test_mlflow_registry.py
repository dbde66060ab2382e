"""Entries in MLflow's model registry: the same files, found by aliases, never overwritten, killed at any moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from tiny import run_cli

from miniwin.zoo import Entry, ZooError, verify
from miniwin.zoo.entry import open_entry
from miniwin.zoo.publishing import mlflow_registry
from miniwin.zoo.publishing.publish import publish

Entries = dict[str, Entry]


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for all tests: making its tables takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('registry') / 'registry.db'}"


def put(entries: Entries, ref: str, uri: str) -> Any:
    return publish(entries[ref].folder, f"mlflow:{uri}", logits=False)


def refs(uri: str, name: str) -> dict[str, str]:
    """What each alias of a registered model stands for."""
    client = MlflowClient(uri, uri)
    aliases = client.get_registered_model(name).aliases
    return {alias: client.get_model_version(name, number).tags["miniwin.ref"] for alias, number in aliases.items()}


def test_an_alias_gives_the_entry_that_was_published(
    entries: Entries, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert put(entries, "tiny@1.1.0", uri).new and put(entries, "tiny@1.0.0", uri).new
    assert not put(entries, "tiny@1.0.0", uri).new  # the same again
    newest, older = "tiny@1.1.0", "tiny@1.0.0"
    assert refs(uri, "tiny") == {"1": newest, "1-1": newest, "1-1-0": newest, "newest": newest} | {
        "1-0": older,
        "1-0-0": older,
    }
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", uri)
    there = open_entry(Path(download_artifacts("models:/tiny@1", dst_path=str(tmp_path / "there"))), "folder")
    assert there.ref == newest and verify(there) == []
    assert (Path(uri.removeprefix("sqlite:///")).parent / "mlartifacts").is_dir()  # and nothing where we are
    code, out, _ = run_cli("zoo", "publish", str(entries["another@1.0.0"].folder), "--to", "mlflow", "--no-logits")
    assert code == 0 and f"published another@1.0.0 to {uri}" in out


def test_a_version_never_changes(entries: Entries, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put(entries, "another@1.0.0", uri)
    client = MlflowClient(uri, uri)
    (version,) = client.search_model_versions("name = 'another'")
    client.set_model_version_tag("another", version.version, "miniwin.digest", "0" * 64)
    with pytest.raises(ZooError, match=r"has another another@1\.0\.0 .*never changes once published"):
        put(entries, "another@1.0.0", uri)
    client.delete_registered_model("another")


def test_a_publisher_that_was_killed_leaves_files_that_are_used(
    entries: Entries, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die(*_: Any, **__: Any) -> None:
        raise Killed

    for step in ("create_model_version", "set_registered_model_alias"):
        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, step, die)
            with pytest.raises(Killed):
                put(entries, "tiny@2.0.0", uri)
    put(entries, "tiny@2.0.0", uri)
    client = MlflowClient(uri, uri)
    experiment = client.get_experiment_by_name(mlflow_registry.EXPERIMENT)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.`miniwin.ref` = 'tiny@2.0.0'")
    assert len(runs) == 1 and refs(uri, "tiny")["2"] == "tiny@2.0.0"


def test_what_cannot_be_is_one_message(entries: Entries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = str(entries["tiny@1.0.0"].folder)
    code, _, err = run_cli("zoo", "publish", folder, "--to", "mlflow")
    assert code == 2 and "set MLFLOW_TRACKING_URI, or name the server" in err
    monkeypatch.setenv("MINIWIN_OFFLINE", "1")
    code, _, err = run_cli("zoo", "publish", folder, "--to", "mlflow:https://models.example")
    assert code == 2 and "MINIWIN_OFFLINE is set" in err
    code, _, err = run_cli("zoo", "publish", folder, "--to", "mlflow:nonsense://x", "--no-logits")
    assert code == 2 and "nonsense" in err and "Traceback" not in err
