"""lm-evaluation-harness with our models: local tasks through its own code, compared with ours and with its `hf`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import attention, enliven, tiny_spec
from hf_tokenizers import BOS, EOT, folder_of, tokenizer_json
from likelihoods import confident, naive
from paths import ROOT
from tiny import run_cli

import miniwin
from miniwin.commands.lm_eval import with_model
from miniwin.evaluation.streamed_loss import position_losses
from miniwin.language_model import LanguageModel
from miniwin.specs import UserError
from miniwin.tokenizer import ByteTokenizer
from miniwin.zoo.exporting import export_model
from miniwin.zoo.importing import import_model

# The harness is imported where it is needed: each process of the suite reads this file, and one runs it.
pytestmark = pytest.mark.skipif(find_spec("lm_eval") is None, reason="lm-eval is not installed here")

TASKS = ROOT / "tests" / "fixtures" / "lm-eval"
DOCS = [json.loads(line) for line in (TASKS / "shop.jsonl").read_text().splitlines()]
NAMES = ["shop_choice", "shop_text", "shop_write"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """At the root, from where the tasks name their file; without the harness's own 14,000 tasks, read in seconds."""
    import datasets
    import lm_eval.evaluator
    import lm_eval.tasks

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr(lm_eval.tasks, "TaskManager", partial(lm_eval.tasks.TaskManager, include_defaults=False))
    monkeypatch.setattr(lm_eval.evaluator, "add_env_info", lambda results: None)  # asks other programs for a second
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def evaluated(model: Any, **options: Any) -> dict[str, list[Any]]:
    """What the harness recorded of each document of each task: what it asked, and what the model answered."""
    import lm_eval.evaluator
    import lm_eval.tasks

    tasks = lm_eval.tasks.TaskManager(include_path=str(TASKS))
    results = lm_eval.evaluator.simple_evaluate(
        model, tasks=NAMES, task_manager=tasks, bootstrap_iters=0, log_samples=True, **options
    )
    assert results is not None
    return {
        name: [(sample["arguments"], sample["resps"]) for sample in results["samples"][name]]
        for name in results["samples"]
    }


def requests(kind: Any, *arguments: tuple[Any, ...]) -> list[Any]:
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, one, number) for number, one in enumerate(arguments)]


def harnessed(*arguments: Any, **options: Any) -> Any:
    """`MiniWinLM(...)`."""
    from miniwin.evaluation.lm_eval_model import MiniWinLM

    return MiniWinLM(*arguments, **options)


def nats_of(model: LanguageModel, text: str) -> float:
    """As `miniwin eval` measures a text behind a document separator."""
    ids = np.frombuffer(b"\0" + text.encode(), dtype=np.uint8)
    return float(position_losses(model, ids, len(ids) - 1, len(ids) - 1).nats.sum())


# -- log-likelihoods


@pytest.mark.parametrize("batch_size", [1, "auto"])
def test_a_local_task_has_our_own_log_likelihoods(batch_size: Any) -> None:
    """Those of one plain pass over context and choice, and those of `miniwin eval` for whole texts."""
    model = confident()
    found = evaluated(harnessed(model, batch_size=batch_size))
    for doc, (_, answers) in zip(DOCS, found["shop_choice"], strict=True):
        for choice, ((likelihood, greedy),) in zip(doc["choices"], answers, strict=True):
            separated = f" {choice}"  # as the harness joins them
            pair = list((doc["question"] or "\0").encode()), list(separated.encode())
            expected = naive(model, pair)
            assert likelihood == pytest.approx(-expected.nats, rel=1e-5) and greedy == expected.greedy
    for doc, (_, ((likelihood,),)) in zip(DOCS, found["shop_text"], strict=True):
        assert likelihood == pytest.approx(-nats_of(model, doc["text"]), rel=1e-5)


