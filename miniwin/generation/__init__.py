"""Generation: prompts in, tokens out, one at a time."""

from miniwin.generation.loop import Generation, generate, generate_batch

__all__ = ["Generation", "generate", "generate_batch"]
