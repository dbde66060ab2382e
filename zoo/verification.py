"""Is an entry what it says it is? Hashes, spec, weights, and the logits recomputed on this machine."""

from __future__ import annotations

from pathlib import Path

from miniwin.chat.format import TEMPLATE, read_chat_format
from miniwin.chat.rendering import TemplateProblem
from miniwin.evaluation.suite.result import SuiteResult
from miniwin.specs import UserError, load_model_spec
from miniwin.zoo.entry import MANIFEST, MODEL, REFERENCE, SUITE, TOKENIZER, WEIGHTS, Entry, Manifest, open_entry
from miniwin.zoo.integrity import Problem, file_problems, written_problems
from miniwin.zoo.lookup import find
from miniwin.zoo.reference_logits import TOLERANCE, open_model, reference_error
from miniwin.zoo.suite_results import check_suite
from miniwin.zoo.weight_check import weight_problems


def verify(entry: Entry | str | Path, *, logits: bool = True) -> list[Problem]:
    """Everything that is wrong with an entry; an empty list where nothing is.

    entry: an `Entry`, a reference, or a folder. logits: also run the model, which is the slow part.

    Raises:
        ZooError: there is no such entry.
    """
    entry = _locate(entry)
    if entry.manifest is None:
        return [Problem(MANIFEST, str(entry.reason))]
    # Read again: the manifest in hand may be older than the file.
    now = open_entry(entry.folder, entry.source, entry.name, entry.version)
    if now.manifest is None:
        return [Problem(MANIFEST, str(now.reason))]
    problems = file_problems(entry.folder, now.manifest)
    if any(problem.file in (MODEL, WEIGHTS, TOKENIZER) for problem in problems):
        return problems  # the rest would only repeat that these files are wrong
    try:
        problems += _of_others(problems, written_problems(entry.folder))
        problems += _of_others(problems, _content_problems(entry.folder, now.manifest))
        if not problems:
            problems += _chat_problems(entry.folder)
        if logits and not problems:
            problems += _logit_problems(entry.folder)
    except Exception as error:  # anybody may have made the entry: no error of one stops the check of the next
        problems.append(Problem(MANIFEST, f"the entry cannot be checked: {type(error).__name__}: {error}"))
    return problems


def _of_others(known: list[Problem], found: list[Problem]) -> list[Problem]:
    """The problems of files about which nothing is known yet."""
    files = {problem.file for problem in known}
    return [problem for problem in found if problem.file not in files]


def _content_problems(folder: Path, manifest: Manifest) -> list[Problem]:
    try:
        spec = load_model_spec(folder / MODEL)
    except UserError as error:
        return [Problem(MODEL, str(error))]
    problems = []
    if spec.hash != manifest.spec_hash:
        problems.append(
            Problem(
                MODEL,
                f"describes architecture {spec.hash[:12]}..., entry.json says {manifest.spec_hash[:12]}...",
            )
        )
    if spec.parameters() != manifest.parameters:
        problems.append(Problem(MODEL, f"has {spec.parameters()} parameters, entry.json says {manifest.parameters}"))
    if spec.layout != manifest.layout:
        problems.append(Problem(MODEL, f"has layout {spec.layout}, entry.json says {manifest.layout}"))
    problems += weight_problems(folder / WEIGHTS, spec)
    if SUITE in manifest.files and not problems:
        try:
            check_suite(SuiteResult.read(folder / SUITE), folder / WEIGHTS, spec)
        except UserError as error:
            problems.append(Problem(SUITE, str(error)))
    return problems


def _chat_problems(folder: Path) -> list[Problem]:
    """A chat template that cannot be used. One that refuses the message which is tried here may take others."""
    chat_format = read_chat_format(folder)  # which has been read before
    try:
        if chat_format is not None:
            chat_format.render([{"role": "user", "content": "Hi"}], add_generation_prompt=True)
    except TemplateProblem as problem:
        return [Problem(TEMPLATE, str(problem))] if problem.chat is None else []
    return []


def _logit_problems(folder: Path) -> list[Problem]:
    try:
        error = reference_error(folder / REFERENCE, open_model(folder))
    except UserError as problem:
        return [Problem(REFERENCE, str(problem))]
    if error <= TOLERANCE:  # False for NaN too
        return []
    return [
        Problem(
            REFERENCE,
            f"this machine computes logits that differ by {error:.2g}; expected at most {TOLERANCE:g}",
        )
    ]


def _locate(entry: Entry | str | Path) -> Entry:
    if isinstance(entry, Entry):
        return entry
    if isinstance(entry, Path):
        return open_entry(entry, "folder")
    return find(entry)
