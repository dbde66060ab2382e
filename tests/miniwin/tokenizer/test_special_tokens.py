"""Special tokens of imported models, held to transformers: what a prompt becomes, and where a text ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hf_tokenizers import BOS, EOS, EOT, folder_of, tokenizer_json
from tiny import run_cli

import miniwin
from miniwin.data import prepare
from miniwin.evaluation.recall import recall_at
from miniwin.evaluation.streamed_loss import position_losses
from miniwin.generation import generate, generate_batch
from miniwin.language_model import LanguageModel
from miniwin.sessions import load_session, new_session, save_session
from miniwin.specs import UserError
from miniwin.specs.data import TextData
from miniwin.tokenizer import load_tokenizer
from miniwin.zoo.exporting import export_model
from miniwin.zoo.importing import import_model

TEXTS = (
    "The capital of France is",
    "",
    f"{BOS}twice",
    f"hello{EOT}{EOS} there",
    f"  {EOT}  spaces \n<|eot_id> not one",
    "naïve café 文字",
)


def theirs(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def rule_the_head(model: LanguageModel, ids: list[int]) -> LanguageModel:
    """After the id i the model says ids[i]: it reads it off the embedding, whatever else it computes."""

    def says(x: torch.Tensor, **_: Any) -> torch.Tensor:
        return torch.nn.functional.one_hot(torch.tensor(ids)[x], model.spec.vocab_size).float()

    monkey: Any = model.decoder
    real = monkey.forward

    def forward(input_ids: torch.Tensor, **options: Any) -> torch.Tensor:
        real(input_ids, **options)  # the cache grows as it should
        keep = options.get("logits_to_keep") or input_ids.shape[1]
        return says(input_ids[:, -keep:])

    monkey.forward = forward
    return model


# -- what a prompt becomes


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize("template", [f"{BOS} $A", f"{BOS} {EOT} $A {EOS}", f"$A {EOS}", None])
def test_prompts_are_the_ids_of_transformers(tmp_path: Path, kind: str, template: str | None) -> None:
    """Through import, load, export and import again; a special token in a prompt is that token."""
    source = folder_of(tmp_path / "hf", tokenizer_json(template, kind=kind), {"eos_token_id": 2})
    import_model(source, tmp_path / "in")
    model = miniwin.load(tmp_path / "in")
    export_model(model, tmp_path / "out")
    import_model(tmp_path / "out", tmp_path / "again")
    again = miniwin.load(tmp_path / "again")
    for text in TEXTS:
        expected = theirs(source)(text)["input_ids"]
        assert theirs(tmp_path / "out")(text)["input_ids"] == expected
        for one in (model, again):
            assert one.tokenizer is not None and one.tokenizer.encode_prompt(text) == expected
    if kind == "unigram" or template is None:
        return
    # And they are what the model is given: greedy, ours goes on as theirs does.
    from transformers import AutoModelForCausalLM

    prompt = TEXTS[0]
    peer = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float64)
    ids = theirs(source)(prompt, return_tensors="pt")["input_ids"]
    wanted = peer.generate(ids, max_new_tokens=6, do_sample=False, eos_token_id=None, pad_token_id=0)[0, ids.shape[1] :]
    found = generate(model.double(), prompt, max_new_tokens=6, temperature=0.0)
    assert found.ids == wanted.tolist() and found.prompt_tokens == ids.shape[1]
    both = generate_batch(model, [prompt, f"{EOT} more"], max_new_tokens=6, temperature=0.0)
    assert both[0].ids == found.ids


@pytest.mark.parametrize("template", [f"{BOS} $A", None])
def test_the_post_processor_decides_as_in_transformers(tmp_path: Path, template: str | None) -> None:
    """Beside a tokenizer.json, transformers does not look at add_bos_token, whatever older versions did."""
    flags = {"add_bos_token": template is None, "add_eos_token": True}
    source = folder_of(tmp_path / "hf", tokenizer_json(template), {}, **flags)
    import_model(source, tmp_path / "in")
    tokenizer = miniwin.load(tmp_path / "in").tokenizer
    assert tokenizer is not None
    for text in TEXTS:
        assert tokenizer.encode_prompt(text) == theirs(source)(text)["input_ids"]


def test_a_session_begins_once(tmp_path: Path) -> None:
    """<bos> stands at its beginning, and nowhere else; also where it is saved and goes on in another process."""
    import_model(folder_of(tmp_path / "hf", tokenizer_json(), {}), tmp_path / "in")
    model = miniwin.load(tmp_path / "in").double()
    session = new_session(model)
    first = generate(model, "The capital", max_new_tokens=3, temperature=0.0, session=session)
    save_session(session, model, tmp_path / "s.safetensors")
    session = load_session(model, tmp_path / "s.safetensors")
    second = generate(model, f" of{EOT}", max_new_tokens=3, temperature=0.0, session=session)
    peer = theirs(tmp_path / "hf")
    said = peer("The capital")["input_ids"] + first.ids + peer(f" of{EOT}", add_special_tokens=False)["input_ids"]
    assert second.ids == generate(model, said, max_new_tokens=3, temperature=0.0).ids
    assert first.prompt_tokens == len(peer("The capital")["input_ids"])
    many = [new_session(model), load_session(model, tmp_path / "s.safetensors")]
    both = generate_batch(model, ["The capital", f" of{EOT}"], max_new_tokens=3, temperature=0.0, sessions=many)
    assert [one.ids for one in both] == [first.ids, second.ids]


def test_evaluation_is_after_bos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every window's loss is transformers' of the same ids with <bos> in front, in one pass and in chunks."""
    from transformers import AutoModelForCausalLM

    source = folder_of(tmp_path / "hf", tokenizer_json(f"{BOS} {EOT} $A"), {"eos_token_id": [2, 3]})
    import_model(source, tmp_path / "in")
    model = miniwin.load(tmp_path / "in").double()
    assert model.tokenizer is not None
    (tmp_path / "text.txt").write_text(f"The capital of France {EOT} is a city. hello there\n" * 40)
    corpus = prepare(TextData(paths=("text.txt",)), model.tokenizer, base=tmp_path)
    assert 3 not in corpus.valid.tolist()[:-1], "in a data file, text is only text"
    valid, length, tokens = np.asarray(corpus.valid).astype(np.int64), 12, 30
    peer = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float64)
    expected = np.zeros(length)
    for start in range(0, tokens, length):
        window = torch.from_numpy(valid[start : min(start + length, tokens) + 1])
        ids = torch.cat((torch.tensor([1, 3]), window))[None]
        logits = peer(ids[:, :-1]).logits[0, 2:]
        nats = torch.nn.functional.cross_entropy(logits, window[1:], reduction="none")
        expected[: len(nats)] += nats.detach().numpy()
    for chunk in (None, 5):
        found = position_losses(model, corpus.valid, length, tokens, chunk)
        # float32 logits on our side
        np.testing.assert_allclose(found.nats, expected, rtol=0, atol=2e-4)
    seen: list[torch.Tensor] = []
    hook = model.decoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    recall_at(model, 170, sequences=1)
    hook.remove()
    assert seen[0].shape == (1, 172) and seen[0][0, :2].tolist() == [1, 3]


