"""What a family of models is: how its `config.json` and its tensor names become ours, and back.

    config.json --spec()--> model spec --config()--> config.json
    their tensors --Rule.read--> our tensors --Rule.write--> their tensors

A family is one file in `families/`. Every field of a config that decides what the model computes is either honoured or
refused. `Fields` gives the fields by name and type and remembers which were read. `Fields.finish` refuses a field that
nobody read and whose name suggests that it matters. Helpers: `rope` (rotary scalings), `layout` (layers to a pattern
and back), `dense` (what the Llama-like families share).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from miniwin.blocks.messages.nearest import nearest
from miniwin.blocks.spec import UserError
from miniwin.specs import ModelSpec
from miniwin.zoo.importing.asked import Asked


class CannotSay(UserError):
    """The config of a family cannot express this field of a model spec, or this value of it."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(f"{field}: {why}")
        self.field, self.why = field, why


def unchanged(tensors: list[Tensor]) -> list[Tensor]:
    return tensors


@dataclass(frozen=True)
class Rule:
    """How a group of tensors of the source (`theirs`) becomes a group of ours.

    read: their tensors -> ours, in the order of the names; write: the inverse. copies: names that the source may have
    too, with the same values as the first of `theirs` (the head of tied embeddings). instead: rules for the other names
    and shapes in which the family has been saved.
    """

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    read: Callable[[list[Tensor]], list[Tensor]] = unchanged
    write: Callable[[list[Tensor]], list[Tensor]] = unchanged
    copies: tuple[str, ...] = ()
    instead: tuple[Rule, ...] = ()


def fitting(rules: list[Rule], names: Container[str]) -> list[Rule]:
    """For each rule, the form whose names the source has; the rule itself where the source has none of them."""
    return [
        next((form for form in (rule, *rule.instead) if all(name in names for name in form.theirs)), rule)
        for rule in rules
    ]


class Family(Protocol):
    """A family of models."""

    @property
    def model_types(self) -> tuple[str, ...]:
        """What config.json calls it."""

    def spec(self, config: dict[str, Any], name: str, asked: Asked) -> dict[str, Any]:
        """The model spec as data. Raises UserError for a field that cannot be honoured."""

    def rules(self, spec: ModelSpec) -> list[Rule]:
        """The rules: every tensor of the source, and every one of ours, is in exactly one of them."""

    def config(self, spec: ModelSpec) -> dict[str, Any]:
        """The config.json that expresses the spec. Raises CannotSay where none does."""


# Buffers in older checkpoints. The config decides their values.
DERIVED = re.compile(r"(^|\.)(rotary_emb\.inv_freq|rotary_emb\.original_inv_freq|_?freqs_(cos|sin))$")

# Fields that do not change what a model computes when it is run: training, generation, labels, bookkeeping.
HARMLESS = frozenset(
    {
        "_attn_implementation",
        "_attn_implementation_autoset",
        "attention_probs_dropout_prob",
        "hidden_dropout_prob",
        "_name_or_path",
        "architectures",
        "attention_dropout",
        "attn_implementation",
        "auto_map",
        "bos_token_id",
        "chunk_size_feed_forward",
        "classifier_dropout",
        "dropout",
        "dtype",
        "embd_pdrop",
        "embedding_dropout",
        "eos_token_id",
        "flash_attn",
        "gradient_checkpointing",
        "hidden_dropout",
        "id2label",
        "ignore_keys_at_rope_validation",
        "initializer_range",
        "keys_to_ignore_at_inference",
        "label2id",
        "max_position_embeddings",
        "model_type",
        "name_or_path",
        "output_attentions",
        "output_hidden_states",
        "output_router_logits",
        "pad_token_id",
        "pp_plan",
        "pretraining_tp",
        "problem_type",
        "resid_pdrop",
        "residual_dropout",
        "return_dict",
        "router_aux_loss_coef",
        "router_z_loss_coef",
        "task_specific_params",
        "tokenizer_class",
        "torch_dtype",
        "tp_plan",
        "transformers_version",
        "unsloth_fixed",
        "unsloth_version",
        "use_cache",
        "use_flash_attn",
    }
)
# Words in the names of fields that change what a model computes.
STRUCTURAL = re.compile(
    r"rope|rotary|position|window|sliding|attn|attention|norm|bias|scal|multiplier|softcap|capping|expert|moe|rout|mlp|ffn"
    r"|layer|head|hidden|embed|quant|compress|chunk|sink|(^|_)act|residual|conv|ssm|mamba|lora|latent|encoder|cross|block|query"
)


