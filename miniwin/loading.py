"""Loading a model by reference, and building one from a spec.

A reference is tried in this order:

1. The path of a run folder, an imported folder, a zoo entry's folder, or a model spec (`.yaml`). The weights of a spec
   are random, drawn from `seed`.
2. A zoo name (`name`, `name@1`, `name@1.2.3`, `name@latest`) of an entry on this disk.
3. The stem of a model spec that ships with MiniWin (random weights).
4. A zoo name that an index offers. The entry is pulled.

The model is built on the meta device, where parameters take no memory, and then takes over the tensors that
were read: loading never holds the weights twice.
"""

from __future__ import annotations

import difflib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from miniwin.blocks.messages.listing import some
from miniwin.files.folders import home
from miniwin.language_model import LanguageModel
from miniwin.machine.devices import find_device
from miniwin.machine.matmul_choice import settle
from miniwin.machine.memory import refuse_too_large
from miniwin.runs import BEST, CHECKPOINT, IMPORT, MODEL, RUN, TOKENIZER, WEIGHTS
from miniwin.specs import ModelSpec, UserError, load_model_spec, shipped_specs, user_path
from miniwin.tokenizer import Tokenizer, load_tokenizer
from miniwin.tokenizer.special_ids import read_special_ids
from miniwin.weights import DTYPES, put_weights, read_weights

if TYPE_CHECKING:
    from miniwin.zoo import Entry

ENTRY = "entry.json"
STUDY = "search.yaml"


def load(
    ref: str | os.PathLike[str],
    *,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype | None = None,
    seed: int = 0,
) -> LanguageModel:
    """Load a model in eval mode: `ref` is a zoo name, a run folder, an entry folder, or a model spec.

        miniwin.load("miniwin-1m@1.0.0")          # weights from the zoo
        miniwin.load("runs/my-run")               # a training run; its last checkpoint if it has not ended
        miniwin.load("runs/my-run/best.safetensors")  # the weights of its best evaluation (`eval.keep_best`)
        miniwin.load("specs/models/my-model.yaml")  # random weights from `seed`

    `dtype` (a torch dtype or its name) converts the weights; by default they stay as they were saved.

    Raises:
        UserError: `ref` names no model, its files are damaged, or the device or dtype cannot be used.
    """
    if not isinstance(ref, str | os.PathLike):
        raise UserError(
            f"load: got a {type(ref).__name__}; expected a name or a path. A spec is built by miniwin.build"
        )
    where, chosen = find_device(device), _dtype(dtype)
    found = _resolve(os.fspath(ref))
    if found.spec is not None:
        model = _fresh(load_model_spec(found.spec), f"{found.name} (random weights)", seed)
        return _settled(model.to(device=where, dtype=chosen).eval(), where)
    return _settled(_from_folder(found, where).to(dtype=chosen).eval(), where)


def build(
    spec: ModelSpec | str | os.PathLike[str],
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype | None = None,
) -> LanguageModel:
    """A model with fresh weights, in training mode. The same seed gives the same weights on every device.

    `spec` is a ModelSpec, the path of a model spec's YAML file, or the stem of one that ships with MiniWin.
    The tokenizer is the byte tokenizer; a model with fewer than 256 ids has none.

    Raises:
        UserError: the spec is wrong, its weights do not fit into memory, or the device or dtype cannot be used.
    """
    where, chosen = find_device(device), _dtype(dtype)
    if not isinstance(spec, ModelSpec):
        spec = load_model_spec(os.fspath(spec))
    return _settled(_fresh(spec, spec.name, seed).to(device=where, dtype=chosen), where)


def model_spec(ref: str, overrides: Sequence[str] = ()) -> ModelSpec:
    """The spec of what `ref` names, without its weights. `overrides`: "field.path=value", applied first.

    A name that is both a shipped spec and a zoo entry means the shipped spec here.
    """
    if ref in shipped_specs("model"):
        return load_model_spec(ref, overrides)
    found = _resolve(ref)
    if found.folder is None:
        assert found.spec is not None
        return load_model_spec(found.spec, overrides)
    with found.reading() as read:
        return load_model_spec(found.folder / MODEL, overrides, read(MODEL))


