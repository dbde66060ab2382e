"""A chat with SmolLM2, on a terminal and in Python. It runs where MINIWIN_TEST_SLOW is set:

MINIWIN_TEST_SLOW=1 pytest tests/miniwin/chat/test_real_chat.py
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from real_models import real_model
from terminal import CTRL_C, terminal

import miniwin
from miniwin.generation import generate
from miniwin.zoo.importing import import_model

pytestmark = [
    pytest.mark.skipif(not os.environ.get("MINIWIN_TEST_SLOW"), reason="slow; runs where MINIWIN_TEST_SLOW is set"),
    pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals"),
]
QUESTIONS = ("What is the capital of France? Answer in one sentence.", "And of Italy?")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("gguf")
    return import_model(real_model("smollm2"), tmp_path_factory.mktemp("smollm2") / "import").folder


def test_a_chat_on_a_terminal(folder: Path, tmp_path: Path) -> None:
    saved = tmp_path / "chat.jsonl"
    with terminal("chat", str(folder), "--temperature", "0", "-n", "400") as screen:
        assert b"context of 8,192 tokens" in screen.until(b"/help names the commands")
        screen.until(b"> ")
        for question, expected in zip(QUESTIONS, (b"Paris", b"Rome"), strict=True):
            screen.type(f"{question}\n".encode())
            screen.until(f"{question}\r\n".encode())
            answer = screen.until(b"\r\n> ")  # it ends by itself, before it would be cut
            assert expected in answer and b"<|" not in answer and b"(cut" not in answer, answer
        screen.type(b"Write a long story about a fox.\n")
        screen.until(b"a fox.\r\n")
        while len(screen.seen) < 40:  # it is streamed
            screen.more()
        screen.type(CTRL_C)
        screen.until(b"(stopped; Ctrl-C once more ends the chat)")
        screen.until(b"> ")
        screen.type(f"/save {saved}\n".encode())
        screen.until(b"saved 6 messages")
        screen.until(b"> ")
        screen.type(b"/exit\n")
        assert screen.process.wait(timeout=120) == 0
    said = json.loads(saved.read_text())["conversations"]
    assert [message["role"] for message in said] == ["user", "assistant"] * 3
    assert len(said[-1]["content"]) > 20, "what was said before the answer was stopped"


def test_the_history_is_not_read_again(folder: Path) -> None:
    model = miniwin.load(folder)
    chat = model.chat(temperature=0, max_new_tokens=100)
    for question in (*QUESTIONS, "Thanks!"):
        before, asked = chat.tokens, [*chat.messages, {"role": "user", "content": question}]
        answer = chat.say(question)
        last = chat.last
        assert last is not None and last.ended == "separator"
        assert chat.tokens == before + last.prompt_tokens + len(last.ids) + 1, "each token is read once"
        assert model.tokenizer is not None
        ids = model.tokenizer.encode_marked(chat.format.render(asked, add_generation_prompt=True))
        anew = generate(model, ids, ends=chat.format.end_ids(model.tokenizer), temperature=0, max_new_tokens=100)
        assert answer == anew.text
