"""`python -m benchmarks.serving`: see the package's docstring."""

from __future__ import annotations

import argparse
import sys

from benchmarks.serving import __doc__ as usage
from benchmarks.serving.conversation import conversation
from benchmarks.serving.page import keep, words
from benchmarks.serving.soak import soak
from benchmarks.serving.throughput import measure


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving", description=usage, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="what `miniwin serve` is given")
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--soak", type=float, metavar="MINUTES", help="random sessions for so long")
    kinds.add_argument("--conversation", type=int, metavar="TOKENS", help="a conversation of so many tokens")
    parser.add_argument("--stream", action="store_true", help="texts are streamed, not answered whole")
    parser.add_argument("--sessions", type=int, default=8, help="default 8")
    parser.add_argument("--tokens", type=int, default=256, help="new tokens of a session, default 256")
    parser.add_argument("--repeats", type=int, default=5, help="of both ways, default 5")
    parser.add_argument("--temperature", type=float, default=0.8, help="default 0.8")
    parser.add_argument("--seed", type=int, default=0, help="of the soak")
    parser.add_argument("--keep", action="store_true", help="keep the result, and write README.md anew")
    asked = parser.parse_args(arguments)
    if min(asked.sessions, asked.tokens, asked.repeats, asked.conversation or 1) < 1 or (asked.soak or 1) <= 0:
        parser.error("--sessions, --tokens, --repeats, --soak and --conversation: expected more than 0")
    if asked.soak is not None:
        kind, found = "soak", soak(asked.model, asked.soak, asked.seed)
    elif asked.conversation is not None:
        kind, found = "conversation", conversation(asked.model, asked.conversation)
    else:
        kind = "stream" if asked.stream else "whole"
        found = measure(asked.model, asked.sessions, asked.tokens, asked.repeats, asked.stream, asked.temperature)
    print(words(kind, found))
    if asked.keep:
        print(f"kept as {keep(kind, found)}")
    return 0 if found.get("bounded", True) and not found.get("wrong") else 1


if __name__ == "__main__":
    sys.exit(main())
