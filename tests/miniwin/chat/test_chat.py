"""Chats: answers are those of a model that reads everything anew, though each turn reads new tokens only."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import enliven
from terminal import CTRL_C, CTRL_D, terminal
from tiny import run_cli, spec

import miniwin
from miniwin.chat import ChatFormat
from miniwin.chat.conversation import Chat
from miniwin.generation import generate
from miniwin.language_model import LanguageModel
from miniwin.specs import UserError, dump_yaml

TURN = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ '\\x00' }}{% endfor %}"
ASK = "{% if add_generation_prompt %}<assistant>{% endif %}"
PLAIN = TURN + ASK
# Earlier answers become other texts: shorter, and with another beginning.
FORGETFUL = (
    "{% for m in messages %}<{{ m.role }}>"
    "{{ m.content[:3] if m.role == 'assistant' and not loop.last else m.content }}{{ '\\x00' }}{% endfor %}" + ASK
)
CHANGING = "{{ messages|length }}" + PLAIN
SHORT: dict[str, Any] = {"temperature": 0, "max_new_tokens": 20}


def model(template: str = PLAIN, context: int | None = None) -> LanguageModel:
    made = miniwin.build(spec(), seed=0).eval()
    enliven(made.decoder)
    made.chat_format = ChatFormat(template, ("\0",), {}, context)
    return made


@contextmanager
def counted(one: LanguageModel) -> Iterator[list[int]]:
    """The number of tokens of each call of the decoder."""
    calls: list[int] = []
    hook = one.decoder.register_forward_pre_hook(lambda module, inputs: calls.append(inputs[0].shape[1]))
    try:
        yield calls
    finally:
        hook.remove()


def anew(chat: Chat, before: list[dict[str, Any]], **settings: Any) -> str:
    """The answer of a model that reads the whole chat from the start."""
    text = chat.format.render(before, add_generation_prompt=True)
    return generate(chat.model, list(text.encode()), ends=[0], **{**SHORT, **settings}).text


def test_each_turn_reads_its_new_tokens_only() -> None:
    chat = model().chat(system="Be brief.", **SHORT)
    with counted(chat.model) as calls:
        for text in ("Hello", "And then?", "\u4e2d\U0001f600"):
            before, tokens = [*chat.messages, {"role": "user", "content": text}], chat.tokens
            calls.clear()
            said = chat.say(text)
            assert (
                sum(calls) == chat.tokens - tokens + (tokens > 0) - 1
            )  # the last token drawn is read by the next turn
            hooked = list(calls)
            assert said == anew(chat, before) or "\ufffd" in str(before)
            assert hooked[0] < len(chat.format.render(before).encode()) or tokens == 0
    roles = [message["role"] for message in chat.messages]
    assert roles == ["system"] + ["user", "assistant"] * 3


@pytest.mark.parametrize("template", [FORGETFUL, CHANGING, PLAIN], ids=["forgetful", "changing", "plain"])
def test_where_earlier_turns_are_written_otherwise_they_are_read_again(template: str) -> None:
    """The window is 8 tokens, so that a ring has lost what an answer of 20 wrote over."""
    chat = model(template).chat(**SHORT)
    for text in ("Hello", "", "more", "and more"):
        before = [*chat.messages, {"role": "user", "content": text}]
        chat.say(text)
        ids = chat._context.ids
        prompt = len(ids) - len(chat.last.ids) - (chat.last.ended == "separator")  # type: ignore[union-attr]
        expected = generate(chat.model, ids[:prompt], ends=[0], **SHORT)
        assert chat.last is not None and chat.last.ids == expected.ids
        assert bytes(ids[:prompt]).decode("utf-8", "replace") == chat.format.render(before, add_generation_prompt=True)


def test_a_stopped_answer_stays_in_the_history() -> None:
    chat = model().chat(**SHORT)
    left = iter([True] * 6)
    said = chat.say("Hello", going_on=lambda: next(left, False))
    assert chat.last is not None and chat.last.ended == "interrupted" and len(chat.last.ids) == 5
    assert chat.messages[-1] == {"role": "assistant", "content": said}
    before, tokens = [*chat.messages, {"role": "user", "content": "Go on"}], chat.tokens
    with counted(chat.model) as calls:
        chat.say("Go on")
        assert sum(calls) == chat.tokens - tokens
    assert chat.say("x", going_on=lambda: False) == ""
    assert chat.messages[-1] == {"role": "assistant", "content": ""}
    assert chat.messages[:3] == before


class Broken(Exception):
    pass


def test_a_failed_answer_was_never_said() -> None:
    chat = model().chat(**SHORT)
    chat.say("Hello")
    before = list(chat.messages)

    def stream(text: str) -> None:
        raise Broken

    with pytest.raises(Broken):
        chat.say("no", stream=stream)
    assert chat.messages == before
    assert chat.say("yes") == anew(chat, [*before, {"role": "user", "content": "yes"}])


def test_another_answer_takes_the_place_of_the_last() -> None:
    chat = model().chat(max_new_tokens=20, seed=1)
    first = chat.say("Hello")
    second = chat.regenerate()
    assert first != second and len(chat.messages) == 2
    again = model().chat(max_new_tokens=20, seed=1)
    assert (again.say("Hello"), again.regenerate()) == (first, second)
    with pytest.raises(UserError, match="no answer yet"):
        model().chat().regenerate()


def test_reset_forgets_all_but_the_system_message() -> None:
    chat = model().chat(system="S", **SHORT)
    first = chat.say("Hello")
    chat.reset()
    assert chat.tokens == 0 and chat.messages == [{"role": "system", "content": "S"}]
    assert chat.say("Hello") == first
    chat.reset("T")
    assert chat.messages == [{"role": "system", "content": "T"}]


def test_the_context_has_an_end() -> None:
    chat = model(context=40).chat(temperature=0, max_new_tokens=1000)
    chat.say("Hello")
    assert chat.last is not None and (chat.tokens, chat.last.ended) == (40, "length")
    with pytest.raises(UserError, match=r"context is full: the chat has \d\d tokens with this message, .* 40"):
        chat.say("more")
    assert len(chat.messages) == 2
    assert model(context=40).chat(context=30).limit == 30
    with pytest.raises(UserError, match=r"^context: got 0"):
        model().chat(context=0)


def test_a_model_that_was_not_made_for_chats_is_refused(tmp_path: Path) -> None:
    plain = model()
    plain.chat_format = None
    with pytest.raises(UserError, match=r"no chat template.*miniwin generate.*--template FILE"):
        plain.chat()
    (tmp_path / "t.jinja").write_text(PLAIN)
    assert plain.chat(template=tmp_path / "t.jinja", **SHORT).say("Hello") == model().chat(**SHORT).say("Hello")
    plain.tokenizer = None
    with pytest.raises(UserError, match="no tokenizer"):
        plain.chat()


# -- the command


def files(folder: Path) -> list[str]:
    (folder / "t.jinja").write_text(PLAIN)
    (folder / "m.yaml").write_text(dump_yaml(spec()))
    return ["chat", str(folder / "m.yaml"), "--template", str(folder / "t.jinja"), "--temperature", "0"]


def script(monkeypatch: pytest.MonkeyPatch, text: str, *arguments: str) -> tuple[int, str, str]:
    import io

    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    return run_cli(*arguments)


def test_a_script_gets_an_answer_for_each_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = tmp_path / "chat.jsonl"
    lines = f"Hello\n\n//x\n/regenerate\n/save {saved}\n/reset\nHello\n/exit\nnever\n"
    code, out, err = script(monkeypatch, lines, *files(tmp_path), "-n", "5", "--system", "S")
    said = [message["content"] for message in json.loads(saved.read_text())["conversations"]]
    assert code == 0 and said[::2] == ["S", said[2], said[4]] and said[1::2] == ["Hello", "/x"]
    assert out == "".join(f"{answer}\n" for answer in (said[2], said[4], said[4], said[2]))
    assert err.count("cut after 5 tokens") == 4 and "saved 5 messages" in err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/what", "/what: no such command; /help"),
        ("/save", "/save: say what"),
        ("/regenerate", "no answer yet"),
        ("/save x/y/z", "cannot write there"),
    ],
)
def test_a_wrong_line_of_a_script_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, said: str
) -> None:
    code, out, err = script(monkeypatch, f"{line}\nHello\n", *files(tmp_path))
    assert code == 2 and out == "" and err.startswith("error: ") and said in err


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_on_a_terminal_ctrl_c_stops_an_answer_and_not_the_chat(tmp_path: Path) -> None:
    with terminal(*files(tmp_path), "-n", "1000000") as screen:
        screen.until(b"> ")
        for _ in range(2):
            screen.type(b"Hello\n")
            screen.until(b"Hello\r\n")
            while len(screen.seen) < 50:
                screen.more()
            assert not re.search(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", screen.seen)  # nothing that a terminal obeys
            screen.type(CTRL_C)
            screen.until(b"(stopped; Ctrl-C once more ends the chat)")
            screen.until(b"> ")
            screen.type(b"/reset\n")  # where an answer was stopped is chance, and so would be the next answer
            screen.until(b"a new chat")
            screen.until(b"> ")
        screen.type(b"/what\n")
        screen.until(b"error: /what: no such command")
        screen.until(b"> ")
        # Python misses a Ctrl-C between its prompt and its waiting for a key; the next one is heard, as one.
        screen.type(CTRL_C)
        while screen.idle(5):
            screen.type(CTRL_C)
        screen.until(b"Ctrl-C once more")
        screen.until(b"> ")
        screen.type(CTRL_D)
        assert screen.process.wait(timeout=120) == 0


def test_torch_is_left_as_it_was() -> None:
    chat = model().chat(**SHORT)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    chat.say("Hello")
    assert torch.equal(torch.get_rng_state(), before)