def test_the_numbers_are_those_of_hf(tmp_path: Path) -> None:
    """The same model, exported as a llama, in the harness's own model class for transformers."""
    pytest.importorskip("accelerate")
    rope = attention(None, {"type": "rope", "rope_theta": 1e4})
    spec = tiny_spec({"X": rope}, vocab_size=256, tie_word_embeddings=False)
    torch.manual_seed(0)
    model = LanguageModel(enliven(spec.build()).eval(), spec, ByteTokenizer())
    with torch.no_grad():  # it writes letters: half a character is shown by one, and not by the other
        model.decoder.head.weight[: ord("a")] *= 1e-3
        model.decoder.head.weight[ord("z") :] *= 1e-3
    assert export_model(model, tmp_path / "llama", "stock").architecture == "llama"
    for length in (2048, 48):  # the second cuts texts
        options = {"max_length": length, "batch_size": 2}
        ours = evaluated(harnessed(model, **options))
        hf = {"pretrained": str(tmp_path / "llama"), **options, "dtype": "float32"}
        theirs = evaluated("hf", model_args=hf | {"device": "cpu"})
        for task in NAMES:
            for (asked, answers), (same, others) in zip(ours[task], theirs[task], strict=True):
                assert asked == same
                for (one,), (other,) in zip(answers, others, strict=True):
                    if task == "shop_write":
                        assert one == other
                    else:
                        assert np.ravel(one) == pytest.approx(np.ravel(other), rel=1e-4, abs=1e-4)


def test_a_text_longer_than_the_model_may_see() -> None:
    """A context loses its beginning. A rolling likelihood predicts each token once, with as much before it as fits."""
    model, lm = confident(), harnessed(confident(), max_length=10)
    context, continuation = "the quick brown fox", " jumps"
    ((likelihood, _),) = lm.loglikelihood(requests("loglikelihood", (context, continuation)))
    kept = list((context + continuation).encode())[-11:]
    assert likelihood == pytest.approx(-naive(model, (kept[:5], kept[5:])).nats, rel=1e-5)
    text = b"\0" + b"abcdefghijklmnopqrstuvwxy"  # 25 tokens: windows of 10, 10 and 5
    (rolling,) = lm.loglikelihood_rolling(requests("loglikelihood_rolling", (text[1:].decode(),)))
    parts = ((text[:1], text[1:11]), (text[10:11], text[11:21]), (text[15:21], text[21:]))
    assert rolling == pytest.approx(-sum(naive(model, (list(a), list(b))).nats for a, b in parts), rel=1e-5)
    unbounded = harnessed(model).loglikelihood_rolling(requests("loglikelihood_rolling", ("x" * 5000,), ("",)))
    assert unbounded == [pytest.approx(-nats_of(model, "x" * 5000), rel=1e-5), 0.0]


def test_an_imported_model_reads_its_bos_once(tmp_path: Path) -> None:
    """Before contexts and texts, written out or not; never predicted. Special tokens in a text are these tokens."""
    source = folder_of(tmp_path / "hf", tokenizer_json(f"{BOS} $A"), {"eos_token_id": 2, "bos_token_id": 1})
    import_model(source, tmp_path / "in")
    lm = harnessed(str(tmp_path / "in"))
    model = miniwin.load(tmp_path / "in")
    assert model.tokenizer is not None

    def plain(text: str) -> list[int]:
        assert model.tokenizer is not None
        return model.tokenizer.encode_prompt(text, begins=False)

    assert lm.prefix_token_id == 1 and plain(BOS) == [1] and plain(EOT) == [3] and lm.eot_token_id == 2
    asked = [
        ("The capital", " of France"),
        (f"{BOS}The capital", " of France"),
        (f"hello{EOT}", " there"),
        ("", "city"),
    ]
    expected = [
        ([1, *plain("The capital")], plain(" of France")),
        ([1, *plain("The capital")], plain(" of France")),
        ([1, *plain("hello"), 3], plain(" there")),
        ([1], plain("city")),
    ]
    for (likelihood, _), pair in zip(lm.loglikelihood(requests("loglikelihood", *asked)), expected, strict=True):
        assert likelihood == pytest.approx(-naive(model, pair).nats, rel=1e-5)
    (rolling,) = lm.loglikelihood_rolling(requests("loglikelihood_rolling", ("hello there",)))
    assert rolling == pytest.approx(-naive(model, ([1], plain("hello there"))).nats, rel=1e-5)


