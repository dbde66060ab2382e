"""Rows of several documents: each document as if alone, in outputs and gradients, on every backend and in training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import enliven
from tiny_runs import tiny_model, tiny_train
from torch import Tensor

from miniwin.blocks import AttentionCall, attend, use_backend
from miniwin.blocks.attention_ops import BACKENDS
from miniwin.blocks.documents import Documents
from miniwin.data import document_numbers
from miniwin.runs import read_metrics
from miniwin.specs import UserError
from miniwin.training.launch import train

# Two rows of 13 tokens: documents of 5, 1 and 7, and of 4 and 9.
NUMBERS = torch.tensor([[0] * 5 + [1] + [2] * 7, [0] * 4 + [3] * 9])
SPANS = [(0, 0, 5), (0, 5, 6), (0, 6, 13), (1, 0, 4), (1, 4, 13)]

FEATURES: dict[str, dict[str, Any]] = {
    "global": {},
    "window": {"window": 3},
    "chunk": {"chunk": 3},
    "sinks": {"window": 4, "sinks": torch.tensor([0.3, -0.2, 0.0, 1.0])},
    "bias": {"bias": lambda distance: -0.1 * distance.abs().float().expand(4, -1, -1)},
    "softcap": {"softcap": 1.5},
    "stick-breaking": {"weighting": "stick-breaking"},
}


def call(**features: Any) -> AttentionCall:
    torch.manual_seed(0)
    q = torch.randn(2, 13, 4, 8, requires_grad=True)
    k, v = (torch.randn(2, 13, 2, 8, requires_grad=True) for _ in range(2))
    return AttentionCall(q, k, v, scale=8**-0.5, documents=Documents(NUMBERS), **features)


def alone(packed: AttentionCall) -> Tensor:
    """Each document computed by itself by the reference, and put in its place."""
    out = torch.zeros_like(packed.q)
    with use_backend("reference"):
        for row, begin, end in SPANS:
            part = {name: getattr(packed, name)[row : row + 1, begin:end] for name in "qkv"}
            gates = None if packed.log_gates is None else packed.log_gates[row : row + 1, begin:end]
            answer = attend(replace(packed, **part, log_gates=gates, documents=None))
            out[row : row + 1, begin:end] = answer
    return out


@pytest.mark.parametrize("features", [*FEATURES, "log_gates"])
@pytest.mark.parametrize("backend", [None, "by_document", "reference", "tiled", "sdpa"])
def test_each_document_as_if_alone(backend: str | None, features: str) -> None:
    gates = {"log_gates": torch.nn.functional.logsigmoid(torch.randn(2, 13, 4)).requires_grad_()}
    packed = call(**FEATURES.get(features, gates))
    leaves = [t for t in (packed.q, packed.k, packed.v, packed.log_gates) if t is not None]
    with use_backend(backend):
        try:
            got = attend(packed)
        except UserError as refused:
            assert backend == "sdpa" and "it takes no" in str(refused) and "documents" not in str(refused)
            return
    want, pull = alone(packed), torch.randn(2, 13, 4, 8)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    mine, theirs = (torch.autograd.grad(out, leaves, pull) for out in (got, want))
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


def test_other_backends_decline_and_say_why() -> None:
    able = {"by_document", "reference", "tiled", "sdpa"}
    for backend in BACKENDS:
        reason = backend.declines(call(window=3))
        assert (reason is None) == (backend.NAME in able), backend.NAME
    with use_backend("cpu_banded"), pytest.raises(UserError, match="it takes no rows of several documents"):
        attend(call(window=3))
    with pytest.raises(UserError, match="rows of several documents are whole ones: no cache, no padding"):
        attend(call(pad=torch.tensor([1, 0])))


def test_rows_that_are_one_document_stay_one_call() -> None:
    whole = replace(call(window=3), documents=Documents(torch.tensor([[4], [7]]).expand(2, 13)))
    assert torch.equal(attend(whole), attend(replace(whole, documents=None)))


def test_positions_restart() -> None:
    documents = Documents(NUMBERS)
    assert documents.index.tolist() == [[*range(5), 0, *range(7)], [*range(4), *range(9)]]
    assert documents.lengths == [5, 1, 7, 4, 9]


POSITIONS: list[dict[str, Any]] = [
    {"type": "rope"},
    {"type": "nope", "logit_scale": {"type": "log"}},
    {"type": "alibi"},
    {"type": "forgetting"},
    {"type": "t5", "num_buckets": 8, "max_distance": 16},
]


@pytest.mark.parametrize("position", POSITIONS, ids=lambda p: p["type"])
def test_a_decoder_gives_each_document_what_it_gives_it_alone(position: dict[str, Any]) -> None:
    blocks = tiny_model().model_dump(mode="json")["blocks"]
    blocks["G"]["attention"]["position"] = position
    torch.manual_seed(0)
    model = tiny_model(blocks=blocks).build()
    ids = torch.randint(0, 256, (2, 13))
    packed = model.hidden(ids, documents=NUMBERS)
    assert not torch.allclose(packed, model.hidden(ids), atol=1e-3)
    rows = [[model.hidden(ids[r : r + 1, b:e])[0] for r, b, e in SPANS if r == row] for row in (0, 1)]
    apart = torch.stack([torch.cat(row) for row in rows])
    torch.testing.assert_close(packed, apart, rtol=1e-4, atol=1e-5)
    parameters = [p for p in model.parameters() if p.requires_grad]
    pull = torch.randn_like(packed)
    mine, theirs = (torch.autograd.grad(out, parameters, pull, allow_unused=True) for out in (packed, apart))
    for one, other in zip(mine, theirs, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("documents", "others", "message"),
    [
        (NUMBERS[:, :5], {}, r"documents: got shape \(2, 5\) of torch.int64; expected whole numbers .* \(2, 13\)"),
        (NUMBERS.float(), {}, "documents: got shape .* of torch.float32"),
        (NUMBERS.flip(1), {}, "documents: got numbers that fall along a row"),
        (NUMBERS, {"attention_mask": torch.ones(2, 13)}, "documents: got them beside a cache, an attention_mask or"),
        (NUMBERS, {"positions": torch.arange(13.0)[None]}, "documents: got them beside a cache, an attention_mask or"),
    ],
)
def test_documents_that_make_no_sense(documents: Tensor, others: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        tiny_model().build().hidden(torch.zeros(2, 13, dtype=torch.int64), documents=documents, **others)


# Training


def test_a_separator_is_what_the_next_document_begins_with() -> None:
    ids = torch.tensor([[5, 0, 7, 7, 0, 0, 3], [0, 1, 1, 1, 1, 1, 1]])
    assert document_numbers(ids, 0).tolist() == [[0, 1, 1, 1, 2, 3, 3], [1, 1, 1, 1, 1, 1, 1]]


def test_what_a_document_is_trained_on_is_in_no_other() -> None:
    """Each document from the separator before it to the separator after it: packed, and one by one."""
    decoder = enliven(tiny_model().build())
    documents = [[5, 9, 7], [8], [3, 3, 4, 6, 2]]
    row = torch.tensor([[0] + [token for one in documents for token in (*one, 0)]])

    def losses(ids: Tensor) -> Tensor:
        inputs, targets = ids[:, :-1], ids[0, 1:]
        hidden = decoder.hidden(inputs, documents=document_numbers(inputs, 0))
        return torch.nn.functional.cross_entropy(decoder.logits(hidden)[0], targets, reduction="none")

    alone = torch.cat([losses(torch.tensor([[0, *one, 0]])) for one in documents])
    torch.testing.assert_close(losses(row), alone)


def test_training_keeps_documents_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    lines = [json.dumps({"text": f"{i:03}" + "ab" * (i % 5)}) for i in range(400)]
    (tmp_path / "text.jsonl").write_text("\n".join(lines))
    data = {"source": "jsonl", "paths": ["text.jsonl"]}
    options: dict[str, Any] = {"base": tmp_path, "progress": False, "tracking": "off", "device": "cpu"}
    losses = {}
    for packing in ("stream", "documents"):
        result = train(tiny_model(), tiny_train(data=data, packing=packing), out=tmp_path / packing, **options)
        losses[packing] = [line["loss"] for line in read_metrics(result.folder)]
        assert ("packing" in (tmp_path / packing / "train.yaml").read_text()) is (packing == "documents")
    assert losses["stream"] != losses["documents"] and losses["documents"][-1] < losses["documents"][0] - 2
    with pytest.raises(UserError, match="packing"):
        train(tiny_model(), tiny_train(data=data), out=tmp_path / "documents", **options)
