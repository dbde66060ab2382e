"""What a reference to a model stands for: a folder with weights, which may be a zoo entry, or a model spec.

A reference is tried in this order:

1. The path of a run folder, an imported folder, a zoo entry's folder, or a model spec (`.yaml`).
2. A zoo name (`name`, `name@1`, `name@1.2.3`, `name@latest`) of an entry on this disk; `acme/name@1` of an added zoo.
3. The stem of a model spec that ships with MiniWin.
4. A zoo name that an index offers. The entry is pulled.
"""

from __future__ import annotations

import difflib
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from miniwin.blocks.messages.listing import some
from miniwin.files.folders import home
from miniwin.runs import BEST, IMPORT, MODEL, RUN, WEIGHTS
from miniwin.specs import UserError, shipped_specs, user_path

if TYPE_CHECKING:
    from miniwin.zoo import Entry

ENTRY = "entry.json"
STUDY = "search.yaml"


@dataclass(frozen=True)
class Found:
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


def local_entries() -> list[Entry]:
    """The zoo entries on this machine, for files that may not import the zoo."""
    from miniwin.zoo import list_entries

    return list_entries()


def resolve(ref: str) -> Found:
    """What `ref` stands for.

    Raises:
        UserError: it names no model.
    """
    if not ref:
        raise UserError("the model reference is empty: give a zoo name, a run folder or a model spec's path")
    path = user_path(ref)
    if path.name == BEST and (path.parent / RUN).is_file():
        if not path.is_file():
            raise UserError(
                f"{path.parent} has no {BEST}: it is written at the first evaluation, and only where the training "
                "spec says eval.keep_best"
            )
        return Found(ref, path.parent, weights=BEST)
    named = os.sep not in ref and "/" not in ref and path.suffix not in (".yaml", ".yml")  # could be a name
    if path.is_dir():
        if (path / RUN).is_file() or (path / IMPORT).is_file():
            return Found(ref, path)
        if (path / ENTRY).is_file():
            return _entry_folder(path)
        if not named:
            raise UserError(_not_a_model(path))
    elif path.is_file():
        if path.suffix in (".yaml", ".yml"):
            return Found(ref, spec=path)
        raise UserError(
            f"{ref} is a file, but not a model spec (.yaml): give the spec, or the folder that holds {MODEL} "
            f"and {WEIGHTS}"
        )
    elif not named:
        if _of_added_zoo(ref):
            return _of_zoo(ref)
        raise UserError(f"{ref}: there is no such file or folder")
    return _resolve_name(ref, path)


def _resolve_name(ref: str, path: Path) -> Found:
    from miniwin.zoo import is_ref, list_entries
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
        return _of_zoo(ref)
    if ref in shipped:
        return Found(ref, spec=shipped[ref])
    if path.is_dir():
        raise UserError(_not_a_model(path))
    near = difflib.get_close_matches(name, sorted(entries | set(shipped)), n=3, cutoff=0.5)
    meant = [*_here(path), *near]
    hint = f"did you mean {' or '.join(meant)}?"
    if not meant:
        hint = f"Zoo entries: {some(sorted(entries), 20) or 'none'}. Shipped specs: {', '.join(shipped) or 'none'}"
    if asked and (unasked := asked.unasked()):
        hint += f" Not all indexes could be asked: {'; '.join(unasked.values())}"
    raise UserError(f"{ref}: no such file or folder, zoo entry or shipped spec; {hint}")


def _of_added_zoo(ref: str) -> bool:
    """Whether a reference with a slash names one of the zoos that the user added."""
    from miniwin.zoo import is_ref
    from miniwin.zoo.configured import sources

    return is_ref(ref) and any(source.name == ref.partition("/")[0] for source in sources())


def _of_zoo(ref: str) -> Found:
    from miniwin.zoo import resolve as find_entry

    entry = find_entry(ref)
    return Found(entry.ref, entry.folder, entry=entry)


def _here(path: Path) -> list[str]:
    """What a name may have meant: a spec without its suffix, or a run or study without its folder."""
    specs = [one for suffix in (".yaml", ".yml") if (one := Path(f"{path}{suffix}")).is_file()]
    runs = [
        one for one in (home() / path, home() / "searches" / path) if any((one / f).is_file() for f in (RUN, STUDY))
    ]
    return [str(one) for one in (*specs, *runs)]


def _entry_folder(folder: Path) -> Found:
    """An entry outside any zoo."""
    from miniwin.zoo.entry import open_entry
    from miniwin.zoo.lookup import said_by_indexes, with_mark

    entry = with_mark(open_entry(folder, "folder"), said_by_indexes())
    if entry.warning:
        warnings.warn(entry.warning, stacklevel=2)
    return Found(entry.ref, entry.folder, entry=entry)


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
