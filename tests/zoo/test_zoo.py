"""The zoo on disk: versions, immutability, atomic writing, verification, the card, and the command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from forked import kill, start
from paths import ROOT
from processes import miniwin_without_torch
from safetensors.torch import load_file, save, save_file
from typer.testing import CliRunner, Result
from zoo_processes import add_and_stop, add_together, wait_for
from zoo_runs import METRICS, make_run, overwrite, sign_again, tiny_spec

import miniwin
from miniwin.commands.zoo import app
from miniwin.files.hashing import sha256_file
from miniwin.specs import UserError, load_model_spec
from miniwin.zoo import (
    Entry,
    ZooError,
    add,
    adding,
    find,
    is_ref,
    list_entries,
    resolve,
    user_zoo,
    verification,
    verify,
)
from miniwin.zoo import entry as entry_module
from miniwin.zoo import integrity as check_module
from miniwin.zoo.entry import ENTRY_FILES, HASHED_FILES
from miniwin.zoo.references import Version, parse_ref
from miniwin.zoo.store import Store


@pytest.fixture(autouse=True)
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty zoo and cache of the test's own."""
    monkeypatch.setenv("MINIWIN_ZOO", str(tmp_path / "zoo"))
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    for name in ("MINIWIN_ZOO_INDEX", "MINIWIN_ZOO_MIRROR", "MINIWIN_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "zoo"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture
def entry(run: Path) -> Entry:
    search = {"study": "demo", "trial": 7, "params": {"window": 8}, "trials": {"complete": 9, "pruned": 2}}
    return add(run, name="tiny", metrics=METRICS, provenance=search)


def mine() -> list[str]:
    """References in the user's zoo; the package may ship entries of its own."""
    return [entry.ref for entry in list_entries() if entry.source == "user"]


# ------------------------------------------------------------------------------------------------ references


def test_references_are_parsed() -> None:
    assert parse_ref("tiny").prefix == () == parse_ref("tiny@latest").prefix
    assert parse_ref("tiny@1.20").prefix == (1, 20)
    assert parse_ref("tiny@1.2.3").exact and not parse_ref("tiny@1.2").exact
    assert [str(parse_ref(ref)) for ref in ("a-1", "a-1@2", "a-1@2.0.1")] == ["a-1@latest", "a-1@2", "a-1@2.0.1"]


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ("", "zoo name '' is not valid"),
        ("Tiny", "zoo name 'Tiny' is not valid: use lower-case letters, digits and '-'"),
        ("-tiny", "zoo name '-tiny' is not valid"),
        ("../tiny", "zoo name '..' is not valid"),
        ("a" * 65, "at most 64 characters"),
        ("tiny\n", "is not valid"),
        ("tiny@", "zoo reference 'tiny@': '' is not a version; write tiny@1.2.3, tiny@1.2, tiny@1 or tiny@latest"),
        ("tiny@v1", "'v1' is not a version"),
        ("tiny@1.2.3.4", "'1.2.3.4' is not a version"),
        ("tiny@01", "'01' is not a version"),
        ("tiny@1@2", "'1@2' is not a version"),
        ("tiny@١", "is not a version"),
    ],
)
def test_bad_references_are_refused(ref: str, message: str) -> None:
    assert not is_ref(ref)
    with pytest.raises(ZooError) as caught:
        resolve(ref)
    assert message in str(caught.value)


def test_aliases_mean_the_highest_version_by_number(run: Path) -> None:
    for version in ("1.2.0", "1.10.0", "1.10.1", "2.0.0", "0.9.9"):
        add(run, name="tiny", version=version)
    expected = {
        "tiny": "2.0.0",
        "tiny@latest": "2.0.0",
        "tiny@1": "1.10.1",
        "tiny@1.2": "1.2.0",
        "tiny@1.10": "1.10.1",
        "tiny@1.10.0": "1.10.0",
        "tiny@0": "0.9.9",
    }
    assert {ref: resolve(ref).version for ref in expected} == expected
    assert [e.version for e in list_entries() if e.name == "tiny"] == ["0.9.9", "1.2.0", "1.10.0", "1.10.1", "2.0.0"]
    with pytest.raises(
        ZooError, match=r"tiny has no version 1\.3; it has 0\.9\.9, 1\.2\.0, 1\.10\.0, 1\.10\.1, 2\.0\.0"
    ):
        resolve("tiny@1.3")


def test_lists_of_what_is_here_are_short(entry: Entry, zoo: Path) -> None:
    for version in range(1, 30):
        shutil.copytree(entry.folder, zoo / "tiny" / f"1.{version}.0")
        (entry.folder / f"stray-{version}").write_text("?")
    with pytest.raises(ZooError, match=r"tiny has no version 3; it has 1\.0\.0, 1\.1\.0, .* and 10 more"):
        resolve("tiny@3")
    with pytest.raises(ZooError, match=r"stray-1: does not belong to an entry; .* and 25 more"):
        resolve("tiny@1.0.0")


def test_an_unknown_name_gets_a_near_one(entry: Entry) -> None:
    with pytest.raises(ZooError, match=r"the zoo has no entry 'tinny'; did you mean tiny\? \(it has .*tiny") as caught:
        resolve("tinny")
    assert str(user_zoo()) in str(caught.value)


# ---------------------------------------------------------------------------------------------------- adding


