"""Int8: rows of keys and values, and weights."""

from miniwin.blocks.int8.rows import quantised, widened

__all__ = ["quantised", "widened"]
