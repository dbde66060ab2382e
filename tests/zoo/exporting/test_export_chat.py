"""An export for transformers has the chat template and the tokens that it names: chats are written the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hf_tokenizers import tokenizer_json
from safetensors.torch import save_file
from tiny_runs import tiny_model

import miniwin
from miniwin.chat.format import ChatFormat
from miniwin.specs import dump_yaml
from miniwin.zoo.exporting import export_model
from miniwin.zoo.importing import import_model

FORMAT = ChatFormat(
    "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}\n"
    "{% if add_generation_prompt %}<assistant>{% endif %}",
    ("<eos>",),
    {"bos_token": "<bos>", "eos_token": "<eos>"},
)
CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]


@pytest.mark.parametrize("kind", ["stock", "custom"])
def test_transformers_writes_chats_as_we_do(tmp_path: Path, kind: str) -> None:
    transformers = pytest.importorskip("transformers")
    folder, text = tmp_path / "ours", tokenizer_json()
    folder.mkdir()
    (folder / "tokenizer.json").write_text(text)
    layer = {
        "attention": {"num_heads": 2, "num_kv_heads": 1, "window": None, "position": {"type": "rope"}},
        "mlp": {"type": "swiglu", "intermediate_size": 32},
    }
    size = len(json.loads(text)["model"]["vocab"]) + 8
    spec = tiny_model(vocab_size=size, blocks={"G": layer}, pattern="G")
    (folder / "model.yaml").write_text(dump_yaml(spec))
    torch.manual_seed(1)
    save_file(spec.build().state_dict(), folder / "model.safetensors")
    FORMAT.write(folder)
    ids = {"eos_token_id": [2], "bos_token_id": 1, "pad_token_id": None}
    (folder / "import.json").write_text(json.dumps({"format": 1, "special_ids": ids}))
    export_model(miniwin.load(folder), tmp_path / "out", kind)  # type: ignore[arg-type]
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    for more in (True, False):
        expected = FORMAT.render(CHAT, add_generation_prompt=more)
        assert theirs.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=more) == expected
    if kind == "stock":
        import_model(tmp_path / "out", tmp_path / "back")
        again = miniwin.load(tmp_path / "back").chat_format
        assert again is not None and (again.template, again.end_tokens) == (FORMAT.template, FORMAT.end_tokens)