def test_an_entry_is_complete_and_loads(entry: Entry, run: Path) -> None:
    assert sorted(path.name for path in entry.folder.iterdir()) == sorted(ENTRY_FILES)
    assert (entry.ref, entry.source, entry.status) == ("tiny@1.0.0", "user", "active")
    assert verify(entry) == []
    assert resolve("tiny") == entry == find("tiny@1")

    model = miniwin.load("tiny@1")
    assert model.ref == "tiny@1.0.0" and not model.training
    ids = torch.arange(40)[None]
    with torch.inference_mode():
        assert torch.equal(model(ids), miniwin.load(run)(ids))


def test_the_reference_reaches_beyond_the_window(run: Path, tmp_path: Path) -> None:
    short = load_file(add(run, name="tiny").folder / "reference.safetensors")
    assert len(short["input_ids"]) == 64
    wide = make_run(tmp_path / "wide", window=100)
    stored = load_file(add(wide, name="wide").folder / "reference.safetensors")
    assert len(stored["input_ids"]) == 201
    assert stored["positions"][-1] == 200 and stored["logits"].shape == (64, 256)


def test_provenance_is_what_the_run_recorded_and_what_the_caller_adds(entry: Entry) -> None:
    provenance = entry.provenance
    assert (provenance["study"], provenance["trial"], provenance["run"]["seed"]) == ("demo", 7, 0)
    assert provenance["run"]["code"] == "0.1.0+gabcdef" and provenance["run"]["machine"]["cpu"] == "Test CPU"
    assert provenance["run"]["data"]["fingerprint"] == "f" * 64
    text = (entry.folder / "provenance.json").read_text(encoding="utf-8")
    assert "secret" not in text and "tracking" not in text  # a tracking address may hold a password


def test_no_path_of_this_machine_is_published(tmp_path: Path) -> None:
    data = {"source": "text", "paths": ["/home/somebody/texts/book.txt", "relative/*.txt"]}
    run = make_run(tmp_path / "run", train={"seq_len": 32, "data": data, "tokenizer": str(tmp_path / "t.json")})
    entry = add(run, name="tiny", metrics=METRICS | {"model": str(run)}, provenance={"base": tmp_path / "model.yaml"})
    assert entry.provenance["run"]["train"] == {
        "seq_len": 32,
        "data": {"source": "text", "paths": ["book.txt", "relative/*.txt"]},
        "tokenizer": "t.json",
    }
    assert entry.provenance["base"] == "model.yaml" and entry.metrics["model"] == "run"
    texts = [path.read_bytes() for path in entry.folder.iterdir()]
    assert not any(b"somebody" in text or str(tmp_path).encode() in text for text in texts)