def test_models_trained_here_read_prompts_as_before(tmp_path: Path) -> None:
    """The same tokenizer.json in a run: no <bos>, and special tokens written in text are text."""
    (tmp_path / "tokenizer.json").write_text(tokenizer_json())
    tokenizer = load_tokenizer(tmp_path)
    for text in TEXTS:
        assert tokenizer.encode_prompt(text) == tokenizer.encode(text)
        assert not {1, 2, 3} & set(tokenizer.encode(text))
    assert tokenizer.prefix == () and tokenizer.separator == 2
    byte = load_tokenizer("byte")
    assert byte.encode_prompt("a", begins=True) == [97] and byte.prefix == ()


# -- where a text ends


@pytest.mark.parametrize(
    ("config", "generation", "ends"),
    [
        ({"eos_token_id": [2, 3]}, None, [2, 3]),
        ({"eos_token_id": 2}, {"eos_token_id": [3, 2]}, [2, 3]),
        ({}, {"eos_token_id": [3, 4]}, [3, 4]),
        ({"eos_token_id": None}, {}, [2]),
        ({"eos_token_id": 3}, None, [3]),
    ],
)
def test_every_id_that_ends_a_text_does(
    tmp_path: Path, config: dict[str, Any], generation: dict[str, Any] | None, ends: list[int]
) -> None:
    """In generation, in sessions and in batches; after an export transformers stops at the same ones."""
    from transformers import AutoModelForCausalLM, GenerationConfig

    names = {"bos_token_id": 1, "pad_token_id": 0}
    source = folder_of(tmp_path / "hf", tokenizer_json(), {**names, **config}, generation)
    import_model(source, tmp_path / "in")
    model = miniwin.load(tmp_path / "in")
    assert list(model.ends) == ends
    said: Any = ends if len(ends) > 1 else ends[0]
    for kind in ("stock", "custom"):
        export_model(model, tmp_path / kind, kind)  # type: ignore[arg-type]
        written = json.loads((tmp_path / kind / "config.json").read_text())
        assert {name: written[name] for name in (*names, "eos_token_id")} == {**names, "eos_token_id": said}
        peer = AutoModelForCausalLM.from_pretrained(tmp_path / kind, trust_remote_code=True)
        assert peer.generation_config.eos_token_id == said and peer.generation_config.bos_token_id == 1
        assert GenerationConfig.from_pretrained(tmp_path / kind).eos_token_id == said
    import_model(tmp_path / "stock", tmp_path / "again")
    assert miniwin.load(tmp_path / "again").special == model.special or config.get("eos_token_id") is None
    size = model.spec.vocab_size
    for end in ends:
        rule_the_head(model, [*range(1, size), end])  # counts up; the last id is followed by this end
        prompt = [size - 4]
        one = generate(model, prompt, max_new_tokens=20, temperature=0.0)
        assert (one.ids, one.ended) == ([size - 3, size - 2, size - 1], "separator")
        session = new_session(model)
        assert generate(model, prompt, max_new_tokens=20, temperature=0.0, session=session).ids == one.ids
        assert session.pending[-1] == end
        batch = generate_batch(model, [prompt, [size - 2]], max_new_tokens=20, temperature=0.0)
        assert [row.ids for row in batch] == [one.ids, [size - 1]]
        model = miniwin.load(tmp_path / "in")


