"""`adapt`: the whole of it. Check, say what will be done, search, measure, write.

Every scored placement is on disk at once, in a journal beside the folder of the result. The same command reads it and
goes on. The folder appears when all is done, with the journal in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch

from miniwin.files.hashing import sha256_file
from miniwin.files.writing import remove_tree
from miniwin.inference import evaluating
from miniwin.language_model import LanguageModel
from miniwin.loading import load
from miniwin.runs import WEIGHTS
from miniwin.search.adapt.healing import heal, healing_spec
from miniwin.search.adapt.plan import Plan
from miniwin.search.adapt.prepared import Prepared, prepare
from miniwin.search.adapt.result import result_of
from miniwin.search.adapt.settings import Settings
from miniwin.search.adapt.words import intention
from miniwin.search.adapt.working import Adapting, Told
from miniwin.search.adapt.writing import OUT, new_name, write_result
from miniwin.specs import user_path
from miniwin.zoo.importing.writing import refuse_existing

JOURNAL, HEALING = ".adapt.jsonl", ".healing"  # behind the name of the folder


def adapt(
    ref: str,
    settings: Settings,
    out: str | Path,
    *,
    told: Told | None = None,
    device: str = "cpu",
    dry_run: bool = False,
    progress: bool = False,
    say: Callable[[str], object] = lambda text: None,
) -> Path | None:
    """Find a placement for the model `ref`, and write it into the new folder `out`, with its report.

    say: is told what will be done, before it is done. dry_run: nothing more is done; the result is None. progress: of
    healing. The same call continues one that was stopped.

    Raises:
        UserError: something that was asked for cannot be done. The folder is then not there.
    """
    folder = user_path(out).absolute()
    refuse_existing(folder, OUT)
    prepared = prepare(ref, settings)
    if settings.heal:
        healing_spec(prepared, new_name(prepared))
    model = load(ref, device=device, dtype=torch.float32)
    if dry_run:
        say(intention(prepared, expected_seconds(model, prepared), 0))
        return None
    adapting = Adapting(prepared, model, folder.with_name(folder.name + JOURNAL), told)
    say(intention(prepared, expected_seconds(model, prepared), len(adapting.journal.entries)))
    searched = adapting.search()
    measured, run = adapting.measure(searched), None
    if settings.heal:
        beside, name = folder.with_name(folder.name + HEALING), new_name(prepared)
        run = heal(prepared, searched.chosen, name, beside, device=device, progress=progress)
        healed = load(run, device=device, dtype=torch.float32)
        measured = adapting.measure_healed(measured, searched, healed, sha256_file(run / WEIGHTS))
    result = result_of(prepared, searched, measured)
    write_result(folder, prepared, searched, result, adapting.journal.path, run)
    if run is not None:
        remove_tree(run.parent)
    return folder


def expected_seconds(model: LanguageModel, prepared: Prepared) -> dict[str, float]:
    """About how long each part takes on this machine: one short pass is timed."""
    ids = torch.tensor([prepared.rows[0].ids[:512]], device=model.device)
    with evaluating(model):
        times = []
        for _ in range(2):
            began = time.monotonic()
            model.decoder.hidden(ids)
            times.append(time.monotonic() - began)
    spec, settings = prepared.origin.spec, prepared.settings
    rate = (spec.forward_flops(512) - 2 * spec.vocab_size * spec.hidden_size) * ids.shape[1] / min(times)

    def seconds(plan: Plan, tokens: int, rows: int) -> float:
        return plan.spec_of(plan.dearest(prepared.size)).forward_flops(tokens) * tokens * rows / rate

    return {
        "search": settings.evaluations * seconds(prepared.search_plan, settings.search_len, settings.search_rows) * 0.8,
        "gates": 3.5 * seconds(prepared.search_plan, settings.search_len, settings.gates),
        "report": 6 * seconds(prepared.plan, settings.seq_len, settings.rows),
        "healing": 4 * seconds(prepared.plan, settings.seq_len, 1) * settings.heal / settings.seq_len,
    }
