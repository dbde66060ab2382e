"""Tokenizers that would take endless time or memory are refused, and those that people use are not."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hf_models import hf_model
from tiny import run_cli

import miniwin
from miniwin.generation import generate
from miniwin.specs import UserError
from miniwin.tokenizer import HFTokenizer, ImportedTokenizer, load_tokenizer
from miniwin.tokenizer.regex_safety import Unsafe, check_regex
from miniwin.zoo.importing import import_model

# What the tokenizers of public models split and replace by.
SPACES = r"\s+(?!\S)|\s+"
LINES = rf"\s*[\r\n]+|{SPACES}"
SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
UPPER, LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
WORD = r"[^\r\n\p{L}\p{N}]?"
CASES = rf"{WORD}[{UPPER}]*[{LOWER}]+{{0}}|{WORD}[{UPPER}]+[{LOWER}]*{{0}}"
USED = {
    "gpt2": rf"'s|'t|'re|'ve|'m|'ll|'d| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|{SPACES}",
    "gpt-4": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|"
    + SPACES,
    "llama-3": SHORT + "|" + WORD + r"\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + LINES,
    "gpt-oss": CASES.replace("{0}", SHORT + "?") + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + LINES,
    "mistral": CASES.replace("{0}", "") + r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + LINES,
    "deepseek": r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|" + LINES,
    "kimi": rf"[\p{{Han}}]+|{WORD}[{UPPER}&&[^\p{{Han}}]]*[{LOWER}&&[^\p{{Han}}]]+{SHORT}?",
    "bloom": " ?[^(\\s|[.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c])]+",
    "clip": r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
    "falcon": "[0-9][0-9][0-9]",
    "groups of digits": r"\d{1,3}(?=(?:\d{3})*\b)",
    "groups of digits, from the right": r"(?=(\d{3})+(?!\d))",
    "image tokens": "(IMGIMG)(((A|B|C|D|E|F|G|H|I){1,4})Z)",
    "sentencepiece": " {2,}",
    "t5": r"\s+$",
    "k-exaone": WORD + r"(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|" + SPACES,
    "words with hyphens": r"\p{L}+(?:[-'][\p{L}]+)*|\d+(?:[.,]\d+)*",
    "smiles": r"(\[[^\]]+]|Br?|Cl?|N|O|S|P|F|I|b|c|n|o|s|p|\(|\)|\.|=|#|-|\+|\\|\/|:|~|@|\?|>|\*|\$|\%[0-9]{2}|[0-9])",
    "named": r"(?<word>\w+)(?#what it is)\s?|[[:alpha:]]{,3}|\x{3042}\u3042a{b",
}
HARMFUL = [
    ("(a+)+$", "has a repetition of what can match in several ways"),
    ("(a|a)*b", "has a repetition of what can match in several ways"),
    ("(?:a|ab|b)+c", "has a repetition of what can match in several ways"),
    ("(x+x+)+y", "several ways"),
    ("((a?){9}){9}", "several ways"),
    ("(?:a+b?){2,}", "several ways"),
    ("(?:a*ab)+", "several ways"),
    ("a{1,3}+", "has a repetition of a repetition"),
    ("(?:a*)*", "several ways"),
    (".*.*x|.", "has several repetitions before something that may fail"),
    (r"\s*\s++x", "has several repetitions"),
    (r"\s*(?=\s*)x", "has several repetitions"),
    ("a{0,999}a{0,999}b", "has several repetitions"),
    ("(?:a?){30}b", "several ways"),
    ("[ab]{0,9}[ab]?[ab]+c", "has too many ways to match"),
    ("a?" * 30 + "b", "has too many ways to match"),
    ("(?:ab|cd|a)" * 9 + "x", "has too many ways to match"),
    ("((((a{100}){100}){100}))", "repeats too much a counted number of times"),
    ("a{9999999}", "repeats too much a counted number of times"),
    (r"(a)\1", r"has \\1, which is not known here"),
    (r"(?<a>x\g<a>?)", r"has \\g, which is not known here"),
    (r"\X*", r"has \\X, which is not known here"),
    ("(?~ab)", r"has \(\?~, which is not known here"),
    ("(*FAIL)", "has a callout"),
    ("(?x) a", r"has \(\?x, which is not known here"),
    ("(?=a)*", "repeats what takes no character"),
    ("*a", "repeats nothing"),
    ("(a", "has a bracket that is not closed"),
    ("a)", "has a bracket too many"),
    ("[a", "ends too early"),
    ("(" * 99 + ")" * 99, "is nested too deeply"),
    ("[" * 99, "is nested too deeply"),
    ("a" * 10_001, "is 10001 characters long"),
]


@pytest.mark.parametrize("pattern", USED.values(), ids=USED)
def test_what_is_used_passes(pattern: str) -> None:
    from tokenizers import Regex

    check_regex(pattern)
    Regex(pattern)  # and it is one


@pytest.mark.parametrize(("pattern", "why"), HARMFUL, ids=[pattern[:20] for pattern, _ in HARMFUL])
def test_what_may_not_end_is_refused(pattern: str, why: str) -> None:
    with pytest.raises(Unsafe, match=why):
        check_regex(pattern)


def plain(**parts: Any) -> dict[str, Any]:
    """A word-level tokenizer of 61 tokens as a dictionary, with these parts instead of its own."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {"<unk>": 0, "<eos>": 1, **{f"w{i}": i for i in range(2, 61)}}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return {**json.loads(inner.to_str()), **parts}


