"""The whole suite as other machines would run it: `make test-machines`, or `python tests/support/machines.py NAME ...`.

Each setting makes this processor compute as another does, with other instructions, kernels or threads, so that rounding
differs. Settings run one after the other. The table at the end has counts and seconds.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time

from paths import ROOT

from miniwin.blocks import native
from miniwin.blocks.matmul_library import offered
from miniwin.machine.matmul_choice import SWITCH

ONE = {"OMP_NUM_THREADS": "1"}
SETTINGS: dict[str, dict[str, str]] = {
    "default": ONE,
    "torch without vectors": ONE | {"ATEN_CPU_CAPABILITY": "default"},
    "torch with avx2": ONE | {"ATEN_CPU_CAPABILITY": "avx2"},
    **{f"kernels {name[1:]}": ONE | {native.SWITCH: name[1:]} for name in native.able()},
    "no kernels": ONE | {native.SWITCH: "0"},
    **{f"products {name}": ONE | {SWITCH: name} for name in offered()},
    "two threads": {"OMP_NUM_THREADS": "2"},
}


def run(setting: dict[str, str]) -> tuple[str, float]:
    """The last line of pytest, and the seconds. Failures are printed as they come."""
    workers = "2" if setting["OMP_NUM_THREADS"] == "1" else "1"  # threads times processes: the cores that CI has
    command = [sys.executable, "-m", "pytest", "-n", workers, "--dist", "loadfile", "--no-loadscope-reorder"]
    begun = time.monotonic()
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "", **setting},
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    lines = done.stdout.strip().splitlines()
    summary = next((line.strip("= ") for line in reversed(lines) if re.search(r"\d+ (passed|failed|error)", line)), "")
    if done.returncode:
        print(*[line for line in lines if line.startswith(("FAILED", "ERROR", "E  "))], sep="\n", flush=True)
    return (summary or f"nothing ran: exit code {done.returncode}"), time.monotonic() - begun


def main(asked: list[str]) -> int:
    unknown = [name for name in asked if name not in SETTINGS]
    if unknown:
        print(f"got {unknown[0]!r}; expected any of: {', '.join(SETTINGS)}", file=sys.stderr)
        return 2
    failed = False
    for name in asked or SETTINGS:
        said = " ".join(f"{key}={value}" for key, value in SETTINGS[name].items())
        print(f"== {name}: {said}", flush=True)
        summary, seconds = run(SETTINGS[name])
        failed |= "passed" not in summary or "failed" in summary or "error" in summary
        print(f"   {summary}; {seconds:.0f} s with its start", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
