"""What the server of `forked` imports before it forks."""

# ruff: noqa: F401

from __future__ import annotations

import optuna
import torch
import torch._dynamo  # an optimizer imports this, which takes longer than all other imports
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
