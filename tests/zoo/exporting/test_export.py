"""Export: folders that transformers loads, as stock architectures and with code, with equal logits."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from float64 import assert_exact, doubled
from helpers import GLOBAL, LOCAL, attention, enliven, random_ids, tiny_spec
from hf_models import compare
from tiny import run_cli

import miniwin
from miniwin.language_model import LanguageModel
from miniwin.specs import ModelSpec, UserError, load_model_spec, parse_spec, shipped_specs
from miniwin.tokenizer import ByteTokenizer
from miniwin.zoo.exporting import export_model, find_stock
from miniwin.zoo.exporting.gguf_stock import find_gguf
from miniwin.zoo.importing.converting import import_model

ROPE = {"type": "rope", "rope_theta": 5e4}
PLAIN = {"X": attention(None, ROPE)}


def model_of(spec: ModelSpec) -> LanguageModel:
    torch.manual_seed(0)
    decoder = enliven(spec.build()).eval()
    return LanguageModel(decoder, spec, ByteTokenizer() if spec.vocab_size >= 256 else None)


def auto(folder: Path, **options: Any) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, **options).eval()


@torch.no_grad()
def assert_same(model: LanguageModel, other: Any) -> None:
    """The same function, weights and all: judged in float64."""
    ids = random_ids(model.spec, 2, 90)
    out = doubled(other)(ids)
    assert_exact(getattr(out, "logits", out), doubled(model.decoder)(ids), 1e-12)


@pytest.mark.parametrize(
    ("blocks", "fields", "architecture"),
    [
        (PLAIN, {}, "llama"),
        (PLAIN, {"tie_word_embeddings": False}, "llama"),
        ({"X": attention(7, ROPE)}, {}, "mistral"),
        ({"X": attention(None, ROPE), "N": attention(None, {"type": "nope", "logit_scale": None})}, {}, "smollm3"),
        ({"X": attention(None, ROPE, qk_norm={"type": "rmsnorm"})}, {}, "qwen3"),
    ],
)
def test_a_stock_architecture_where_one_says_it(
    tmp_path: Path, blocks: dict[str, Any], fields: dict[str, Any], architecture: str
) -> None:
    model = model_of(tiny_spec(blocks, **fields))
    made = export_model(model, tmp_path / "out", "stock")
    assert made.architecture == architecture
    theirs = auto(tmp_path / "out")
    assert theirs.config.model_type == architecture
    compare(theirs, model.decoder, random_ids(model.spec, 2, 90), hf_prefill=None, our_prefill=80)
    back = import_model(tmp_path / "out", tmp_path / "back")
    assert back.spec.canonical()["layers"] == model.spec.canonical()["layers"]
    assert_same(model, miniwin.load(str(tmp_path / "back")).decoder)


@pytest.mark.parametrize(
    ("blocks", "fields", "named"),
    [
        ({"S": attention(7, LOCAL), "G": attention(None, GLOBAL)}, {}, "attention.position"),
        (PLAIN, {"embed_scale": 2.0, "logit_softcap": 5.0, "logit_scale": 3.0}, "embed_scale"),
        ({"X": attention(None, {"type": "forgetting"})}, {}, "attention.position"),
    ],
)
def test_code_where_none_does_and_why(
    tmp_path: Path, blocks: dict[str, Any], fields: dict[str, Any], named: str
) -> None:
    model = model_of(tiny_spec(blocks, vocab_size=256, **fields))
    with pytest.raises(UserError, match="no stock architecture can say this model") as error:
        export_model(model, tmp_path / "out", "stock")
    assert named in str(error.value) and not (tmp_path / "out").exists()
    made = export_model(model, tmp_path / "out")
    assert made.architecture == "custom" and any(named in refusal.field for refusal in made.refusals)
    theirs = auto(tmp_path / "out", trust_remote_code=True)
    assert_same(model, theirs)
    # Its own cache, and a batch padded on the left, through transformers' generate.
    ids = random_ids(model.spec, 1, 20)
    own = model.generate(ids[0].tolist(), max_new_tokens=12, temperature=0.0)
    batch = torch.cat((torch.zeros(1, 5, dtype=torch.int64), ids), dim=1).repeat(2, 1)
    mask = (torch.arange(25) >= 5).long().repeat(2, 1)
    new = theirs.generate(
        batch, attention_mask=mask, max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    for row in new[:, 25:]:
        assert row[: len(own)].tolist() == own


@pytest.fixture(scope="module")
def with_code(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model with experts, in transformers by our code."""
    expert = {"type": "swiglu", "intermediate_size": 8}
    mixture: dict[str, Any] = {
        "type": "moe",
        "num_experts": 3,
        "experts_per_token": 1,
        "expert": expert,
        "shared": None,
    }
    mixture["router"] = {"type": "softmax-topk", "normalise": True}
    plain = tiny_spec({"S": attention(7, LOCAL)}).model_dump(mode="json")
    plain["blocks"]["S"]["mlp"] = mixture
    folder = tmp_path_factory.mktemp("code") / "out"
    assert export_model(model_of(parse_spec(plain, "model")), folder).architecture == "custom"
    return auto(folder, trust_remote_code=True)