def test_the_cache_of_the_harness_keeps_answers(tmp_path: Path) -> None:
    """Of each batch as soon as it is done, so that a run that was killed goes on behind it."""
    from lm_eval.api.model import CachingLM

    asked = requests("loglikelihood", ("a", "b"), ("a", "bc"))
    lm = harnessed(confident())
    cached = CachingLM(lm, str(tmp_path / "answers.db"))
    first = lm.loglikelihood(asked[:1])
    assert len(cached.dbdict) == 1
    lm._model.decoder.forward = None  # type: ignore[assignment, method-assign]
    assert cached.loglikelihood(asked[:1]) == first


# -- generated text


def test_texts_are_those_of_generate() -> None:
    model = confident()
    lm = harnessed(model, batch_size=2)
    plain = {"until": [], "max_gen_toks": 12}
    prompts = ["The baker", "A", "", "x" * 30]
    texts = lm.generate_until(requests("generate_until", *((prompt, plain) for prompt in prompts)))
    assert texts == [model.generate(prompt, max_new_tokens=12, temperature=0.0) for prompt in prompts]
    stop = texts[0][4:6]
    stopped = lm.generate_until(requests("generate_until", ("The baker", plain | {"until": ["", stop]})))
    assert stopped == [texts[0][: texts[0].index(stop)]]
    short = harnessed(model, max_length=20)
    (text,) = short.generate_until(requests("generate_until", ("x" * 7 + "yz" * 6, plain)))
    assert text == model.generate("yz" * 4, max_new_tokens=12, temperature=0.0)


def test_sampled_texts_follow_the_seed_of_the_harness() -> None:
    lm = harnessed(miniwin.build("miniwin-tiny"), batch_size="auto")
    asked = requests("generate_until", *[("A", {"do_sample": True, "temperature": 1.0, "max_new_tokens": 20})] * 3)
    torch.manual_seed(4)
    texts = lm.generate_until(asked)
    assert len(set(texts)) == 3  # a task that repeats a request wants several answers
    torch.manual_seed(4)
    assert lm.generate_until(asked) == texts
    torch.manual_seed(5)
    assert lm.generate_until(asked) != texts
    nearly_greedy = {"do_sample": True, "top_k": 1, "max_gen_toks": 20}
    greedy = {"max_gen_toks": 20, "top_p": 0.1}  # not sampled: the settings of sampling say nothing
    assert len(set(lm.generate_until(requests("generate_until", ("A", nearly_greedy), ("A", greedy))))) == 1


def test_how_a_task_is_sampled() -> None:
    lm = harnessed(confident(), max_gen_toks=9)
    default = {"max_new_tokens": 9, "stop": (), "temperature": 0.0}
    assert lm._options({}) == default
    assert lm._options({"temperature": 0.5}) == default | {"temperature": 0.5}
    assert lm._options({"do_sample": True}) == default | {"temperature": 1.0}
    assert lm._options({"do_sample": False, "temperature": 0.5, "num_beams": 1}) == default
    sampled = {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "top_k": 5, "min_p": 0.1}
    expected = {name: value for name, value in sampled.items() if name != "do_sample"}
    assert lm._options(sampled | {"max_tokens": 3, "until": "x"}) == default | expected | {
        "max_new_tokens": 3,
        "stop": ("x",),
    }


# -- the command, and what it refuses