def test_versions_follow_what_changed(run: Path, tmp_path: Path) -> None:
    assert add(run, name="tiny").version == "1.0.0"
    assert add(run, name="tiny", description="A better card.").version == "1.0.1"
    assert add(make_run(tmp_path / "seed", seed=1), name="tiny").version == "1.1.0"
    assert add(make_run(tmp_path / "window", window=4), name="tiny").version == "2.0.0"
    other = make_run(tmp_path / "tokenizer", window=4)
    vocabulary = {chr(i): i for i in range(32, 127)}
    model = {"type": "WordLevel", "vocab": vocabulary | {"[UNK]": 200}, "unk_token": "[UNK]"}
    tokenizer = {"version": "1.0", "added_tokens": [], "pre_tokenizer": None, "model": model}
    (other / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    assert add(other, name="tiny").version == "3.0.0"
    assert verify("tiny@3") == []


def test_a_new_card_from_an_entry(entry: Entry) -> None:
    again = add(entry.folder, name="tiny", description="The same weights, better described.")
    assert again.version == "1.0.1" and "better described" in again.card
    assert again.metrics == entry.metrics and again.provenance["trial"] == 7
    assert sha256_file(again.folder / "model.safetensors") == sha256_file(entry.folder / "model.safetensors")
    assert verify(again) == []


def test_the_spec_of_an_entry_has_its_name(run: Path, tmp_path: Path) -> None:
    first = add(run, name="some-name", zoo=tmp_path)
    again = add(first.folder, name="another-name", zoo=tmp_path)
    before = load_model_spec(run / "model.yaml")
    for entry in (first, again):
        assert load_model_spec(entry.folder / "model.yaml").name == entry.name != before.name
        assert entry.spec.hash == before.hash and verify(entry) == []
        assert entry.provenance["run"]["model"] == before.name, "what the run was called stays on record"


def test_a_version_never_changes(entry: Entry, tmp_path: Path) -> None:
    before = {path.name: sha256_file(path) for path in entry.folder.iterdir()}
    with pytest.raises(
        ZooError, match=r"tiny@1\.0\.0 exists already in .*a version never changes once written"
    ) as caught:
        add(make_run(tmp_path / "other", seed=3), name="tiny", version="1.0.0")
    assert "choose one above 1.0.0" in str(caught.value)
    assert {path.name: sha256_file(path) for path in entry.folder.iterdir()} == before
    assert all(path.stat().st_mode & 0o222 == 0 for path in entry.folder.iterdir())


def test_the_package_versions_cannot_be_taken(entry: Entry, run: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """As if `tiny` had shipped in the package: the user's zoo is empty, and continues its versions."""
    package = tmp_path / "package"
    shutil.move(user_zoo(), package)
    monkeypatch.setattr("miniwin.zoo.store.built_in_zoo", lambda: package)
    assert find("tiny").source == "built-in"
    with pytest.raises(ZooError, match=r"tiny@1\.0\.0 exists already"):
        add(run, name="tiny", version="1.0.0")
    assert add(run, name="tiny").ref == "tiny@1.0.1"
    assert (find("tiny").source, find("tiny@1.0.0").source) == ("user", "built-in")


def test_equal_weights_give_equal_files(run: Path, tmp_path: Path) -> None:
    copy = make_run(tmp_path / "copy")
    save_file(load_file(run / "model.safetensors"), copy / "model.safetensors", metadata={"a": "b"})
    one, two = add(run, name="one"), add(copy, name="two")
    assert sha256_file(one.folder / "model.safetensors") == sha256_file(two.folder / "model.safetensors")


def broken_weights(folder: Path, change: str) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    name = "layers.0.attention_norm.weight"
    assert name in weights
    if change == "nan":
        weights[name][3] = float("nan")
    elif change == "missing":
        del weights[name]
    elif change == "extra":
        weights["extra"] = torch.zeros(1)
    elif change == "shape":
        weights[name] = torch.zeros(17)
    save_file(weights, path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("nan", "model.safetensors: tensor layers.0.attention_norm.weight holds NaN or infinity; these weights cannot"),
        ("missing", "tensor layers.0.attention_norm.weight is missing"),
        ("extra", "tensor extra is not part of the architecture"),
        ("shape", "tensor layers.0.attention_norm.weight has shape [17], the architecture has [16]"),
    ],
)
def test_bad_weights_are_refused(tmp_path: Path, change: str, message: str) -> None:
    folder = make_run(tmp_path / "run")
    broken_weights(folder, change)
    with pytest.raises(ZooError) as caught:
        add(folder, name="tiny")
    assert message in str(caught.value)
    assert mine() == []


def test_runs_that_cannot_be_entries_are_refused(run: Path, tmp_path: Path) -> None:
    cut = make_run(tmp_path / "cut", status="interrupted", reason="Ctrl-C")
    with pytest.raises(
        ZooError, match=r"the run is interrupted \(Ctrl-C\), not complete; run the same training command"
    ):
        add(cut, name="tiny")
    with pytest.raises(UserError, match=r"is not a run folder: it has no run\.json"):
        add(tmp_path / "nowhere", name="tiny")
    bare = make_run(tmp_path / "bare")
    (bare / "model.safetensors").unlink()
    with pytest.raises(ZooError, match=r"has no model\.safetensors, which an entry needs"):
        add(bare, name="tiny")
    with pytest.raises(ZooError, match=r"says nothing of code, machine; a zoo entry must say where it came from"):
        add(make_run(tmp_path / "unknown", code=None, machine=None), name="tiny")
    garbage = make_run(tmp_path / "garbage")
    (garbage / "model.safetensors").write_bytes(b"\x80\x04not safetensors")
    with pytest.raises(ZooError, match=r"model\.safetensors: is not a safetensors file"):
        add(garbage, name="tiny")
    changed = make_run(tmp_path / "changed", spec_hash="0" * 64)
    with pytest.raises(ZooError, match=r"describes architecture .* but the run trained 000000000000"):
        add(changed, name="tiny")
    with pytest.raises(ZooError, match=r"zoo name 'My Model' is not valid"):
        add(run, name="My Model")
    with pytest.raises(ZooError, match=r"version '1\.0' is not MAJOR\.MINOR\.PATCH, for example 1\.0\.0"):
        add(run, name="tiny", version="1.0")
    with pytest.raises(ZooError, match=r"metrics: holds NaN or infinity"):
        add(run, name="tiny", metrics={"bits_per_byte": {32: float("nan")}})
    with pytest.raises(ZooError, match=r"provenance: seed is 5, but 0 was recorded"):
        add(run, name="tiny", provenance={"seed": 5})
    with pytest.raises(ZooError, match=r"provenance: data_fingerprint is 'e', but 'ffff"):
        add(run, name="tiny", provenance={"data_fingerprint": "e"})
    with pytest.raises(ZooError, match=r"provenance: the key 'run' is written from the run folder"):
        add(run, name="tiny", provenance={"run": {}})
    assert mine() == []
    assert add(cut, name="tiny", allow_incomplete=True).ref == "tiny@1.0.0"


def test_a_zoo_that_cannot_be_written_to(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ZooError, match=r"the zoo cannot write to .*; set MINIWIN_ZOO to a folder that you may write to"
    ):
        add(run, name="tiny", zoo=tmp_path / "file")


# --------------------------------------------------------------------------------------- atomic and concurrent


@pytest.mark.parametrize("point", ["weights", "reference", "rename", "after"])
def test_kill_9_leaves_an_entry_or_nothing(point: str, run: Path, zoo: Path, tmp_path: Path) -> None:
    process = start(add_and_stop, run, point, tmp_path / "there")
    wait_for(tmp_path / "there", process)
    kill(process)
    written = ["tiny@1.0.0"] if point == "after" else []
    assert mine() == written
    assert all(verify(ref) == [] for ref in written)
    if not written:
        assert len([path for path in (zoo / ".staging").iterdir() if path.is_dir()]) == 1  # what it left behind
    following = add(run, name="tiny")  # and nothing that it held stands in the way
    assert following.version == ("1.0.1" if written else "1.0.0")
    assert list((zoo / ".staging").iterdir()) == []


def test_staging_of_a_living_process_is_left_alone(run: Path, zoo: Path) -> None:
    store = Store(zoo, "user")
    with store.staging() as other:
        (other / "README.md").write_text("half a card")
        add(run, name="tiny")
        assert (other / "README.md").exists()
    assert list((zoo / ".staging").iterdir()) == []


@pytest.mark.parametrize("version", ["1.0.0", None])
def test_concurrent_adds(version: str | None, tmp_path: Path) -> None:
    """Of one version exactly one wins; without a version everybody gets one."""
    runs = [make_run(tmp_path / f"run{seed}", seed=seed) for seed in range(3)]
    processes = [start(add_together, run, tmp_path / "go", version) for run in runs]
    for run, process in zip(runs, processes, strict=True):
        wait_for(run / "ready", process)
    (tmp_path / "go").touch()
    for process in processes:
        process.join()
    answers = [(run / "answer").read_text(encoding="utf-8") for run in runs]
    if version is None:
        assert sorted(answers) == ["1.0.0", "1.1.0", "1.2.0"]
    else:
        assert sorted("exists already" in answer for answer in answers) == [False, True, True], answers
        answers = [answer if answer == version else "" for answer in answers]
    for seed, answer in enumerate(answers):
        if answer:
            entry = resolve(f"tiny@{answer}")
            assert entry.provenance["run"]["seed"] == seed and verify(entry) == []


# ---------------------------------------------------------------------------------------------- verification


@pytest.mark.parametrize("name", ENTRY_FILES)
def test_a_changed_byte_in_any_file_is_found(entry: Entry, name: str) -> None:
    path = entry.folder / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    overwrite(path, bytes(content))
    problems = verify(entry)
    assert {problem.file for problem in problems} == {name}
    with pytest.raises(ZooError, match=r"tiny@1\.0\.0 is (damaged and was not loaded|broken)"):
        resolve("tiny")
    if name == "entry.json":
        assert next(e for e in list_entries() if e.name == "tiny").status == "broken"
    else:
        assert "has sha256" in problems[0].message


@pytest.mark.parametrize("name", ENTRY_FILES)
def test_a_missing_file_is_found(entry: Entry, name: str) -> None:
    (entry.folder / name).unlink()
    problems = verify(entry)
    assert [problem.file for problem in problems] == [name] and "the file is missing" in problems[0].message


def test_a_longer_file_an_extra_file_and_a_link_are_found(entry: Entry, tmp_path: Path) -> None:
    card = entry.folder / "README.md"
    size = card.stat().st_size
    overwrite(card, card.read_bytes() + b"\n")
    (entry.folder / "weights.bin").write_bytes(b"?")
    shutil.move(entry.folder / "metrics.json", tmp_path / "metrics.json")
    (entry.folder / "metrics.json").symlink_to(tmp_path / "metrics.json")
    assert {str(problem) for problem in verify(entry)} == {
        f"README.md: is {size + 1} bytes long, entry.json says {size}",
        "metrics.json: is not a plain file",
        "weights.bin: does not belong to an entry",
    }


def test_other_weights_are_found_by_their_logits(entry: Entry, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", seed=9)
    overwrite(entry.folder / "model.safetensors", (other / "model.safetensors").read_bytes())
    sign_again(entry.folder)
    problems = verify("tiny")
    assert [problem.file for problem in problems] == ["reference.safetensors"]
    assert "this machine computes logits that differ by" in problems[0].message
    assert verify("tiny", logits=False) == []


def test_another_window_is_found_by_the_logits(entry: Entry) -> None:
    """The same parameters, read as another architecture: only the logits can tell."""
    spec = tiny_spec(window=4)
    text = (entry.folder / "model.yaml").read_text(encoding="utf-8")
    changed = text.replace("window: 8", "window: 4").replace("period: 16", "period: 8")
    assert changed != text
    overwrite(entry.folder / "model.yaml", changed.encode())
    sign_again(entry.folder)
    assert [str(problem)[:35] for problem in verify("tiny")] == ["model.yaml: describes architecture "]
    sign_again(entry.folder, spec_hash=spec.hash)
    assert [problem.file for problem in verify("tiny")] == ["reference.safetensors"]


def test_wrong_facts_in_the_manifest_are_found(entry: Entry) -> None:
    sign_again(entry.folder, parameters=5, layout="GG")
    assert {str(problem) for problem in verify("tiny")} == {
        f"model.yaml: has {tiny_spec().parameters()} parameters, entry.json says 5",
        "model.yaml: has layout SG, entry.json says GG",
    }


def test_metrics_and_provenance_of_a_wrong_kind_break_their_entry_alone(entry: Entry, run: Path) -> None:
    """What somebody else wrote into them is signed and well-formed, and of the wrong type."""
    other = add(run, name="other", metrics=METRICS)
    wrong: list[tuple[str, Any, str]] = [
        ("metrics.json", {"bits_per_byte": [1, 2]}, "bits_per_byte: got [1, 2]; expected a mapping"),
        ("metrics.json", {"bits_per_byte": {"512": "low"}}, "bits_per_byte.512: got 'low'; expected a number"),
        (
            "metrics.json",
            {"bits_per_byte": {"long": 1}},
            "bits_per_byte: got the length 'long'; expected whole numbers",
        ),
        ("metrics.json", {"recall": {"512": True}}, "recall.512: got true; expected a number"),
        ("metrics.json", {"cache_bytes": {"512": 10**400}}, "cache_bytes.512: got 1000"),
        ("metrics.json", {"by_position": {"0-128": []}}, "by_position.0-128: got []; expected a number"),
        ("metrics.json", {"prefill_tokens_per_second": "fast"}, "prefill_tokens_per_second: got 'fast'"),
        ("metrics.json", [], "expected a JSON object, got list"),
        ("provenance.json", {"run": 7}, "run: got 7; expected a mapping"),
        ("provenance.json", {"run": {"train": []}}, "train: got []; expected a mapping"),
        (
            "provenance.json",
            {"run": {"train": {"seq_len": [1, "2"]}}},
            'run.train.seq_len: got [1, "2"]; expected a whole number',
        ),
        ("provenance.json", {"run": {"tokens": "many"}}, "run.tokens: got 'many'; expected a number"),
    ]
    for name, content, message in wrong:
        before = (entry.folder / name).read_bytes()
        overwrite(entry.folder / name, json.dumps(content).encode())
        sign_again(entry.folder)
        problems = verify("tiny", logits=False)
        assert [problem.file for problem in problems] == [name] and message in problems[0].message
        for as_json in ((), ("--json",)):
            result = zoo_command("list", *as_json)
            assert result.exit_code == 0, result.exception
            assert other.ref in result.stdout and entry.ref in result.stdout
        result = zoo_command("verify", "--all", "--no-logits")
        assert "other@1.0.0: ok" in result.stdout and "tiny@1.0.0: BROKEN" in result.stdout
        with pytest.raises(ZooError, match=r"(metrics|provenance): |expected a JSON object"):
            add(entry.folder, name="tiny")
        overwrite(entry.folder / name, before)
    sign_again(entry.folder)
    assert verify("tiny") == []


@pytest.mark.parametrize("kind", [torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn])
def test_weights_that_are_no_floats_break_their_entry_alone(entry: Entry, run: Path, kind: torch.dtype) -> None:
    add(run, name="other")
    path = entry.folder / "model.safetensors"
    weights = load_file(path)
    weights["layers.0.attention_norm.weight"] = weights["layers.0.attention_norm.weight"].to(kind)
    path.chmod(0o644)
    save_file(weights, path)
    sign_again(entry.folder)
    said = f"holds {str(kind)[6:]}; expected float32 or bfloat16 or float16 or float64"
    result = zoo_command("verify", "--all")
    assert f"  model.safetensors: tensor layers.0.attention_norm.weight {said}" in result.stdout
    assert "other@1.0.0: ok" in result.stdout
    with pytest.raises(UserError, match=rf"model\.safetensors: layers\.0\.attention_norm\.weight {said}; is"):
        miniwin.load("tiny")


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("input_ids", torch.arange(64.0), "input_ids is no list of 1 to 1024 whole numbers"),
        ("input_ids", torch.zeros(2000, dtype=torch.int64), "input_ids is no list of 1 to 1024 whole numbers"),
        ("input_ids", torch.full((64,), 256), "input_ids must lie between 0 and 255"),
        ("positions", torch.full((64,), 64), "positions must lie between 0 and 63"),
        ("logits", torch.zeros(64, 256, dtype=torch.int32), "logits must be 64 x 256 numbers in float32"),
        ("logits", torch.zeros(1, 1), "logits must be 64 x 256 numbers in float32"),
    ],
)
def test_a_reference_of_a_wrong_kind_is_found(entry: Entry, name: str, tensor: torch.Tensor, message: str) -> None:
    path = entry.folder / "reference.safetensors"
    stored = load_file(path)
    path.chmod(0o644)
    save_file({**stored, name: tensor}, path)
    sign_again(entry.folder)
    problems = verify("tiny")
    assert [problem.file for problem in problems] == ["reference.safetensors"] and message in problems[0].message


