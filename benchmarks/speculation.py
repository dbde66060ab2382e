"""`python -m benchmarks.speculation [--model REF] [--tokens N] [--repeats N]`: decoding with guesses, against without.

Code: a class of the standard library, and then its beginning once more under another name, to be written again. Prose:
docstrings of the standard library. Both ways take turns, with the same prompt, seed and one thread. Time is the
processor's, from the first new token to the last: the prompt is not part of it, and what else runs counts little. The
gate: with lookup both ways give the same text.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import statistics
import textwrap
import time
from json.encoder import JSONEncoder

import torch

import miniwin
from miniwin.generation import Generation, generate
from miniwin.language_model import LanguageModel

CODE = {
    "JSONEncoder": (JSONEncoder, 160),
    "TextWrapper": (textwrap.TextWrapper, 160),
}
PROSE = {"argparse": argparse.__doc__, "json": json.__doc__}
LONGEST = 4000  # characters of a prompt


def prompts() -> dict[str, str]:
    found = {}
    for name, (one, again) in CODE.items():
        source = inspect.getsource(one)[:LONGEST]
        found[f"code: {name} again"] = source + "\n\n" + source.replace(f"class {name}", f"class My{name}", 1)[:again]
    for name, text in PROSE.items():
        found[f"prose: {name}"] = " ".join(str(text).split())[:1500]
    return found


def measured(
    model: LanguageModel, prompt: str, how: str | None, tokens: int, temperature: float
) -> tuple[float, Generation]:
    """(seconds of the processor for the tokens after the first one, the text)."""
    times: list[float] = []  # while the prompt is read, and after each token but the last one

    def going_on() -> bool:
        times.append(time.process_time())
        return True

    made = generate(
        model,
        prompt,
        max_new_tokens=tokens,
        temperature=temperature,
        seed=1,
        speculate=how,
        going_on=going_on,
    )
    ended = time.process_time()
    if made.ended != "length":
        raise SystemExit(
            f"the text ended after {made.new_tokens} of {tokens} tokens; expected all: take fewer --tokens"
        )
    return ended - times[-(tokens - 1)], made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="miniwin-1m")
    parser.add_argument("--speculate", default="lookup", help="lookup, or a draft model")
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default="", help="prompts whose name contains it")
    asked = parser.parse_args()
    if asked.tokens < 2 or asked.repeats < 1:
        parser.error("--tokens: expected 2 or more, --repeats: 1 or more")
    torch.set_num_threads(1)
    model = miniwin.load(asked.model)
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    print(f"{model.ref}, {asked.speculate}, {asked.tokens} tokens, {load}")
    print(f"{'prompt':28} temp  median  least..most  tokens a pass  right")
    for name, prompt in prompts().items():
        if asked.only not in name:
            continue
        for temperature in (0.0, 0.8):
            ratios, made = [], None
            for _ in range(asked.repeats):
                plain, text = measured(model, prompt, None, asked.tokens, temperature)
                guessed, made = measured(model, prompt, asked.speculate, asked.tokens, temperature)
                if asked.speculate == "lookup" and text.ids != made.ids:
                    raise SystemExit(f"{name}: lookup gave another text")
                ratios.append(plain / guessed)
            assert made is not None and made.guesses is not None
            found = made.guesses
            print(
                f"{name:28} {temperature:4.1f}  {statistics.median(ratios):5.2f}x  {min(ratios):.2f}..{max(ratios):.2f}"
                f"  {(made.new_tokens - 1) / max(found.passes, 1):13.2f}  {found.accepted}/{found.proposed}",
                flush=True,
            )


if __name__ == "__main__":
    main()
