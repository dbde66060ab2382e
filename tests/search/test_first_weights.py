"""A search whose trials begin with the weights of a model: as they are, or trained further."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from forked import workers_forked
from hf_tokenizers import tokenizer_json
from killing import at_work, kill_and_complete
from safetensors.torch import save_file
from search_helpers import MODEL, TRAIN, change, write_search

import miniwin
from miniwin.data import prepare
from miniwin.evaluation import loss_at
from miniwin.runs import read_run
from miniwin.search import confirm_search, ladder_search, promote, read_study, resume_search, run_search
from miniwin.search.comparing import compare_studies
from miniwin.search.comparison_lines import comparison_lines
from miniwin.search.confirm.words import lines
from miniwin.search.creation import create_study
from miniwin.search.leases import Lease
from miniwin.search.named_specs import NamedSpecs
from miniwin.search.report import write_report
from miniwin.search.space import Space, check_search
from miniwin.search.study import Study, find_study
from miniwin.search.worker import work
from miniwin.specs import (
    UserError,
    dump_yaml,
    load_model_spec,
    load_search_spec,
    load_train_spec,
    parse_spec,
    resolve_spec_path,
)
from miniwin.tokenizer import load_tokenizer
from miniwin.training.launch import train

PLACED: dict[str, Any] = {
    "base": None,
    "baseline": "weights",
    "weights": "first",
    "variables": {"layers": {"subset": {"of": "num_layers", "size": 2}}},
    "set": {"pattern": "place(layers, G, S)", "last": None},
    "constraints": [],
    "objectives": ["minimize loss@64", "minimize cache_bytes@64"],
    "budget": {"trials": 4, "tokens_per_trial": 0},
    "sampler": {"type": "random"},
}


RANDOM = {"weights": None, "base": "model.yaml", "baseline": None}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose weights searches begin with."""
    folder = tmp_path_factory.mktemp("first")
    write_search(folder)
    return trained(folder, "first")


@pytest.fixture
def search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: Path) -> Path:
    """A search spec beside the run `first`."""
    monkeypatch.setenv("MINIWIN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MINIWIN_ZOO", str(tmp_path / "zoo"))
    shutil.copytree(first, tmp_path / "first")
    return write_search(tmp_path, **PLACED)


@pytest.fixture(autouse=True)
def _workers() -> Iterator[None]:
    with workers_forked():
        yield


def trained(folder: Path, out: str, **changes: Any) -> Path:
    spec = load_train_spec(folder / "train.yaml").model_copy(update=changes)
    return train(load_model_spec(folder / "model.yaml"), spec, **to(folder, out)).folder


def to(folder: Path, out: str, **more: Any) -> dict[str, Any]:
    return {"out": folder / out, "base": folder, "progress": False, "tracking": "off", **more}


def changed(path: Path, **changes: Any) -> Path:
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}))
    return path


def go(path: Path, **more: Any) -> Any:
    return run_search(path, out=path.parent / "study", workers=1, tracking="off", progress=False, **more)


def test_trials_of_no_tokens_are_the_weights_in_another_layout(search: Path) -> None:
    data = go(search)
    assert data.finished and data.untrained and len(data.completed) == 4
    assert data.baseline is not None and data.baseline.layout == "SGSG" and data.baseline.tokens == 0
    folder = search.parent
    assert not list((folder / "study").rglob("*.safetensors")) and not list((folder / "study").rglob("checkpoint*"))
    tokenizer = load_tokenizer("byte")
    corpus = prepare(load_train_spec(folder / "train.yaml").data, tokenizer, folder)
    for trial in [*data.completed, data.baseline]:
        assert trial.spec is not None and trial.tokens == 0 and trial.seconds > 0
        (folder / "one.yaml").write_text(dump_yaml(trial.spec))
        out = to(folder, f"other-{trial.number}", from_=folder / "first")
        none = load_train_spec(folder / "train.yaml").model_copy(update={"tokens": 0})
        train(trial.spec, none, **out)
        loss = loss_at(miniwin.load(out["out"]), corpus, 64, 256)
        assert trial.values["loss@64"] == loss == trial.losses[64]
    assert len({trial.values["loss@64"] for trial in data.completed}) > 1  # the layout matters


