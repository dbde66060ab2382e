"""The models that are measured and their peers of the same size, behind one interface.

Side.prefill(ids)      -> the last token's logits, the cache filled on the way
Side.loss(ids, to)     -> the loss of the next token, for a training step
Side.decoder(context)  -> a function that decodes one more token on a cache of `context` tokens
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.case import OURS
from benchmarks.peers import hugging_face
from benchmarks.peers.authors import Authors, Past, cached
from miniwin.blocks import Decoder, Positions
from miniwin.blocks.matmul_library import MKL, Product, choose
from miniwin.generation.decode_step import fastest_step
from miniwin.language_model import LanguageModel
from miniwin.machine.matmul_choice import chosen
from miniwin.quantize import quantize
from miniwin.specs import ModelSpec, load_model_spec, parse_spec

AUTHORS = "MiniWin's authors, restated"
WITH_MKL = f"{OURS}, MKL's products"  # torch's own, where ours are others
INT8 = f"{OURS}, int8 weights"
TITLES = {"cohere2": "HF Cohere2", "smollm3": "HF SmolLM3", "mistral": "HF Mistral"}
PIECE = 1024  # tokens of random keys and values that a cache is filled with, over and over


def small_spec() -> ModelSpec:
    """1.6 M parameters, with the vocabulary and the window of miniwin-512."""
    data = load_model_spec("miniwin-512").model_dump(mode="json")
    data |= {"name": "miniwin-128", "hidden_size": 128, "num_layers": 4}
    for block in data["blocks"].values():
        block["attention"] |= {"num_heads": 4, "num_kv_heads": 2}
        block["mlp"]["intermediate_size"] = 384
    return parse_spec(data, "model")  # type: ignore[no-any-return]


def local_only(spec: ModelSpec) -> ModelSpec:
    """The same with local layers only."""
    data = spec.model_dump(mode="json")
    letter = next(letter for letter, block in data["blocks"].items() if block["attention"]["window"])
    data |= {"name": f"{spec.name}-local", "pattern": letter, "last": None}
    data["blocks"] = {letter: data["blocks"][letter]}
    return parse_spec(data, "model")  # type: ignore[no-any-return]


@torch.no_grad()
def built(spec: ModelSpec, seed: int = 0, product: Product | None = None) -> Decoder:
    """The same weights for the same seed. Queries and keys are sharpened, so that logits show where a query looks.

    product: by default the one that this machine chooses.
    """
    torch.manual_seed(seed)
    decoder = spec.build()
    choose(decoder, product or chosen())
    for attention in decoder.attentions:
        attention.q_proj.weight.mul_(4)
        attention.k_proj.weight.mul_(4)
    return decoder


class Side(ABC):
    """A model behind one interface. `module` has the parameters."""

    module: nn.Module

    @abstractmethod
    def prefill(self, ids: Tensor) -> Tensor: ...

    @abstractmethod
    def logits(self, ids: Tensor) -> Tensor:
        """(B, N) -> (B, N, V), as in training."""

    @abstractmethod
    def decoder(self, piece: Tensor, context: int) -> Decoding: ...

    def loss(self, ids: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(self.logits(ids).float().flatten(0, 1), targets.flatten())


@dataclass
class Decoding:
    """step(id (1, 1)) -> logits (1, V), the cache one token longer or, where a peer's cache is a value, as it was.

    nbytes: of the cache now.
    """

    step: Callable[[Tensor], Tensor]
    nbytes: Callable[[], int]


class Ours(Side):
    def __init__(self, decoder: Decoder) -> None:
        self.module = self.model = decoder

    def prefill(self, ids: Tensor) -> Tensor:
        return self.model(ids, cache=self.model.new_cache(ids.shape[0]), logits_to_keep=1)[:, -1]

    def logits(self, ids: Tensor) -> Tensor:
        return self.model(ids)

    def decoder(self, piece: Tensor, context: int) -> Decoding:
        cache = self.model.new_cache(1)
        for start in range(0, context, piece.shape[1]):
            index = torch.arange(start, start + piece.shape[1], device=piece.device).unsqueeze(0)
            for attention, layer in zip(self.model.attentions, cache.layers, strict=True):
                # Keys are kept as they are scored: rotated. A query is only needed to ask for it.
                query = piece.repeat_interleave(attention.num_heads // attention.num_kv_heads, dim=2)
                _, keys = attention.position.encode(query, piece, Positions(index))
                layer.append(keys, piece)
        cache.length = context

        steps = fastest_step(self.model, cache, piece.shape[1])

        def step(token: Tensor) -> Tensor:  # as generation does it
            logits = self.model(token, cache=cache, logits_to_keep=1) if steps is None else steps.step(token)
            return logits[:, -1]

        return Decoding(step, lambda: cache.nbytes)


class TheirOwn(Side):
    """The authors' way of computing, with our decoder's weights."""

    def __init__(self, decoder: Decoder, spec: ModelSpec) -> None:
        self.module = self.model = Authors(decoder, spec)

    def prefill(self, ids: Tensor) -> Tensor:
        logits, _ = self.model(ids, use_cache=True, logits_to_keep=1)
        return logits[:, -1]

    def logits(self, ids: Tensor) -> Tensor:
        logits, _ = self.model(ids)
        return logits

    def decoder(self, piece: Tensor, context: int) -> Decoding:
        whole = piece.repeat(1, context // piece.shape[1], 1, 1)  # (1, context, Hkv, D)
        past: Past = [(whole.clone(), whole.clone()) for _ in self.model.windows]
        held = {"past": past}
        del past

        def step(token: Tensor) -> Tensor:
            logits, held["past"] = self.model(token, held["past"], use_cache=True, logits_to_keep=1)
            return logits[:, -1]

        return Decoding(step, lambda: cached(held["past"]))


class HuggingFace(Side):
    def __init__(self, kind: str, spec: ModelSpec) -> None:
        self.module = self.model = hugging_face.build(kind, spec)

    def prefill(self, ids: Tensor) -> Tensor:
        cache = hugging_face.new_cache(self.model)
        out: Any = self.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return out.logits[:, -1]

    def logits(self, ids: Tensor) -> Tensor:
        return self.model(input_ids=ids, use_cache=False).logits

    def decoder(self, piece: Tensor, context: int) -> Decoding:
        cache = hugging_face.filled_cache(self.model, piece, context // piece.shape[1])

        def step(token: Tensor) -> Tensor:
            out: Any = self.model(input_ids=token, past_key_values=cache, use_cache=True, logits_to_keep=1)
            return out.logits[:, -1]

        def nbytes() -> int:
            return sum(t.numel() * t.element_size() for layer in cache.layers for t in (layer.keys, layer.values))

        return Decoding(step, nbytes)


def random_piece(spec: ModelSpec, tokens: int = PIECE) -> Tensor:
    """(1, tokens, Hkv, D): keys and values that caches are filled with."""
    attention: Any = spec.layer_specs[0].attention
    generator = torch.Generator().manual_seed(1)
    return torch.randn(1, tokens, attention.num_kv_heads, attention.head_dim, generator=generator)


def check_others_are_chosen() -> None:
    """Raises where MKL's products are ours anyway: there is nothing to compare."""
    if chosen() == MKL:
        raise LookupError("MKL's products are what is chosen here")


def side(name: str, spec: ModelSpec) -> Side:
    """One of OURS, WITH_MKL, INT8, AUTHORS and the titles of transformers' models, with weights of its own."""
    if name == OURS:
        return Ours(built(spec))
    if name == WITH_MKL:
        check_others_are_chosen()
        return Ours(built(spec, product=MKL))
    if name == INT8:
        return Ours(quantize(LanguageModel(built(spec), spec, None, spec.name)).decoder)
    if name == AUTHORS:
        return TheirOwn(built(spec, product=MKL), spec)
    return HuggingFace({title: kind for kind, title in TITLES.items()}[name], spec)
