"""Which examples of a task there are: a pure function of the task, length, seed, index and split.

The split of an example is decided by a hash of its text. So no example is in two splits, whatever the seeds, and a text
that is drawn for training once is never an example to test on.
"""

from __future__ import annotations

import hashlib
from random import Random

from miniwin.evaluation.tasks.task import Example, Task

SPLITS = ("train", "valid", "test")
HELD_OUT = 0.1  # the share of all possible examples that is valid, and the share that is test
TRIES = 100_000  # texts looked at for one example; a task with so few examples cannot be held apart


def draw(task: Task, length: int, *, seed: int, index: int, split: str) -> Example:
    """Example number `index` of a split, of exactly `length` bytes.

    Raises:
        UserError: the length has no room for an example.
    """
    task.check_length(length)
    random = Random(f"{task.said} {length} {seed} {index} {split}")
    for _ in range(TRIES):
        example = task.drawn(random, length, lambda key: split_of(key) == split)
        if example is not None:
            return example
    raise AssertionError(f"task {task.type} has no {split} example of {length} bytes")


def split_of(text: bytes) -> str:
    """`train`, `valid` or `test`: by a hash of the text alone."""
    share = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") / 2**64
    return "valid" if share < HELD_OUT else "test" if share < 2 * HELD_OUT else "train"
