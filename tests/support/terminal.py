"""A program on a pseudo-terminal, as a person uses it: keys are typed, and what comes is waited for."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

CTRL_C, CTRL_D = b"\x03", b"\x04"


class Terminal:
    """seen: what came and was not waited for yet."""

    def __init__(self, *arguments: str) -> None:
        import pty

        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "miniwin", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env={**os.environ, "TERM": "dumb"},
            preexec_fn=_take_terminal,
        )
        os.close(slave)
        self.seen = b""

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def idle(self, seconds: float) -> bool:
        """Whether nothing comes for so long."""
        return not select.select([self.master], [], [], seconds)[0]

    def more(self) -> None:
        assert not self.idle(120), f"nothing comes after {self.seen[-2000:]!r}"
        self.seen += os.read(self.master, 1 << 16)

    def until(self, text: bytes) -> bytes:
        """Wait for this text. Returns what came before it."""
        while text not in self.seen:
            self.more()
        before, _, self.seen = self.seen.partition(text)
        return before


@contextmanager
def terminal(*arguments: str) -> Iterator[Terminal]:
    """`miniwin` with these arguments. In the end it has gone, whatever happened."""
    one = Terminal(*arguments)
    try:
        yield one
    finally:
        one.process.kill()
        one.process.wait()
        os.close(one.master)


def _take_terminal() -> None:
    import fcntl
    import termios

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored where the tests run in the background of a shell
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