def test_the_loss_is_the_trainers(with_code: Any) -> None:
    """-100 is not counted; the sum over a batch in parts is divided by all its tokens; experts add their own."""
    ids = torch.arange(40).reshape(2, 20) % 11
    labels = ids.masked_fill(torch.arange(20) < 5, -100)
    out = with_code(ids, labels=labels, logits_to_keep=3)
    own = torch.nn.functional.cross_entropy(with_code(ids).logits[:, 4:-1].flatten(0, 1), ids[:, 5:].flatten())
    assert out.logits.shape[1] == 3 and (out.loss - own).item() == pytest.approx(0, abs=1e-6)
    assert with_code.accepts_loss_kwargs
    rows = zip(ids[:, None], labels[:, None], strict=True)
    parts = [with_code(row, labels=wanted, num_items_in_batch=30).loss for row, wanted in rows]
    assert (sum(parts) - own).item() == pytest.approx(0, abs=1e-6)
    with_code.train()
    trained = with_code(ids, labels=labels).loss
    trained.backward()
    with_code.eval()
    assert trained.item() > own.item() + 1e-3  # the balance loss
    assert all(layer.mlp.router.weight.grad is not None for layer in with_code.decoder.layers)


def test_what_the_code_cannot_honour_is_refused(with_code: Any) -> None:
    from transformers import DynamicCache

    ids = torch.arange(12).reshape(2, 6)
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
    counted = (mask.cumsum(-1) - 1).masked_fill(mask == 0, 1)
    plain = with_code(ids, attention_mask=mask).logits
    assert torch.equal(with_code(ids, attention_mask=mask, position_ids=counted).logits, plain)
    assert isinstance(with_code(ids, return_dict=False), tuple)
    for message, options in {
        "position_ids: a MiniWin model counts": {"position_ids": torch.tensor([[0, 1, 2, 0, 1, 2]])},
        "past_key_values: got DynamicCache": {"past_key_values": DynamicCache()},
        "gives logits only": {"output_hidden_states": True},
        "logits_to_keep: got a tensor": {"logits_to_keep": torch.tensor([1])},
        "may only stand to the left": {"attention_mask": mask.flip(1)},
        "unexpected keyword": {"token_type_ids": ids},
    }.items():
        with pytest.raises((ValueError, TypeError), match=message):
            with_code(ids, **options)
    with pytest.raises(ValueError, match="past_key_values: got DynamicCache"):
        with_code.generate(ids, past_key_values=DynamicCache(), max_new_tokens=2, pad_token_id=0)


