"""Optuna's dashboard and MLflow's pages show a study as it is, without any conversion."""

from __future__ import annotations

import json
import os
import re
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from browser import browser, free_port, page_in_browser, served
from search_helpers import make, tried

from miniwin.runs import read_run
from miniwin.search import read_study, runner
from miniwin.search.worker import DONE, work

TWO = ["minimize loss@64", "minimize cache_bytes@64"]
PROGRAMS = Path(sys.executable).parent


def words(page: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", re.sub(r"(?s)<(style|script).*?</\1>", "", page)).split())


@contextmanager
def dashboard(url: str) -> Iterator[str]:
    """What the command serves, in this process."""
    from optuna_dashboard import wsgi

    class Quiet(WSGIRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with make_server("127.0.0.1", 0, wsgi(url), handler_class=Quiet) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def dashboard_command(journal: Path, folder: Path) -> Iterator[str]:
    there = f"http://127.0.0.1:{(port := free_port())}"
    command = [str(PROGRAMS / "optuna-dashboard"), str(journal), "--server", "wsgiref", "--host", "127.0.0.1"]
    with served([*command, "--port", str(port)], f"{there}/api/studies", folder):
        yield there


@pytest.mark.skipif(find_spec("optuna_dashboard") is None, reason="optuna-dashboard is not installed here")
@pytest.mark.parametrize("kept", ["journal", "sqlite"])
def test_optunas_dashboard_shows_a_study(tmp_path: Path, kept: str) -> None:
    url = None if kept == "journal" else f"sqlite:///{tmp_path}/study.db"
    study = tried(make(tmp_path, url, objectives=TWO, constraints=[], budget={"trials": 3}), 3)
    before = (study.folder / "journal.log").read_bytes() if url is None else b""
    with dashboard(url) if url else dashboard_command(study.folder / "journal.log", tmp_path) as there:
        with urllib.request.urlopen(f"{there}/api/studies") as answer:
            (summary,) = json.load(answer)["study_summaries"]
        assert summary["study_name"] == "small" and summary["directions"] == ["minimize", "minimize"]
        number = summary["study_id"]
        with urllib.request.urlopen(f"{there}/api/studies/{number}") as answer:
            shown = json.load(answer)
        assert [trial["state"] for trial in shown["trials"]] == ["Complete"] * 3
        assert shown["objective_names"] == ["loss@64", "cache_bytes@64"]
        if kept == "journal":  # the browser looks once: the page is the same
            browser()
            page = words(page_in_browser(f"{there}/dashboard/studies/{number}"))
            assert "small" in page and "Pareto" in page and "loss@64" in page
    if url is None:
        assert (study.folder / "journal.log").read_bytes() == before


@pytest.mark.skipif(not os.environ.get("MINIWIN_TEST_MLFLOW"), reason="slow: runs where MINIWIN_TEST_MLFLOW is set")
@pytest.mark.skipif(find_spec("mlflow") is None, reason="MLflow is not installed here")
def test_mlflow_shows_a_study(tmp_path: Path) -> None:
    browser()
    study = make(tmp_path, objectives=TWO, budget={"trials": 1})
    store = f"sqlite:///{tmp_path}/mlflow.db"
    tracker = runner._track(study, store)
    assert work(study.folder, "0") == DONE
    tracker.set_status("complete")
    tracker.close()
    port = free_port()
    there = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--backend-store-uri", store]
    with served([*command, "--host", "127.0.0.1", "--port", str(port)], f"{there}/health", tmp_path):
        (trial,) = read_study(study.folder).trials
        assert trial.run_folder is not None
        page = words(
            page_in_browser(f"{there}/#/experiments/1/runs/{read_run(trial.run_folder)['tracking']['run_id']}", 20)
        )
    assert "search/small" in page and "trial-0" in page
    shown = re.search(r"loss_at_64 ([\d.]+)", page)  # MLflow shows as many digits as it likes
    assert shown and float(shown[1]) == pytest.approx(trial.values["loss@64"], abs=1e-6)