# Families list the layers one by one, so their number is bounded. The bound of other counts is beyond any model's.
MOST = {"num_hidden_layers": 10_000, "n_layer": 10_000}


class Fields:
    """The fields of a config, by name and type. Each method raises UserError for a value of another type.

    defaults: values of the fields that a config may leave out, as in the family's own config class.
    """

    def __init__(self, config: Mapping[str, Any], family: str, defaults: Mapping[str, Any]) -> None:
        self.config, self.family, self.defaults = config, family, defaults
        self._read: set[str] = set()

    def raw(self, name: str) -> Any:
        """The value as it stands; the default where the config lacks the field."""
        self._read.add(name)
        return self.config[name] if name in self.config else self.defaults.get(name)

    def refuse(self, name: str, why: str) -> UserError:
        got = f"got {shown(self.raw(name))}" if name in self.config else "missing"
        return UserError(f"{name}: {got}; {why}")

    def count(self, name: str) -> int:
        value = self.maybe_count(name, "")
        if value is None:
            raise self.refuse(name, "expected a positive whole number")
        return value

    def maybe_count(self, name: str, otherwise: str = ", or null") -> int | None:
        value = self.raw(name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise self.refuse(name, f"expected a positive whole number{otherwise}")
        if value is not None and value > (most := MOST.get(name, 2**40)):
            raise self.refuse(name, f"expected at most {most}")
        return value

    def real(self, name: str) -> float:
        value = self.raw(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.refuse(name, "expected a number")
        return float(value)

    def flag(self, name: str) -> bool:
        value = self.raw(name)
        value = self.defaults.get(name) if value is None else value
        if not isinstance(value, bool):
            raise self.refuse(name, "expected true or false")
        return value

    def counts(self, name: str, length: int) -> list[int] | None:
        """A list of whole numbers, one for each layer."""
        value = self.raw(name)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(v, int) for v in value) or len(value) != length:
            raise self.refuse(name, f"expected {length} whole numbers, one for each layer")
        return [int(v) for v in value]

    def mapping(self, name: str) -> dict[str, Any]:
        value = self.raw(name)
        if value is not None and not isinstance(value, dict):
            raise self.refuse(name, "expected a mapping, or null")
        return dict(value or {})

    def only(self, name: str, *allowed: Any, why: str) -> None:
        """Refuse any value but these, and null."""
        value = self.raw(name)
        if value is not None and not any(type(value) is type(one) and value == one for one in allowed):
            raise self.refuse(name, why)

    def layer_types(self, num_layers: int, known: tuple[str, ...]) -> list[str] | None:
        """`layer_types`, checked; None where the config lacks it."""
        types = self.raw("layer_types")
        if types is None:
            return None
        if not isinstance(types, list) or len(types) != num_layers:
            raise self.refuse("layer_types", f"expected {num_layers} names, one for each layer")
        for one in types:
            if one not in known:
                raise UserError(
                    f"layer_types: got {shown(one)}; expected {' or '.join(known)} in this {self.family} model"
                )
        return types

    def finish(self) -> None:
        """Refuse the fields that nobody read, unless they are off, harmless, or do not sound as if they mattered."""
        if self.config.get("quantization_config"):
            raise self.refuse("quantization_config", "quantised weights cannot be imported; save the model unquantised")
        # Other fields may be off without being read, but not is_causal: transformers honours it in any config.
        self.only("is_causal", True, why="every token would see those after it; only causal models can be imported")
        for name in self.config:
            if name in self._read or name in HARMLESS or not STRUCTURAL.search(name):
                continue
            if self.config[name] not in (None, False, 0, "", {}, []):
                near = nearest(name, self._read, 0.8)
                raise self.refuse(
                    name,
                    f"{self.family} models have no such field, and it sounds as if it changed what the model computes; "
                    "remove it if it does not" + (f", or did you mean {near}?" if near else ""),
                )


def shown(value: Any) -> str:
    """A value as JSON would show it, shortened."""
    words = {None: "null", True: "true", False: "false"}
    text = words[value] if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) < 80 else f"{text[:77]}..."


def split_rows(*sizes: int) -> Callable[[list[Tensor]], list[Tensor]]:
    """A `read` of one fused matrix as several: of these many rows each, in order."""
    return lambda tensors: [part.contiguous() for part in tensors[0].split(list(sizes), dim=0)]


def join_rows(tensors: list[Tensor]) -> list[Tensor]:
    """A `write` of several matrices as one, below each other: the inverse of `split_rows`."""
    return [torch.cat(tensors, dim=0)]
