"""What a spec amounts to, before anything is trained: `miniwin explain`."""

from miniwin.explain.layers import explanation, groups, layer_numbers, period, periods_text, sees

__all__ = ["explanation", "groups", "layer_numbers", "period", "periods_text", "sees"]
