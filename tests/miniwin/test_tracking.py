"""MLflow as a view of runs: what it holds, and that nothing it does can fail a run."""

from __future__ import annotations

import json
import re
import sys
import urllib.request
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from browser import free_port, served
from search_helpers import make
from tiny_runs import tiny_model, tiny_train, write_text

from miniwin import tracking
from miniwin.runs import RunResult, read_evaluations, read_metrics, read_run
from miniwin.search import read_study, runner
from miniwin.search.worker import DONE, work
from miniwin.tracking import Tracker, tracking_uri
from miniwin.training.launch import train

needs_mlflow = pytest.mark.skipif(
    find_spec("mlflow") is None, reason="MLflow is not installed: pip install 'miniwin[mlflow]'"
)


def client(uri: str) -> Any:
    import mlflow  # it takes a second, which every worker would spend as it collects

    return mlflow.MlflowClient(tracking_uri=uri)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MINIWIN_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    write_text(tmp_path)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database that has its tables: making them takes seconds."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('tracking') / 'mlflow.db'}"
    Tracker.open(uri).close()
    return uri


def go(out: str, uri: str | None, **options: Any) -> RunResult:
    spec = tiny_train(log_every=5, tokens=20 * 128)
    return train(tiny_model(), spec, out=out, progress=False, tracking=uri, device="cpu", **options)


def points(uri: str, run_id: str | None, metric: str) -> list[tuple[int, float]]:
    history = client(uri).get_metric_history(run_id, metric)
    return sorted((point.step, point.value) for point in history)


def logged(folder: str, metric: str) -> list[tuple[int, float]]:
    return [(line["step"], line[metric]) for line in read_metrics(folder)]


class Broken:
    """A client whose server went away."""

    def __init__(self, real: Any = None) -> None:
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        def fail(*args: Any, **kwargs: Any) -> None:
            self.calls += 1
            raise ConnectionError("the server is away\nwith a second line")

        return fail


@needs_mlflow
def test_the_database_holds_what_the_run_folder_holds(database: str) -> None:
    result = go("run", database, experiment="a-study", run_name="the-run", parent_run="f" * 32)
    run = client(database).get_run(result.tracking_run)
    assert run.info.status == "FINISHED" and run.info.run_name == "the-run"
    assert client(database).get_experiment(run.info.experiment_id).name == "a-study"
    assert run.data.tags["status"] == "complete" and run.data.tags["mlflow.parentRunId"] == "f" * 32
    assert run.data.tags["spec_hash"] == tiny_model().hash
    assert run.data.params["train.optimizer.lr"] == "0.01" and run.data.params["layout"] == "SG"
    for metric in ("loss", "smoothed_loss", "lr", "grad_norm", "tokens", "tokens_per_second"):
        assert points(database, result.tracking_run, metric) == logged("run", metric)
    assert read_run("run")["tracking"] == {"uri": database, "run_id": result.tracking_run}


@needs_mlflow
def test_a_continued_run_is_one_run_without_duplicates(database: str) -> None:
    ids = {go("run", database, stop_after_tokens=tokens).tracking_run for tokens in (800, 1500)}
    assert client(database).get_run(*ids).info.status == "KILLED"
    result = go("run", database)
    assert {result.tracking_run} == ids
    assert points(database, result.tracking_run, "loss") == logged("run", "loss")
    run = client(database).get_run(result.tracking_run)
    assert (run.info.status, run.data.tags["status"], run.data.tags["reason"]) == ("FINISHED", "complete", "")


@needs_mlflow
def test_a_run_that_waits_says_so_and_another_process_may_end_it(database: str) -> None:
    result = go("run", database, on_eval=lambda tokens, model: "pause", eval_at=[5 * 128])
    run = client(database).get_run(result.tracking_run)
    assert (run.info.status, run.data.tags["status"]) == ("SCHEDULED", "paused") and result.status == "interrupted"
    study = Tracker.open(database)
    study.set_status("pruned", "behind the others", result.tracking_run)
    run = client(database).get_run(result.tracking_run)
    assert (run.info.status, run.data.tags["status"]) == ("KILLED", "pruned")
    assert run.data.tags["reason"] == "behind the others"
    assert client(database).get_run(study.run_id).info.status == "RUNNING"
    study.close()