def test_an_entry_that_cannot_be_read_hides_no_other(entry: Entry, run: Path, monkeypatch: Any) -> None:
    add(run, name="other")

    def denied(path: Path) -> Any:
        if "tiny" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    read = check_module.sha256_file
    monkeypatch.setattr(check_module, "sha256_file", denied)
    result = zoo_command("verify", "--all", "--no-logits")
    assert "  README.md: cannot be read: Permission denied" in result.stdout and "other@1.0.0: ok" in result.stdout
    read_there = entry_module.read_manifest
    monkeypatch.setattr(
        entry_module, "read_manifest", lambda path: denied(path) if "tiny" in str(path) else read_there(path)
    )
    result = zoo_command("list")
    assert result.exit_code == 0 and "other@1.0.0" in result.stdout
    assert "tiny@1.0.0 is broken: [Errno 13] Permission denied" in result.stderr


def test_whatever_an_entry_does_to_its_check_stops_no_other(entry: Entry, run: Path, monkeypatch: Any) -> None:
    add(run, name="other")
    whole = verification._content_problems

    def surprising(folder: Path, manifest: Any) -> Any:
        return 1 / 0 if "tiny" in str(folder) else whole(folder, manifest)

    monkeypatch.setattr(verification, "_content_problems", surprising)
    result = zoo_command("verify", "--all", "--no-logits")
    assert "  entry.json: the entry cannot be checked: ZeroDivisionError: division by zero" in result.stdout
    assert "other@1.0.0: ok" in result.stdout


