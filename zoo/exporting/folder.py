"""Write a model as a folder for transformers.

    stock   config.json, model.safetensors: of a stock architecture that computes exactly what the spec says
    custom  the same files, and modeling_miniwin.py, which transformers loads as custom code of the Hub

Both have the tokenizer, and a README.md that says how to load the model. The folder appears when it is whole.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from miniwin.chat.format import TEMPLATE
from miniwin.files.writing import write_flushed
from miniwin.language_model import LanguageModel
from miniwin.licences import UNKNOWN, licence_of
from miniwin.loading import load
from miniwin.specs import UserError, dump_yaml, user_path
from miniwin.version import __version__
from miniwin.weights import wide
from miniwin.zoo.exporting.stock import Refusal, Stock, find_stock
from miniwin.zoo.exporting.tokenizing import write_tokenizer
from miniwin.zoo.importing.writing import appearing, refuse_existing

Kind = Literal["auto", "stock", "custom"]
CODE = "modeling_miniwin"
NAMES = ("bos_token_id", "eos_token_id", "pad_token_id")


@dataclass(frozen=True)
class Exported:
    """What an export made.

    architecture: the model_type of a stock architecture, or "custom". refusals: why other architectures were not taken.
    random: the reference was a spec, so the weights are not trained.
    """

    folder: Path
    architecture: str
    refusals: list[Refusal]
    random: bool = False


def export_model(
    ref: str | LanguageModel, to: str | Path, kind: Kind = "auto", model_type: str | None = None
) -> Exported:
    """Write the model that `ref` names as a folder that transformers loads, with equal logits.

    kind: `stock` for a stock architecture, `custom` for our code, `auto` for stock if there is one, else custom.
    model_type: the stock architecture to take, such as llama.

    Raises:
        UserError: `to` exists, there is no such model, or no stock architecture is equal to it where one is required.
    """
    folder = user_path(to)
    refuse_existing(folder)
    if kind == "custom" and model_type is not None:
        raise UserError(f"--architecture {model_type}: got it beside --as custom; give one of them")
    model = ref if isinstance(ref, LanguageModel) else load(ref)
    random = model is not ref and model.folder is None
    stock, refusals = (None, []) if kind == "custom" else find_stock(model.spec, model_type)
    if stock is None and (kind == "stock" or model_type is not None):
        if not refusals:
            raise UserError(f"--architecture {model_type}: there is no such architecture to export to")
        raise UserError("no stock architecture can say this model:\n" + "\n".join(f"  {one}" for one in refusals))
    with appearing(folder) as part:
        if stock is None:
            _write_custom(model, part)
        else:
            _write_stock(model, stock, part)
        ids = special_ids(model)
        if model.special is not None:  # transformers generates by this file; without it, by one made of config.json
            _write_json(ids, part / "generation_config.json")
        if model.tokenizer is not None:
            write_tokenizer(model.tokenizer, ids, part, {} if model.chat_format is None else model.chat_format.names)
        if model.chat_format is not None:
            write_flushed(part / TEMPLATE, model.chat_format.template)
        write_flushed(part / "README.md", _card(model, stock, random))
        write_flushed(part / "model.yaml", dump_yaml(model.spec))
    return Exported(folder, "custom" if stock is None else stock.model_type, refusals, random)


def _write_stock(model: LanguageModel, stock: Stock, folder: Path) -> None:
    ours = wide(model.decoder.state_dict())
    theirs: dict[str, Any] = {}
    for rule in stock.family.rules(model.spec):
        theirs |= dict(zip(rule.theirs, rule.write([ours[name] for name in rule.ours]), strict=True))
    _save(theirs, folder)
    _write_json({**stock.config, **_about(model)}, folder / "config.json")


def _write_custom(model: LanguageModel, folder: Path) -> None:
    _save({f"decoder.{name}": tensor for name, tensor in wide(model.decoder.state_dict()).items()}, folder)
    config = {
        "model_type": "miniwin-spec",
        "architectures": ["MiniWinForCausalLM"],
        "auto_map": {"AutoConfig": f"{CODE}.MiniWinConfig", "AutoModelForCausalLM": f"{CODE}.MiniWinForCausalLM"},
        "spec": model.spec.model_dump(mode="json"),
    }
    _write_json({**config, **_about(model)}, folder / "config.json")
    code = Path(__file__).with_name(f"{CODE}.txt").read_text(encoding="utf-8")
    write_flushed(folder / f"{CODE}.py", code)


def _about(model: LanguageModel) -> dict[str, Any]:
    return {"dtype": str(model.dtype).removeprefix("torch."), **special_ids(model)}


def special_ids(model: LanguageModel) -> dict[str, Any]:
    """The fields of config.json that say where texts begin and end, and what pads them.

    An imported model has the ids that it came with. A model that was trained here has the separator for all three.
    """
    tokenizer, special = model.tokenizer, model.special
    if special is None:
        separator = None if tokenizer is None else tokenizer.separator
        return dict.fromkeys(NAMES, separator)
    ends, prefix = model.ends, () if tokenizer is None else tokenizer.prefix
    bos = special.bos if special.bos is not None else prefix[0] if len(prefix) == 1 else None
    pad = special.pad if special.pad is not None else ends[0] if ends else None
    end = None if not ends else ends[0] if len(ends) == 1 else list(ends)
    return dict(zip(NAMES, (bos, end, pad), strict=True))


def _save(tensors: dict[str, Any], folder: Path) -> None:
    from miniwin.files.tensor_files import save_tensors

    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    save_tensors(plain, folder / "model.safetensors", {"format": "pt"})


def _write_json(data: dict[str, Any], path: Path) -> None:
    write_flushed(path, json.dumps(data, indent=2) + "\n")


def _card(model: LanguageModel, stock: Stock | None, random: bool) -> str:
    licence = None if model.folder is None else licence_of(model.folder)
    licensed = "" if licence in (None, UNKNOWN) else f"license: {json.dumps(licence)}\n"
    code = "" if stock is not None else ", trust_remote_code=True"
    needs = (
        f"It is a stock `{stock.model_type}` model."
        if stock is not None
        else "It needs the package miniwin, which builds the architecture that `model.yaml` describes."
    )
    if random:
        needs += " Its weights are random: nobody trained it."
    return f"""---
{licensed}library_name: transformers
pipeline_tag: text-generation
tags: [miniwin]
---

# {model.spec.name}

Exported by MiniWin {__version__}. {needs}

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("this folder"{code})
tokenizer = AutoTokenizer.from_pretrained("this folder"{code})
```
"""