def test_models_share_the_tensors_that_were_read(search: Path) -> None:
    go(search)
    study = Study(search.parent / "study")
    assert study.weights is not None
    specs = [trial.spec for trial in read_study(study.folder).completed]
    found = [study.weights.model(spec, study.space.train, torch.device("cpu")) for spec in specs if spec]
    shared = [tensor.data_ptr() for tensor in study.weights._read(torch.device("cpu")).values()]
    for model in found:
        named = dict(model.decoder.named_parameters())
        own = [name for name, tensor in named.items() if tensor.data_ptr() not in shared]
        assert all(name.endswith("logit_scale.scale") for name in own)  # of a layer that was local
        assert len(named) - len(own) >= 38


def test_the_winner_becomes_an_entry_with_the_weights_and_their_licence(search: Path) -> None:
    from miniwin.zoo import add

    entry = add(search.parent / "first", name="given", licence="cc-by-4.0")
    data = go(changed(search, weights="given"))
    about = json.loads((data.folder / "study.json").read_text())["weights"]
    assert about["ref"] == entry.ref == "given@1.0.0" and about["licence"] == "cc-by-4.0"
    made = promote(data.folder, name="won", tracking="off", progress=False)
    assert data.best is not None and made.provenance["trial"] == data.best.number
    assert made.provenance["run"]["from"]["ref"] == "given@1.0.0" and not made.provenance["retrained"]
    assert made.provenance["run"]["from"]["licence"] == "cc-by-4.0"
    model, first = miniwin.load("won"), miniwin.load("given")
    assert model.spec.hash == data.best.spec.hash  # type: ignore[union-attr]
    assert torch.equal(model.decoder.embed_tokens.weight, first.decoder.embed_tokens.weight)
    longer = promote(data.folder, name="healed", tokens=512, tracking="off", progress=False)
    assert longer.provenance["retrained"] and longer.provenance["run"]["tokens"] == 512
    assert longer.provenance["run"]["from"]["sha256"] == about["sha256"]


def test_healing_trains_from_the_weights_on(search: Path) -> None:
    data = go(changed(search, budget={"trials": 2, "tokens_per_trial": 512}, pruner={"type": "halving"}, rungs=[0.5]))
    first = json.loads((data.folder / "study.json").read_text())["weights"]["sha256"]
    folder = search.parent
    assert data.completed and not data.untrained
    for trial in data.completed:
        assert trial.run_folder is not None and trial.spec is not None and trial.train is not None
        assert read_run(trial.run_folder)["from"]["sha256"] == first and trial.tokens == 512
        out = to(folder, f"straight-{trial.number}", from_=folder / "first")
        straight = train(trial.spec, trial.train, **out).folder
        assert (straight / "model.safetensors").read_bytes() == (trial.run_folder / "model.safetensors").read_bytes()


