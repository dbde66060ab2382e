"""What the server of `forked` imports, so that its processes have it from the start."""

# ruff: noqa: F401

from __future__ import annotations

import optuna
import torch
import torch._dynamo  # an optimizer imports it, for longer than all the rest takes
import torch.distributed.run
from zoo_runs import tiny_spec

import miniwin.cli
import miniwin.commands.search
import miniwin.commands.train
import miniwin.search.measure
import miniwin.search.worker
import miniwin.training.launch
import miniwin.zoo

with torch.device("meta"):
    tiny_spec().build()  # PyTorch imports hundreds of modules for the first tensor without memory