def local_entries() -> list[Entry]:
    """The zoo entries on this machine, for files that may not import the zoo."""
    from miniwin.zoo import list_entries

    return list_entries()


def _settled(model: LanguageModel, device: torch.device) -> LanguageModel:
    """The model, with the matrix products that are fastest on this machine."""
    settle(model.decoder, device)
    return model


@dataclass(frozen=True)
class _Found:
    """What a reference stands for: a folder with weights, which may be a zoo entry, or a model spec."""

    name: str
    folder: Path | None = None
    spec: Path | None = None
    entry: Entry | None = None
    weights: str = WEIGHTS

    @contextmanager
    def reading(self) -> Iterator[Callable[[str], bytes | None]]:
        """Yields a function from a file's name to its bytes, checked against the entry's hashes (zoo/integrity.py).

        Outside the zoo it returns None: the file is read by its path.
        """
        if self.entry is None:
            yield lambda name: None
            return
        from miniwin.zoo.integrity import opened

        with opened(self.entry) as read:
            yield read


def _from_folder(found: _Found, device: torch.device) -> LanguageModel:
    with found.reading() as read:
        return _read_folder(found, device, read)


def _read_folder(found: _Found, device: torch.device, read: Callable[[str], bytes | None]) -> LanguageModel:
    folder = found.folder
    assert folder is not None
    spec = load_model_spec(folder / MODEL, raw=read(MODEL))
    with torch.device("meta"):
        decoder = spec.build()
    if (path := folder / found.weights).is_file():
        put_weights(decoder, read_weights(path, device, read(found.weights)), path)
    elif (folder / CHECKPOINT).is_file():
        from miniwin.checkpoint import load_checkpoint

        state = load_checkpoint(folder / CHECKPOINT, map_location=device)
        put_weights(decoder, state["model"], folder / CHECKPOINT)
    else:
        raise UserError(
            f"{folder} has no weights yet: neither {WEIGHTS} nor {CHECKPOINT}; train it first, or load "
            f"{folder / MODEL} for random weights"
        )
    imported = found.entry is None and (folder / IMPORT).is_file()  # an entry has no import.json
    special = read_special_ids(folder / IMPORT) if imported else None
    tokenizer = None
    if (folder / TOKENIZER).is_file():
        tokenizer = load_tokenizer(folder, raw=read(TOKENIZER), special=special)
    if tokenizer is not None and tokenizer.rows > spec.vocab_size:
        raise UserError(
            f"{folder}: the tokenizer has {tokenizer.rows} ids and the model only {spec.vocab_size}; "
            f"{TOKENIZER} and {MODEL} must come from the same run"
        )
    return LanguageModel(decoder, spec, tokenizer, found.name, folder, special)


def _fresh(spec: ModelSpec, name: str, seed: int) -> LanguageModel:
    refuse_too_large(spec)
    with torch.random.fork_rng(devices=[]):  # the caller's random state is none of our business
        torch.manual_seed(seed)
        decoder = spec.build()
    tokenizer: Tokenizer | None = None
    byte = load_tokenizer("byte")
    if byte.vocab_size <= spec.vocab_size:
        tokenizer = byte
    return LanguageModel(decoder, spec, tokenizer, name)


