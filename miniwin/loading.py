"""Loading a model by reference (references.py), and building one from a spec, with random weights drawn from `seed`.

The model is built on the meta device, where parameters take no memory, and then takes over the tensors that
were read: loading never holds the weights twice.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch

from miniwin.blocks.int8.weight import Int8Weight
from miniwin.blocks.messages.listing import some
from miniwin.language_model import LanguageModel
from miniwin.machine.devices import find_device
from miniwin.machine.matmul_choice import settle
from miniwin.machine.memory import refuse_too_large
from miniwin.references import Found, resolve
from miniwin.runs import CHECKPOINT, MODEL
from miniwin.specs import ModelSpec, UserError, load_model_spec, shipped_specs, user_path
from miniwin.stored_model import opened
from miniwin.tokenizer import Tokenizer, load_tokenizer
from miniwin.weights import DTYPES, check_weights, promised_weights, put_weights


def load(
    ref: str | os.PathLike[str],
    *,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype | None = None,
    seed: int = 0,
    adapter: str | os.PathLike[str] | None = None,
    verify: bool = False,
) -> LanguageModel:
    """Load a model in eval mode: `ref` is a zoo name, a run folder, an entry folder, or a model spec.

        miniwin.load("miniwin-1m@1.0.0")          # weights from the zoo
        miniwin.load("runs/my-run")               # a training run; its last checkpoint if it has not ended
        miniwin.load("runs/my-run/best.safetensors")  # the weights of its best evaluation (`eval.keep_best`)
        miniwin.load("specs/models/my-model.yaml")  # random weights from `seed`
        miniwin.load("SmolLM2", adapter="runs/my-run/adapter")  # merged with an adapter that was trained from it
        miniwin.load("miniwin-1m", verify=True)   # only if this machine computes the entry's reference logits

    `dtype` (a torch dtype or its name) converts the weights; by default they stay as they were saved. Matrices that
    were saved in int8 stay in int8 all the same, and the model computes in `dtype`.

    Raises:
        UserError: `ref` names no model, its files are damaged, or the device or dtype cannot be used; `adapter` is no
            adapter, or that of another model; `verify` found something wrong, or `ref` is no zoo entry.
    """
    if not isinstance(ref, str | os.PathLike):
        raise UserError(
            f"load: got a {type(ref).__name__}; expected a name or a path. A spec is built by miniwin.build"
        )
    where, chosen = find_device(device), _dtype(dtype)
    found = resolve(os.fspath(ref))
    if verify:
        _verify(found)
    if found.spec is not None:
        if adapter is not None:
            raise UserError(f"adapter: {ref} is a model spec, which has no weights; expected the model it belongs to")
        model = _fresh(load_model_spec(found.spec), f"{found.name} (random weights)", seed)
        return _settled(model.to(device=where, dtype=chosen).eval(), where)
    model = _from_folder(found, where, chosen)
    if adapter is not None:
        from miniwin.training.adapter_folder import with_adapter

        model.decoder = with_adapter(model.decoder, model.spec, user_path(adapter), found.name)
    return _settled(model.to(dtype=chosen).eval(), where)


def build(
    spec: ModelSpec | str | os.PathLike[str],
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype | None = None,
) -> LanguageModel:
    """A model with fresh weights, in training mode. The same seed gives the same weights on every device.

    `spec` is a ModelSpec, the path of a model spec's YAML file, or the stem of one that ships with MiniWin.
    The tokenizer is the byte tokenizer; a model with fewer than 256 ids has none.

    Raises:
        UserError: the spec is wrong, its weights do not fit into memory, or the device or dtype cannot be used.
    """
    where, chosen = find_device(device), _dtype(dtype)
    if not isinstance(spec, ModelSpec):
        spec = load_model_spec(os.fspath(spec))
    return _settled(_fresh(spec, spec.name, seed).to(device=where, dtype=chosen), where)


def model_spec(ref: str, overrides: Sequence[str] = ()) -> ModelSpec:
    """The spec of what `ref` names, without its weights. `overrides`: "field.path=value", applied first.

    A name that is both a shipped spec and a zoo entry means the shipped spec here.
    """
    if ref in shipped_specs("model"):
        return load_model_spec(ref, overrides)
    found = resolve(ref)
    if found.folder is None:
        assert found.spec is not None
        return load_model_spec(found.spec, overrides)
    with found.reading() as read:
        return load_model_spec(found.folder / MODEL, overrides, read(MODEL))


def _verify(found: Found) -> None:
    """Raise UserError unless the entry is what it says, reference logits included."""
    if found.entry is None:
        raise UserError(f"verify: {found.name} is no zoo entry, so it has no reference logits; leave verify out")
    from miniwin.zoo.verification import verify

    if problems := verify(found.entry):
        raise UserError(f"{found.entry.ref} was not loaded: {some(problems, 4, '; ')} (in {found.folder})")


def _settled(model: LanguageModel, device: torch.device) -> LanguageModel:
    """The model, with the matrix products that are fastest on this machine."""
    settle(model.decoder, device)
    return model


def _from_folder(found: Found, device: torch.device, dtype: torch.dtype | None) -> LanguageModel:
    with opened(found) as stored:
        with torch.device("meta"):
            decoder = stored.spec.build()
        if stored.file.name != CHECKPOINT:  # before the tensors take memory
            check_weights(decoder, promised_weights(stored.file), stored.file)
        tensors = stored.tensors(device)
        if dtype is not None:  # .to() would widen what is in eight bits
            tensors = {n: one.of_dtype(dtype) if isinstance(one, Int8Weight) else one for n, one in tensors.items()}
        put_weights(decoder, tensors, stored.file)
        special = stored.special()
        tokenizer, chat_format = stored.tokenizer(special), stored.chat_format()
        return LanguageModel(decoder, stored.spec, tokenizer, found.name, stored.folder, special, chat_format)


def _fresh(spec: ModelSpec, name: str, seed: int) -> LanguageModel:
    refuse_too_large(spec)
    with torch.random.fork_rng(devices=[]):  # the caller's random state is none of our business
        torch.manual_seed(seed)
        decoder = spec.build()
    tokenizer: Tokenizer | None = None
    byte = load_tokenizer("byte")
    if byte.vocab_size <= spec.vocab_size:
        tokenizer = byte
    return LanguageModel(decoder, spec, tokenizer, name)


def _dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    if dtype is None:
        return None
    chosen: Any = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if chosen not in DTYPES.values():
        raise UserError(f"dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}")
    return chosen
