"""A Hugging Face folder: config.json, weights in safetensors (one file, or shards and their index), tokenizer.json, the
special ids of generation_config.json, and the chat template.

The folder may come from anywhere. No file outside the folder is opened, whatever an index or a link says. The one
exception is the Hub's own cache, where the files of a snapshot are links to blobs beside it. JSON is read up to a size
and a depth. The safetensors library checks headers: size, types, and offsets that neither overlap nor leave the file.
Weights in another format are not read: `pytorch_model.bin` is a pickle.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from miniwin.blocks.messages.listing import some
from miniwin.chat.format import TEMPLATE, template_text
from miniwin.files.json_files import JSONProblem, read_json
from miniwin.files.tensor_files import readable
from miniwin.specs.base import UserError
from miniwin.specs.yaml_scalars import shown
from miniwin.zoo.importing.chat import special_tokens, template_of
from miniwin.zoo.importing.licence import CARD, of_card, said
from miniwin.zoo.importing.source import Source

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
WEIGHTS = ("model.safetensors", "weights.safetensors")
GENERATION = "generation_config.json"
TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
LARGEST_CONFIG = 8 << 20  # bytes; published ones have a few thousand
LARGEST_INDEX = 64 << 20
LARGEST_TOKENIZER = 256 << 20

# The names in safetensors headers. Other types count as uint8, which is refused when a tensor is read.
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


class HFFolder(Source):
    kind = "hf"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._homes: dict[str, Any] = {}  # tensor -> the open file that holds it
        self._names: dict[str, str] = {}  # tensor -> that file's name
        config = self._inside(CONFIG)
        if config is None:
            files = sorted(one.name for one in path.glob("*.gguf"))
            hint = f"; {some(files)} is GGUF: give the file itself" if files else ""
            raise UserError(f"{path}: there is no {CONFIG} in it, so it is not a Hugging Face folder{hint}")
        self.config = read_object(config, LARGEST_CONFIG)
        self.files[CONFIG] = config
        generation = self._inside(GENERATION)
        if generation is not None:
            self.files[GENERATION] = generation
            self.generation = read_object(generation, LARGEST_CONFIG)
        index = self._inside(INDEX)
        if index is not None:
            self._open_shards(index)
        else:
            self._open(self._single_file())
        if not self.shapes:
            raise UserError(f"{path}: there is not one tensor in {some(sorted(set(self.files) - {CONFIG}))}")
        self.tokenizer = self._inside(TOKENIZER)
        if self.tokenizer is not None:
            if self.tokenizer.stat().st_size > LARGEST_TOKENIZER:
                raise UserError(f"{self.tokenizer}: larger than {LARGEST_TOKENIZER >> 20} MiB; expected a tokenizer")
        elif self._inside("tokenizer.model") is not None:
            self.notes.append("tokenizer.model is not read; save the tokenizer as tokenizer.json to carry it over")
        self._read_chat()
        card = self._inside(CARD)
        self.licence = None if card is None else of_card(card)
        self.licence = self.licence or said(self.config)

    def where(self, name: str) -> str:
        return self._names.get(name, self.path.name)

    @property
    def stem(self) -> str:
        return self.path.absolute().name

    @property
    def described(self) -> Path:
        return self.path / CONFIG

    def _read(self, name: str) -> Tensor:
        try:
            tensor: Tensor = self._homes[name].get_tensor(name)
        except SafetensorError as error:
            raise UserError(f"{self.where(name)}: {name} cannot be read ({error}); fetch the file again") from None
        return tensor

    def _read_chat(self) -> None:
        """The template is in a file of its own, or in tokenizer_config.json, as older ones have it."""
        settings, template = self._inside(TOKENIZER_CONFIG), self._inside(TEMPLATE)
        config = {} if settings is None else read_object(settings, LARGEST_CONFIG)
        if template is not None:
            self.chat_template = template_text(template)
            self.files[TEMPLATE] = template
        else:
            self.chat_template = template_of(str(settings), config.get("chat_template"))
        if self.chat_template is not None and settings is not None:
            self.special_tokens = special_tokens(str(settings), config)
            self.files[TOKENIZER_CONFIG] = settings

    def _single_file(self) -> str:
        found = sorted(path.name for path in self.path.glob("*.safetensors"))
        for name in WEIGHTS:
            if name in found:
                return name
        if len(found) == 1:
            return found[0]
        if found:
            shards = [name for name in found if "-of-" in name]
            if shards:
                raise UserError(
                    f"{self.path}: holds shards ({some(shards)}) without {INDEX}, which names them; fetch it too"
                )
            raise UserError(
                f"{self.path}: holds {some(found)}, and it is not clear which are the weights; call them {WEIGHTS[0]}"
            )
        if list(self.path.glob("*.bin")) or list(self.path.glob("*.pth")):
            raise UserError(
                f"{self.path}: holds its weights as a pickle only (pytorch_model.bin), and nothing is unpickled here; "
                "save it as safetensors (transformers: AutoModelForCausalLM.from_pretrained(SRC).save_pretrained(NEW)) "
                "and import that folder"
            )
        if list(self.path.glob("*.gguf")):
            raise UserError(f"{self.path}: holds its weights as GGUF; import the .gguf file, not the folder")
        raise UserError(f"{self.path}: there are no weights in it; expected {WEIGHTS[0]}, or shards and {INDEX}")

    def _open_shards(self, index: Path) -> None:
        """Open every shard that the index names. Index and headers must agree, tensor by tensor."""
        self.files[INDEX] = index
        weight_map = read_object(index, LARGEST_INDEX).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise UserError(f"{index}: weight_map: got {shown(weight_map)}; expected tensor names and their files")
        for tensor, shard in weight_map.items():
            if not isinstance(shard, str) or not is_plain_name(shard):
                raise UserError(
                    f"{index}: weight_map: {shown(tensor)} is said to be in {shown(shard)}; expected the name of a "
                    ".safetensors file in the same folder, nothing else"
                )
        shards = sorted(set(weight_map.values()))
        stray = sorted({p.name for p in self.path.glob("model*.safetensors")} - set(shards))
        if stray:
            raise UserError(
                f"{self.path}: {some(stray)} is beside {INDEX}, which does not name it: remove it, or fetch the index "
                "that belongs to it"
            )
        for shard in shards:
            for tensor in self._open(shard):
                said = weight_map.get(tensor)
                if said is None:
                    raise UserError(
                        f"{self.path / shard}: holds {tensor}, which {INDEX} does not name; fetch both again"
                    )
                if said != shard:
                    raise UserError(
                        f"{self.path / shard}: holds {tensor}, which {INDEX} says is in {said}: a tensor may be in one "
                        "shard only; fetch the shards again"
                    )
        lacking = [tensor for tensor in weight_map if tensor not in self.shapes]
        if lacking:
            raise UserError(
                f"{self.path / weight_map[lacking[0]]}: does not hold {some(lacking)}, which {INDEX} says is there; "
                "fetch the shards again"
            )

    def _open(self, name: str) -> list[str]:
        """Open one safetensors file. Returns the names of its tensors."""
        path = self._inside(name)
        if path is None:
            raise UserError(f"{self.path / name}: the file is missing; {INDEX} names it. Fetch it, and import again")
        self.files[name] = path
        try:
            with readable(path) as plain:
                opened: Any = safe_open(plain, framework="pt", device="cpu")
            names = list(opened.keys())
            for tensor in names:
                part = opened.get_slice(tensor)
                self.shapes[tensor] = tuple(part.get_shape())
                # An unknown type (4-bit floats, say) counts as bytes: not floating-point, so refused when it is read.
                self.dtypes[tensor] = DTYPES.get(part.get_dtype(), torch.uint8)
                self._homes[tensor], self._names[tensor] = opened, name
        except (SafetensorError, OSError, ValueError, OverflowError) as error:
            raise UserError(
                f"{self.path / name}: cannot be read as safetensors ({error}); the file is damaged or cut short: fetch "
                "it again"
            ) from None
        return names

    def _inside(self, name: str) -> Path | None:
        """The file of this name in the folder, None if there is none. A link that leads elsewhere is refused."""
        path = self.path / name
        if not path.is_symlink() and not path.exists():
            return None
        real, folder = path.resolve(), self.path.resolve()
        allowed = [folder]
        if folder.parent.name == "snapshots":  # the Hub's cache: snapshots/<commit>/<file> -> ../../blobs/<hash>
            allowed.append(folder.parent.parent / "blobs")
        if not any(real.is_relative_to(root) for root in allowed):
            raise UserError(f"{path}: a link that leads out of the folder; put the file itself there")
        if not real.is_file():
            raise UserError(f"{path}: not a regular file; put the file itself there")
        return path


def is_plain_name(name: str) -> bool:
    """Whether an index may give a shard this name: on every system it is a file in the folder itself."""
    return (
        name.endswith(".safetensors")
        and not name.startswith(".")
        and PurePosixPath(name).name == name
        and not set('\\/:\0\n\r<>|"?*') & set(name)
        and len(name) <= 200
    )


def read_object(path: Path, largest: int) -> dict[str, Any]:
    """A JSON object from a file of at most `largest` bytes, with no key given twice."""
    expected = "expected what transformers writes, a JSON object"
    try:
        data = read_json(path, largest, pairs=lambda pairs: _once(path, pairs))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except JSONProblem as error:
        raise UserError(f"{path}: {error}; {expected}") from None
    if not isinstance(data, dict):
        raise UserError(f"{path}: got {shown(data)}; {expected}")
    return data


def _once(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The pairs as a dictionary. Raises UserError where a key is given twice."""
    data = dict(pairs)
    if len(data) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{path}: {shown(twice)} is given twice; which one is meant cannot be known")
    return data