def _resolve(ref: str) -> _Found:
    if not ref:
        raise UserError("the model reference is empty: give a zoo name, a run folder or a model spec's path")
    path = user_path(ref)
    if path.name == BEST and (path.parent / RUN).is_file():
        if not path.is_file():
            raise UserError(
                f"{path.parent} has no {BEST}: it is written at the first evaluation, and only where the training "
                "spec says eval.keep_best"
            )
        return _Found(ref, path.parent, weights=BEST)
    named = os.sep not in ref and "/" not in ref and path.suffix not in (".yaml", ".yml")  # could be a name
    if path.is_dir():
        if (path / RUN).is_file() or (path / IMPORT).is_file():
            return _Found(ref, path)
        if (path / ENTRY).is_file():
            return _entry_folder(path)
        if not named:
            raise UserError(_not_a_model(path))
    elif path.is_file():
        if path.suffix in (".yaml", ".yml"):
            return _Found(ref, spec=path)
        raise UserError(
            f"{ref} is a file, but not a model spec (.yaml): give the spec, or the folder that holds {MODEL} "
            f"and {WEIGHTS}"
        )
    elif not named:
        raise UserError(f"{ref}: there is no such file or folder")
    return _resolve_name(ref, path)


def _resolve_name(ref: str, path: Path) -> _Found:
    from miniwin.zoo import is_ref, list_entries, resolve
    from miniwin.zoo.index_query import ask

    name = ref.partition("@")[0]
    entries = {entry.name for entry in list_entries()}
    shipped = shipped_specs("model")
    asked = None
    if name not in entries and ref not in shipped and is_ref(ref):
        # What is here comes first, and never waits for a network.
        asked = ask()
        entries |= {offer.release.name for offer in asked.offers}
    if name in entries:
        entry = resolve(ref)
        return _Found(entry.ref, entry.folder, entry=entry)
    if ref in shipped:
        return _Found(ref, spec=shipped[ref])
    if path.is_dir():
        raise UserError(_not_a_model(path))
    near = difflib.get_close_matches(name, sorted(entries | set(shipped)), n=3, cutoff=0.5)
    meant = [*_here(path), *near]
    hint = f"did you mean {' or '.join(meant)}?"
    if not meant:
        hint = f"Zoo entries: {some(sorted(entries), 20) or 'none'}. Shipped specs: {', '.join(shipped) or 'none'}"
    if asked and asked.problems:
        hint += f" Not all indexes could be asked: {'; '.join(asked.problems.values())}"
    raise UserError(f"{ref}: no such file or folder, zoo entry or shipped spec; {hint}")


def _here(path: Path) -> list[str]:
    """What a name may have meant: a spec without its suffix, or a run or study without its folder."""
    specs = [one for suffix in (".yaml", ".yml") if (one := Path(f"{path}{suffix}")).is_file()]
    runs = [
        one for one in (home() / path, home() / "searches" / path) if any((one / f).is_file() for f in (RUN, STUDY))
    ]
    return [str(one) for one in (*specs, *runs)]


def _entry_folder(folder: Path) -> _Found:
    """An entry outside any zoo."""
    from miniwin.zoo.entry import open_entry
    from miniwin.zoo.lookup import said_by_indexes, with_mark

    entry = with_mark(open_entry(folder, "folder"), said_by_indexes())
    if entry.warning:
        warnings.warn(entry.warning, stacklevel=2)
    return _Found(entry.ref, entry.folder, entry=entry)


def _not_a_model(path: Path) -> str:
    """Why a folder is no model, and what to do instead."""
    if (path / STUDY).is_file():
        trained = sorted(path.glob(f"trials/*/run/{WEIGHTS}"))
        how = f"load one of its trials, such as {trained[0].parent}" if trained else "none of its trials is trained yet"
        return f"{path} is a search, not a model: {how}"
    if (path / "modeling_miniwin.py").is_file():
        return (
            f"{path} is an export for transformers, whose AutoModelForCausalLM loads it; here, load the run, entry or "
            "spec that it was made from"
        )
    if (path / "config.json").is_file():
        return f"{path} is a model for transformers (config.json): bring it in first, miniwin import {path} --to NEW"
    return (
        f"{path} is neither a run folder ({RUN}) nor a zoo entry ({ENTRY}) nor an imported model ({IMPORT}): there is "
        "no model in it"
    )


def _dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    if dtype is None:
        return None
    chosen: Any = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if chosen not in DTYPES.values():
        raise UserError(f"dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}")
    return chosen
