"""The model spec: an architecture as data, and everything that can be computed from it without building it."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from miniwin.blocks.decoder import Decoder, Ends
from miniwin.blocks.init import InitSpec
from miniwin.blocks.layer import LayerSpec
from miniwin.blocks.messages.listing import some
from miniwin.blocks.norms.rmsnorm import RMSNormSpec
from miniwin.blocks.positions.absolute import AbsolutePositions
from miniwin.blocks.positions.base import located_all
from miniwin.blocks.registry import NORMS
from miniwin.blocks.spec import facts
from miniwin.specs.base import PositiveInt, PositiveReal, Strict, UserError

NAME = r"^[a-z0-9][a-z0-9._-]*$"
Name = Annotated[str, StringConstraints(pattern=NAME, max_length=100)]
Letter = Annotated[str, StringConstraints(pattern=r"^[A-Za-z]$")]

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}


class ModelSpec(Strict):
    """An architecture. Letters name blocks; `pattern` lays them out over the depth.

    pattern: tiled over num_layers. last: the letter of the last layer, in place of the pattern's. blocks: what each
    letter means. norm: the final norm. tie_word_embeddings: the head is the embedding matrix. embed_scale, logit_scale:
    multiply embeddings and logits. embed_norm: a norm of the embeddings. embed_positions: how many learned positions
    are added to them; there is no text beyond. logit_softcap: bound of the logits. Null turns any of these five off.
    """

    LATER: ClassVar[frozenset[str]] = frozenset(
        {"embed_scale", "embed_norm", "embed_positions", "logit_scale", "logit_softcap"}
    )

    kind: Literal["model"] = "model"
    format: Literal[1] = 1
    name: Name
    vocab_size: PositiveInt
    hidden_size: PositiveInt
    num_layers: Annotated[PositiveInt, Field(le=10_000)]
    pattern: str
    last: Letter | None = None
    blocks: dict[Letter, LayerSpec]
    norm: NORMS.field() = Field(default_factory=RMSNormSpec)  # type: ignore[valid-type]
    tie_word_embeddings: bool = True
    init: InitSpec = Field(default_factory=InitSpec)
    embed_scale: PositiveReal | None = None
    embed_norm: NORMS.field() | None = None  # type: ignore[valid-type]
    embed_positions: Annotated[PositiveInt, Field(le=2**24)] | None = None  # the length of a table
    logit_scale: PositiveReal | None = None
    logit_softcap: PositiveReal | None = None

    @model_validator(mode="after")
    def _fits(self) -> ModelSpec:
        problems = self._pattern_problems() + self._block_problems()
        if problems:
            raise located_all(problems)
        return self

    def _block_problems(self) -> list[tuple[str, str]]:
        problems = []
        for letter, layer in self.blocks.items():
            try:
                layer.resolve(self.hidden_size)
            except PydanticCustomError as error:
                problems.append((f"blocks.{letter}.attention.{(error.context or {})['at']}", str(error)))
        return problems

    def _pattern_problems(self) -> list[tuple[str, str]]:
        known = f"(blocks: {some(sorted(self.blocks), 30) or 'none'})"
        if not self.pattern:
            return [("pattern", "it is empty; expected letters of blocks, such as SSSG")]
        unknown = [letter for letter in self.pattern if letter not in self.blocks]
        if unknown:
            return [("pattern", f"got '{self.pattern}'; no block is called '{unknown[0]}' {known}")]
        if self.last is not None and self.last not in self.blocks:
            return [("last", f"got '{self.last}'; no block is called so {known}")]
        size = len(self.pattern)
        if size > self.num_layers:
            message = f"got '{self.pattern}', {size} letters for num_layers {self.num_layers}; shorten it or add layers"
            return [("pattern", message)]
        if self.num_layers % size and self.last is None:
            message = (
                f"got '{self.pattern}', {size} letters, which do not tile num_layers {self.num_layers}; set `last` to "
                "say what the final layer is, write the pattern out, or change num_layers"
            )
            return [("pattern", message)]
        unused = f"no layer uses this block: the layers are {self.layout}; remove it, or name it in pattern or last"
        return [(f"blocks.{letter}", unused) for letter in sorted(set(self.blocks) - set(self.layout))]

    @property
    def layout(self) -> str:
        """The resolved pattern, a letter for each layer."""
        tiled = (self.pattern * (self.num_layers // len(self.pattern) + 1))[: self.num_layers]
        return tiled if self.last is None else tiled[:-1] + self.last

    @property
    def layer_specs(self) -> tuple[LayerSpec, ...]:
        """Each layer's block with its defaults filled in (head_dim, num_kv_heads)."""
        resolved = {letter: block.resolve(self.hidden_size) for letter, block in self.blocks.items()}
        return tuple(resolved[letter] for letter in self.layout)

    def canonical(self) -> dict[str, Any]:
        """What decides the architecture, layer by layer. Names, letters and how the pattern is written do not count."""
        layers = {letter: block.canonical(self.hidden_size) for letter, block in self.blocks.items()}
        data = facts(self)
        for name in ("kind", "name", "num_layers", "pattern", "last", "blocks"):  # said by the layers
            del data[name]
        return {**data, "layers": [layers[letter] for letter in self.layout]}

    @property
    def hash(self) -> str:
        """sha256 of `canonical`."""
        return hashlib.sha256(json.dumps(self.canonical(), sort_keys=True).encode()).hexdigest()

    def build(self) -> Decoder:
        """The decoder with fresh weights, on torch's default device (`with torch.device("meta")` allocates nothing)."""
        norm: Any = self.norm
        embed_norm: Any = self.embed_norm
        decoder = Decoder(
            self.vocab_size,
            self.hidden_size,
            [self.blocks[letter].build(self.hidden_size) for letter in self.layout],
            norm.build(self.hidden_size),
            self.tie_word_embeddings,
            Ends(
                self.embed_scale,
                None if embed_norm is None else embed_norm.build(self.hidden_size),
                self.logit_scale,
                self.logit_softcap,
                None if self.embed_positions is None else AbsolutePositions(self.embed_positions, self.hidden_size),
            ),
        )
        if decoder.embed_tokens.weight.device != torch.device("meta"):
            self.init.apply(decoder)
        return decoder

    def parameters(self) -> int:
        """Number of weights; tied embeddings count once."""
        return self._outside_layers + sum(layer.parameters(self.hidden_size) for layer in self.layer_specs)

    def active_parameters(self) -> int:
        """Number of weights that one token uses: of a mixture only the chosen experts; the whole embedding counts."""
        return self._outside_layers + sum(layer.active_parameters(self.hidden_size) for layer in self.layer_specs)

    @property
    def _outside_layers(self) -> int:
        norms: list[Any] = [self.norm, self.embed_norm]
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)
        embeddings += (self.embed_positions or 0) * self.hidden_size
        return embeddings + sum(norm.parameters(self.hidden_size) for norm in norms if norm is not None)

    def forward_flops(self, length: int) -> float:
        """Floating-point operations per token of a forward pass, mean over a prefill of `length` tokens.

        Matrix products and attention scores count; norms, softmax, rotations and the embedding look-up do not.
        """
        _check_length(length)
        layers = sum(layer.flops(self.hidden_size, length) for layer in self.layer_specs)
        return layers + 2.0 * self.vocab_size * self.hidden_size

    def training_flops(self, length: int) -> float:
        """Floating-point operations per token of a training step: a backward pass costs twice a forward pass."""
        return 3.0 * self.forward_flops(length)

    def cache_bytes(self, length: int, dtype: str = "float32") -> int:
        """Bytes of keys and values held for one sequence of `length` tokens.

        dtype: of the cache, one of `BYTES`. Raises UserError for another.
        """
        _check_length(length)
        if dtype not in BYTES:
            raise UserError(f"dtype: got {dtype!r}; expected one of {', '.join(BYTES)}")
        attentions = [self._attention(layer) for layer in self.layer_specs]
        return sum(attention.cache_bytes(self.hidden_size, length, BYTES[dtype]) for attention in attentions)

    @staticmethod
    def _attention(layer: LayerSpec) -> Any:
        return layer.attention


def _check_length(length: int) -> None:
    if length < 1:
        raise UserError(f"length: got {length}; expected at least 1 token")
