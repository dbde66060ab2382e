"""GGUF out: read back equal by us, and as the same function by transformers; what llama.cpp cannot say is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from float64 import assert_exact, doubled
from helpers import attention, enliven, tiny_spec
from hf_models import held, hf_model, random_ids
from hf_tokenizers import tokenizer_json
from tiny import run_cli

import miniwin
from miniwin.language_model import LanguageModel
from miniwin.specs import ModelSpec, UserError
from miniwin.tokenizer import ByteTokenizer, load_tokenizer
from miniwin.tokenizer.special_ids import SpecialIds
from miniwin.zoo.exporting.gguf_file import export_gguf
from miniwin.zoo.importing import import_model
from miniwin.zoo.importing.families import FAMILIES
from miniwin.zoo.importing.gguf.architectures import EVERY

gguf = pytest.importorskip("gguf")
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64}
LONG = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "short_factor": [1.0, 1.1, 1.2, 1.3],
    "long_factor": [1.0, 2.1, 3.2, 4.3],
    "original_max_position_embeddings": 64,
}
EXPERTS = {"num_experts": 3, "num_experts_per_tok": 2}
# transformers takes the scale of scores from no file, and 256 for it
GEMMA = {"head_dim": 256, "num_hidden_layers": 7, "sliding_window": 8, "query_pre_attn_scalar": 256, "pad_token_id": 0}
# model_type, fields of its config, whether transformers reads GGUF files of it. It takes no size of heads from a
# file of qwen3.
MODELS: list[tuple[str, dict[str, Any], bool]] = [
    ("llama", {}, True),
    ("llama", {"tie_word_embeddings": True, "head_dim": 16}, False),
    ("llama", {"attention_bias": True, "mlp_bias": True}, False),
    ("llama", {"rope_parameters": LLAMA3}, False),
    ("llama", {"rope_parameters": YARN}, False),
    ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}}, False),
    ("mixtral", {"num_local_experts": 3, "num_experts_per_tok": 2}, False),
    ("qwen2", {}, True),
    ("qwen3", {"head_dim": 128}, True),
    (
        "qwen3_moe",
        {"num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "norm_topk_prob": True},
        False,
    ),
    ("phi3", {"original_max_position_embeddings": 512}, True),
    ("phi3", {"rope_parameters": LONG, "original_max_position_embeddings": 64}, False),
    ("gemma", {"head_dim": 16, "pad_token_id": 0}, False),
    ("gemma2", GEMMA, True),
    ("gemma3_text", GEMMA, True),
    ("cohere2", {"sliding_window": 8, "num_hidden_layers": 5, "pad_token_id": 0}, False),
    ("olmo2", {}, False),
    ("olmo3", {"sliding_window": 8, "num_hidden_layers": 5}, False),
    ("exaone4", {"sliding_window": 8, "num_hidden_layers": 5}, False),
    ("smollm3", {"num_hidden_layers": 5, "no_rope_layers": [1, 1, 1, 0, 1], "pad_token_id": 0}, False),
    ("granite", {"attention_multiplier": 0.3, "logits_scaling": 2.0, "residual_multiplier": 0.5}, False),
    ("starcoder2", {"sliding_window": None}, False),
    ("gpt_neox", {"rotary_pct": 0.5, "num_key_value_heads": 4}, False),
    ("gpt2", {"n_positions": 128, "n_embd": 32, "n_layer": 3, "n_head": 4}, False),
]
MODELS = [one for one in MODELS if one[0] in FAMILIES]


def of(model_type: str, fields: dict[str, Any]) -> tuple[ModelSpec, LanguageModel]:
    spec, decoder = held(hf_model(model_type, seed=3, **fields))
    return spec, LanguageModel(decoder, spec, None)


@pytest.mark.parametrize(
    ("model_type", "fields", "theirs"), MODELS, ids=lambda one: one if isinstance(one, str) else ""
)
@torch.no_grad()
def test_read_back_it_is_the_same_model(tmp_path: Path, model_type: str, fields: dict[str, Any], theirs: bool) -> None:
    spec, model = of(model_type, fields)
    made = export_gguf(model, tmp_path / "out.gguf")
    assert not made.random or made.notes == []
    back = import_model(made.path, tmp_path / "back")
    assert back.spec.hash == spec.hash
    again = miniwin.load(str(tmp_path / "back"))
    ids = random_ids(40, batch=2)
    exact = doubled(model.decoder)(ids)
    # Gemma's norms are kept as the sum 1 + weight, which rounds.
    assert_exact(doubled(again.decoder)(ids), exact, 1e-6 if "gemma" in model_type else 1e-12)
    if theirs:
        from transformers import AutoModelForCausalLM

        read = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="out.gguf", dtype=torch.float32).eval()
        assert_exact(doubled(read)(ids).logits, exact, 1e-5)  # which has epsilons in float32


def test_every_architecture_is_tested_and_its_modules_are_known() -> None:
    """A module that the gguf package does not know would be left out of a file."""
    for one in EVERY:
        assert one.model_type not in FAMILIES or one.model_type in {model_type for model_type, _, _ in MODELS}
        wanted = 2 * (len(one.layer) + len(one.experts)) + len(one.outer) - (one.ties == (True,))
        assert len(one.names(2)) == wanted, one.model_type


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "q8_0"])
def test_smaller_types(tmp_path: Path, dtype: str) -> None:
    spec, model = of("llama", {})
    made = export_gguf(model, tmp_path / "out.gguf", dtype)
    assert made.notes == (["3 matrices are float16: their rows do not divide by 32"] if dtype == "q8_0" else [])
    back = import_model(made.path, tmp_path / "back")
    kinds = {"float16": {"F16": 23}, "bfloat16": {"BF16": 23}, "q8_0": {"Q8_0": 20, "F16": 3}}[dtype]
    assert back.record["quantization"] == {**kinds, "F32": 7} and back.spec.hash == spec.hash
    assert back.record["dtype"] == ("float32" if dtype == "q8_0" else dtype)
    read = miniwin.load(str(tmp_path / "back")).decoder.state_dict()
    for name, weight in model.decoder.state_dict().items():
        step = weight.abs().max() / (127 if dtype == "q8_0" else 256)
        assert (read[name].float() - weight).abs().max() <= step, name
        assert "norm" not in name or torch.equal(read[name].float(), weight.to(read[name].dtype).float())


def test_a_type_that_cannot_hold_the_weights(tmp_path: Path) -> None:
    _, model = of("llama", {})
    with torch.no_grad():
        model.decoder.embed_tokens.weight[0, 0] = 1e6
    with pytest.raises(UserError, match=r"--dtype float16: token_embd\.weight holds values that are too large"):
        export_gguf(model, tmp_path / "out.gguf", "float16")
    assert not list(tmp_path.iterdir())


# -- tokenizers


def sentencepiece() -> str:
    """A BPE with byte fallback and every merge that its tokens allow, as SentencePiece's users have it."""
    letters = ["\u2581", *"abcdehlnorstw"]
    words = ["\u2581a", "he", "\u2581the", "\u2581t", "th", "the", "ll", "hello", "hell", "\u2581\u2581", "or", "wor"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), *letters, *words]
    ids = {token: number for number, token in enumerate(tokens)}
    merges = [
        [word[:at], word[at:]]
        for word in words
        for at in range(len(word) - 1, 0, -1)
        if {word[:at], word[at:]} <= set(ids)
    ]
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    back = {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}
    frame = {"id": "<s>", "ids": [1], "tokens": ["<s>"]}
    return json.dumps(
        {
            "version": "1.0",
            "added_tokens": [{"id": i, "content": tokens[i], **plain} for i in range(3)],
            "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"}, spaces]},
            "pre_tokenizer": None,
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
                "special_tokens": {"<s>": frame},
            },
            "decoder": {"type": "Sequence", "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}]},
            "model": {
                "type": "BPE",
                "unk_token": "<unk>",
                "fuse_unk": True,
                "byte_fallback": True,
                "vocab": ids,
                "merges": merges,
            },
        }
    )