def test_an_entry_in_the_wrong_place_is_broken(entry: Entry, zoo: Path) -> None:
    shutil.copytree(entry.folder, zoo / "tiny" / "9.0.0")
    with pytest.raises(
        ZooError, match=r"tiny@9\.0\.0 is broken: .* says tiny@1\.0\.0, but lies where tiny@9\.0\.0 should"
    ):
        resolve("tiny")


def test_a_newer_schema_says_to_upgrade(entry: Entry) -> None:
    data = json.loads((entry.folder / "entry.json").read_text(encoding="utf-8"))
    overwrite(entry.folder / "entry.json", json.dumps(data | {"schema": 4, "colour": "red"}).encode())
    with pytest.raises(ZooError, match=r"schema 4 is newer than this miniwin reads \(3\); upgrade miniwin"):
        resolve("tiny")


def test_strangers_in_the_zoo_folder_are_not_entries(entry: Entry, zoo: Path) -> None:
    for stranger in ("README", "Not A Name/1.0.0", "tiny/1.0.0.bak", "tiny/01.0.0", "tiny@1/1.0.0", ".hidden/1.0.0"):
        (zoo / stranger).mkdir(parents=True)
    (zoo / "tiny" / "3.0.0").write_text("a file")
    assert mine() == ["tiny@1.0.0"]


