"""Tokenizers: round trips, exact bytes per token, streaming, saving, and errors by their text."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miniwin.specs import UserError
from miniwin.tokenizer import ByteTokenizer, HFTokenizer, StreamDecoder, Tokenizer, load_tokenizer

TEXTS = [
    "def main(argv):\n    return 0\n",
    "naïve café, 文字と絵文字 😀👩‍👩‍👧 done",
    "tabs\tand\r\nlines  and   spaces\n\n",
    "<|endoftext|> is only text here",
]
SAMPLE = ["the cat sat on the mat\n" * 3, *TEXTS] * 5


def train_bpe(*, alphabet: bool = True, special: tuple[str, ...] = ("<|endoftext|>",), **settings: object) -> str:
    from tokenizers import Tokenizer as Inner
    from tokenizers import decoders, models, pre_tokenizers, trainers

    inner = Inner(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet() if alphabet else [],
        show_progress=False,
    )
    inner.train_from_iterator(SAMPLE, trainer)
    return json.dumps({**json.loads(inner.to_str()), **settings})


def train_unigram() -> str:
    from tokenizers import Tokenizer as Inner
    from tokenizers import decoders, models, pre_tokenizers, trainers

    inner = Inner(models.Unigram())
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=["<unk>", "</s>"], unk_token="<unk>", show_progress=False
    )
    inner.train_from_iterator(SAMPLE, trainer)
    return inner.to_str()


@pytest.fixture(scope="module")
def bpe() -> HFTokenizer:
    return HFTokenizer(train_bpe())


@given(st.text())
def test_byte_round_trip(text: str) -> None:
    tokenizer = ByteTokenizer()
    ids = tokenizer.encode(text)
    assert ids == list(text.encode("utf-8"))
    assert tokenizer.decode(ids) == text
    assert tokenizer.token_bytes(np.array(ids, dtype=np.int64)).sum() == len(text.encode("utf-8"))
    assert tokenizer.encode_batch([text, ""])[0].tolist() == ids


@given(st.lists(st.integers(0, 300)))
def test_byte_stream_is_decode_cut_into_whole_characters(ids: list[int]) -> None:
    tokenizer = ByteTokenizer()
    stream = StreamDecoder(tokenizer)
    assert "".join(stream.push(token) for token in ids) + stream.flush() == tokenizer.decode(ids)


@pytest.mark.parametrize("text", TEXTS)
def test_byte_stream_shows_a_character_with_its_last_byte(text: str) -> None:
    tokenizer = ByteTokenizer()
    stream = StreamDecoder(tokenizer)
    parts = [stream.push(token) for token in tokenizer.encode(text)]
    assert "\ufffd" not in "".join(parts)
    assert [part for part in parts if part] == list(text)
    assert stream.flush() == ""


def test_stream_flush_gives_up_half_a_character() -> None:
    stream = StreamDecoder(ByteTokenizer())
    assert [stream.push(token) for token in "é".encode()[:1]] == [""]
    assert stream.flush() == "\ufffd"
    assert stream.push(ord("a")) == "a"


def test_half_a_surrogate_pair_is_not_a_crash(bpe: HFTokenizer) -> None:
    for tokenizer in (ByteTokenizer(), bpe):
        assert tokenizer.decode(tokenizer.encode("a\ud800b")) == "a?b"


@pytest.mark.parametrize("text", TEXTS)
def test_byte_level_bpe_is_exact(bpe: HFTokenizer, text: str) -> None:
    ids = bpe.encode(text)
    assert bpe.decode(ids) == text
    assert bpe._inner.decode(ids) == text
    assert bpe.token_bytes(np.array(ids)).sum() == len(text.encode("utf-8"))
    assert bpe.encode_batch([text])[0].tolist() == ids
    assert max(ids) < bpe.vocab_size
    stream = StreamDecoder(bpe)
    parts = [stream.push(token) for token in ids]
    assert "\ufffd" not in "".join(parts) and "".join(parts) == text


@settings(max_examples=50)
@given(text=st.text())
def test_byte_level_bpe_is_exact_for_any_text(bpe: HFTokenizer, text: str) -> None:
    ids = bpe.encode(text)
    assert bpe.decode(ids) == text
    assert int(bpe.token_bytes(np.array(ids, dtype=np.int64)).sum()) == len(text.encode("utf-8"))


def test_bpe_merges_and_keeps_the_shape_of_ids(bpe: HFTokenizer) -> None:
    ids = bpe.encode("the cat sat on the mat\n")
    assert len(ids) < 12
    grid = np.array([ids[:4], ids[1:5]])
    assert bpe.token_bytes(grid).shape == (2, 4)


def test_a_separator_written_in_a_text_is_text(bpe: HFTokenizer) -> None:
    assert bpe.separator is not None
    assert bpe.separator not in bpe.encode("a<|endoftext|>b")
    assert bpe.decode([bpe.separator]) == "<|endoftext|>"
    assert bpe.token_bytes(np.array([bpe.separator])).tolist() == [1]
    assert ByteTokenizer().separator == 0


def test_separator_falls_back_to_byte_0_and_to_none() -> None:
    whole = HFTokenizer(train_bpe(special=()))
    assert whole.separator == whole.encode("\0")[0]
    assert HFTokenizer(train_bpe(special=(), alphabet=False)).separator is None


def test_settings_that_would_cut_pad_or_randomise_text_are_off() -> None:
    plain = train_bpe()
    model = {**json.loads(plain)["model"], "dropout": 0.9}
    cutting = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    padding = {
        "strategy": {"Fixed": 64},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "<|endoftext|>",
    }
    odd = HFTokenizer(json.dumps({**json.loads(plain), "truncation": cutting, "padding": padding, "model": model}))
    text = "the cat sat on the mat\n" * 4
    assert odd.encode(text) == odd.encode_batch([text])[0].tolist() == HFTokenizer(plain).encode(text)


def test_other_tokenizers_count_their_letters() -> None:
    unigram = HFTokenizer(train_unigram())
    text = "the cat sat on the mat"
    ids = unigram.encode(text)
    assert unigram.decode(ids) == text
    assert unigram.separator is not None
    # The word-boundary mark put before the first word is the one byte that was not in the text.
    assert unigram.token_bytes(np.array(ids)).sum() == len(text) + 1
    stream = StreamDecoder(unigram)
    assert "".join(stream.push(token) for token in ids) + stream.flush() == text


def test_word_pieces_count_the_space_before_a_word() -> None:
    from tokenizers import Tokenizer as Inner
    from tokenizers import decoders, models, pre_tokenizers

    words = {"[UNK]": 0, "[SEP]": 1, "the": 2, "cat": 3, "##s": 4}
    inner = Inner(models.WordPiece(words, unk_token="[UNK]"))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.Whitespace(), decoders.WordPiece()
    tokenizer = HFTokenizer(inner.to_str())
    ids = tokenizer.encode("the cats")
    assert ids == [2, 3, 4]
    assert tokenizer.token_bytes(np.array(ids)).tolist() == [4, 4, 1]


def test_save_and_load(tmp_path: Path, bpe: HFTokenizer) -> None:
    tokenizers: dict[str, Tokenizer] = {"byte": ByteTokenizer(), "bpe": bpe}
    for name, tokenizer in tokenizers.items():
        tokenizer.save(tmp_path / name)
        assert [path.name for path in (tmp_path / name).iterdir()] == ["tokenizer.json"]
        for again in (
            load_tokenizer(name + "/", base=tmp_path),
            load_tokenizer(tmp_path / name / "tokenizer.json"),
        ):
            assert type(again) is type(tokenizer)
            assert (again.identity, again.name, again.vocab_size) == (
                tokenizer.identity,
                tokenizer.name,
                tokenizer.vocab_size,
            )
            assert again.encode(TEXTS[1]) == tokenizer.encode(TEXTS[1])


def test_identity_tells_tokenizers_apart(bpe: HFTokenizer) -> None:
    others: list[Tokenizer] = [ByteTokenizer(), bpe, HFTokenizer(train_bpe(special=("</s>",)))]
    assert len({one.identity for one in others}) == len({one.name for one in others}) == 3
    assert HFTokenizer(train_bpe()).identity == bpe.identity


def test_byte_is_the_byte_tokenizer(tmp_path: Path) -> None:
    assert isinstance(load_tokenizer("byte", base=tmp_path), ByteTokenizer)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            None,
            r"tokenizer: no such file: 'tok.json' \(looked for .*tok.json\); expected `byte`, a Hugging Face",
        ),
        ("{\n  oops", r"tok.json:2:3: not JSON \(Expecting property name enclosed in double quotes\)"),
        ("[]", r"tok.json: not a tokenizer that the `tokenizers` library can read"),
        ("{}", r"tok.json: not a tokenizer that the `tokenizers` library can read"),
        (
            '{"model": {"type": "BPE", "vocab": {}, "merges": []}}',
            r"tok.json: .*expected|the vocabulary is empty",
        ),
    ],
)
def test_broken_tokenizer_files(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "tok.json").write_text(content)
    with pytest.raises(UserError, match=message):
        load_tokenizer("tok.json", base=tmp_path)


def test_a_sentencepiece_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tok.model").write_bytes(b"\x0a\xff\xfe\x00")
    with pytest.raises(UserError, match=r"tokenizer: cannot read .*tok.model.*expected a Hugging Face tokenizer.json"):
        load_tokenizer("tok.model", base=tmp_path)


def test_a_byte_order_mark_changes_no_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "plain.json").write_text(train_bpe(), encoding="utf-8")
    (tmp_path / "marked.json").write_text(train_bpe(), encoding="utf-8-sig")
    plain, marked = (load_tokenizer(f"{name}.json", base=tmp_path) for name in ("plain", "marked"))
    assert plain.identity == marked.identity and plain.name == marked.name
    marked.save(tmp_path / "out")
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (tmp_path / "plain.json").read_bytes()
