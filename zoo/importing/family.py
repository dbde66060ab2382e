"""What a family of models is: how its `config.json` and its weights' names are said in ours, and back.

    config.json --spec()--> model spec --config()--> config.json
    their tensors --Rule.read--> our tensors --Rule.write--> their tensors

A family is one file in `families/`. Every field of a config that decides what the model computes is either honoured or
refused: `Fields` hands out the fields by name and type, remembers which were read, and `Fields.finish` refuses what is
left over and sounds as if it mattered. Helpers: `rope` (rotary scalings), `layout` (layers to a pattern and back),
`dense` (what the Llama-like families share).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from miniwin.blocks.registry import nearest
from miniwin.blocks.spec import UserError
from miniwin.specs import ModelSpec
from miniwin.zoo.importing.asked import Asked


class CannotSay(UserError):
    """A family's config has no words for this field of a model spec."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(f"{field}: {why}")
        self.field, self.why = field, why


def unchanged(tensors: list[Tensor]) -> list[Tensor]:
    return tensors


@dataclass(frozen=True)
class Rule:
    """One tensor of the source, or a group of them, and what it is here.

    read: their tensors to ours, in the order of the names; write: the inverse. copies: their names which, where the
    source has them too, must hold the same values as the first of `theirs` (the head of tied embeddings). instead: the
    same of ours under the other names, or in the other shapes, that the family has been saved in.
    """

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    read: Callable[[list[Tensor]], list[Tensor]] = unchanged
    write: Callable[[list[Tensor]], list[Tensor]] = unchanged
    copies: tuple[str, ...] = ()
    instead: tuple[Rule, ...] = ()


def fitting(rules: list[Rule], names: Container[str]) -> list[Rule]:
    """Of each rule the form that a source of these names has; the first where it has none."""
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
        """The model spec as data. Raises UserError on a field that cannot be honoured."""

    def rules(self, spec: ModelSpec) -> list[Rule]:
        """Every tensor of the source's, and of ours, in one rule each."""

    def config(self, spec: ModelSpec) -> dict[str, Any]:
        """The config.json that says the spec. Raises CannotSay."""


# Buffers that older checkpoints keep and that the config decides.
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
# What a field that changes the model sounds like.
STRUCTURAL = re.compile(
    r"rope|rotary|position|window|sliding|attn|attention|norm|bias|scal|multiplier|softcap|capping|expert|moe|rout|mlp|ffn"
    r"|layer|head|hidden|embed|quant|compress|chunk|sink|(^|_)act|residual|conv|ssm|mamba|lora|latent|encoder|cross|block|query"
)


# Families list the layers one by one, so that a billion of them would never end. Other counts: far beyond any model's.
MOST = {"num_hidden_layers": 10_000}


class Fields:
    """The fields of a config, by name and type; what is missing or null takes the family's default.

    defaults: of the fields that a config may leave out, as the family's own config class has them.
    """

    def __init__(self, config: Mapping[str, Any], family: str, defaults: Mapping[str, Any]) -> None:
        self.config, self.family, self.defaults = config, family, defaults
        self._read: set[str] = set()

    def raw(self, name: str) -> Any:
        """The value as it stands; the default where it is not there at all."""
        self._read.add(name)
        return self.config[name] if name in self.config else self.defaults.get(name)

    def refuse(self, name: str, why: str) -> UserError:
        got = f"got {shown(self.raw(name))}" if name in self.config else "it is not there"
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
        """Refuse any value but these; null, or no value, is the default."""
        value = self.raw(name)
        if value is not None and not any(type(value) is type(one) and value == one for one in allowed):
            raise self.refuse(name, why)

    def layer_types(self, num_layers: int, known: tuple[str, ...]) -> list[str] | None:
        """`layer_types`, checked; None where the config does not say."""
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
        """Refuse the fields that nobody read, unless they are off, or known or likely not to matter."""
        if self.config.get("quantization_config"):
            raise self.refuse("quantization_config", "quantised weights cannot be imported; save the model unquantised")
        # Off is what the other fields may be without being read; this one, which transformers reads of any config, not.
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
    """Read one fused matrix as several: its rows in order."""
    return lambda tensors: [part.contiguous() for part in tensors[0].split(list(sizes), dim=0)]


def join_rows(tensors: list[Tensor]) -> list[Tensor]:
    """Write several matrices as one, its rows in order: the inverse of `split_rows`."""
    return [torch.cat(tensors, dim=0)]