def test_files_are_hashed_once_and_again_after_a_change(entry: Entry, monkeypatch: Any) -> None:
    hashed: list[str] = []

    def counting(path: Path) -> str:
        hashed.append(path.name)
        return sha256_file(path)

    monkeypatch.setattr(check_module, "sha256_file", counting)
    resolve("tiny")
    assert sorted(hashed) == sorted(HASHED_FILES)
    hashed.clear()
    resolve("tiny@1.0.0")
    assert hashed == []
    os.utime(entry.folder / "model.yaml")  # touched, not changed
    resolve("tiny")
    assert sorted(hashed) == sorted(HASHED_FILES)
    hashed.clear()
    assert verify(entry, logits=False) == [] and len(hashed) == len(HASHED_FILES)  # verify never trusts the stamp


def zeroed(path: Path) -> bytes:
    """A whole safetensors file of the same size whose tensors are all zero."""
    weights = {name: torch.zeros_like(tensor) for name, tensor in load_file(path).items()}
    return save(weights, metadata={"format": "pt"})


def test_weights_changed_behind_the_stamp_are_not_loaded(entry: Entry) -> None:
    """Same size, same modification time: what a program that only wants to look untouched would do."""
    resolve("tiny")  # stamped
    path = entry.folder / "model.safetensors"
    status, other = path.stat(), zeroed(path)
    assert len(other) == status.st_size
    overwrite(path, other)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_mtime_ns == status.st_mtime_ns
    for ref in ("tiny", str(entry.folder)):
        with pytest.raises(ZooError, match=r"tiny@1\.0\.0 is damaged and was not loaded: model\.safetensors: has"):
            miniwin.load(ref)
    with pytest.raises(ZooError, match="is damaged"):
        resolve("tiny")
    with pytest.raises(ZooError, match="is damaged"):
        add(entry.folder, name="again")


@pytest.mark.parametrize(
    ("name", "large"),
    [("model.safetensors", False), ("model.safetensors", True), ("tokenizer.json", False), ("model.yaml", False)],
)
def test_a_file_swapped_after_its_check_is_not_loaded(entry: Entry, name: str, large: bool, monkeypatch: Any) -> None:
    """The check sees the right file, and the load another one in its place, also where it is read by its path."""
    whole = check_module.check
    right = entry.folder / name
    other = right.read_bytes().replace(b"window: 8", b"window: 4").replace(b"byte", b"bite")
    if name == "model.safetensors":
        other = zeroed(right)

    def checked(entry: Entry) -> Entry:
        found = whole(entry)
        new = entry.folder.with_name("new")
        new.write_bytes(other)
        os.replace(new, right)
        return found

    if large:
        monkeypatch.setattr(check_module, "LARGE", 0)
    monkeypatch.setattr(check_module, "check", checked)
    with pytest.raises(ZooError) as caught:
        miniwin.load(entry.folder)
    message = "its files changed while they were read" if large else f"{name}: has not the sha256"
    assert f"tiny@1.0.0 is damaged and was not loaded: {message}" in str(caught.value)


def test_weights_written_over_after_the_load_change_no_model(entry: Entry) -> None:
    """A file that is mapped into memory would be read as late as its numbers are needed."""
    model = miniwin.load("tiny")
    expected = load_file(entry.folder / "model.safetensors")
    expected = {name: tensor.clone() for name, tensor in expected.items()}
    overwrite(entry.folder / "model.safetensors", zeroed(entry.folder / "model.safetensors"))
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.decoder.state_dict().items())


def test_an_entry_that_changes_while_it_is_added_again_is_not(entry: Entry, monkeypatch: Any) -> None:
    whole = adding._copy_weights

    def swapped(source: Path, target: Path, spec: Any) -> None:
        overwrite(source, zeroed(source))
        whole(source, target, spec)

    monkeypatch.setattr(adding, "_copy_weights", swapped)
    with pytest.raises(ZooError, match="its files changed while they were read"):
        add(entry.folder, name="again")
    assert mine() == ["tiny@1.0.0"]


def test_a_large_file_is_not_hashed_at_every_load(entry: Entry, monkeypatch: Any) -> None:
    miniwin.load("tiny")
    monkeypatch.setattr(check_module, "LARGE", 0)
    monkeypatch.setattr(check_module, "sha256_file", lambda path: pytest.fail(f"{path} is hashed again"))
    expected = load_file(entry.folder / "model.safetensors")
    model = miniwin.load("tiny")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.decoder.state_dict().items())


