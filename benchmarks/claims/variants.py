"""The architectures that are compared: four layers of width 64, local and global in turn, about 0.2 M parameters.

They differ in how positions are known and in what the global layers are, in nothing else. `harmonic-log` is what this
project recommends; `published` is the architecture as it was published; `minimind` is the baseline.

A test-time variant has no training of its own: it takes another variant's weights and changes how they are used.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

WINDOW, PERIOD = 16, 32
HEADS, HIDDEN, LAYERS = 2, 64, 4  # heads of 32 channels learn recall in half as many steps as heads of 16

LOG = {"type": "nope", "logit_scale": {"type": "log"}}
UNSCALED = {"type": "nope", "logit_scale": None}
HARMONIC = {"type": "p-rope", "period": PERIOD, "harmonic": True}
PUBLISHED = {"type": "p-rope", "period": WINDOW, "harmonic": False}
ROPE = {"type": "rope", "rope_theta": 10000}


@dataclass(frozen=True)
class Variant:
    """local, globally: the positions of a local and of a global layer; None where the layout has no such layer.

    weights_of, changed: of a test-time variant, whose weights it takes and what is different (see running.py).
    model, train: fields of the model spec and of the train spec that differ from all others: a recipe for training.
    """

    name: str
    what: str
    local: dict[str, Any] | None
    globally: dict[str, Any] | None
    weights_of: str | None = None
    changed: dict[str, Any] = field(default_factory=dict)
    layers: int = LAYERS
    model: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)

    def spec(self) -> dict[str, Any]:
        """The model spec, as data."""

        def block(window: int | None, position: dict[str, Any]) -> dict[str, Any]:
            return {
                "attention": {"num_heads": HEADS, "window": window, "position": deepcopy(position)},
                "mlp": {"type": "swiglu", "intermediate_size": 2 * HIDDEN},
            }

        blocks = {}
        if self.local is not None:
            blocks["S"] = block(WINDOW, self.local)
        if self.globally is not None:
            blocks["G"] = block(None, self.globally)
        return {
            "kind": "model",
            "format": 1,
            "name": self.name,
            "vocab_size": 256,
            "hidden_size": HIDDEN,
            "num_layers": self.layers,
            "pattern": "".join(blocks),
            "tie_word_embeddings": False,
            "init": {"type": "fan-in", "std": 0.7, "depth_scaled": False, "embedding_std": 1.0},
            "blocks": blocks,
            **self.model,
        }


TRAINED = (
    Variant("harmonic-log", "harmonic P-RoPE, NoPE global with log scaling", HARMONIC, LOG),
    Variant("harmonic", "harmonic P-RoPE, NoPE global without scaling", HARMONIC, UNSCALED),
    Variant("published", "P-RoPE as published, NoPE global without scaling", PUBLISHED, UNSCALED),
    Variant("published-log", "P-RoPE as published, NoPE global with log scaling", PUBLISHED, LOG),
    Variant("window-rope", "plain RoPE in the window, NoPE global without scaling", ROPE, UNSCALED),
    Variant("window-rope-log", "plain RoPE in the window, NoPE global with log scaling", ROPE, LOG),
    Variant("global-rope", "harmonic P-RoPE, global layers with RoPE", HARMONIC, ROPE),
    Variant("global-p-rope", "harmonic P-RoPE, global layers with published P-RoPE", HARMONIC, PUBLISHED),
    Variant("no-global", "harmonic P-RoPE in every layer, no global layer", HARMONIC, None),
    Variant("minimind", "RoPE and full attention everywhere (MiniMind)", None, ROPE),
    Variant("alibi", "ALiBi and full attention everywhere", None, {"type": "alibi"}),
    Variant("nope", "NoPE and full attention everywhere, without scaling", None, UNSCALED),
    Variant("nope-log", "NoPE and full attention everywhere, with log scaling", None, LOG),
    Variant("forgetting", "harmonic P-RoPE, global layers of forgetting attention", HARMONIC, {"type": "forgetting"}),
    Variant(
        "stick-breaking",
        "harmonic P-RoPE, global layers of stick-breaking attention",
        HARMONIC,
        {"type": "stick-breaking"},
    ),
)
TEST_TIME = (
    Variant(
        "harmonic-test-log",
        "`harmonic`, queries scaled by max(1, log(n) / log(trained)) at test time",
        HARMONIC,
        UNSCALED,
        "harmonic",
        {"scale": "log-from-trained"},
    ),
    Variant("minimind-yarn", "`minimind` with YaRN at test time", None, ROPE, "minimind", {"scaling": "yarn"}),
    Variant(
        "minimind-ntk", "`minimind` with NTK-aware scaling at test time", None, ROPE, "minimind", {"scaling": "ntk"}
    ),
)
ADAMW = {"optimizer": {"type": "adamw", "lr": 3e-3, "beta2": 0.98, "weight_decay": 0.01}}
USUAL = {"init": {"type": "normal", "std": 0.02}, "tie_word_embeddings": True}
FAN_IN = {"init": {"type": "fan-in", "std": 0.7, "depth_scaled": False}, "tie_word_embeddings": True}
RECIPES = (  # all other experiments: Muon, fan-in 0.7, embeddings of std 1 that are not tied
    Variant("muon-fan-in", "Muon, fan-in 0.7, embeddings tied and small", HARMONIC, LOG, model=FAN_IN),
    Variant("muon-usual", "Muon, every matrix of std 0.02, embeddings tied", HARMONIC, LOG, model=USUAL),
    Variant("adamw-large", "AdamW, fan-in 0.7, embeddings of std 1", HARMONIC, LOG, train=ADAMW),
    Variant("adamw-fan-in", "AdamW, fan-in 0.7, embeddings tied and small", HARMONIC, LOG, model=FAN_IN, train=ADAMW),
    Variant("adamw-usual", "AdamW, every matrix of std 0.02, embeddings tied", HARMONIC, LOG, model=USUAL, train=ADAMW),
)
CHAMPION = Variant(
    "miniwin-tasks",
    "as `harmonic-log`, with six layers: 0.279 M parameters",
    HARMONIC,
    LOG,
    layers=6,
)
VARIANTS = {variant.name: variant for variant in (*TRAINED, *TEST_TIME, *RECIPES, CHAMPION)}
