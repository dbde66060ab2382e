"""A chat in a terminal or a script: lines in, answers out.

On a terminal Ctrl-C stops an answer and not the chat; a second one ends the chat, as Ctrl-D and /exit do. In a script
every line of the input is a message, answers go to stdout and all else to stderr.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any

from miniwin.chat.conversation import Chat
from miniwin.files.writing import check_writable, write_text
from miniwin.specs import UserError, user_path

PROMPT = "> "
HELP = """\
/help            these lines
/reset           begin a new chat; the system message stays
/system TEXT     begin a new chat with this system message
/regenerate      another answer to the last message
/save FILE       write the chat as a line of JSON, which `miniwin train` reads
/exit            end, as Ctrl-D does; Ctrl-C stops an answer
//...            a message that begins with /"""


class Interrupts:
    """In the block the first Ctrl-C sets `asked`, and the next one raises KeyboardInterrupt."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Interrupts:
        self._before = signal.signal(signal.SIGINT, self._heard)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


class Dialog:
    """write: prints what the model wrote. note: prints a line of ours. check: raises UserError for what is no text."""

    def __init__(
        self, chat: Chat, write: Callable[[str], None], note: Callable[[str], None], check: Callable[[str], object]
    ) -> None:
        self.chat, self._write, self._note, self._check = chat, write, note, check
        self.terminal = sys.stdin.isatty()
        self._warned = False  # of what one more Ctrl-C does

    def run(self) -> None:
        """Until the input ends.

        Raises:
            UserError: in a script, for the first line that cannot be answered.
        """
        if self.terminal:
            with suppress(ImportError):  # the arrow keys; not on every system
                import readline  # noqa: F401
        while (line := self._line()) is not None:
            try:
                self._check(line)
                if not self._obeyed(line):
                    return
            except UserError as error:
                if not self.terminal:
                    raise
                self._note(f"error: {error}")

    def _line(self) -> str | None:
        """The next line; None at the end of the input, or where Ctrl-C was pressed twice."""
        while True:
            try:
                line = input(PROMPT) if self.terminal else next(sys.stdin).rstrip("\n")
            except (EOFError, StopIteration):
                if self.terminal:
                    self._note("")
                return None
            except UnicodeDecodeError as error:
                raise UserError(
                    f"standard input: byte {error.object[error.start]:#04x} is not {error.encoding}"
                ) from None
            except KeyboardInterrupt:
                if not self.terminal:
                    raise
                self._note("")
                if self._warned:
                    return None
                self._warned = True
                self._note("Ctrl-C once more, Ctrl-D or /exit ends the chat")
                continue
            self._warned = False
            if line.strip():
                return line

    def _obeyed(self, line: str) -> bool:
        """Do what a line says. Returns whether the chat goes on."""
        if line.startswith("//"):
            return self._answered(lambda **how: self.chat.say(line[1:], **how))
        if not line.startswith("/"):
            return self._answered(lambda **how: self.chat.say(line, **how))
        command, _, rest = line.partition(" ")
        rest = rest.strip()
        if command in ("/system", "/save") and not rest:
            raise UserError(f"{command}: say what; /help")
        if command == "/exit":
            return False
        if command == "/regenerate":
            return self._answered(self.chat.regenerate)
        if command == "/help":
            self._note(HELP)
        elif command == "/reset":
            self.chat.reset()
            self._note("a new chat")
        elif command == "/system":
            self.chat.reset(rest)
            self._note("a new chat, with this system message")
        elif command == "/save":
            self._save(rest)
        else:
            raise UserError(f"{command}: no such command; /help names them, and // begins a message with /")
        return True

    def _answered(self, answer: Callable[..., str]) -> bool:
        """Show an answer. Returns whether the chat goes on."""
        if not self.terminal:
            answer(stream=self._write)
            self._write("\n")
            self._say_why_it_ended()
            return True
        with Interrupts() as interrupts:
            try:
                answer(stream=self._write, going_on=lambda: not interrupts.asked)
            except KeyboardInterrupt:
                self._write("\n")
                return False
        self._write("\n")
        self._warned = interrupts.asked
        self._say_why_it_ended()
        return True

    def _say_why_it_ended(self) -> None:
        last, chat = self.chat.last, self.chat
        assert last is not None
        if last.ended == "interrupted":
            self._note("(stopped; Ctrl-C once more ends the chat)")
        elif last.ended == "length" and chat.limit is not None and chat.tokens >= chat.limit:
            self._note(f"(cut: the context of {chat.limit:,} tokens is full; /reset begins a new chat)")
        elif last.ended == "length":
            self._note(f"(cut after {last.new_tokens:,} tokens; --max-new-tokens allows more)")

    def _save(self, name: str) -> None:
        path = user_path(name)
        check_writable(path)
        if path.exists():
            raise UserError(f"/save: {path} is there already; choose another name")
        said: list[dict[str, Any]] = self.chat.messages
        if not said:
            raise UserError("/save: nothing has been said yet")
        write_text(path, json.dumps({"conversations": said}, ensure_ascii=False) + "\n")
        self._note(f"saved {len(said)} messages to {path}")