def test_a_stamp_of_an_older_version_only_costs_time(entry: Entry, tmp_path: Path) -> None:
    resolve("tiny")
    (stamp,) = (tmp_path / "cache" / "verified").iterdir()
    now = json.loads(stamp.read_text(encoding="utf-8"))
    for old in ({**now, "files": {name: values[:2] for name, values in now["files"].items()}}, [], "[" * 100_000):
        stamp.write_text(old if isinstance(old, str) else json.dumps(old), encoding="utf-8")
        assert resolve("tiny") == entry
        assert json.loads(stamp.read_text(encoding="utf-8")) == now


def test_a_cache_that_cannot_be_written_only_costs_time(entry: Entry, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "file"))
    assert resolve("tiny") == entry


# ---------------------------------------------------------------------------------------------------- the card


def test_the_card_is_one_the_hub_reads(entry: Entry) -> None:
    _, front, body = entry.card.split("---\n", 2)
    data = yaml.safe_load(front)
    assert data["license"] == "apache-2.0" and data["library_name"] == "miniwin"
    result = data["model-index"][0]["results"][0]
    assert result["task"]["type"] == "text-generation" and result["dataset"]["type"] == "python-stdlib"
    assert [(m["type"], m["value"], m["args"]) for m in result["metrics"]] == [
        ("bits_per_byte", 2.164, {"length": 32}),
        ("bits_per_byte", 2.3083, {"length": 512}),
        ("recall", 0.25, {"length": 32}),
    ]
    assert "| 32 (1x) | 2.1640 | 25.0% | 4.1 kB |" in body
    assert "| 512 (16x) | 2.3083 |  | 36.9 kB |" in body
    assert "| Found with | window = 8 |" in body and "| Trials of the study | 9 complete, 2 pruned |" in body
    assert "| Study | demo |" in body and "| Trial | 7 |" in body and "| Seed | 0 |" in body
    assert f"| Parameters | {tiny_spec().parameters():,} |" in body

    hub = pytest.importorskip("huggingface_hub")
    results = hub.ModelCard(entry.card, ignore_metadata_errors=False).data.eval_results
    assert [(r.metric_type, r.metric_value) for r in results][:2] == [
        ("bits_per_byte", 2.164),
        ("bits_per_byte", 2.3083),
    ]


def test_a_card_without_measurements_invents_none(run: Path) -> None:
    card = add(run, name="tiny", description="Only weights.").card
    assert "model-index" not in card and "## Results\n\nNot measured." in card and "Only weights." in card


# -------------------------------------------------------------------------------------------- the command line


