"""Reference logits: what a model answered to a fixed text, on the machine that wrote the entry.

Hashes show that the files are intact. Reference logits show that *this* machine, with this version of the code, still
computes the same function. The text is longer than twice the widest window (up to 1024 tokens), so that an entry whose
window or position encoding is read differently cannot pass. Logits are kept at evenly spread positions only: the file
stays small for large vocabularies.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError

from miniwin.files.tensor_files import load_tensors, save_tensors
from miniwin.specs import load_model_spec
from miniwin.zoo.entry import MODEL, TOKENIZER, WEIGHTS
from miniwin.zoo.errors import ZooError

if TYPE_CHECKING:
    from miniwin.language_model import LanguageModel

TOLERANCE = 1e-4
MIN_LENGTH, MAX_LENGTH = 64, 1024
MAX_POSITIONS, MAX_LOGITS = 64, 1 << 18  # at most 1 MB of float32 logits

TEXT = '''"""The text on which the reference logits of an entry are computed: code, words, signs."""

def merge(left, right):
    """Merge two sorted lists into one, keeping equal items in order."""
    merged, i, j = [], 0, 0
    while i < len(left) and j < len(right):
        if left[i] <= right[j]:
            merged.append(left[i]); i += 1
        else:
            merged.append(right[j]); j += 1
    return merged + left[i:] + right[j:]

# It was a bright cold day in early spring, and nobody in the harbour town had yet opened a window.
# Numbers: 0 1 2 3 4 5 6 7 8 9, 3.14159, 0xff, 1e-3. Other alphabets: Ελλάδα, Україна, 日本語, العربية.
# And a few signs: € ≤ → ½ 😀.
class Harbour(dict):
    boats = {"red": 1, "green": 2, "blue": 3}

    def __missing__(self, key: str) -> int:
        raise KeyError(f"no boat is called {key!r}; boats: {', '.join(sorted(self.boats))}")
'''


def open_model(folder: Path) -> LanguageModel:
    """The model whose spec, weights and tokenizer lie in `folder`, staged or finished; float32, CPU."""
    from miniwin.language_model import LanguageModel
    from miniwin.tokenizer import load_tokenizer
    from miniwin.weights import put_weights, read_weights

    spec = load_model_spec(folder / MODEL)
    with torch.device("meta"):
        decoder = spec.build()
    put_weights(decoder, read_weights(folder / WEIGHTS, torch.device("cpu")), folder / WEIGHTS)
    return LanguageModel(decoder, spec, load_tokenizer(folder / TOKENIZER)).to(torch.float32).eval()


def reference_ids(model: LanguageModel) -> torch.Tensor:
    """The token ids of the text, (N,). N is more than twice the widest window, but at most 1024.

    Raises:
        ZooError: the tokenizer gives ids that the model does not know.
    """
    spec = model.spec
    assert model.tokenizer is not None
    ids = list(model.tokenizer.encode(TEXT))
    if not ids or max(ids) >= spec.vocab_size:
        raise ZooError(
            f"the tokenizer and the model do not fit: the tokenizer gives ids up to {max(ids, default=-1)}, "
            f"the model knows ids below vocab_size {spec.vocab_size}"
        )
    windows = [window for layer in spec.layer_specs for window in getattr(layer.attention, "bounded", [])]
    length = min(max(MIN_LENGTH, 2 * max(windows, default=0) + 1), MAX_LENGTH)
    repeated = ids * -(-length // len(ids))
    return torch.tensor(repeated[:length], dtype=torch.int64)


def write_reference(path: Path, model: LanguageModel) -> None:
    """Compute the logits of a model and store them. Raises ZooError where they are not finite."""
    ids = reference_ids(model)
    count = max(1, min(MAX_POSITIONS, MAX_LOGITS // model.spec.vocab_size, len(ids)))
    positions = torch.linspace(0, len(ids) - 1, count).round().to(torch.int64)
    if count == 1:
        positions = torch.tensor([len(ids) - 1])
    logits = _logits(model, ids, positions)
    if not torch.isfinite(logits).all():
        raise ZooError("the model gives logits that are NaN or infinite for the reference text; it cannot be added")
    save_tensors({"input_ids": ids, "positions": positions, "logits": logits}, path)


def reference_error(path: Path, model: LanguageModel) -> float:
    """The largest difference between the stored logits and those that this machine computes.

    Raises:
        ZooError: the file is not a reference file of this model.
    """
    try:
        stored = load_tensors(path)
        ids, positions, logits = stored["input_ids"], stored["positions"], stored["logits"]
    except (SafetensorError, KeyError) as error:
        raise ZooError(f"{path}: is not a reference file: {error}") from None
    vocab_size = model.spec.vocab_size
    for name, tensor, below in (("input_ids", ids, vocab_size), ("positions", positions, len(ids))):
        if tensor.dtype != torch.int64 or tensor.ndim != 1 or not 0 < len(tensor) <= MAX_LENGTH:
            raise ZooError(f"{path}: {name} is no list of 1 to {MAX_LENGTH} whole numbers")
        if tensor.min() < 0 or tensor.max() >= below:
            raise ZooError(f"{path}: {name} must lie between 0 and {below - 1}")
    if logits.dtype != torch.float32 or logits.shape != (len(positions), vocab_size):
        raise ZooError(f"{path}: logits must be {len(positions)} x {vocab_size} numbers in float32")
    return float((_logits(model, ids, positions) - logits).abs().max())


def _logits(model: LanguageModel, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        logits = model(ids[None])  # (1, N, V)
    return logits[0, positions].float().contiguous()  # (P, V)