def test_an_ordinary_token_may_end_texts_and_stays_ordinary(tmp_path: Path) -> None:
    """In an export too, where transformers would split prompts at a token that is named as the end."""
    text = tokenizer_json()
    word = json.loads(text)["model"]["vocab"]["h"]
    source = folder_of(tmp_path / "hf", text, {"eos_token_id": [word, 3]})
    import_model(source, tmp_path / "in")
    export_model(miniwin.load(tmp_path / "in"), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["eos_token_id"] == [word, 3]
    for prompt in ("the spaces there", *TEXTS):
        assert theirs(tmp_path / "out")(prompt)["input_ids"] == theirs(source)(prompt)["input_ids"]


def test_ends_count_without_a_tokenizer_and_may_be_said(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "hf", tokenizer_json(), {})
    import_model(source, tmp_path / "in", tokenizer="none", settings={"eos_token_id": [5, 9]})
    model = miniwin.load(tmp_path / "in")
    assert model.tokenizer is None and model.ends == (5, 9)
    size = model.spec.vocab_size
    rule_the_head(model, [*range(1, size), 9])
    assert generate(model, [7], max_new_tokens=9, temperature=0.0).ids == [8]


def test_documents_are_separated_by_the_models_own_end(tmp_path: Path) -> None:
    """The first of the usual names is only a guess; where the files speak, a document ends as they say."""
    text = tokenizer_json(None, special=("<|endoftext|>", BOS, EOS, EOT))
    source = folder_of(tmp_path / "hf", text, {"eos_token_id": [2, 3]})
    import_model(source, tmp_path / "in")
    tokenizer, plain = miniwin.load(tmp_path / "in").tokenizer, load_tokenizer(tmp_path / "in")
    assert tokenizer is not None and (plain.separator, tokenizer.separator) == (0, 2)
    assert tokenizer.identity != plain.identity, "another corpus"
    assert tokenizer.token_bytes(np.array([2])).tolist() == [1]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (
            "config.json",
            {"eos_token_id": "2"},
            r"config\.json: eos_token_id: got '2'; expected an id, or a list of ids",
        ),
        ("config.json", {"eos_token_id": [2, True]}, r"eos_token_id: got \[2, true\]; expected an id, or a list"),
        ("config.json", {"bos_token_id": [1]}, r"bos_token_id: got \[1\]; expected an id"),
        ("generation_config.json", {"eos_token_id": -2}, r"generation_config\.json: eos_token_id: got -2; expected"),
    ],
)
def test_special_tokens_that_are_not(tmp_path: Path, file: str, content: dict[str, Any], message: str) -> None:
    source = folder_of(tmp_path / "hf", tokenizer_json(), {}, {})
    said = json.loads((source / file).read_text()) | content
    (source / file).write_text(json.dumps(said))
    with pytest.raises(UserError, match=message):
        import_model(source, tmp_path / "in")
    assert not (tmp_path / "in").exists()


def test_ids_beyond_the_model_are_left_out_and_said(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "hf", tokenizer_json(), {"eos_token_id": [2, 9999], "pad_token_id": -1})
    made = import_model(source, tmp_path / "in")
    model = miniwin.load(tmp_path / "in")
    assert model.ends == (2,) and model.special is not None and model.special.pad is None
    assert any("eos_token_id: 9999 left out" in note for note in made.notes)


def test_an_earlier_import_and_a_damaged_record(tmp_path: Path) -> None:
    import_model(folder_of(tmp_path / "hf", tokenizer_json(), {"eos_token_id": [2, 3]}), tmp_path / "in")
    path = tmp_path / "in" / "import.json"
    record = json.loads(path.read_text())
    del record["special_ids"]
    path.write_text(json.dumps(record))
    model = miniwin.load(tmp_path / "in")
    assert model.ends == (2,) and model.tokenizer is not None
    assert model.tokenizer.encode_prompt("") == [1]
    for damage in ("[", "[]", json.dumps({**record, "special_ids": {"eos_token_id": ["x"]}})):
        path.write_text(damage)
        code, _, err = run_cli("generate", str(tmp_path / "in"))
        assert code == 2 and "import.json: cannot be read as the record of an import" in err
