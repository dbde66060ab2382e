"""A model small enough for any test, and the command line in this process."""

from __future__ import annotations

import contextlib
import io
import sys

from miniwin.specs import ModelSpec, parse_spec

TINY = {
    "kind": "model",
    "format": 1,
    "name": "tiny",
    "vocab_size": 256,
    "hidden_size": 16,
    "num_layers": 2,
    "tie_word_embeddings": False,
    "pattern": "SG",
    "blocks": {
        "S": {
            "attention": {"num_heads": 2, "window": 8, "position": {"type": "p-rope", "period": 16}},
            "mlp": {"type": "swiglu", "intermediate_size": 32},
        },
        "G": {
            "attention": {"num_heads": 2, "window": None, "position": {"type": "nope"}},
            "mlp": {"type": "swiglu", "intermediate_size": 32},
        },
    },
}


def spec() -> ModelSpec:
    made = parse_spec(TINY, "model")
    assert isinstance(made, ModelSpec)
    return made


def run_cli(*arguments: str) -> tuple[int, str, str]:
    from miniwin.cli import main

    out, err = io.StringIO(), io.StringIO()
    code = 0
    before = sys.argv
    sys.argv = ["miniwin", *arguments]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    finally:
        sys.argv = before
    return code, out.getvalue(), err.getvalue()