def zoo_command(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_zoo_list(entry: Entry, zoo: Path, monkeypatch: Any) -> None:
    lines = zoo_command("list").stdout.splitlines()
    assert lines[0].split() == ["entry", "params", "layout", "bits/byte", "size", "source", "status"]
    line = next(line for line in lines if line.startswith("tiny@1.0.0"))
    assert f"{tiny_spec().parameters():,}  SG" in line and "2.1640 at 32, 2.3083 at 512" in line
    assert line.split()[-2:] == ["user", "active"]

    rows = json.loads(zoo_command("list", "--json").stdout)
    assert next(row for row in rows if row["ref"] == "tiny@1.0.0")["bits_per_byte"] == {"32": 2.164, "512": 2.3083}

    (entry.folder / "entry.json").unlink()
    result = zoo_command("list")
    assert next(line for line in result.stdout.splitlines() if "tiny" in line).split()[-1] == "broken"
    assert "tiny@1.0.0 is broken:" in result.stderr and "the file is missing" in result.stderr


def test_without_torch_the_zoo_is_looked_at_as_with_it(entry: Entry, zoo: Path, monkeypatch: Any) -> None:
    """What a console shows, in a process with stand-ins for torch, is what this process shows, which has torch."""
    commands = (["list", "--json"], ["show", "tiny"], ["index", str(zoo)])
    answers, loaded = miniwin_without_torch(*(["zoo", *command] for command in commands))
    assert "torch" not in loaded
    for command, (code, out, err) in zip(commands, answers, strict=True):
        assert (code, out) == (0, zoo_command(*command).stdout), err


def test_an_empty_zoo_says_what_to_do(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("miniwin.zoo.store.built_in_zoo", lambda: tmp_path / "none")
    assert f"The zoo {user_zoo()} is empty. Add a finished run: miniwin zoo add" in zoo_command("list").stdout


def test_zoo_show_prints_what_an_alias_means(entry: Entry) -> None:
    result = zoo_command("show", "tiny@1")
    assert result.exit_code == 0 and "tiny@1 is tiny@1.0.0 (user)" in result.stderr
    assert "# tiny 1.0.0" in result.stdout and f"Digest: {entry.digest}" in result.stdout
    assert sha256_file(entry.folder / "model.safetensors") in result.stdout
    assert zoo_command("show", "tiny@1.0.0").stderr == ""
    overwrite(entry.folder / "README.md", b"# Another card\n")
    result = zoo_command("show", "tiny")
    assert result.exit_code == 1 and "broken: README.md: is 15 bytes long" in result.stderr


def test_zoo_verify_says_which_file(entry: Entry, run: Path) -> None:
    add(run, name="other")
    result = zoo_command("verify", "--all")
    assert result.exit_code == 0 and "tiny@1.0.0: ok" in result.stdout and "other@1.0.0: ok" in result.stdout
    overwrite(entry.folder / "tokenizer.json", b"{}")
    result = zoo_command("verify", "--all", "--no-logits")
    assert result.exit_code == 1 and "1 of " in result.stderr and " broken" in result.stderr
    assert "tiny@1.0.0: BROKEN" in result.stdout and "  tokenizer.json: is 2 bytes long" in result.stdout
    assert zoo_command("verify", "other").exit_code == 0
    assert zoo_command("verify", "tiny").exit_code == 1
    for arguments in ((), ("tiny", "--all")):
        error = zoo_command("verify", *arguments).exception
        assert isinstance(error, UserError) and "name an entry, or give --all" in str(error)


def test_zoo_add_evaluates_unless_told_not_to(run: Path, tmp_path: Path, monkeypatch: Any) -> None:
    evaluated: list[Path] = []

    def evaluation(source: Path, lengths: str | None, data: str | None) -> dict[str, Any]:
        evaluated.append(source)
        return METRICS

    monkeypatch.setattr("miniwin.commands.zoo_measures.evaluate", evaluation)
    result = zoo_command("add", str(run), "--name", "tiny", "--no-evaluate")
    assert result.exit_code == 0 and "added tiny@1.0.0: " in result.stdout and evaluated == []
    assert "next: miniwin generate tiny@1.0.0" in result.stdout and resolve("tiny").metrics == {}
    assert zoo_command("add", str(run), "--name", "tiny", "--description", "Measured.").exit_code == 0
    assert evaluated == [run] and resolve("tiny@1.0.1").metrics["bits_per_byte"]["32"] == 2.164
    (tmp_path / "metrics.json").write_text(json.dumps(METRICS | {"tokens": 1}), encoding="utf-8")
    zoo_command("add", str(run), "--name", "tiny", "--metrics", str(tmp_path / "metrics.json"))
    assert evaluated == [run] and resolve("tiny").metrics["tokens"] == 1

    # What cannot be added is not measured first.
    error = zoo_command("add", str(run), "--name", "tiny", "--version", "1.0.0").exception
    assert isinstance(error, ZooError) and "exists already" in str(error) and evaluated == [run]


def test_a_run_of_a_wrong_kind_is_not_added(tmp_path: Path) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"train": {"seq_len": "long"}}, "run.train.seq_len: got 'long'; expected a whole number"),
        ({"train": {"lr": 1}}, "the run does not say at what length it was trained; say --lengths"),
        ({"train": 5}, "run.json: train: got 5; put back the file"),
    ]
    for place, (changes, message) in enumerate(wrong):
        folder = make_run(tmp_path / str(place), **changes)
        error = zoo_command("add", str(folder), "--name", "tiny").exception
        assert isinstance(error, UserError) and message in str(error)
    assert mine() == []


def test_zoo_add_really_evaluates(run: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """The real evaluation, on a text of our own and at lengths that take no time."""
    import miniwin.evaluation

    text = tmp_path / "text.txt"
    text.write_text("def main(argument):\n    return argument\n" * 400, encoding="utf-8")
    whole = miniwin.evaluation.evaluate
    measured: list[Any] = []

    def small(model: Any, data: Any, lengths: list[int], **options: Any) -> Any:
        measured.append(lengths if data is None else [*lengths, data])
        return whole(model, text, lengths=lengths, tokens_per_length=1024, recall=False, speed=False, **options)

    monkeypatch.setattr(miniwin.evaluation, "evaluate", small)
    result = zoo_command("add", str(run), "--name", "tiny")
    assert result.exit_code == 0, result.exception
    entry = resolve("tiny")
    assert 4 < entry.metrics["bits_per_byte"]["512"] < 12  # untrained: about 8
    assert f"{entry.metrics['bits_per_byte']['32']:.4f}" in entry.card
    assert entry.metrics["model"] == run.name  # not where on this machine the run lies
    assert (
        zoo_command("add", str(run), "--name", "tiny", "--lengths", "16,0.0625k").exit_code == 0
    )  # as eval reads them
    # Where the run's own data is gone, the message names --data, which this command has as eval has it.
    assert zoo_command("add", str(run), "--name", "tiny", "--lengths", "16", "--data", str(text)).exit_code == 0
    assert measured == [[32, 128, 512, 1024], [16, 64], [16, str(text)]]
    error = zoo_command("add", str(run), "--name", "tiny", "--lengths", "16q").exception
    assert isinstance(error, ZooError) and "--lengths: expected whole numbers with commas" in str(error)
    for option, says in (("--lengths", "where"), ("--data", "what")):
        error = zoo_command("add", str(run), "--name", "tiny", option, "16", "--no-evaluate").exception
        expected = f"{option} says {says} to measure, but nothing is measured"
        assert isinstance(error, ZooError) and expected in str(error)


def test_versions_sort_by_number() -> None:
    assert sorted(map(Version.parse, ["1.10.0", "1.9.9", "0.99.0"])) == [
        Version(0, 99, 0),
        Version(1, 9, 9),
        Version(1, 10, 0),
    ]
    assert str(Version(1, 2, 3).bump("minor")) == "1.3.0"


def test_the_bare_name_is_refused() -> None:
    result = subprocess.run([sys.executable, "-c", "import zoo"], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1 and "import miniwin.zoo instead" in result.stderr