def test_the_byte_tokenizer_travels(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    model = model_of(tiny_spec(PLAIN, vocab_size=256))
    export_model(model, tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    for text in ("def main():\n\treturn 'é漢🙂' # ~ \x7f", "  two  spaces", ""):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert ids == list(text.encode())
        assert tokenizer.decode(ids) == text
    assert tokenizer.eos_token_id == tokenizer.pad_token_id == 0
    batch = tokenizer(["longer", "x"], padding=True)
    assert batch["input_ids"][1] == [0] * 5 + [ord("x")]  # padded on the left, as our models take it


def test_what_cannot_be_done_is_one_message_and_nothing_written(tmp_path: Path) -> None:
    model = model_of(tiny_spec(PLAIN))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").write_text("x")
    with pytest.raises(UserError, match="exists already"):
        export_model(model, tmp_path / "full")
    with pytest.raises(UserError, match="there is no such architecture"):
        export_model(model, tmp_path / "out", model_type="lama")
    with pytest.raises(UserError, match="no stock architecture can say this model:\n  olmo3: residual: got pre"):
        export_model(model, tmp_path / "out", model_type="olmo3")
    with pytest.raises(UserError, match="give one of them"):
        export_model(model, tmp_path / "out", "custom", "llama")
    assert [p.name for p in tmp_path.iterdir()] == ["full"]


@pytest.mark.parametrize("name", [name for name in shipped_specs("model") if name.endswith("-tiny")])
def test_every_small_shipped_spec_comes_back(tmp_path: Path, name: str) -> None:
    """With its hash, which how weights start and what training adds to the loss are part of."""
    spec = load_model_spec(name)
    stock, _ = find_stock(spec)
    if stock is None:
        assert name.startswith(("miniwin-", "gpt-oss-dense-", "nanochat-")), "it could be said before"
        return
    export_model(LanguageModel(spec.build(), spec, None), tmp_path / "out", "stock")
    assert import_model(tmp_path / "out", tmp_path / "back").spec.hash == spec.hash


MIXTURE = {
    "type": "moe",
    "num_experts": 7,
    "experts_per_token": 3,
    "expert": {"type": "swiglu", "intermediate_size": 8},
    "router": {"type": "softmax-topk", "normalise": True},
}


@pytest.mark.parametrize(
    ("mlp", "init"),
    [
        ({"intermediate_size": 24}, {"std": 0.1}),
        ({"intermediate_size": 24}, {"std": 0.0173, "depth_scaled": False}),
        ({**MIXTURE, "balance_loss": 0.9}, {"depth_scaled": False}),
        ({**MIXTURE, "balance_loss": 0.015}, {}),
    ],
)
def test_what_only_training_reads_comes_back(tmp_path: Path, mlp: dict[str, Any], init: dict[str, Any]) -> None:
    """Also where transformers has written the config again."""
    attended = attention(None, ROPE, qk_norm={"type": "rmsnorm"})
    spec = tiny_spec({"X": {"attention": attended, "mlp": mlp}}, init=init)
    model = model_of(spec)
    export_model(model, tmp_path / "out", "stock")
    assert import_model(tmp_path / "out", tmp_path / "back").spec.hash == spec.hash
    auto(tmp_path / "out").save_pretrained(tmp_path / "saved")
    assert import_model(tmp_path / "saved", tmp_path / "again").spec.hash == spec.hash


def test_an_export_says_why_in_one_line_or_in_all(tmp_path: Path) -> None:
    code, out, _ = run_cli("export", "miniwin-tiny", "--to", str(tmp_path / "a"))
    assert code == 0 and len(out.splitlines()) == 3
    assert re.fullmatch(r"none of (\d+) stock architectures can say it; --why says .*", out.splitlines()[-1])
    code, out, _ = run_cli("export", "miniwin-tiny", "--to", str(tmp_path / "b"), "--why")
    assert code == 0 and "llama: attention." in out and len(out.splitlines()) > 10
    assert re.search(r"layers have \d+ and null;", out) and "None" not in out and "False" not in out
    code, out, _ = run_cli("export", "minimind-tiny", "--to", str(tmp_path / "c"))
    assert code == 0 and len(out.splitlines()) == 2


def test_a_config_is_proved_by_reading_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A family that overlooks a field does not get away with it."""
    from miniwin.zoo.importing.families import FAMILIES

    spec = tiny_spec(PLAIN)
    stock, _ = find_stock(spec, "llama")
    assert stock is not None
    wrong = json.loads(json.dumps(stock.config))
    wrong["rms_norm_eps"] = 1e-3
    monkeypatch.setattr(FAMILIES["llama"], "config", lambda spec: wrong)
    nothing, refusals = find_stock(spec, "llama")
    assert nothing is None and "eps" in refusals[0].field and "0.001" in refusals[0].why


def test_an_export_of_a_spec_says_that_its_weights_are_random(tmp_path: Path) -> None:
    code, _, err = run_cli("export", "miniwin-tiny", "--to", str(tmp_path / "spec"))
    assert code == 0 and "its weights are random: miniwin-tiny is a model spec; give a run folder or a zoo" in err
    card = (tmp_path / "spec" / "README.md").read_text()
    assert "Its weights are random" in card
    assert 'AutoTokenizer.from_pretrained("this folder", trust_remote_code=True)' in card  # or transformers asks y/N
    code, out, err = run_cli("export", "miniwin-1m", "--to", str(tmp_path / "entry"))
    assert code == 0 and "random" not in out + err + (tmp_path / "entry" / "README.md").read_text()


@pytest.mark.parametrize(
    ("window", "position"),
    [
        (7, {"type": "p-rope", "periods": [5, 14]}),
        (7, {"type": "p-rope", "periods": [5, 14], "gate": True}),
        (None, {"type": "per-head", "of": [{"share": 0.5, "type": "nope"}, {"share": 0.5, "type": "rope"}]}),
    ],
)
def test_no_stock_architecture_has_heads_that_differ(window: int | None, position: dict[str, Any]) -> None:
    stock, refusals = find_stock(tiny_spec({"G": attention(window, position)}))
    assert stock is None
    said = {refusal.model_type: str(refusal) for refusal in refusals}
    assert said["mistral"] == f"mistral: attention.position: got {position['type']}; only rope has words in this config"


def test_no_stock_architecture_and_no_gguf_has_heads_with_windows_of_their_own(tmp_path: Path) -> None:
    spec = tiny_spec({"G": attention(None, ROPE, windows=[None, 7], keep_first=2)})
    why = "attention.windows: got [null, 7], one for each key/value head; a {} config has one for a whole layer"
    for stock, refusals in (find_stock(spec), find_gguf(spec)):  # type: ignore[assignment]
        assert stock is None
        said = {refusal.model_type: str(refusal) for refusal in refusals}
        assert {said[name] for name in ("llama", "gemma3_text")} == {
            f"{name}: {why.format(name)}" for name in ("llama", "gemma3_text")
        }
    model = model_of(spec)
    exported = export_model(model, tmp_path / "out")
    assert exported.architecture == "custom"
    assert_same(model, auto(tmp_path / "out", trust_remote_code=True))
