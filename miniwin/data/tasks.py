"""Generated tasks: associative recall, the ability that long contexts are for.

An example is text of exactly `length` characters, one byte each. (arXiv:2312.04927 measures the same with bare
tokens. As text, it can be asked of a model of code too.)

    ...filler...            random lower-case letters and spaces
    qf=T...filler...        anywhere in it `num_pairs` pairs: a key (two letters, all different) and a capital
    xa=B...filler...
    xa=B                    at the very end the queries: the same keys in another order, each with its value
    qf=T

What follows the `=` of a query is in the context and nowhere else: without looking, one guess in 26 is right.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from miniwin.specs import UserError
from miniwin.tokenizer.characters import Characters

if TYPE_CHECKING:
    from miniwin.tokenizer import Tokenizer

RECORD = 5  # bytes of a pair and of a query: newline, key, key, `=`, value
LETTERS = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz", dtype=np.uint8)
VALUES = np.frombuffer(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", dtype=np.uint8)
FILLER = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz      ", dtype=np.uint8)


def associative_recall(
    length: int,
    *,
    num_pairs: int = 16,
    num_queries: int | None = None,
    seed: int,
    batch: int = 1,
    tokenizer: Tokenizer | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`ids` (batch, length), `positions` and `answers` (batch, num_queries), all int64.

    `positions` are those of the `=` of each query. The logits there should rank the answer first, which is the next
    id. Every pair is asked for once, unless `num_queries` says fewer. Ids are bytes; with a `tokenizer` they are its
    ids for the single characters.

    Raises:
        UserError: `length` has no room for the pairs and queries, or the tokenizer lacks one of the characters.
    """
    queries = num_pairs if num_queries is None else num_queries
    check_recall(length, num_pairs, queries)
    text = np.stack([_example(_rng(seed, row, "evaluation"), length, num_pairs, queries) for row in range(batch)])
    table = character_ids(tokenizer)
    ids = torch.from_numpy(table[text])
    positions = (length - RECORD * queries + 3 + RECORD * torch.arange(queries)).expand(batch, queries).contiguous()
    return ids, positions, ids.gather(1, positions + 1)


def check_recall(length: int, num_pairs: int, num_queries: int) -> None:
    """Raise UserError if there can be no such example."""
    if not 1 <= num_pairs <= len(LETTERS) ** 2:
        raise UserError(
            f"associative recall: got num_pairs {num_pairs}; expected 1 to {len(LETTERS) ** 2}, one key each"
        )
    if not 1 <= num_queries <= num_pairs:
        raise UserError(f"associative recall: got num_queries {num_queries}; expected 1 to num_pairs ({num_pairs})")
    need = RECORD * (num_pairs + num_queries)
    if length < need:
        raise UserError(
            f"associative recall: {num_pairs} pairs and {num_queries} queries take {need} bytes, and length "
            f"is {length}; make length at least {need} or num_pairs smaller"
        )


def recall_documents(length: int, num_pairs: int, seed: int, split: str) -> Iterator[str]:
    """Endless examples to train on, as text. The same seed gives the same ones; `valid` has others than `train`."""
    check_recall(length, num_pairs, num_pairs)
    row = 0
    while True:
        yield _example(_rng(seed, row, split), length, num_pairs, num_pairs).tobytes().decode("ascii")
        row += 1


def _rng(seed: int, row: int, use: str) -> np.random.Generator:
    # The use comes last and is never 0: numpy ignores zeros at the end of a seed.
    return np.random.default_rng((row, seed, 1 + ("evaluation", "train", "valid", "test").index(use)))


def character_ids(tokenizer: Tokenizer | None) -> np.ndarray:
    """(256,) the id of each character that an example may hold, by itself."""
    characters = Characters(tokenizer, "associative-recall")
    characters.ids(np.array(sorted({*FILLER.tolist(), *VALUES.tolist(), *b"\n="}), dtype=np.uint8))
    return characters.table


def _example(rng: np.random.Generator, length: int, num_pairs: int, num_queries: int) -> np.ndarray:
    """(length,) uint8"""
    text = rng.choice(FILLER, length)
    keys = rng.choice(len(LETTERS) ** 2, num_pairs, replace=False)
    pairs = np.empty((num_pairs, RECORD), dtype=np.uint8)
    pairs[:, 0] = ord("\n")
    pairs[:, 1], pairs[:, 2] = LETTERS[keys // len(LETTERS)], LETTERS[keys % len(LETTERS)]
    pairs[:, 3] = ord("=")
    pairs[:, 4] = rng.choice(VALUES, num_pairs)
    # Places that do not overlap, all arrangements equally likely: choose as if a pair took one byte, then widen.
    context = length - RECORD * num_queries
    gaps = np.sort(rng.choice(context - (RECORD - 1) * num_pairs, num_pairs, replace=False))
    starts = gaps + (RECORD - 1) * np.arange(num_pairs)
    text[starts[:, None] + np.arange(RECORD)] = pairs
    text[context:] = pairs[rng.permutation(num_pairs)[:num_queries]].ravel()
    return text