@needs_mlflow
@pytest.mark.parametrize("sent", [5, 15])
def test_after_a_kill_the_database_catches_up(database: str, sent: int) -> None:
    """The process died with lines unsent (5), or sent past its last checkpoint (15), which is at step 10."""
    result = go("run", "off", stop_after_tokens=10 * 128)
    whole = go("whole", "off")
    tracker = Tracker.open(database)
    tracker.catch_up(line for line in read_metrics("whole") if line["step"] <= sent)
    tracker.close()
    record = Path("run/run.json")
    record.write_text(record.read_text().replace('"run_id": null', f'"run_id": "{tracker.run_id}"'))
    assert go("run", database).tracking_run == tracker.run_id != result.tracking_run
    assert points(database, tracker.run_id, "loss") == logged("run", "loss")
    assert logged("run", "loss") == logged("whole", "loss") and whole.steps == 20


@needs_mlflow
@pytest.mark.parametrize("cut", [False, True])
def test_evaluations_are_logged_once_under_names_that_mlflow_takes(database: str, cut: bool) -> None:
    """cut: the process died in the evaluation after step 10, and the loss of that step had been sent."""
    measure = {"every": 1280, "lengths": [64], "tokens": 64, "tasks": [{"type": "last-write"}], "examples": 2}
    spec = tiny_train(log_every=5, tokens=20 * 128, eval=measure)
    train(tiny_model(), spec, out="run", progress=False, tracking="off", device="cpu", stop_after_tokens=640 + cut)
    tracker = Tracker.open(database)
    tracker.catch_up([*read_metrics("run"), {"step": 10, "loss": 1.0}] if cut else [])
    tracker.close()
    record = Path("run/run.json")
    record.write_text(record.read_text().replace('"run_id": null', f'"run_id": "{tracker.run_id}"'))
    result = train(tiny_model(), spec, out="run", progress=False, tracking=database, device="cpu")
    names = ["loss", "bits_per_byte", "last-write", "last-write-nats"]
    for name in names:
        found = [(line["step"], line["eval"][f"{name}@64"]["value"]) for line in read_evaluations("run")]
        assert [step for step, _ in found] == [10, 20]
        assert points(database, result.tracking_run, f"eval/{name}_at_64") == found
    logged_names = client(database).get_run(result.tracking_run).data.metrics
    assert {name for name in logged_names if "eval" in name} == {f"eval/{name}_at_64" for name in names}


@needs_mlflow
def test_the_default_is_a_database_in_the_home(tmp_path: Path, database: str) -> None:
    home = tmp_path / "home"
    assert tracking_uri() == f"sqlite:///{home / 'mlflow.db'}"
    home.mkdir()
    (home / "mlflow.db").write_bytes(Path(database.removeprefix("sqlite:///")).read_bytes())
    result = go("run", None)
    assert points(f"sqlite:///{home / 'mlflow.db'}", result.tracking_run, "loss") == logged("run", "loss")
    assert {path.name for path in tmp_path.iterdir()} == {"cache", "home", "run", "text.txt"}, "no litter here"


def test_the_environment_names_another_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://example.org")
    assert tracking_uri() == "http://example.org"
    assert tracking_uri("off") == "off", "the argument comes first"


def test_off_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(uri: str) -> None:
        raise AssertionError("a tracker was opened")

    monkeypatch.setattr(tracking, "mlflow_client", never)
    result = go("run", "off")
    assert (result.status, result.tracking_run) == ("complete", None)
    assert not Path("home").exists()


@needs_mlflow
def test_a_tracker_that_cannot_open_does_not_fail_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a-file").write_text("")
    result = go("run", f"sqlite:///{Path('a-file').resolve()}/mlflow.db")
    assert (result.status, result.tracking_run) == ("complete", None)
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == 1 and "stopped, the run goes on: " in warnings[0]


