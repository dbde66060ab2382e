"""`miniwin explain --backends`: what it says is what the dispatch does; and a backend forced by the environment."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import Any

import pytest
import torch
from helpers import attention, tiny_spec
from typer.testing import CliRunner

from miniwin.blocks import native
from miniwin.blocks.attention_ops import dispatch
from miniwin.cli import app
from miniwin.explain.backends import PHASES, alike, backends

SPEC = {
    "S": attention(8, {"type": "rope"}),
    "G": attention(None, {"type": "nope"}),
    "A": attention(8, {"type": "alibi"}),
    "C": attention(None, {"type": "rope"}, chunk=16),
    "K": attention(8, {"type": "rope"}, keep_first=2, sinks=True),
    "F": attention(None, {"type": "forgetting"}),
}


def test_a_layer_has_a_backend_for_every_phase_and_device() -> None:
    rows = backends(tiny_spec(SPEC))
    assert len(rows) == len(SPEC) * len(PHASES) * 2
    found = {(row["block"], row["device"], row["phase"]): row for row in rows}
    assert found["S", "cpu", "prefill"]["backend"] == "cpu_banded"
    assert found["S", "cpu", "decode"]["backend"] == "sdpa"
    assert found["G", "cpu", "chunk on a cache"]["backend"] == "cpu_chunked"
    assert (
        found["G", "cpu", "training"]["declined"]["cpu_banded"] == "it is for a window; a global layer sees every key"
    )
    assert found["C", "cpu", "prefill"]["backend"] == "block_local"
    assert found["K", "cpu", "training"]["backend"] == "cpu_banded"
    assert found["F", "cuda", "training"]["backend"] == "tiled"
    assert "CUDA" in found["S", "cpu", "prefill"]["declined"]["xformers"]
    on_cuda = {row["backend"] for row in rows if row["device"] == "cuda"}
    assert on_cuda.isdisjoint({"cpu_banded", "cpu_chunked"})


@pytest.mark.parametrize("block", SPEC)
def test_it_says_what_the_dispatch_does(block: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = tiny_spec({block: SPEC[block]})
    said = {(row["device"], row["phase"]): row["backend"] for row in backends(spec)}
    asked: list[str] = []
    choose = dispatch.choose

    def record(call: Any) -> Any:
        backend = choose(call)
        asked.append(str(backend.NAME))
        return backend

    monkeypatch.setattr(dispatch, "choose", record)
    model = spec.build()
    ids = torch.randint(0, spec.vocab_size, (1, 40))
    model(ids)
    assert asked[0] == said["cpu", "training"]
    asked.clear()
    with torch.no_grad():
        model(ids)
    assert asked[0] == said["cpu", "prefill"]


def test_the_command() -> None:
    result = CliRunner().invoke(app, ["explain", "miniwin-1m", "--backends"])
    assert result.exit_code == 0, result.output
    assert "cpu_native" in result.output and "why not those before it" in result.output
    assert re.search(r"cpu_banded,\s+cpu_causal", result.output)  # one reason, said once
    data = json.loads(CliRunner().invoke(app, ["explain", "miniwin-1m", "--backends", "--json"]).output)
    assert {row["phase"] for row in data["backends"]} == set(PHASES)
    assert data["generation"] == {"cpu": native.missing(), "cuda": None}
    assert "all layers in one CUDA graph for each token" in result.output
    other = CliRunner().invoke(app, ["explain", "gpt-oss-20b", "--backends"]).output
    assert "cpu   layer by layer: " in other and "cuda  layer by layer: " in other


def test_phases_with_one_answer_are_one_row() -> None:
    def row(phase: str, backend: str, device: str = "cpu") -> dict[str, Any]:
        return {"block": "S", "layers": [0], "device": device, "phase": phase, "backend": backend, "declined": {}}

    first, *rest = PHASES
    said = alike([*(row(phase, "flex", "cuda") for phase in PHASES), row(first, "a"), *(row(p, "b") for p in rest)])
    assert [(one["device"], one["phase"], one["backend"]) for one in said] == [
        ("cuda", "all", "flex"),
        ("cpu", first, "a"),
        ("cpu", ", ".join(rest), "b"),
    ]


def test_a_backend_forced_by_the_environment() -> None:
    code = (
        "import torch\n"
        "from miniwin.blocks.attention_ops import AttentionCall, attend, choose\n"
        "q = torch.randn(1, 9, 2, 8)\n"
        "print(choose(AttentionCall(q, q, q, 1.0, window=4)).NAME)\n"
        "attend(AttentionCall(q, q, q, 1.0))\n"
    )
    environment = {**os.environ, "MINIWIN_ATTENTION": "cpu_banded"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout == "cpu_banded\n"
    assert "'cpu_banded' cannot answer this call: it is for a window" in done.stderr
