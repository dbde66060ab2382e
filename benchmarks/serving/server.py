"""A server in a process of its own, and what the system says about that process (Linux)."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from openai import OpenAI

KEY = "a-key-of-the-benchmark"
KIB = 1024


class Server:
    """`with Server(model, options) as server:` runs `miniwin serve` until the end of the block."""

    def __init__(self, model: str, options: Sequence[str] = ()) -> None:
        command = [sys.executable, "-m", "miniwin", "serve", model, "--port", "0", *options]
        environment = {**os.environ, "MINIWIN_API_KEY": KEY}
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        assert self.process.stderr is not None
        found, said = None, []
        for line in self.process.stderr:
            said.append(line)
            if (found := re.search(r"(\S+) at http://127.0.0.1:(\d+)/v1", line)) is not None:
                break
        if found is None:
            raise SystemExit(f"the server did not start: {''.join(said)}")
        self.model, self.port = found[1], int(found[2])

    def __enter__(self) -> Server:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.end()

    def end(self) -> None:
        """As Ctrl-C does: kept states are written."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        _, said = self.process.communicate(timeout=300)
        if self.process.returncode:
            raise SystemExit(f"the server ended with code {self.process.returncode}: {said[-2000:]}")

    def client(self) -> OpenAI:
        return OpenAI(base_url=f"http://127.0.0.1:{self.port}/v1", api_key=KEY, max_retries=0, timeout=3600)

    def number(self, name: str) -> float:
        """A number of /metrics."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {KEY}"})
        text = connection.getresponse().read().decode()
        connection.close()
        found = re.search(rf"^{name}(?:{{[^}}]*}})? ([0-9.e+-]+)$", text, re.MULTILINE)
        return 0.0 if found is None else float(found[1])

    def memory(self) -> int:
        """Bytes of memory that the process has now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))) * KIB

    def processor_seconds(self) -> float:
        """Of all its threads, so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
