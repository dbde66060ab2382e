"""The server, asked by OpenAI's own client and by hand: streams, limits, kept states, and the end."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import uvicorn
from tiny import TINY

import miniwin
from miniwin.chat.format import ChatFormat
from miniwin.generation import generate
from miniwin.language_model import LanguageModel
from miniwin.serving.server import Options, Serving
from miniwin.specs import parse_spec

if TYPE_CHECKING:
    from openai import OpenAI

KEY = "a-key"
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"


def tiny_model(dtype: str = "float64", seed: int = 0) -> LanguageModel:
    """Random weights, drawn larger than for training, so that the most probable token is so by far."""
    model = miniwin.build(parse_spec(TINY, "model"), seed=seed).to(getattr(torch, dtype))  # type: ignore[arg-type]
    with torch.no_grad():
        for weight in model.decoder.parameters():
            if weight.dim() == 2:
                weight.mul_(8)
    return model.eval()


def openai_client(port: int) -> OpenAI:
    from openai import OpenAI  # takes as long to import as all tests of many files: only where it is used

    return OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=KEY, max_retries=0, timeout=60)


class Running:
    """A server in a thread."""

    def __init__(self, *models: LanguageModel, **options: Any) -> None:
        self.serving = Serving([(model.ref, model) for model in models], Options(api_key=KEY, **options))
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        self.server = uvicorn.Server(
            uvicorn.Config(self.serving.app, lifespan="off", log_config=None, timeout_graceful_shutdown=1)  # type: ignore[arg-type]
        )
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.listening]})
        self.thread.start()
        self.client = openai_client(self.port)

    def ask(self, path: str, body: Any, **headers: str) -> tuple[int, Any]:
        given = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", **headers}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection.request("GET" if raw is None else "POST", path, raw, {k: v for k, v in given.items() if v})
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        return answer.status, json.loads(text) if text[:1] == b"{" else text.decode()

    def number(self, name: str) -> float:
        found = re.search(rf"^{name}(?:{{[^}}]*}})? ([0-9.e+]+)$", self.ask("/metrics", None)[1], re.MULTILINE)
        return 0.0 if found is None else float(found[1])

    def end(self) -> None:
        self.client.close()
        self.serving.end()
        self.server.should_exit = True
        self.thread.join()
        self.serving.join()
        self.listening.close()


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    model = tiny_model()
    model.chat_format = ChatFormat(TEMPLATE)
    plain = tiny_model(seed=1)
    plain.ref = "plain"
    server = Running(model, plain, max_length=600, max_queue=32, max_body=20_000)
    yield server
    server.end()


def alone(running: Running, prompt: str, new: int, **options: Any) -> str:
    model: Any = running.serving.models[0].model
    return generate(model, prompt, max_new_tokens=new, **{"temperature": 0, **options}).text


def test_twenty_streams_at_once_are_not_mixed_up_and_a_client_that_leaves_harms_nobody(running: Running) -> None:
    prompts = ["." * (7 * i) + chr(65 + i) for i in range(20)]
    wanted = [alone(running, prompt, 40) for prompt in prompts]
    assert len(set(wanted)) == 20
    got: dict[int, str] = {}

    def ask(i: int) -> None:
        stream = running.client.completions.create(
            model="tiny", prompt=prompts[i], max_tokens=40, temperature=0, stream=True
        )
        pieces = []
        for chunk in stream:
            pieces.append(chunk.choices[0].text)
            if i == 13:
                stream.close()
                return
        got[i] = "".join(pieces)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == {i: text for i, text in enumerate(wanted) if i != 13}
    deadline = time.monotonic() + 20
    while running.number("miniwin_running") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert running.number("miniwin_running") == 0


def test_answers_of_both_apis(running: Running) -> None:
    client = running.client
    assert {model.id for model in client.models.list()} == {"tiny", "plain"}
    one = client.completions.create(model="tiny", prompt="abc", max_tokens=9, temperature=0, logprobs=2)
    assert one.choices[0].text == alone(running, "abc", 9) and one.choices[0].finish_reason == "length"
    assert one.usage is not None and (one.usage.prompt_tokens, one.usage.completion_tokens) == (3, 9)
    told = one.choices[0].logprobs
    assert told is not None and told.token_logprobs and told.top_logprobs and len(told.token_logprobs) == 9
    assert all(max(top.values()) == value for top, value in zip(told.top_logprobs, told.token_logprobs, strict=True))
    messages: Any = [{"role": "user", "content": "hello"}]
    asked: Any = {"model": "tiny", "messages": messages, "max_tokens": 9, "temperature": 0}
    chat = client.chat.completions.create(**asked, logprobs=True, top_logprobs=3)
    text = alone(running, "<user>hello<assistant>", 9)
    assert chat.choices[0].message.content == text
    content = chat.choices[0].logprobs.content  # type: ignore[union-attr]
    assert content is not None and len(content) == 9 and len(content[0].top_logprobs) == 3
    parts = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert "".join(part.choices[0].delta.content or "" for part in parts if part.choices) == text
    assert parts[-1].usage is not None and parts[-1].usage.completion_tokens == 9 and not parts[-1].choices
    two = client.completions.create(model="tiny", prompt=["a", "b"], n=2, max_tokens=5, seed=7)
    assert [choice.index for choice in two.choices] == [0, 1, 2, 3]
    again = client.completions.create(model="tiny", prompt="b", n=2, max_tokens=5, seed=7)
    assert [c.text for c in again.choices] == [c.text for c in two.choices[2:]]
    assert again.choices[1].text == alone(running, "b", 5, seed=8, temperature=1.0)
    stop = text[4]
    cut = client.chat.completions.create(**asked, stop=[stop])
    assert cut.choices[0].message.content == text[: text.index(stop)] and cut.choices[0].finish_reason == "stop"


WRONG: list[tuple[Any, int, str]] = [
    (b"{", 400, "not JSON"),
    (b'{"model": "\xff"}', 400, "not JSON"),
    (b'{"model": "tiny", "prompt": "\\ud800"}', 400, "not JSON"),
    (b'{"model": "tiny", "prompt": "a", "temperature": NaN}', 400, "NaN"),
    (b'{"model": "tiny", "prompt": "a", "temperature": 1e999}', 400, "temperature"),
    (b"[" * 10_000, 400, "not JSON"),
    (b'{"model": "tiny", "model": "plain", "prompt": "a"}', 400, "twice"),
    ({"prompt": "a"}, 400, "model"),
    ({"model": "other\x1b[2J", "prompt": "a"}, 404, "tiny, plain"),
    ({"model": "tiny", "prompt": "a", "max_tokens": -1}, 400, "max_tokens"),
    ({"model": "tiny", "prompt": "a", "max_tokens": 10**30}, 400, "600"),
    ({"model": "tiny", "prompt": "a" * 700}, 400, "600"),
    ({"model": "tiny", "prompt": [[]]}, 200, ""),
    ({"model": "tiny", "prompt": []}, 200, ""),
    ({"model": "tiny", "prompt": [256]}, 400, "255"),
    ({"model": "tiny", "prompt": [2**70]}, 400, "255"),
    ({"model": "tiny", "prompt": "a", "stop": "x" * 10_000}, 400, "stop"),
    ({"model": "tiny", "prompt": "a", "stop": ""}, 400, "stop"),
    ({"model": "tiny", "prompt": "a", "tempreature": 1}, 400, "tempreature"),
    ({"model": "tiny", "prompt": "a", "presence_penalty": 1}, 400, "presence_penalty"),
    ({"model": "tiny", "prompt": "a", "logit_bias": {"5": 1}}, 400, "logit_bias"),
    ({"model": "tiny", "prompt": "a", "seed": 2**80}, 400, "seed"),
    ({"model": "tiny", "prompt": "a", "stream_options": {"include_usage": True}}, 400, "stream_options"),
    ({"model": "tiny", "prompt": "a" * 30_000}, 413, "20,000"),
]


@pytest.mark.parametrize("body, status, said", WRONG, ids=range(len(WRONG)))
def test_wrong_requests_get_one_clear_error(running: Running, body: Any, status: int, said: str) -> None:
    got, answer = running.ask("/v1/completions", body)
    assert got == status, answer
    if status != 200:
        assert said in answer["error"]["message"] and set(answer["error"]) == {"message", "type", "param", "code"}
        assert answer["error"]["message"].isprintable()


def test_keys_hosts_and_routes(running: Running) -> None:
    body = {"model": "tiny", "prompt": "a"}
    assert running.ask("/v1/completions", body, Authorization="")[0] == 401
    assert running.ask("/v1/completions", body, Authorization="Bearer a-kez")[0] == 401
    assert running.ask("/metrics", None, Authorization="")[0] == 401
    assert running.ask("/health", None, Authorization="") == (200, {"status": "ok", "models": ["tiny", "plain"]})
    assert running.ask("/v1/completions", body, Host="evil.example")[0] == 403
    assert running.ask("/v1/completions", body, **{"Content-Type": "text/plain"})[0] == 415
    assert running.ask("/v1/nothing", None)[0] == 404
    status, answer = running.ask(
        "/v1/chat/completions", {"model": "plain", "messages": [{"role": "user", "content": "a"}]}
    )
    assert status == 400 and answer["error"]["code"] == "no_chat_template"


def test_a_full_queue_refuses(running: Running) -> None:
    status, answer = running.ask("/v1/completions", {"model": "tiny", "prompt": ["a"] * 64, "max_tokens": 2})
    assert status == 429 and answer["error"]["code"] == "queue_full"


def cached(server: Running, ids: list[int], new: int = 6) -> tuple[int, str, int]:
    read = server.number("miniwin_tokens_read_total")
    status, answer = server.ask(
        "/v1/completions", {"model": "tiny", "prompt": ids, "max_tokens": new, "temperature": 0}
    )
    assert status == 200, answer
    details = answer["usage"]["prompt_tokens_details"]["cached_tokens"]
    return details, answer["choices"][0]["text"], int(server.number("miniwin_tokens_read_total") - read)


def test_a_conversation_goes_on_after_a_restart_without_being_read_again(tmp_path: Path) -> None:
    model = tiny_model()
    ids = [(7 * i) % 250 for i in range(3000)]
    server = Running(model, cache_dir=tmp_path)
    first, text, read = cached(server, ids)
    assert (first, read) == (0, 3000)
    again = cached(server, ids)  # from before the answer
    assert again == (2999, text, 1)
    server.end()
    drawn = generate(model, ids, max_new_tokens=6, temperature=0).ids
    longer = [*ids, *drawn, 1, 2, 3]
    want = generate(model, longer, max_new_tokens=6, temperature=0).text
    server = Running(model, cache_dir=tmp_path)
    assert cached(server, longer) == (3005, want, 4)
    server.end()
    for path in tmp_path.rglob("*.safetensors"):
        raw = bytearray(path.read_bytes())
        raw[-5] ^= 1
        path.write_bytes(raw)
    other = tiny_model(seed=5)
    server = Running(model, cache_dir=tmp_path)
    assert cached(server, longer) == (0, want, 3009)
    server.end()
    server = Running(other, cache_dir=tmp_path)
    assert cached(server, longer)[0] == 0
    server.end()


def test_the_command_ends_with_code_0_and_says_where_it_listens(tmp_path: Path) -> None:
    environment = {**os.environ, "MINIWIN_API_KEY": KEY, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "miniwin", "serve", "miniwin-1m", "--port", "0", "--cache-dir", str(tmp_path)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    found = None
    for line in process.stderr:
        if (found := re.search(r"(miniwin-1m\S*) at http://127.0.0.1:(\d+)/v1", line)) is not None:
            break
    assert found is not None
    client = openai_client(int(found[2]))
    stream = client.completions.create(model=found[1], prompt="def main(", max_tokens=100_000, stream=True)
    next(iter(stream))
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
    client.close()
    assert list(tmp_path.rglob("*.safetensors")), "what was read is kept"
