"""Both searches, one after the other, and what has to hold of the one that was disturbed."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from benchmarks.checks import Check
from benchmarks.search_chaos.checks import check
from benchmarks.search_chaos.disk import small_disk
from benchmarks.search_chaos.disturbing import Disturbed, Disturbing, Plan
from benchmarks.search_chaos.study import STEPS, write_specs

if TYPE_CHECKING:
    from forked import Command
    from postgres import Postgres

SHARE = 1 / 8  # of the time of the undisturbed search, in which the kills are spread


def chaos(
    folder: Path,
    server: Postgres | None,
    *,
    kills: int,
    workers: int,
    steps: int = STEPS,
    seed: int = 0,
    **changes: Any,
) -> list[Check]:
    """Run both searches in a folder. server: None: in a journal file. changes: of the search spec."""
    specs, draw = write_specs(folder, steps, **changes), random.Random(seed)
    environment = {"OMP_NUM_THREADS": "1", "MINIWIN_CACHE": str(folder / "cache")}
    where: list[str] = []
    if server is not None:
        from postgres import PASSWORD  # of tests/support

        url = server.database(f"chaos-{folder.name}")
        where = ["--storage", url]
        environment |= {"MINIWIN_STORAGE_URL": url, "MINIWIN_STORAGE_PASSWORD": PASSWORD}
    with patch.dict(os.environ, environment):
        began = time.monotonic()
        alone = folder / "undisturbed" / "study"
        code, _, error = _search(folder, specs[1], alone, 1).ends()
        assert code == 0, error
        seconds = time.monotonic() - began
        with small_disk(folder / "disk") as disk:
            study = disk.folder / "study"
            turns = draw.sample(range(kills // 4, max(3 * kills // 4, 2)), 2)
            plan = Plan(kills, SHARE * seconds / kills, None if server is None else turns[0], turns[1])

            def begin(file_limit: int | None) -> Command:
                return _search(folder, specs[0], study, workers, *where, file_limit=file_limit)

            told = Disturbing(begin, plan, draw, disk, restart=lambda: server and server.restart()).run()
            print(
                f"undisturbed: {seconds:.0f} s\ndisturbed: {told.seconds:.0f} s, {workers} workers, "
                f"{'PostgreSQL' if server else 'a journal'}; killed: {told.workers_killed} workers and "
                f"{told.commands_killed} commands; the server restarted {told.restarts} times; {told.full_disks} times "
                f"no room ({disk.how}); the command given {told.commands} times",
                flush=True,
            )
            return [Check("all was done to it that was planned", _missing(told, plan)), *check(study, alone, told)]


def _search(folder: Path, spec: Path, out: Path, workers: int, *more: str, file_limit: int | None = None) -> Command:
    from forked import Command  # of tests/support

    command = ["search", "run", str(spec), "--out", str(out), "--workers", str(workers), "--tracking", "off", *more]
    return Command(*command, told=folder / "told.json", file_limit=file_limit)


def _missing(told: Disturbed, plan: Plan) -> list[str]:
    done = (
        ("kills", told.kills, plan.kills),
        ("restarts of the server", told.restarts, int(plan.restart is not None)),
        ("full disks", told.full_disks, int(plan.full is not None)),
    )
    return [f"{found} of {asked} {what}" for what, found, asked in done if found < asked]
