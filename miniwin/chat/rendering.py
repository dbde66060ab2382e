"""Chat templates rendered in a process of its own (template_process.py), which ends with this one.

The process is started when it is first needed, and serves all templates. One that runs too long ends it; the next
request starts another.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from miniwin.blocks.messages.escaping import escaped_line
from miniwin.specs.base import UserError

PROGRAM = Path(__file__).with_name("template_process.py")
PATIENCE_SECONDS = 60.0  # for one request, where the system has no limit of processor time, or another process stops it
SECONDS = 1.0  # of processor time for one chat; templates take milliseconds
CALLS = 512  # chats in one request
MESSAGE = 400  # characters of an error, which the template may have written itself


class TemplateProblem(UserError):
    """A template cannot be rendered. `problem` says why; `chat` is the number of the chat, None for the template."""

    def __init__(self, problem: str, chat: int | None = None) -> None:
        super().__init__(f"chat template: {problem}")
        self.problem, self.chat = problem, chat


class _Renderer:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._owner = 0  # a forked process must not use its parent's pipes

    def ask(self, request: str) -> dict[str, Any]:
        with self._lock:
            process = self._started()
            assert process.stdin is not None and process.stdout is not None
            timer = threading.Timer(PATIENCE_SECONDS, process.kill)
            timer.daemon = True
            timer.start()
            line = ""
            try:
                with suppress(BrokenPipeError):
                    process.stdin.write(f"{request}\n")
                    process.stdin.flush()
                line = process.stdout.readline()
            finally:
                timer.cancel()
                if not line.endswith("\n"):  # it ended, or this process was interrupted: a reply would come too late
                    said = self._end(kill=True)
            if not line.endswith("\n"):
                raise TemplateProblem(said)
            reply: dict[str, Any] = json.loads(line)
            return reply

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None or self._owner != os.getpid():
            self._process = subprocess.Popen(  # -P: files beside the program are not modules
                [sys.executable, "-P", str(PROGRAM)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="ascii",
            )
            self._owner = os.getpid()
        return self._process

    def _end(self, kill: bool = False) -> str:
        """End the process, and say why it ended."""
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return ""
        if kill:
            process.kill()
        try:
            _, said = process.communicate(timeout=PATIENCE_SECONDS)
        except (OSError, ValueError, subprocess.TimeoutExpired):
            return "it was stopped"
        if said.strip():
            return f"the process that renders it failed: {said.strip().splitlines()[-1]}"
        return "it runs too long; expected a few milliseconds"

    def close(self) -> None:
        with suppress(OSError):
            self._end()


_RENDERER = _Renderer()
atexit.register(_RENDERER.close)


def render(
    template: str,
    chats: Sequence[Mapping[str, Any]],
    names: Mapping[str, str],
    *,
    spans: bool = False,
    now: str | None = None,
) -> list[tuple[str, list[tuple[int, int]]]]:
    """The text of every chat, and with `spans` where `{% generation %}` marks what the model says.

    chats: the variables of the template (`messages`, `add_generation_prompt`, `tools`). names: variables of all chats.
    now: the day of `strftime_now`, as ISO 8601 writes it; by default today.

    Raises:
        TemplateProblem: the template is wrong, refuses the messages, or takes too much time or memory.
    """
    found: list[tuple[str, list[tuple[int, int]]]] = []
    for first in range(0, len(chats), CALLS):
        part = [dict(chat) for chat in chats[first : first + CALLS]]
        request = {"template": template, "names": dict(names), "chats": part, "spans": spans, "now": now}
        request["seconds"] = SECONDS
        try:
            asked = json.dumps(request)
        except (TypeError, ValueError, RecursionError) as error:
            raise TemplateProblem(f"the messages cannot be written as JSON: {error}") from None
        reply = _RENDERER.ask(asked)
        if "error" in reply:
            chat = reply["chat"]
            problem = escaped_line(reply["error"])
            problem = problem if len(problem) <= MESSAGE else f"{problem[:MESSAGE]}..."
            raise TemplateProblem(problem, None if chat is None else first + chat)
        found += [(text, [(a, b) for a, b in said]) for text, said in zip(reply["texts"], reply["spans"], strict=True)]
    return found
