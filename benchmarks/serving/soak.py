"""Random sessions for minutes, some of which are killed: nothing fails that should not, and memory is bounded.

Clients come and go: conversations, short texts, long prompts, wrong requests, and clients that are killed in the middle
(their connection is reset). Memory is judged by its trend after the caches have filled: a line through the samples of
the later half.
"""

from __future__ import annotations

import json
import random
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openai
from openai import OpenAI

from benchmarks.serving.server import KEY, Server

CLIENTS = 8
OPTIONS = ("--cache-memory", "32M")  # for kept states: it fills soon
SAMPLE = 5.0  # seconds between two looks at the memory
GROWTH = 0.10  # as a share of the memory: a line that rises by more within half of the time is a leak
SOURCE = Path(json.__file__).read_text(encoding="utf-8") * 4


class Soak:
    def __init__(self, server: Server, minutes: float, seed: int) -> None:
        self.server, self.seconds, self.seed = server, minutes * 60, seed
        self.began = time.monotonic()
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.memory: list[tuple[float, int]] = []
        self._lock = threading.Lock()

    def run(self) -> None:
        threads = [threading.Thread(target=self._client, args=(i,), daemon=True) for i in range(CLIENTS)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            self.memory.append((time.monotonic() - self.began, self.server.memory()))
            if len(self.memory) % 12 == 0:
                at, size = self.memory[-1]
                print(f"{at / 60:5.1f} minutes: {size / 1e6:6.1f} MB, {dict(self.counts)}", file=sys.stderr, flush=True)
            time.sleep(SAMPLE)

    def _client(self, number: int) -> None:
        draw = random.Random(self.seed * 1000 + number)
        ways = [self._talk, self._short, self._long, self._killed, self._refused]
        with self.server.client() as client:
            while time.monotonic() < self.began + self.seconds:
                way = draw.choices(ways, [40, 25, 10, 20, 5])[0]
                try:
                    way(client, draw)
                except Exception as error:
                    with self._lock:
                        self.wrong.append(f"{way.__name__[1:]}: {type(error).__name__}: {error}"[:300])
                with self._lock:
                    self.counts[way.__name__[1:]] += 1

    def _ask(self, client: OpenAI, draw: random.Random, prompt: str, tokens: int) -> str:
        given: dict[str, Any] = {"model": self.server.model, "prompt": prompt, "max_tokens": tokens}
        given |= {"seed": draw.randrange(1000), "temperature": draw.choice([0.0, 0.8, 1.2])}
        given |= draw.choice([{}, {"stop": ["\n\n"]}, {"logprobs": 2}, {"top_p": 0.9}])
        if draw.random() < 0.5:
            answer = client.completions.create(**given)
            text, end = answer.choices[0].text, answer.choices[0].finish_reason
        else:
            parts = [part.choices[0] for part in client.completions.create(**given, stream=True)]
            text, end = "".join(part.text for part in parts), parts[-1].finish_reason
        if end not in ("length", "stop"):
            raise ValueError(f"the text ended with {end!r}")
        return text

    def _talk(self, client: OpenAI, draw: random.Random) -> None:
        said = _piece(draw, 200, 1000)
        for _ in range(draw.randint(2, 6)):
            said += self._ask(client, draw, said, draw.randint(1, 100)) + _piece(draw, 1, 200)

    def _short(self, client: OpenAI, draw: random.Random) -> None:
        self._ask(client, draw, _piece(draw, 1, 60), draw.randint(1, 200))

    def _long(self, client: OpenAI, draw: random.Random) -> None:
        self._ask(client, draw, _piece(draw, 2000, 10_000), draw.randint(1, 30))

    def _killed(self, client: OpenAI, draw: random.Random) -> None:
        """The connection is reset while the text is written, or before the request is whole."""
        body = json.dumps(
            {"model": self.server.model, "prompt": _piece(draw, 1, 3000), "max_tokens": 2000, "stream": True}
        ).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {KEY}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=60) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # reset at close
            whole = head.encode() + body
            connection.sendall(whole if draw.random() < 0.8 else whole[: draw.randrange(len(whole))])
            if draw.random() < 0.7:
                connection.settimeout(draw.uniform(0.01, 1.0))
                try:
                    while connection.recv(4096):
                        pass
                except TimeoutError:
                    pass

    def _refused(self, client: OpenAI, draw: random.Random) -> None:
        wrong: dict[str, Any] = draw.choice([{"max_tokens": -1}, {"temperature": -2}, {"stop": ""}, {"model": "none"}])
        try:
            client.completions.create(**{"model": self.server.model, "prompt": "x", **wrong})
        except openai.APIStatusError as error:
            if not 400 <= error.status_code < 500:
                raise
        else:
            raise ValueError(f"{wrong} was answered")


def soak(model: str, minutes: float, seed: int = 0) -> dict[str, Any]:
    with Server(model, OPTIONS) as server:
        running = Soak(server, minutes, seed)
        running.run()
        left = server.number("miniwin_running")
        tokens = {one: int(server.number(f"miniwin_tokens_{one}_total")) for one in ("read", "cached", "generated")}
        kept, name = int(server.number("miniwin_kept_bytes")), server.model
    growth = trend(running.memory)
    return {
        "model": name,
        "minutes": minutes,
        "sessions": dict(running.counts),
        "wrong": running.wrong,
        "texts left running": left,
        "tokens": tokens,
        "kept bytes": kept,
        "memory": running.memory[:: max(1, len(running.memory) // 60)],
        "growth": growth,
        "bounded": growth <= GROWTH,
    }


def trend(samples: Sequence[tuple[float, float]]) -> float:
    """By what share of its mean the memory grows within the later half of the time, by a line through it."""
    later = np.array([one for one in samples if one[0] >= samples[-1][0] / 2], dtype=np.float64)
    if len(later) < 3:
        raise SystemExit(f"the memory was looked at {len(later)} times in the later half; expected 3: take more --soak")
    slope = float(np.polyfit(later[:, 0], later[:, 1], 1)[0])
    return slope * float(later[-1, 0] - later[0, 0]) / float(later[:, 1].mean())


def _piece(draw: random.Random, least: int, most: int) -> str:
    size = draw.randint(least, most)
    at = draw.randrange(len(SOURCE) - size)
    return SOURCE[at : at + size]