@needs_mlflow
def test_a_server_that_goes_away_is_reported_once(
    database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = Broken()

    def lose_it(rung: int, model: object) -> None:
        opened[0]._client = broken

    opened: list[Tracker] = []
    real = Tracker.open
    monkeypatch.setattr(Tracker, "open", lambda *args, **named: opened.append(real(*args, **named)) or opened[0])
    monkeypatch.setattr(tracking, "FLUSH_SECONDS", 0.0)
    result = go("run", database, on_eval=lose_it, eval_at=[1000])
    assert result.status == "complete" and broken.calls == 1
    expected = f"tracking to {database} stopped, the run goes on: the server is away\n"
    assert capsys.readouterr().err == expected


def test_a_broken_tracker_gives_the_same_weights(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tracking, "mlflow_client", Broken)
    monkeypatch.setattr(tracking, "_have_mlflow", lambda asked_for: True)
    go("tracked", "http://example.invalid")
    assert capsys.readouterr().err.count("the run goes on") == 1
    go("plain", "off")
    weights = [Path(folder, "model.safetensors").read_bytes() for folder in ("tracked", "plain")]
    assert weights[0] == weights[1]


def test_without_mlflow_only_a_wish_is_answered(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert go("default", None).status == "complete"
    assert capsys.readouterr().err == ""
    assert go("asked", "http://example.org").status == "complete"
    assert capsys.readouterr().err == (
        "tracking to http://example.org needs MLflow, going on without: pip install 'miniwin[mlflow]'\n"
    )


@needs_mlflow
def test_many_points_travel_in_batches(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = Tracker.open(database)
    sizes: list[int] = []
    real = tracker._client.log_batch

    def count(run_id: str, metrics: Any = (), **named: Any) -> None:
        sizes.append(len(metrics))
        real(run_id, metrics=metrics, **named)

    monkeypatch.setattr(tracker._client, "log_batch", count)
    for step in range(1100):
        tracker.log_metrics({"loss": float(step), "text": "no number", "nan": float("nan")}, step)
    tracker.set_status("diverged", "loss nan")
    tracker.close()
    assert sizes == [1000, 100]
    run = client(database).get_run(tracker.run_id)
    assert run.info.status == "FAILED" and run.data.tags["reason"] == "loss nan"
    assert set(run.data.metrics) == {"loss"} and len(points(database, tracker.run_id, "loss")) == 1100


@needs_mlflow
def test_mlflow_ui_serves_a_study(tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command that the docs name, its page, and what the page asks for. test_dashboards.py has a browser."""
    study = make(tmp_path, train={"tokens": 256}, objectives=["minimize loss@64"], budget={"trials": 1})
    tracker = runner._track(study, database)
    assert work(study.folder, "0") == DONE
    tracker.set_status("complete")
    tracker.close()
    monkeypatch.setenv("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")  # eight processes that nobody asks for anything
    port = free_port()
    there = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "ui", "--workers", "1", "--backend-store-uri", database]

    def asked(path: str, **data: Any) -> Any:
        body = json.dumps(data).encode() if data else None
        request = urllib.request.Request(f"{there}/{path}", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    with served([*command, "--host", "127.0.0.1", "--port", str(port)], f"{there}/health", tmp_path):
        with urllib.request.urlopen(there) as answer:
            page = answer.read().decode()
        scripts = re.findall(r'<script[^>]* src="([^"]+)"', page)
        assert "<title>MLflow</title>" in page and scripts
        with urllib.request.urlopen(f"{there}/{scripts[-1]}") as answer:
            assert len(answer.read()) > 10_000
        api = "ajax-api/2.0/mlflow"
        found = asked(f"{api}/experiments/get-by-name?experiment_name=search/small")["experiment"]
        runs = asked(f"{api}/runs/search", experiment_ids=[found["experiment_id"]])["runs"]
    named = {run["info"]["run_name"]: run for run in runs}
    assert set(named) == {"small", "trial-0"}
    tags = {tag["key"]: tag["value"] for tag in named["trial-0"]["data"]["tags"]}
    assert tags["mlflow.parentRunId"] == named["small"]["info"]["run_id"]
    metrics = {one["key"]: one["value"] for one in named["trial-0"]["data"]["metrics"]}
    assert metrics["loss_at_64"] == pytest.approx(read_study(study.folder).trials[0].values["loss@64"])