def with_model(**fields: Any) -> dict[str, Any]:
    data = plain()
    data["model"] |= fields
    return data


def replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def sequence(*steps: dict[str, Any], name: str = "normalizers") -> dict[str, Any]:
    return {"type": "Sequence", name: list(steps)}


def charsmap(*texts: str) -> dict[str, Any]:
    raw = struct.pack("<I", 4) + bytes(4) + b"\0".join(text.encode() for text in texts) + b"\0"
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(raw).decode()}


def split(pattern: dict[str, str]) -> dict[str, Any]:
    return {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}


def template(single: list[dict[str, Any]], count: int) -> dict[str, Any]:
    tokens = {"<eos>": {"id": "<eos>", "ids": [1] * count, "tokens": ["<eos>"] * count}}
    return {"type": "TemplateProcessing", "single": single, "pair": [TEXT, TEXT], "special_tokens": tokens}


TEXT: dict[str, Any] = {"Sequence": {"id": "A", "type_id": 0}}
EOS: dict[str, Any] = {"SpecialToken": {"id": "<eos>", "type_id": 0}}
TEN = replace({"String": "a"}, "a" * 10)

HOSTILE = {
    "id": (
        with_model(vocab={"<unk>": 0, "w": 4294967290}),
        r"the token 'w' has the id 4294967290, far beyond the 2 tok",
    ),
    "regex": (
        plain(pre_tokenizer=split({"Regex": "(a+)+$"})),
        r"pre_tokenizer: the regular expression '\(a\+\)\+\$' has",
    ),
    "deep": (
        plain(pre_tokenizer=sequence(sequence(split({"Regex": ".*.*x"}), name="pretokenizers"), name="pretokenizers")),
        r"pre_tokenizer: the regular expression '\.\*\.\*x' has several",
    ),
    "regex of a normaliser": (plain(normalizer=replace({"Regex": "(a|a)*b"}, "")), "normalizer: the regular"),
    "regex of a decoder": (plain(decoder=replace({"Regex": "(a|a)*b"}, "")), "decoder: the regular expression"),
    "growth": (
        plain(normalizer=sequence(*[TEN] * 30)),
        r"normalizer: could make a text 1e\+30 times as long; expected at",
    ),
    "one": (plain(normalizer=replace({"String": "a"}, "a" * 99)), "normalizer: could make a text 99 times as long"),
    "empty": (plain(normalizer=replace({"Regex": "b*"}, "a" * 99)), "normalizer: could make a text 100 times"),
    "table": (plain(normalizer=charsmap("a", "b" * 999)), "normalizer: could make a text 999 times as long"),
    "prefix": (plain(normalizer={"type": "Prepend", "prepend": "a" * 999}), "normalizer: prepends more than 256"),
    "decoder": (plain(decoder=sequence(*[TEN] * 30, name="decoders")), "decoder: could make a text 1e"),
    "around": (plain(post_processor=template([EOS, TEXT], 1001)), "post_processor: puts 1001 tokens around every text"),
    "often": (plain(post_processor=template([EOS] * 99 + [TEXT], 99)), "post_processor: puts 9801 tokens around"),
    "twice": (plain(post_processor=template([TEXT, TEXT], 1)), "post_processor: has the text 2 times; expected it"),
    "word": (with_model(type="WordPiece", max_input_chars_per_word=10**9), "max_input_chars_per_word: got 1000000000"),
    "mark": (with_model(type="WordPiece", continuing_subword_prefix="#" * 999), "prefix: has 999 characters"),
}


