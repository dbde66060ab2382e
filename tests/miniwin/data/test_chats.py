"""Chats as data: which tokens are answers, whole chats in rows, lines that are refused."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hf_tokenizers import EOS, EOT, tokenizer_json
from tiny_runs import tiny_model

from miniwin.chat import ChatFormat
from miniwin.data import Corpus, prepare
from miniwin.data.chat_rows import ChatRows
from miniwin.data.rows import IGNORED
from miniwin.specs import UserError
from miniwin.specs.data import ChatData
from miniwin.tokenizer import HFTokenizer, load_tokenizer

BYTE = load_tokenizer("byte")
TURN = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ '\\x00' }}\n{% endfor %}"
ASK = "{% if add_generation_prompt %}<assistant>{% endif %}"
PLAIN = ChatFormat(TURN + ASK, ("\0",))
# An earlier answer loses its thoughts, and the last one has them.
THINKING = ChatFormat(
    "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' and loop.last %}(hm){% endif %}{{ m.content }}"
    "{{ '\\x00' }}\n{% endfor %}" + ASK,
    ("\0",),
)
MARKED = ChatFormat(
    "{% for m in messages %}<{{ m.role }}>"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}"
    "{% else %}{{ m.content }}{% endif %}<|eot_id|>\n{% endfor %}",
    (EOS, EOT),
)
MINIMIND = [  # as its documentation has them
    '{"conversations": [{"role": "user", "content": "你好"}, {"role": "assistant", "content": "你好！"}]}',
    '{"conversations": [{"role": "system", "content": "# Tools ...", "tools": "[...]"}, '
    '{"role": "user", "content": "go"}, {"role": "assistant", "content": "", '
    '"tool_calls": "[{\\"name\\":\\"f\\",\\"arguments\\":{}}]"}, '
    '{"role": "tool", "content": "{}"}, {"role": "assistant", "content": "Hello World"}]}',
]


def chat(*said: str, role: str = "user") -> dict[str, Any]:
    roles = [role, "assistant"] * len(said)
    return {"conversations": [{"role": one, "content": text} for one, text in zip(roles, said, strict=False)]}


def corpus(folder: Path, *lines: str | dict[str, Any], chat_format: ChatFormat | None = PLAIN, **fields: Any) -> Corpus:
    """Of these lines, all of them to train on."""
    (folder / "chats.jsonl").write_text(
        "".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in lines)
    )
    (folder / "valid.jsonl").write_text(json.dumps(chat("v", "w")) + "\n")
    tokenizer = fields.pop("tokenizer", BYTE)
    spec = ChatData(paths=("chats.jsonl",), valid_paths=("valid.jsonl",), **fields)
    return prepare(spec, tokenizer, folder, folder / "cache", chat_format=chat_format)


def counted(made: Corpus, tokenizer: Any = BYTE) -> list[str]:
    """The text that is counted, run by run."""
    rows = made.rows
    assert isinstance(rows, ChatRows)
    places = np.flatnonzero(rows.counted)
    runs = np.split(places, np.flatnonzero(np.diff(places) > 1) + 1)
    return [tokenizer.decode(rows.ids[run].tolist()) for run in runs]


def test_answers_and_the_tokens_that_end_them_are_counted(tmp_path: Path) -> None:
    lines = [
        chat("Hi", "Hello!", "Bye", "See \u4e2d you"),
        {"messages": chat("a", "b", role="system")["conversations"]},
    ]
    made = corpus(tmp_path, *lines)
    assert counted(made) == ["Hello!\0", "See \u4e2d you\0", "b\0"]
    assert made.info["train_documents"] == 2 and made.chat_format == PLAIN
    every = corpus(tmp_path, *lines, loss="all")
    assert counted(every) == ["".join(PLAIN.render(next(iter(line.values()))) for line in lines)]
    assert BYTE.decode(made.valid.tolist()) == "<user>v\0\n<assistant>w\0\n\0"


def test_an_answer_is_found_where_the_template_changes_it_later(tmp_path: Path) -> None:
    made = corpus(tmp_path, chat("Hi", "Hello!", "Bye", "See you"), chat_format=THINKING)
    assert counted(made) == ["Hello!\0", "(hm)See you\0"]


def test_what_the_template_marks_is_counted_with_its_end(tmp_path: Path) -> None:
    tokenizer = HFTokenizer(tokenizer_json())
    made = corpus(tmp_path, chat("Hi", "hello there", "twice", "a city"), chat_format=MARKED, tokenizer=tokenizer)
    assert counted(made, tokenizer) == [f"hello there{EOT}", f"a city{EOT}"]
    unmarked = ChatFormat(
        MARKED.template.replace("{% generation %}", "").replace("{% endgeneration %}", "") + ASK, (EOT,)
    )
    plain = corpus(tmp_path, chat("Hi", "hello there", "twice", "a city"), chat_format=unmarked, tokenizer=tokenizer)
    assert np.array_equal(plain.rows.counted, made.rows.counted)  # type: ignore[attr-defined]
    assert plain.fingerprint != made.fingerprint


def test_the_lines_of_minimind_are_read(tmp_path: Path) -> None:
    assert counted(corpus(tmp_path, *MINIMIND)) == [
        "\u4f60\u597d\uff01\0",
        "\0",
        "Hello World\0",
    ]


def test_a_file_of_ones_own_is_a_template(tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_text(PLAIN.template)
    own, given = (
        corpus(tmp_path, chat("Hi", "Ho"), **how) for how in ({"template": "t.jinja", "chat_format": None}, {})
    )
    assert counted(own) == counted(given) and own.fingerprint == given.fingerprint
    assert corpus(tmp_path, chat("Hi", "Ho"), loss="all").fingerprint != given.fingerprint
    with pytest.raises(UserError, match=r"there is none: begin with the weights .*--from.* template"):
        corpus(tmp_path, chat("Hi", "Ho"), chat_format=None)


REFUSED = {
    "broken": ('{"conversations": [', "not JSON"),
    "deep": ("[" * 100_000, "not JSON"),
    "list": ("[1]", "got [1]; expected"),
    "text": ('{"text": "a"}', "for lines of plain text write source: jsonl"),
    "empty": ('{"conversations": []}', "conversations: got []"),
    "no role": ('{"conversations": [{"content": "a"}]}', "conversations[0]: got"),
    "role": ('{"conversations": [{"role": "human", "content": "a"}]}', "role: got 'human'; expected one of system"),
    "no answer": (json.dumps(chat("a")), "no answer in it: 1 messages, none of role assistant"),
    "no content": ('{"conversations": [{"role": "user"}, {"role": "assistant", "content": "a"}]}', "content: got null"),
    "answer first": (json.dumps(chat("a", "b", role="assistant")), "begins with an answer"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_line_is_named(tmp_path: Path, name: str) -> None:
    line, said = REFUSED[name]
    with pytest.raises(UserError) as refused:
        corpus(tmp_path, chat("Hi", "Ho"), "", line)
    assert str(refused.value).startswith(f"{tmp_path / 'chats.jsonl'}:3: ") and said in str(refused.value)
    assert not list((tmp_path / "cache" / "data").glob("*.tmp"))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"messages": [], "messages": [{"role": "user"}]}', "'messages' is given twice; which one is meant"),
        ('{"messages": [], "conversations": []}', "has both conversations and messages; expected one list"),
        (
            '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": "f()"}]}',
            r"messages\[1\]: tool_calls: got 'f\(\)'; expected a list, or a text that is one",
        ),
    ],
)
def test_a_line_that_says_two_things_is_refused(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(UserError, match=rf"chats\.jsonl:2: {said}"):
        corpus(tmp_path, chat("a", "b"), line)


def test_a_chat_that_the_template_refuses_is_named(tmp_path: Path) -> None:
    strict = ChatFormat(
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + PLAIN.template, ("\0",)
    )
    with pytest.raises(UserError, match=r"chats.jsonl:2: the chat template refuses this chat: no system"):
        corpus(tmp_path, chat("Hi", "Ho"), chat("Hi", "Ho", role="system"), chat_format=strict)
    other = ChatFormat("{{ messages|length }}" + PLAIN.template, ("\0",))
    with pytest.raises(UserError, match=r"chats.jsonl:1: .* before answer 1 otherwise .*generation"):
        corpus(tmp_path, chat("Hi", "Ho"), chat_format=other)


# -- rows


def many(folder: Path, count: int = 23) -> Corpus:
    return corpus(folder, *(chat("q" * (number % 5), f"{number:02}" * (1 + number % 3)) for number in range(count)))


def test_rows_hold_whole_chats_and_an_epoch_holds_each_once(tmp_path: Path) -> None:
    rows = many(tmp_path).rows
    assert isinstance(rows, ChatRows)
    whole = [rows.ids[a:b].tolist() for a, b in zip(rows.starts[:-1], rows.starts[1:], strict=True)]
    seq_len, seed = 80, 3
    count = len(rows._packed(seq_len, seed))
    found = []
    for number in range(count):
        [(inputs, targets)] = rows.rows(number, 1, seq_len, seed)
        documents = rows.documents(number, 1, seq_len, seed)[0]
        for document in range(documents.max() + 1):
            own = documents == document
            ids, wanted = inputs[own], targets[own]
            if not ids.any():
                assert (wanted == IGNORED).all()
                continue
            chat_ids = next(one for one in whole if one[:-1] == ids.tolist())
            found.append(chat_ids)
            number_of = whole.index(chat_ids)
            begin = int(rows.starts[number_of])
            mask = rows.counted[begin + 1 : begin + len(chat_ids)] != 0
            assert wanted.tolist() == np.where(mask, chat_ids[1:], IGNORED).tolist()
    assert sorted(found) == sorted(whole) and count < len(whole)
    first, second = ([r[0].tolist() for r in rows.rows(start, count, seq_len, seed)] for start in (0, count))
    assert first != second and sorted(first) == sorted(second)
    assert rows.rows(5, 1, seq_len, seed + 1)[0][0].tolist() != rows.rows(5, 1, seq_len, seed)[0][0].tolist()
    again = pickle.loads(pickle.dumps(rows))
    assert again.rows(5, 1, seq_len, seed)[0][0].tolist() == rows.rows(5, 1, seq_len, seed)[0][0].tolist()


def test_a_chat_that_is_too_long_is_cut_at_its_end(tmp_path: Path) -> None:
    rows = corpus(tmp_path, chat("Hi", "x" * 100), chat("q" * 100, "never")).rows
    [(inputs, targets)] = rows.rows(0, 1, 40, 0)
    assert BYTE.decode(inputs.tolist()) == "<user>Hi\0\n<assistant>" + "x" * 19 and (targets[20:] == ord("x")).all()
    rows.check(40)
    with pytest.raises(UserError, match=r"no chat has an answer within its first 10 tokens \(seq_len\)"):
        rows.check(10)


def test_how_many_chats_are_too_long_is_known(tmp_path: Path) -> None:
    made = corpus(tmp_path, chat("Hi", "x" * 100), chat("q" * 100, "never"), chat("q" * 100, "never"), chat("a", "b"))
    assert made.too_long([40, 500]) == {"40": {"cut": 1, "left_out": 2}}
    assert made.describe([40])["too_long"] == {"40": {"cut": 1, "left_out": 2}}
    assert "too_long" not in made.describe([500]) and made.too_long([]) == {}


def test_answers_are_counted_on_each_side(tmp_path: Path) -> None:
    (text,) = corpus(tmp_path, chat("a", "b")).texts
    assert text.counted is not None and len(text.counted) == len(text.ids)
    assert BYTE.decode(text.ids[text.counted != 0].tolist()) == "w\0"
    (text,) = corpus(tmp_path, chat("a", "b"), loss="all").texts
    assert text.counted is not None and text.counted.tolist() == [1] * (len(text.ids) - 1) + [0], "the separator"


def test_a_token_sees_its_own_chat_only(tmp_path: Path) -> None:
    rows = many(tmp_path).rows
    decoder = tiny_model().build()
    [(inputs, _)] = rows.rows(0, 1, 80, 0)
    documents = torch.from_numpy(rows.documents(0, 1, 80, 0)[0])[None]
    ids = torch.from_numpy(inputs)[None]
    packed = decoder.hidden(ids, documents=documents)
    assert int(documents.max()) >= 2
    for number in range(int(documents.max())):
        own = documents[0] == number
        torch.testing.assert_close(packed[:, own], decoder.hidden(ids[:, own]), atol=1e-5, rtol=1e-4)
