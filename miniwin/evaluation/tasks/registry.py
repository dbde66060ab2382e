"""The registry of tasks: each is known by the name that YAML uses for it, as blocks are."""

from miniwin.blocks.registry import Registry

TASKS = Registry("task")
