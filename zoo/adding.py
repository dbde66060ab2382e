"""Adding an entry: from the folder of a finished training run, or from another entry with a new card.

The record that the run wrote becomes the provenance, unchanged. The caller may add keys to it (study, trial).
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from miniwin.display.formats import decimal_bytes
from miniwin.evaluation.suite.result import SuiteResult
from miniwin.files.hashing import sha256_file
from miniwin.files.tensor_files import load_tensors, save_tensors
from miniwin.files.writing import named, write_flushed
from miniwin.licences import UNKNOWN
from miniwin.provenance import code_version
from miniwin.runs import BEST, CHAT, FROM, RUN, read_run
from miniwin.specs import ModelSpec, dump_yaml, load_model_spec, user_path
from miniwin.version import __version__
from miniwin.zoo.card import write_card
from miniwin.zoo.card_check import card_problems
from miniwin.zoo.card_values import check_metrics, check_provenance
from miniwin.zoo.entry import (
    CARD,
    HASHED_FILES,
    MANIFEST,
    METRICS,
    MODEL,
    PROVENANCE,
    REFERENCE,
    SUITE,
    TOKENIZER,
    WEIGHTS,
    Entry,
    FileRecord,
    Manifest,
    open_entry,
    schema_of,
    write_manifest,
)
from miniwin.zoo.errors import ZooError
from miniwin.zoo.integrity import watched
from miniwin.zoo.json_objects import to_json
from miniwin.zoo.reference_logits import open_model, write_reference
from miniwin.zoo.references import Version, check_new_name
from miniwin.zoo.rounding import rounded, stored_types
from miniwin.zoo.size_limits import LARGEST
from miniwin.zoo.store import Store, stores
from miniwin.zoo.suite_results import check_suite
from miniwin.zoo.version_rules import needed_part, tokenizer_identity
from miniwin.zoo.weight_check import weight_problems

LICENCE = "apache-2.0"
_OWN_KEYS = ("schema", "run", "entry")  # of provenance.json: ours to write, not the caller's


@dataclass(frozen=True)
class _Source:
    folder: Path
    spec: ModelSpec
    provenance: dict[str, Any]
    metrics: dict[str, Any] | None
    suite: SuiteResult | None = None
    confirm: Callable[[], None] = lambda: None  # raises if the source changed while it was read
    weights: str = WEIGHTS
    dtype: str | None = None  # what the weights were rounded to
    chat: tuple[str, ...] = ()  # the files of its chat format
    licence: str | None = None  # of an entry


def add(
    source: str | Path,
    *,
    name: str,
    version: str | None = None,
    metrics: Mapping[str, Any] | None = None,
    suite: SuiteResult | None = None,
    provenance: Mapping[str, Any] | None = None,
    description: str = "",
    licence: str | None = None,
    zoo: Path | str | None = None,
    allow_incomplete: bool = False,
    dtype: str | None = None,
) -> Entry:
    """Write `source` into the zoo as `name@version`; returns the entry.

    source: a run folder; its best.safetensors, for the weights of its best evaluation; or an entry's folder.
    version: by default 1.0.0 for a new name, else the one after the newest version: major if the architecture or the
    tokenizer changed, minor if only the weights or the chat format did, patch if only the card did. metrics:
    `Metrics.to_dict()`. suite: what a suite found for these weights; by default that of the entry, if the source is
    one. provenance: keys such as `study` and `trial`, added to what the run recorded. allow_incomplete: also take a run
    that did not complete. licence: by default that of the entry, or of the weights that the run began with; apache-2.0
    where it began with none of others. zoo: the folder to write to, `user_zoo()` by default. dtype: round the weights
    to float32, bfloat16 or float16; by default they stay as they were saved.

    Raises:
        ZooError: the version exists, the run is not complete, the weights hold NaN or do not fit the spec or the dtype,
            the suite measured another model, or nobody knows the licence of the weights that the run began with.
    """
    known, wanted = _destination(name, version, zoo)
    try:
        read = _read_source(user_path(source), allow_incomplete)  # before it is copied: messages name the source
        if dtype is not None:  # which makes floats of whatever there is
            _check_weights(read.folder / read.weights, read.spec)
        with rounded(user_path(source), dtype) as folder, known[0].staging() as staged:
            read = read if dtype is None else replace(_read_source(folder, allow_incomplete), dtype=dtype)
            return _write(staged, read, known, name, wanted, metrics, suite, provenance or {}, description, licence)
    except OSError as error:
        error = named(error, known[0].root)
        where = "" if error.filename is None else f"{error.filename}: "
        said = f"{where}{error.strerror}" if where else str(error)
        raise ZooError(f"{name} was not added: {said}") from error


def check_addable(
    source: str | Path,
    *,
    name: str,
    version: str | None = None,
    suite: SuiteResult | None = None,
    zoo: Path | str | None = None,
    allow_incomplete: bool = False,
    dtype: str | None = None,
    licence: str | None = None,
) -> None:
    """Raise the errors of `add` that can be known beforehand: worth it before a long evaluation.

    The arguments are those of `add`. The weights are rounded for it if need be: `suite` is compared with these.
    """
    _destination(name, version, zoo)
    read = _read_source(user_path(source), allow_incomplete)
    _check_weights(read.folder / read.weights, read.spec)
    if not licence:
        _licence(read)
    with rounded(user_path(source), dtype) as kept:
        if suite is not None:
            folder = kept.parent if kept.name == BEST else kept
            check_suite(suite, folder / read.weights, read.spec, dtype)


def _destination(name: str, version: str | None, zoo: Path | str | None) -> tuple[list[Store], Version | None]:
    """The zoos that may know the name, the one to write to first, and the version that was asked for."""
    check_new_name(name)
    known = stores(zoo, to_write=True)
    wanted = None if version is None else Version.parse(version)
    if wanted is not None:
        for store in known:
            store.refuse_existing(name, wanted)
    return known, wanted


def _write(
    staged: Path,
    source: _Source,
    known: list[Store],
    name: str,
    wanted: Version | None,
    metrics: Mapping[str, Any] | None,
    suite: SuiteResult | None,
    extra: Mapping[str, Any],
    description: str,
    licence: str | None,
) -> Entry:
    licence = licence or _licence(source)
    _check_written("provenance", check_provenance, source.provenance)
    measured = _without_folders(dict(metrics) if metrics is not None else source.metrics or {})
    whole = _without_folders(_merge(source.provenance, extra))
    metrics_text, provenance_text = to_json(measured, "metrics"), to_json(whole, "provenance")
    # JSON turns integer keys into text. The card is written from what a reader of the files will see.
    measured, whole = json.loads(metrics_text), json.loads(provenance_text)
    _check_written("metrics", check_metrics, measured)

    # By the entry's name, which no hash of the architecture counts; provenance.json has the run's name.
    write_flushed(staged / MODEL, dump_yaml(source.spec.model_copy(update={"name": name})))
    write_flushed(staged / METRICS, metrics_text)
    write_flushed(staged / PROVENANCE, provenance_text)
    _copy_weights(source.folder / source.weights, staged / WEIGHTS, source.spec)
    for file in (TOKENIZER, *source.chat):
        shutil.copyfile(source.folder / file, staged / file)
    suite = _write_suite(source.suite if suite is None else suite, staged, source)
    source.confirm()
    write_reference(staged / REFERENCE, open_model(staged))

    with known[0].lock(name):  # nobody else chooses a version of this name meanwhile
        version = wanted or _next_version(known, name, staged, source.spec)
        for store in known:
            store.refuse_existing(name, version)
        card = write_card(
            name=name,
            version=str(version),
            description=description,
            licence=licence,
            spec=source.spec,
            metrics=measured,
            provenance=whole,
            suite=suite,
            stored_as=stored_types(staged / WEIGHTS),
        )
        if problems := card_problems(card.encode("utf-8", "replace"), licence):
            raise ZooError(f"{name} was not added: its card {problems[0]}; write the description without that")
        write_flushed(staged / CARD, card)
        files = (*HASHED_FILES, *(() if suite is None else (SUITE,)), *source.chat)
        manifest = Manifest(
            schema_number=schema_of(files),
            name=name,
            version=str(version),
            description=description,
            licence=licence,
            requires_miniwin=f">={_release(__version__)}",
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            spec_hash=source.spec.hash,
            layout=source.spec.layout,
            parameters=source.spec.parameters(),
            files={n: FileRecord(size=(staged / n).stat().st_size, sha256=sha256_file(staged / n)) for n in files},
        )
        write_flushed(staged / MANIFEST, write_manifest(manifest))
        return known[0].commit(staged, name, version)


def _licence(source: _Source) -> str:
    """That of the entry, or of the weights that the run began with, or else ours.

    Raises:
        ZooError: the run began with weights whose licence nobody knows.
    """
    if source.licence is not None:
        return source.licence
    run = source.provenance.get("run")
    origin = run.get(FROM) if isinstance(run, Mapping) else None
    if not isinstance(origin, Mapping):  # what is of a wrong kind is refused where it is written
        return LICENCE
    licence = origin.get("licence")
    imported = origin.get("kind") == "imported model"  # versions before 0.2.0 recorded none
    if licence == UNKNOWN or (imported and not licence):
        raise ZooError(
            f"{source.folder}: the run began with the weights of {origin.get('ref')}, whose licence is not known; say "
            "it, if it allows this: --licence NAME (licence= in Python), its SPDX name in lower case"
        )
    return licence if isinstance(licence, str) and licence else LICENCE


def _check_written(what: str, check_written: Callable[[dict[str, Any]], None], data: dict[str, Any]) -> None:
    try:
        check_written(data)
    except ZooError as error:
        raise ZooError(f"{what}: {error}") from None


def _read_source(source: Path, allow_incomplete: bool) -> _Source:
    folder, weights = (source.parent, BEST) if source.name == BEST else (source, WEIGHTS)
    if (folder / MANIFEST).is_file():
        entry = open_entry(folder, "folder")
        confirm = watched(entry)
        licence = entry.require_manifest().licence
        return _Source(
            *(folder, entry.spec, entry.provenance, entry.metrics, entry.suite, confirm),
            chat=_chat(folder),
            licence=licence,
        )
    run = read_run(folder)
    status = run.get("status")
    if status != "complete" and not allow_incomplete:
        reason = f" ({run['reason']})" if run.get("reason") else ""
        raise ZooError(
            f"{folder}: the run is {status}{reason}, not complete; run the same training command again to "
            "finish it, or pass allow_incomplete (--allow-incomplete) to add it as it is"
        )
    for file in (MODEL, TOKENIZER, weights):
        if not (folder / file).is_file():
            when = "at evaluations, where eval.keep_best is set" if file == BEST else "when it ends"
            raise ZooError(f"{folder}: has no {file}, which an entry needs; training writes it {when}")
    lacking = [key for key in ("seed", "data", "train", "code", "machine") if run.get(key) is None]
    if lacking:
        raise ZooError(f"{folder / RUN}: says nothing of {', '.join(lacking)}; a zoo entry must say where it came from")
    spec = load_model_spec(folder / MODEL)
    if run.get("spec_hash") not in (None, spec.hash):
        raise ZooError(
            f"{folder / MODEL}: describes architecture {spec.hash[:12]}..., but the run trained "
            f"{run['spec_hash'][:12]}...; put back the file that the run wrote"
        )
    # The tracking address is left out: it may hold a password, and means nothing elsewhere.
    recorded = {key: value for key, value in run.items() if key != "tracking"}
    chosen = {"weights": run.get("best")} if weights == BEST else {}
    return _Source(folder, spec, {"schema": 1, "run": recorded, **chosen}, None, weights=weights, chat=_chat(folder))


def _chat(folder: Path) -> tuple[str, ...]:
    """The files of the chat format in a folder. Raises UserError where they are damaged."""
    from miniwin.chat.format import read_chat_format

    return () if read_chat_format(folder) is None else CHAT


def _merge(recorded: dict[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """What the run recorded, and what the caller adds. Raises ZooError where the two contradict each other."""
    run = recorded.get("run") or {}
    before = {"data_fingerprint": (run.get("data") or {}).get("fingerprint"), **run, **recorded}
    for key, value in extra.items():
        if key in _OWN_KEYS:
            raise ZooError(f"provenance: the key {key!r} is written from the run folder and cannot be given")
        if key in before and before[key] != value:
            raise ZooError(f"provenance: {key} is {value!r}, but {before[key]!r} was recorded")
    return {**recorded, **extra, "entry": {"code_version": code_version()}}


def _without_folders(value: Any) -> Any:
    """Absolute paths cut to their last part: an entry is published, and folders name a person or a machine."""
    if isinstance(value, Mapping):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(item) for item in value]
    if isinstance(value, Path) or (isinstance(value, str) and "\n" not in value and Path(value).is_absolute()):
        value = Path(value).name
    # The name of a file may hold bytes that are no text; they are not published.
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _copy_weights(source: Path, target: Path, spec: ModelSpec) -> None:
    """Write the weights anew: equal weights then give an equal file, whatever the header of the source holds."""
    _check_weights(source, spec)
    save_tensors(load_tensors(source), target, {"format": "pt"})


def _check_weights(path: Path, spec: ModelSpec) -> None:
    problems = weight_problems(path, spec)
    if problems:
        more = f" (and {len(problems) - 3} more problems)" if len(problems) > 3 else ""
        raise ZooError(f"{path.parent}: {'; '.join(map(str, problems[:3]))}{more}; these weights cannot be added")


def _write_suite(result: SuiteResult | None, staged: Path, source: _Source) -> SuiteResult | None:
    """Write suite.json, if there is a result. Returns what a reader of the file will see."""
    if result is None:
        return None
    check_suite(result, staged / WEIGHTS, source.spec, source.dtype)
    published = SuiteResult.from_dict(_without_folders(result.to_dict()))
    published.write(staged / SUITE)
    if (size := (staged / SUITE).stat().st_size) > LARGEST[SUITE]:
        raise ZooError(
            f"the result of suite {result.suite} takes {decimal_bytes(size)}; an entry has room for "
            f"{decimal_bytes(LARGEST[SUITE])}: measure fewer examples"
        )
    return published


def _next_version(known: list[Store], name: str, staged: Path, spec: ModelSpec) -> Version:
    latest = max(
        (entry for store in known if (entry := store.latest(name))),
        key=lambda entry: entry.parsed_version,
        default=None,
    )
    if latest is None:
        return Version(1, 0, 0)
    part = needed_part(
        latest.require_manifest(),
        spec_hash=spec.hash,
        same_tokenizer=tokenizer_identity(latest.folder) == tokenizer_identity(staged),
        hashes={file: sha256_file(staged / file) for file in (WEIGHTS, *CHAT) if (staged / file).is_file()},
    )
    return latest.parsed_version.bump(part)


def _release(version: str) -> str:
    """`0.1.0` of `0.1.0.dev3+g1a2b3c`."""
    match = re.match(r"[0-9]+(\.[0-9]+){0,2}", version)
    assert match is not None, version
    return match.group()