TEXTS = (
    "The capital of France is a city.",
    "hello  there",
    "  twice the spaces\n",
    "the hello world \u00e9",
    "",
    "<s>x",
)


def with_tokenizer(text: str, folder: Path, special: SpecialIds | None) -> LanguageModel:
    path = folder / "tokenizer.json"
    path.write_text(text, encoding="utf-8")
    tokenizer = load_tokenizer(path, special=special)
    spec = tiny_spec({"X": attention(None, {"type": "rope", "rope_theta": 1e4})}, vocab_size=tokenizer.vocab_size + 5)
    torch.manual_seed(0)
    return LanguageModel(enliven(spec.build()).eval(), spec, tokenizer, special=special)


@pytest.mark.parametrize("kind", ["bpe", "sentencepiece"])
def test_the_tokenizer_goes_out_and_comes_back(tmp_path: Path, kind: str) -> None:
    text = sentencepiece() if kind == "sentencepiece" else tokenizer_json()
    special = SpecialIds((2,), 1, 0)
    model = with_tokenizer(text, tmp_path, special)
    export_gguf(model, tmp_path / "out.gguf")
    back = import_model(tmp_path / "out.gguf", tmp_path / "back")
    assert model.tokenizer is not None and back.tokenizer is not None
    for one in TEXTS:
        assert back.tokenizer.encode_prompt(one) == model.tokenizer.encode_prompt(one), one
        assert back.tokenizer.encode(one) == model.tokenizer.encode(one), one
    assert back.tokenizer.vocab_size == model.tokenizer.vocab_size
    assert back.record["special_ids"] == special.record()


