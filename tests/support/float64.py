"""Judges float32 results by float64, so that no test depends on the processor that it was written on.

Two right implementations differ in float32 by what rounding does to the model at hand: 1e-6 for most, 1e-4 for some,
and each processor rounds in its own order. So a float32 result is compared with the same model in float64. Its error
may be at most FACTOR times the error of the peer's float32 result.

    exact = hf_logits(in_float64(model), ids)      # transformers, every product and sum in float64
    assert_as_near(ours, theirs, exact)            # both float32
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from helpers import largest
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

# Seen over 260 drawn models on a Zen 5: at most 3.6 times the peer's largest error, 1.0 in the median. A wrong model is
# off by thousands.
FACTOR = 10.0
# A peer may be exact by chance. Nobody has to be nearer than some roundings of the largest number.
ROUNDINGS = 32 * 2.0**-24


class Doubling(TorchFunctionMode):
    """Inside, a request for float32 gives float64. Some parts of transformers always ask for float32."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.Tensor.float:
            return args[0].double()
        for a in args:  # most calls name no type, and there are a million of them
            if a is torch.float32:
                args = tuple(torch.float64 if a is torch.float32 else a for a in args)
                break
        if not kwargs:
            return func(*args)
        return func(*args, **{k: torch.float64 if v is torch.float32 else v for k, v in kwargs.items()})


@contextmanager
def all_float64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with Doubling():
            yield
    finally:
        torch.set_default_dtype(before)


def called_in_float64(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        with all_float64():
            return function(*args, **kwargs)

    return call


def in_float64(model: nn.Module) -> nn.Module:
    """The same model of transformers, with constants and calls in float64.

    The model is built anew. A copy would keep frequencies that were rounded to float32 when the model was built.
    """
    from transformers.initialization import no_init_weights

    config = copy.deepcopy(model.config)
    config._attn_implementation, config._experts_implementation = "eager", "eager"
    with all_float64(), no_init_weights():  # all of which are loaded
        twin = type(model)(config).eval().double()  # type: ignore[call-arg, arg-type]
    twin.load_state_dict(model.state_dict(), strict=True)
    twin.forward = called_in_float64(twin.forward)  # type: ignore[method-assign]
    return twin


def doubled(module: nn.Module) -> Any:
    """A copy of one of our modules in float64. Our modules compute in the type of their input."""
    return copy.deepcopy(module).double()


@contextmanager
def as_double(module: nn.Module) -> Iterator[None]:
    """One of our modules in float64, and then in float32 as before: a copy takes longer than a call."""
    assert not list(module.buffers()), "a buffer might lose its type"
    module.double()
    yield
    module.float()


def assert_exact(ours: Tensor, theirs: Tensor, bound: float = 1e-6) -> None:
    """Two float64 results of one function agree. bound: as a share of the largest number. A wrong result is off by far
    more."""
    assert ours.dtype == theirs.dtype == torch.float64
    difference = largest(ours, theirs)
    assert difference < bound * max(1.0, float(theirs.abs().max())), f"off by {difference:.1e} in float64"


def assert_as_near(ours: Tensor, theirs: Tensor, exact: Tensor, factor: float = FACTOR) -> None:
    """Our float32 is off from `exact` by at most `factor` times what their float32 is."""
    assert exact.dtype == torch.float64
    mine, peers = largest(ours, exact), largest(theirs, exact)
    allowed = factor * max(peers, ROUNDINGS * max(1.0, float(exact.detach().abs().max())))
    assert mine <= allowed, f"{mine:.1e} from float64, where the peer is {peers:.1e} from it"