@pytest.mark.parametrize(("data", "message"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_tokenizer_is_refused_wherever_it_is_read(tmp_path: Path, data: dict[str, Any], message: str) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(data))
    with pytest.raises(UserError, match=message) as caught:
        load_tokenizer(tmp_path)
    assert str(caught.value).startswith(f"tokenizer: {file}: ")


def test_the_commands_refuse_it(tmp_path: Path) -> None:
    """An import, and an entry that came with it."""
    model = hf_model("llama", num_hidden_layers=2)
    model.save_pretrained(tmp_path / "hf")
    (tmp_path / "hf" / "tokenizer.json").write_text(json.dumps(HOSTILE["id"][0]))
    code, _, err = run_cli("import", str(tmp_path / "hf"), "--to", str(tmp_path / "in"))
    assert code == 2 and "4294967290" in err and "--tokenizer none" in err and not (tmp_path / "in").exists()
    import_model(tmp_path / "hf", tmp_path / "in", tokenizer="none")
    (tmp_path / "in" / "tokenizer.json").write_text(json.dumps(HOSTILE["regex"][0]))
    code, _, err = run_cli("generate", str(tmp_path / "in"), "-p", "w2")
    assert code == 2 and "the regular expression" in err


@pytest.mark.parametrize(
    "normalizer",
    [
        {"type": "NFKC"},
        sequence({"type": "NFKD"}, {"type": "StripAccents"}, {"type": "Lowercase"}, charsmap("\u0635" * 18)),
        sequence({"type": "Prepend", "prepend": "\u2581"}, replace({"String": " "}, "\u2581")),
        sequence(*(replace({"String": letter}, "...") for letter in "\u2026\u22ef\u2025\ufe19\u0eaf\u0e2f\u0df4")),
        replace({"Regex": " {2,}"}, "\u2581"),
    ],
)
def test_honest_normalisers_pass(normalizer: dict[str, Any]) -> None:
    from miniwin.tokenizer.safety import USUAL, check_tokenizer

    assert check_tokenizer(plain(normalizer=normalizer)) <= USUAL


def test_a_text_that_grows_too_much_is_refused_where_it_is_read() -> None:
    """By its rules the normaliser may do it; most texts it leaves alone, and they are read."""
    tokenizer = HFTokenizer(json.dumps(plain(normalizer=replace({"String": "x"}, "y" * 50))), "tok.json")
    assert tokenizer.encode("w2 w3") == [2, 3]
    assert [ids.tolist() for ids in tokenizer.encode_batch(["w2", "w3 w4"])] == [[2], [3, 4]]
    for read in (tokenizer.encode, lambda text: tokenizer.encode_batch([text])):
        with pytest.raises(UserError, match=r"tok\.json: normalizer: makes this text more than 20 times as long"):
            read("x" * 100)
    imported = ImportedTokenizer(json.dumps(plain(normalizer=replace({"String": "x"}, "y" * 50))))
    assert imported.encode_batch(["w2"])[0].tolist() == imported.encode_prompt("w2") == [2]


def test_a_panic_of_the_library_is_an_error() -> None:
    """Which is no Exception of Python's."""
    tokenizer = HFTokenizer(json.dumps(plain(pre_tokenizer={"type": "FixedLength", "length": 0})))
    for read in (tokenizer.encode, lambda text: tokenizer.encode_batch([text])):
        with pytest.raises(UserError, match=r"tokenizer\.json: cannot read this text \(PanicException: chunk size"):
            read("w2 w3")


# -- special tokens beyond the rows of the model


@pytest.fixture(scope="module")
def beyond(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 61 ids, and a tokenizer with a special token more, as gemma-3-1b's has one for images."""
    folder = tmp_path_factory.mktemp("beyond")
    hf_model("llama", num_hidden_layers=2, bos_token_id=None, eos_token_id=None).save_pretrained(folder / "hf")
    special = {"id": 61, "content": "<image>", "special": True, "single_word": False, "lstrip": False, "rstrip": False}
    (folder / "hf" / "tokenizer.json").write_text(json.dumps(plain(added_tokens=[{**special, "normalized": False}])))
    import_model(folder / "hf", folder / "in")
    return folder


def test_a_special_token_beyond_the_model_is_taken_and_its_use_refused(beyond: Path) -> None:
    model = miniwin.load(beyond / "in")
    assert model.tokenizer is not None
    assert (model.tokenizer.vocab_size, model.tokenizer.rows, model.spec.vocab_size) == (62, 61, 61)
    result = generate(model, "w2 w3", max_new_tokens=30, temperature=1.0, seed=0)
    assert max(result.ids) < 61
    with pytest.raises(
        UserError, match=r"prompt: the token '<image>' has the id 61, and this model knows the ids 0 to 60"
    ):
        generate(model, "w2 <image>", max_new_tokens=1)
    with pytest.raises(UserError, match=r"expected token ids from 0 to 60, got 61"):
        generate(model, torch.tensor([61]), max_new_tokens=1)
    assert np.asarray(model.tokenizer.encode("w2")).tolist() == [2]
    record = json.loads((beyond / "in" / "import.json").read_text())
    assert any("special tokens of the tokenizer have ids up to 61" in note for note in record["notes"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"special": False}, r"the tokenizer has 62 ids and the model only 61"),
        ({"processor": True}, r"every text begins with '<image>', ids \[61\], and the model knows the ids 0 to 60"),
    ],
)
def test_what_every_text_needs_must_be_known(
    beyond: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    data = json.loads((beyond / "hf" / "tokenizer.json").read_text())
    if change.pop("processor", False):
        data["post_processor"] = json.loads(json.dumps(template([EOS, TEXT], 1)).replace("<eos>", "<image>"))
        data["post_processor"]["special_tokens"]["<image>"]["ids"] = [61]
    data["added_tokens"][0] |= change
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(UserError, match=message):
        import_model(beyond / "hf", tmp_path / "in", tokenizer=tmp_path)
    assert not (tmp_path / "in").exists()
