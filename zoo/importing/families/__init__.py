"""The families of models that can be imported, by the `model_type` of their config.json.

A new family is a file here and a line below.
"""

from __future__ import annotations

from miniwin.zoo.importing.families import (
    cohere2,
    exaone4,
    gemma,
    gemma2,
    gemma3,
    gpt2,
    gpt_neox,
    gpt_oss,
    granite,
    llama,
    llama4,
    minimind,
    miniwin,
    mistral,
    mixtral,
    nanochat,
    olmo2,
    olmo3,
    phi3,
    qwen2,
    qwen3,
    qwen3_moe,
    smollm3,
    starcoder2,
)
from miniwin.zoo.importing.family import Family

EVERY: tuple[Family, ...] = (
    cohere2.Cohere2(),
    exaone4.Exaone4(),
    gemma.Gemma(),
    gemma2.Gemma2(),
    gemma3.Gemma3(),
    gpt2.GPT2(),
    gpt_neox.GPTNeoX(),
    gpt_oss.GptOss(),
    llama.Llama(),
    llama4.Llama4(),
    minimind.MiniMind(),
    miniwin.MiniWin(),
    mistral.Mistral(),
    mixtral.Mixtral(),
    nanochat.NanoChat(),
    olmo2.Olmo2(),
    olmo3.Olmo3(),
    phi3.Phi3(),
    qwen2.Qwen2(),
    qwen3.Qwen3(),
    qwen3_moe.Qwen3MoE(),
    smollm3.SmolLM3(),
    starcoder2.StarCoder2(),
    granite.Granite(),  # last: it says every llama, too
)
FAMILIES: dict[str, Family] = {model_type: family for family in EVERY for model_type in family.model_types}