def test_more_layers_need_a_map_and_what_does_not_fit_is_no_candidate(search: Path) -> None:
    wanted = {"variables": {"depth": {"choice": [4, 6]}}, "set": {"num_layers": "depth"}, "budget": {"trials": 2}}
    path = changed(search, **wanted, train="train.yaml", sampler={"type": "grid"}, baseline=None)
    data = go(path)
    trials = {trial.params["depth"]: trial for trial in data.trials}
    assert trials[4].state == "complete" and trials[6].state == "infeasible"
    assert "say which layer of the base each one comes from: map: layers=stretched" in str(trials[6].reason)
    assert trials[4].tokens == 1536
    shutil.rmtree(data.folder)
    data = go(changed(path, map="layers=stretched", budget={"trials": 2, "tokens_per_trial": 0}))
    assert [trial.state for trial in data.trials] == ["complete", "complete"]
    assert {len(trial.layout) for trial in data.trials} == {4, 6}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": "nothing"}, r"search.yaml:\d+:\d+: weights: .*nothing"),
        ({"weights": "miniwin-tiny"}, "weights: miniwin-tiny is a model spec, which has no weights; .* or no weights"),
        ({**RANDOM}, "budget.tokens_per_trial: got 0; expected at least 1"),
        ({"weights": None, "baseline": None}, "base: missing; expected a model spec, or `weights`"),
        ({"weights": None, "base": "weights"}, "base: got weights; expected a model spec"),
        ({"weights": None, "base": "model.yaml"}, "baseline: got weights, and there are none"),
        ({**RANDOM, "map": "a=fresh"}, "map: got a=fresh without `weights`"),
        ({"pruner": {"type": "halving"}}, "pruner: trials have 0 tokens, so there is nothing to stop early"),
        ({"seeds": 2}, "seeds: got 2; trials have 0 tokens"),
        ({"learning_rate": "tuned"}, "learning_rate: trials have 0 tokens"),
        ({"match": "parameters"}, "match: trials have 0 tokens"),
        ({"confirm": {"top": 1}}, "confirm.seeds: .*set confirm.seeds: 1"),
        ({"budget": {"trials": 1, "tokens_per_trial": 0, "seconds_per_trial": 3}}, "seconds_per_trial: trials have 0"),
        ({"set": {**PLACED["set"], "train.optimizer.lr": 0.1}}, "train.optimizer.lr: trials have 0 tokens"),
        ({"map": "layers=0-9"}, "baseline: map: layers=0-9: got '0-9'; expected layers from 0 to 3"),
        ({"set": {**PLACED["set"], "hidden_size": 32}}, "embed_tokens.weight: is .*, expected"),
        ({"base": "miniwin-tiny", "baseline": None}, "first has 4 layers, and miniwin-tiny has 8"),
        ({"baseline": "miniwin-tiny"}, "baseline: .*first has 4 layers, and miniwin-tiny has 8"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_anything_starts(search: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_search(changed(search, **changes))
    with pytest.raises(UserError, match=message):
        go(search)
    assert not (search.parent / "study").exists()


def test_a_train_spec_without_tokens_needs_weights(search: Path) -> None:
    (search.parent / "train.yaml").write_text(yaml.safe_dump({**TRAIN, "tokens": 0}))
    changed(search, budget={"trials": 1})
    assert "6 assignments" in (said := check_search(search)) and "measured with the weights of" in said
    with pytest.raises(UserError, match="train: its tokens are 0; expected at least 1, or `weights`"):
        check_search(changed(search, weights=None, base="model.yaml", baseline=None))


def test_adapters_need_weights_that_fit_as_they_are(search: Path) -> None:
    pytest.importorskip("peft")
    (search.parent / "train.yaml").write_text(yaml.safe_dump({**TRAIN, "lora": {"r": 2}}))
    changed(search, budget={"trials": 1})
    study = Space(load_search_spec(search), *(specs := named(search))[:2], weights=specs[2])
    fits, fresh = ({"layers": layers} for layers in ([1, 3], [0, 3]))  # a local layer has no scale of its logits
    assert study.assign(fits).candidate is not None
    assert "logit_scale.scale would be drawn anew" in str(study.assign(fresh).reason)
    with pytest.raises(UserError, match="train: its lora trains adapters around the weights of a model"):
        check_search(changed(search, **RANDOM))


def named(search: Path) -> tuple[Any, Any, Any]:
    found = NamedSpecs.load(load_search_spec(search), search.parent)
    return found.base, found.train, found.weights


def test_a_study_stays_with_its_weights(search: Path) -> None:
    folder = search.parent
    data = go(changed(search, budget={"trials": 1, "tokens_per_trial": 0}))
    shutil.copytree(folder / "first", folder / "moved")
    more = {"budget": {"trials": 2, "tokens_per_trial": 0}}
    assert len(go(changed(search, weights="moved", **more)).trained) == 2  # the same file elsewhere
    assert json.loads((data.folder / "study.json").read_text())["weights"]["ref"] == str(folder / "moved")
    shutil.rmtree(folder / "moved")
    assert len(read_study(data.folder).trained) == 2  # to look at it, the weights need not be there
    with pytest.raises(UserError, match=r"weights: .*moved: there is no such file"):
        resume_search(data.folder, trials=3, tracking="off", progress=False)
    trained(folder, "moved", seed=5)
    with pytest.raises(UserError, match=r"another search \(weights.sha256: "):
        resume_search(data.folder, trials=3, tracking="off", progress=False)
    with pytest.raises(UserError, match="they are not what they were"):
        _ = Study(data.folder).weights.origin  # type: ignore[union-attr]
    change(data.folder, weights={"ref": 3})
    with pytest.raises(UserError, match="weights is not what `miniwin search` wrote"):
        read_study(data.folder)


def test_kill_9_loses_nothing_and_measures_no_finished_trial_again(search: Path) -> None:
    study, kept, begun = search.parent / "study", {}, {}
    places = {"layers": {"subset": {"of": "num_layers", "size": [1, 3]}}}  # 14 of them
    more = {"eval_tokens": 8192, "report_lengths": [3, 4, 5, 64]}
    (search.parent / "text.txt").write_text((search.parent / "text.txt").read_text() * 12)
    changed(search, **more, variables=places, budget={"trials": 12, "tokens_per_trial": 0})
    command = ["search", "run", str(search), "--out", str(study), "--workers", "1", "--tracking", "off"]

    def victims() -> list[Lease]:
        """Workers that have measured a trial to its end."""
        for path in study.glob("trials/*/trial.json"):
            if json.loads(text := path.read_text())["state"] == "complete":
                kept.setdefault(path, text)
        there = at_work(study)
        return [lease for lease in there if begun.setdefault(lease.pid, len(kept)) < len(kept)]

    kill_and_complete(command, study, victims, 2, 0.1, random.Random(7))
    data = read_study(study)
    assert data.finished and len(data.completed) == 12 == len({trial.hash for trial in data.completed})
    assert not list((study / "leases").iterdir()) and not list(study.rglob("*.safetensors"))
    assert len(kept) >= 2 and all(path.read_text() == text for path, text in kept.items())
    everything = [*data.completed, data.baseline]
    assert sum(trial.attempts - 1 for trial in everything if trial) >= 1
    straight = run_search(search, out=search.parent / "again", workers=1, tracking="off", progress=False)
    assert [trial.values for trial in straight.trials] == [trial.values for trial in data.trials]


def test_a_machine_without_the_weights_is_refused(search: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = search.parent
    url = f"sqlite:///{folder / 'studies.db'}"
    data = go(changed(search, baseline=None, budget={"trials": 1, "tokens_per_trial": 0}), storage=url)
    monkeypatch.setenv("MINIWIN_CACHE", str(folder / "cache"))
    joined = find_study(url)
    assert joined != data.folder
    about = json.loads((joined / "study.json").read_text())
    assert about["weights"] == json.loads((data.folder / "study.json").read_text())["weights"]
    assert "tokenizer" not in (joined / "train.yaml").read_text()
    resume_search(data.folder, trials=3, tracking="off", progress=False)
    assert work(joined, "here") == 0
    (found,) = {trial.values["loss@64"] for trial in read_study(joined).completed[:1]}
    assert read_study(joined).front and found > 0
    (folder / "first").rename(folder / "away")
    with pytest.raises(UserError, match=r"first, which this machine does not have: .*under the same path or name"):
        work(joined, "there")
    assert promote_fails(joined) == "first, which this machine does not have"


def promote_fails(study: Path) -> str:
    try:
        promote(study, name="never", tracking="off", progress=False)
    except UserError as error:
        return str(error).split("weights of ")[1].split(":")[0].rpartition("/")[2]
    return ""


def test_a_confirmation_measures_each_once_with_an_interval_over_the_text(search: Path) -> None:
    data = {"source": "text", "paths": ["text.txt"], "test_fraction": 0.4}
    (search.parent / "train.yaml").write_text(yaml.safe_dump({**TRAIN, "data": data}))
    found = go(changed(search, confirm={"top": 2, "seeds": 1}))
    assert found.confirmation is not None and found.confirmation.result is not None
    result = found.confirmation.result
    assert result.untrained and len(found.confirmation.trainings) == 1 + min(2, len(found.front))
    for pair in result.comparisons:
        measured = pair.measures[0]
        assert measured.name == "loss@64" and measured.of == "pieces" and measured.low is not None
        same = pair.other == "baseline" and found.trial(int(pair.first.split()[1])).layout == "SGSG"
        assert (measured.verdict == "the same") == same == (measured.value == 0)
        assert same or measured.low < measured.value < measured.high  # type: ignore[operator]
    assert not list(found.folder.rglob("*.safetensors"))
    page = write_report(found.folder, found.folder / "report.html").read_text()
    assert "measured without training" in page and "An interval covers the text alone" in page
    assert "seed" not in " ".join(lines(found.confirmation, found.spec.objectives, 32))
    assert comparison_lines(compare_studies(found.folder))[-1].startswith("Nothing was trained")
    promoted = promote(found.folder, name="won", tracking="off", progress=False)
    assert promoted.provenance["search"]["weights"] == "first"
    assert "Intervals cover the text alone" in (promoted.folder / "README.md").read_text()
    with pytest.raises(UserError, match="--seeds: got 3; nothing is trained"):
        confirm_search(found.folder, seeds=3)
    assert confirm_search(found.folder, top=1, tracking="off", progress=False).finished
    with pytest.raises(UserError, match="which have one size, and a ladder trains at several"):
        ladder_search(found.folder, sizes=[1000, 2000, 4000])


def test_blocks_that_the_model_lacks_are_copies_with_changes(search: Path) -> None:
    added = {"W": {"like": "G", "set": {"attention.window": 8, "attention.keep_first": 2}}}
    sets = {"pattern": "place(layers, G, W)", "last": None}
    data = go(changed(search, blocks=added, set=sets, budget={"trials": 2, "tokens_per_trial": 0}))
    for trial in data.completed:
        assert trial.spec is not None and set(trial.layout) == {"G", "W"}
        assert trial.spec.blocks["W"].attention.keep_first == 2 and trial.spec.blocks["W"].attention.window == 8
    for blocks, message in (
        ({"S": {"like": "G"}}, "blocks.S: speck has a block S already"),
        ({"W": {"like": "X"}}, r"blocks.W.like: got X; speck has no such block \(its blocks: G, S\)"),
        ({"W": {"like": "G", "set": {"attention.windw": 3}}}, "blocks.W.set.*did you mean 'attention.window'"),
        ({**added, "X": {"like": "G"}}, "blocks.X: nothing under `set` uses it"),
        ({"W": {"like": "G", "set": {"a b": 3}}}, "blocks.W.set: got 'a b'; expected a field"),
        ({"W": {"like": "G", "set": {"attention.window": -3}}}, "none of .* gave an architecture"),
    ):
        with pytest.raises(UserError, match=message):
            check_search(changed(search, blocks=blocks))


def test_the_tokenizer_of_an_import_reads_the_text(search: Path) -> None:
    folder, text = search.parent, tokenizer_json()
    (folder / "imported").mkdir()
    (folder / "imported" / "tokenizer.json").write_text(text)
    spec = parse_spec({**MODEL, "vocab_size": len(json.loads(text)["model"]["vocab"]) + 8}, "model")
    (folder / "imported" / "model.yaml").write_text(dump_yaml(spec))
    save_file(spec.build().state_dict(), folder / "imported" / "model.safetensors")
    (folder / "imported" / "import.json").write_text(json.dumps({"format": 1, "special_ids": {}, "licence": "mit"}))
    made = load_tokenizer(folder / "imported")
    data = go(changed(search, weights="imported", budget={"trials": 2, "tokens_per_trial": 256}))
    assert "tokenizer" not in (data.folder / "train.yaml").read_text()
    for trial in data.completed:
        assert trial.run_folder is not None
        assert read_run(trial.run_folder)["data"]["tokenizer"] == made.name != "byte"
    (folder / "train.yaml").write_text(yaml.safe_dump({**TRAIN, "tokenizer": "byte"}))
    with pytest.raises(UserError, match=r"train: tokenizer: got byte \(byte\), and the weights of .* know the ids of"):
        check_search(search)


@pytest.mark.parametrize(
    "sampler",
    [
        {"type": "swaps", "startup": 1},
        {"type": "tpe", "startup": 1},
        {"type": "evolution", "population": 2, "tournament": 2},
        {"type": "greedy-addition"},
    ],
    ids=lambda one: one["type"],
)
def test_placements_are_proposed_by_any_sampler(search: Path, sampler: dict[str, Any]) -> None:
    places = {"layers": {"subset": {"of": "num_layers", "size": [0, 2]}}}
    changed(search, sampler=sampler, variables=places, baseline=None)
    study = create_study(load_search_spec(search), search.parent, out=search.parent / "study")
    assert work(study.folder, "here") == 0
    data = read_study(study.folder)
    assert data.finished and len({tuple(trial.params["layers"]) for trial in data.completed}) == 4


def test_the_shipped_search_runs(tmp_path: Path) -> None:
    path = resolve_spec_path("layers-of-weights", "search")
    small = ["budget.trials=2", "eval_tokens=4096", "report_lengths=[256]", "confirm=null", "baseline=null"]
    study = create_study(load_search_spec(path, small), path.parent, out=tmp_path / "study")
    assert work(study.folder, "here") == 0
    assert [(trial.state, trial.tokens) for trial in read_study(study.folder).trials] == [("complete", 0)] * 2
