"""Learned positions that are added to the embeddings, and where they end."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import GLOBAL, attention, enliven, largest, random_ids, tiny_spec
from tiny import run_cli
from torch.nn import functional as F

from miniwin.blocks import Decoder
from miniwin.generation import generate, generate_batch
from miniwin.language_model import LanguageModel
from miniwin.sessions import new_session
from miniwin.specs import UserError, parse_spec
from miniwin.training.launch import train

PLACES = 12
SPEC = tiny_spec({"G": attention(None, {"type": "nope", "logit_scale": None})}, embed_positions=PLACES, embed_scale=3.0)
BEYOND = "input_ids: got 13 tokens in a row; the model has 12 learned positions .embed_positions., and none beyond"


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    return enliven(SPEC.build().eval())


@torch.no_grad()
def test_each_position_is_a_row_of_the_table(decoder: Decoder) -> None:
    """The same as a model without positions that is given the sums; vectors in place of ids get positions, too."""
    ids = random_ids(SPEC, 2, PLACES)
    plain = SPEC.model_copy(update={"embed_positions": None}).build().eval()
    plain.load_state_dict({name: t for name, t in decoder.state_dict().items() if name != "embed_positions.weight"})
    sums = 3.0 * decoder.embed_tokens.weight[ids] + decoder.state_dict()["embed_positions.weight"]
    assert largest(plain(inputs_embeds=sums), decoder(ids)) < 1e-5
    assert largest(decoder(inputs_embeds=3.0 * decoder.embed_tokens.weight[ids]), decoder(ids)) < 1e-5
    assert largest(plain(ids), decoder(ids)) > 0.1


@torch.no_grad()
def test_a_longer_row_is_refused_and_the_cache_stays_as_it_was(decoder: Decoder) -> None:
    ids = random_ids(SPEC, 1, PLACES + 1)
    with pytest.raises(UserError, match=BEYOND):
        decoder(ids)
    cache = decoder.new_cache()
    decoder(ids[:, :10], cache=cache)
    with pytest.raises(UserError, match=BEYOND):
        decoder(ids[:, 10:], cache=cache)
    assert largest(decoder(ids[:, 10:12], cache=cache), decoder(ids[:, :12])[:, 10:]) < 1e-5


@torch.no_grad()
def test_padding_and_earlier_documents_take_no_positions(decoder: Decoder) -> None:
    ids = random_ids(SPEC, 1, PLACES)
    padded = F.pad(ids, (5, 0))
    mask = (torch.arange(17) >= 5).long()[None]
    assert largest(decoder(padded, attention_mask=mask)[:, 5:], decoder(ids)) < 1e-5
    twice = torch.cat((ids, ids), dim=1)
    documents = torch.arange(2 * PLACES)[None] // PLACES
    hidden = decoder.hidden(twice, documents=documents)
    assert largest(hidden[:, PLACES:], hidden[:, :PLACES]) < 1e-5
    with pytest.raises(UserError, match="got 24 tokens in a row"):
        decoder.hidden(twice, documents=torch.zeros_like(documents))


def test_positions_of_the_caller_are_refused(decoder: Decoder) -> None:
    with pytest.raises(UserError, match="cannot take them: its learned positions"):
        decoder(random_ids(SPEC, 1, 3), positions=torch.tensor([[0.5, 1.5, 2.5]]))


def test_a_text_that_would_grow_too_long_is_refused_before_it_is_begun(decoder: Decoder) -> None:
    model = LanguageModel(decoder, SPEC, None)
    assert generate(model, [1, 2, 3], max_new_tokens=9, temperature=0).new_tokens == 9
    with pytest.raises(UserError, match=r"max_new_tokens: got 10 after 3 tokens; .* ask for at most 9"):
        generate(model, [1, 2, 3], max_new_tokens=10)
    with pytest.raises(UserError, match=r"max_new_tokens: got 1 after 12 tokens; .* shorten the prompt"):
        generate_batch(model, [[1], list(range(12))], max_new_tokens=1)
    session = new_session(model)
    generate(model, [1, 2, 3], max_new_tokens=4, session=session)
    with pytest.raises(UserError, match="max_new_tokens: got 4 after 9 tokens"):
        generate(model, [1, 2], max_new_tokens=4, session=session)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seq_len": 16}, "seq_len: got 16 tokens; the model 'tiny' has 12 learned positions"),
        (
            {"seq_len": 8, "eval": {"every": 256, "lengths": ["2x"]}},
            "eval.lengths: got 16 tokens; .* or embed_positions to 16",
        ),
    ],
)
def test_training_at_lengths_beyond_is_refused_before_there_is_a_folder(
    fields: dict[str, object], message: str, tmp_path: Path
) -> None:
    data = {"source": "python-stdlib", "valid_fraction": 0.1}
    said = {
        "kind": "train",
        "format": 1,
        "name": "x",
        "data": data,
        "tokenizer": "byte",
        "batch_size": 4,
        "tokens": 512,
    }
    known = SPEC.model_copy(update={"vocab_size": 256})
    with pytest.raises(UserError, match=message):
        train(known, parse_spec({**said, **fields}, "train"), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_explain_says_where_texts_end() -> None:
    code, out, err = run_cli("explain", "gpt2-tiny")
    assert code == 0, err
    assert "positions    256, added to the embeddings: no text is longer" in out
    assert f"({(96 + 256) * 48:,} of them embeddings and head)" in out


def test_a_scale_of_what_layers_add() -> None:
    """Side by side, attention and MLP see the same stream: all that one layer adds is multiplied."""
    for residual in ("parallel", "parallel-two-norms"):
        block = {"attention": attention(None, GLOBAL), "mlp": {"intermediate_size": 24}, "residual": residual}
        plain, scaled = (
            tiny_spec({"X": {**block, **more}}, num_layers=1).build() for more in ({}, {"residual_scale": 0.25})
        )
        scaled.load_state_dict(enliven(plain).state_dict())
        x = torch.randn(1, 9, 32)
        ends = [model.hidden(inputs_embeds=x) for model in (plain, scaled)]
        normless = []
        for model in (plain, scaled):
            model.norm = torch.nn.Identity()  # type: ignore[assignment]
            normless.append(model.hidden(inputs_embeds=x) - x)
        assert largest(normless[1], 0.25 * normless[0]) < 1e-5 and largest(*ends) > 1e-3