def test_bytes_are_a_vocabulary_without_merges(tmp_path: Path) -> None:
    spec = tiny_spec({"X": attention(None, {"type": "rope", "rope_theta": 1e4})}, vocab_size=256)
    model = LanguageModel(enliven(spec.build()).eval(), spec, ByteTokenizer())
    export_gguf(model, tmp_path / "out.gguf")
    back = import_model(tmp_path / "out.gguf", tmp_path / "back").tokenizer
    assert back is not None
    for text in ("hello \u00e9\n", "  0 1"):
        assert back.encode(text) == list(text.encode())


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"normalizer": {"type": "NFC"}}, r"tokenizer\.normalizer: got NFC; llama\.cpp's gpt2 tokenizers have none"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, r"tokenizer\.pre_tokenizer: llama\.cpp has no name for this way"),
        (
            {"post_processor": {"type": "BertProcessing", "sep": ["<eos>", 2], "cls": ["<bos>", 1]}},
            r"post_processor: got B",
        ),
        ({"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}, r"tokenizer\.model: got 'WordLevel'"),
    ],
)
def test_a_tokenizer_that_llama_cpp_has_not(tmp_path: Path, edit: dict[str, Any], message: str) -> None:
    from miniwin.zoo.exporting.gguf_tokenizer import tokenizer_fields
    from miniwin.zoo.importing.family import CannotSay

    with pytest.raises(CannotSay, match=message):
        tokenizer_fields(json.dumps({**json.loads(tokenizer_json()), **edit}), 300)


# -- what is refused


def test_what_llama_cpp_cannot_say(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"llama\.cpp has no architecture that says this model:\n") as caught:
        export_gguf("miniwin-1m", tmp_path / "out.gguf")
    for refusal in ("llama: attention.window: layers have 16 and null", "qwen3: attention.qk_norm: got none"):
        assert f"\n  {refusal}" in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "out"], r"--to out: expected the name of a file that ends with \.gguf"),
        (["--to", "old.gguf"], r"old\.gguf: exists already"),
        (
            ["--to", "out.gguf", "--dtype", "q4_0"],
            r"--dtype: got 'q4_0'; expected one of float32, float16, bf",
        ),
        (["--to", "out.gguf", "--as", "custom"], r"--as custom: it is for --format hf"),
        (["--to", "out.gguf", "--architecture", "bert"], r"--architecture bert: there is no such architecture"),
    ],
)
def test_the_command_says_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    import re

    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.gguf").write_bytes(b"")
    code, _, err = run_cli("export", "minimind-1m", "--format", "gguf", *arguments)
    assert code == 2 and re.search(message, err), err
    assert [one.name for one in tmp_path.iterdir()] == ["old.gguf"]


def test_the_command(tmp_path: Path) -> None:
    code, out, err = run_cli("export", "minimind-1m", "--format", "gguf", "--to", str(tmp_path / "new" / "m.gguf"))
    assert code == 0 and "a llama model" in out and "its weights are random" in err
    back = import_model(tmp_path / "new" / "m.gguf", tmp_path / "back")
    assert back.spec.hash == miniwin.load("minimind-1m").spec.hash


def test_runs_of_spaces_that_users_define_stay_before_all_others() -> None:
    """As Gemma has them: they are merged before tabs, and are no added tokens."""
    from miniwin.zoo.exporting.gguf_tokenizer import tokenizer_fields
    from miniwin.zoo.importing.gguf.tokenizer import BYTE, CONTROL, NORMAL, UNKNOWN, USER
    from miniwin.zoo.importing.gguf.tokenizer import tokenizer_json as read

    special = [("<unk>", UNKNOWN), ("<s>", CONTROL)]
    users = [(text, USER) for text in ("\n\n", "\u2581\u2581", "\u2581\u2581\u2581", "\t\t")]
    plain = [(text, NORMAL) for text in ("ab", "a", "b", "\u2581", "\n", "\t", "\u2581a")]
    tokens = [*special, *users, *plain, *((f"<0x{byte:02X}>", BYTE) for byte in range(256))]
    metadata: dict[str, Any] = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [text for text, _ in tokens],
        "tokenizer.ggml.token_type": [kind for _, kind in tokens],
        "tokenizer.ggml.scores": [-float(number) for number in range(len(tokens))],
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_space_prefix": False,
    }
    fields = tokenizer_fields(read("a file", metadata), len(tokens))
    kinds = dict(zip(fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"], strict=True))
    assert all(kinds[text] == USER for text, _ in users) and all(kinds[text] == NORMAL for text, _ in plain)