def test_the_command_runs_tasks_of_a_folder(tmp_path: Path) -> None:
    arguments = ["--model_args", "pretrained=miniwin-tiny,device=cpu,dtype=float32", "--include_path", str(TASKS)]
    code, out, err = run_cli("lm-eval", *arguments, "--tasks", "shop_choice", "--output_path", str(tmp_path / "made"))
    assert code == 0, err
    assert "miniwin ({'pretrained': 'miniwin-tiny'" in out and "|shop_choice|" in out
    (written,) = (tmp_path / "made").rglob("results_*.json")
    config = json.loads(written.read_text())["config"]
    assert (
        config["model"] == "miniwin"
        and config["model_num_parameters"] == miniwin.build("miniwin-tiny").spec.parameters()
    )


@pytest.mark.parametrize(
    ("model_args", "said"),
    [
        ("pretrained=nowhere", "nowhere"),
        ("device=cpu", "--model_args: expected pretrained=REF"),
        ("pretrained=miniwin-tiny,dtyp=float32", "--model_args: dtyp: not known; expected some of pretrained, device"),
        ("pretrained=miniwin-tiny,dtype=float33", "float33"),
        ("pretrained=miniwin-tiny,max_length=0", "max_length: expected a whole number of at least 1, got 0"),
        ("pretrained=miniwin-tiny,batch_size=few", "batch_size: expected auto or a whole number of at least 1"),
        ("pretrained=miniwin-tiny,max_length=2", "max_length: 2 tokens have no room for a continuation of 6: ' bread'"),
    ],
)
def test_a_wrong_argument_is_one_message(model_args: str, said: str) -> None:
    code, out, err = run_cli(
        "lm-eval", "--model_args", model_args, "--include_path", str(TASKS), "--tasks", "shop_choice"
    )
    assert code == 2 and "Traceback" not in err and not out
    (message,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert said in message


def test_a_task_that_the_harness_does_not_know() -> None:
    code, _, err = run_cli("lm-eval", "--model_args", "pretrained=miniwin-tiny", "--tasks", "no_such_task")
    assert code == 2 and err.splitlines()[-1] == "error: lm_eval: Tasks not found: no_such_task"


def test_what_our_models_cannot_do() -> None:
    spec = tiny_spec({"X": attention(None, {"type": "nope"})}, vocab_size=50)
    with pytest.raises(UserError, match="has no tokenizer, so it cannot read the texts of a task"):
        harnessed(miniwin.build(spec))
    lm = harnessed(confident(), max_length=30)
    with pytest.raises(UserError, match="has no chat template; leave out --apply_chat_template"):
        evaluated(lm, apply_chat_template=True)
    with pytest.raises(UserError, match="generation_kwargs: num_beams, penalty_alpha: not known to MiniWin"):
        lm.generate_until(requests("generate_until", ("A", {"num_beams": 4, "penalty_alpha": 0.6})))
    with pytest.raises(UserError, match="30 tokens have no room for a prompt and 30 new tokens"):
        lm.generate_until(requests("generate_until", ("A", {"max_gen_toks": 30})))
    with pytest.raises(UserError, match="the continuation '' has no token of its own"):
        lm.loglikelihood(requests("loglikelihood", ("A", "")))


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "lm_eval"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    code, _, err = run_cli("lm-eval", "--tasks", "shop_choice")
    assert code == 2 and err.startswith("error: lm-eval needs lm-evaluation-harness (")
    assert err.endswith("pip install 'miniwin[lm-eval]'\n")


def test_a_model_is_named_only_where_none_is() -> None:
    ours = ["--model", "miniwin"]
    assert with_model(["--tasks", "a"]) == ["--tasks", "a", *ours]
    assert with_model(["run", "--tasks=a"]) == ["run", "--tasks=a", *ours]
    for other in (["--model", "hf"], ["--model=hf"], ["-M", "hf"], ["--config", "x.yaml"], ["-C", "x.yaml"]):
        assert with_model(["--tasks", "a", *other]) == ["--tasks", "a", *other]
    assert with_model(["ls", "tasks"]) == ["ls", "tasks"]
