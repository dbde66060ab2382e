"""What the server of `forked` imports, and does, before it forks."""

# ruff: noqa: F401, E402

from __future__ import annotations

import gc

gc.disable()  # modules are no garbage: the server would look for some among them, and so would each process after it

import optuna
import pooch
import requests  # by pooch, for every file
import torch
import torch._dynamo  # an optimizer imports this, which takes longer than all other imports
import torch.distributed.checkpoint
import torch.distributed.run
from disk import do_not_wait
from zoo_runs import tiny_spec

import miniwin.cli
import miniwin.commands.search
import miniwin.commands.train
import miniwin.search.measure
import miniwin.search.runner
import miniwin.search.samplers.proposing
import miniwin.search.worker
import miniwin.training.launch
import miniwin.training.sharded
import miniwin.zoo
import miniwin.zoo.publishing.publish
import miniwin.zoo.pull

do_not_wait()
with torch.device("meta"):
    tiny_spec().build()  # PyTorch imports hundreds of modules for the first tensor without memory
gc.freeze()
gc.enable()
