"""Small tokenizers of Hugging Face with special tokens, and a folder of a tiny model that has one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hf_models import hf_model

BOS, EOS, EOT, PAD = "<bos>", "<eos>", "<|eot_id|>", "<pad>"
SPECIAL = (PAD, BOS, EOS, EOT)


def tokenizer_json(template: str | None = f"{BOS} $A", special: tuple[str, ...] = SPECIAL, kind: str = "bpe") -> str:
    """A byte-level BPE, or a Unigram as of SentencePiece, with a post-processor of this template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    sample = ["The capital of France is a city. hello there, twice the spaces"] * 3
    if kind == "bpe":
        inner = Tokenizer(models.BPE())
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = decoders.ByteLevel()
        trainer: Any = trainers.BpeTrainer(
            vocab_size=280,
            special_tokens=list(special),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
    else:
        inner = Tokenizer(models.Unigram())
        inner.pre_tokenizer, inner.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=90, special_tokens=["<unk>", *special], unk_token="<unk>", show_progress=False
        )
    inner.train_from_iterator(sample, trainer)
    if template is not None:
        named = [(token, inner.token_to_id(token)) for token in special if token in template]
        inner.post_processor = processors.TemplateProcessing(single=template, special_tokens=named)
    return str(inner.to_str())


def folder_of(
    folder: Path, text: str, config: dict[str, Any], generation: dict[str, Any] | None = None, **tokenizer: Any
) -> Path:
    """A Hugging Face folder: a small llama with every weight drawn, this tokenizer, and these files beside."""
    size = len(json.loads(text)["model"]["vocab"])
    model = hf_model("llama", vocab_size=size, num_hidden_layers=2, eos_token_id=None, bos_token_id=None)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink()
    said = json.loads((folder / "config.json").read_text()) | config
    (folder / "config.json").write_text(json.dumps(said))
    (folder / "tokenizer.json").write_text(text)
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": BOS, "eos_token": EOS, **tokenizer}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder
