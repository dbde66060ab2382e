"""The base of every spec, re-exported so that spec files need one import."""

from __future__ import annotations

from miniwin.blocks.spec import Count, Fraction, PositiveInt, PositiveReal, Real, Strict, UserError

__all__ = ["Count", "Fraction", "PositiveInt", "PositiveReal", "Real", "Strict", "UserError"]
