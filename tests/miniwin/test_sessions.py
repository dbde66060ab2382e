"""Sessions: saved and loaded, they go on as if nothing had happened; another model's and broken files are refused."""

from __future__ import annotations

import copy
import json
import pickle
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import GLOBAL, LOCAL, attention, enliven, tiny_spec
from safetensors.torch import load_file, safe_open, save_file
from tiny import run_cli, spec

import miniwin
from miniwin.generation import generate
from miniwin.language_model import LanguageModel
from miniwin.quantize import quantize
from miniwin.sessions import Session, load_session, new_session, save_session, weights_digest
from miniwin.specs import ModelSpec, UserError

BLOCKS = {
    "plain": {"S": attention(7, LOCAL), "G": attention(None, GLOBAL)},
    "kept": {"S": attention(7, LOCAL, keep_first=3), "G": attention(None, {"type": "forgetting"})},
    "split": {"S": attention(None, {"type": "rope"}, windows=[None, 5]), "G": attention(None, GLOBAL)},
    "chunk": {"S": attention(None, LOCAL, chunk=7), "G": attention(None, {"type": "rope"})},
}


def made(model_spec: ModelSpec, seed: int = 0) -> LanguageModel:
    model = miniwin.build(model_spec, seed=seed).eval()
    enliven(model.decoder, seed)
    return model


@cache
def twins(name: str) -> tuple[LanguageModel, LanguageModel]:
    """One model, made twice."""
    return made(tiny_spec(BLOCKS[name])), made(tiny_spec(BLOCKS[name]))


@pytest.mark.parametrize("dtype", [None, "bfloat16", "int8"])
@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("first", [3, 25])
def test_a_saved_session_goes_on_as_one_that_was_not(name: str, dtype: str | None, first: int, tmp_path: Path) -> None:
    model, same = twins(name)
    prompts = [list(range(1, 1 + first)), [5, 6, 7], []]
    kept, saved = new_session(model, dtype), new_session(model, dtype)
    assert kept.tokens == 0
    for prompt in prompts:
        results = [generate(model, prompt, max_new_tokens=6, seed=2, session=session) for session in (kept, saved)]
        assert results[0].ids == results[1].ids
        save_session(saved, model, tmp_path / "s.safetensors")
        saved = load_session(same, tmp_path / "s.safetensors")
        assert (saved.tokens, saved.pending, saved.tail) == (kept.tokens, kept.pending, kept.tail)
        assert saved.cache.nbytes == kept.cache.nbytes
    assert kept.tokens == first + 3 + 3 * 6


def test_turns_equal_one_long_prompt() -> None:
    model = made(tiny_spec())
    session, said = new_session(model), []
    for prompt in ([1, 2, 3], [9] * 20, [4]):
        new = generate(model, prompt, max_new_tokens=7, temperature=0, session=session).ids
        said += prompt
        assert new == generate(model, said, max_new_tokens=7, temperature=0).ids
        said += new


def test_a_turn_cut_short_by_an_error_says_what_it_had_not_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    model = made(tiny_spec())
    session = new_session(model)
    monkeypatch.setattr("miniwin.generation.loop.chunk_for", lambda length: 4)
    forward, calls = model.forward, []

    def failing(*args: Any, **kwargs: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return forward(*args, **kwargs)

    monkeypatch.setattr(model, "forward", failing)
    with pytest.raises(KeyboardInterrupt):
        generate(model, list(range(10)), max_new_tokens=5, session=session)
    assert session.pending == [8, 9] and session.tokens == 10
    ids = generate(model, [], max_new_tokens=5, temperature=0, session=session).ids
    assert ids == generate(model, list(range(10)), max_new_tokens=5, temperature=0).ids


def saved(model: LanguageModel, path: Path) -> Session:
    session = new_session(model)
    generate(model, [1, 2, 3, 4, 5], max_new_tokens=4, seed=0, session=session)
    save_session(session, model, path)
    return session


def test_another_models_session_is_refused(tmp_path: Path) -> None:
    model, path = made(tiny_spec()), tmp_path / "s.safetensors"
    saved(model, path)
    with pytest.raises(UserError, match=r"it is a session of tiny.*, another architecture than tiny"):
        load_session(made(tiny_spec(BLOCKS["chunk"])), path)
    with pytest.raises(UserError, match="with other weights than those of tiny"):
        load_session(made(tiny_spec(), seed=1), path)
    assert weights_digest(model) == weights_digest(made(tiny_spec())) != weights_digest(made(tiny_spec(), seed=1))


def test_a_session_in_memory_is_its_models_too(tmp_path: Path) -> None:
    model = made(tiny_spec())
    session, longer = new_session(model), new_session(model)
    generate(model, [1, 2, 3], max_new_tokens=4, seed=0, session=session)
    other, trained = made(tiny_spec(BLOCKS["chunk"])), made(tiny_spec(), seed=1)
    before = session.tokens
    for wrong, said in ((other, "another architecture than tiny"), (trained, "with other weights than those of tiny")):
        with pytest.raises(UserError, match=f"session: it belongs to tiny.*{said}; give a new_session"):
            generate(wrong, [4], max_new_tokens=1, session=session)
        with pytest.raises(UserError, match=said):
            wrong.generate(["a", "b"], max_new_tokens=1, session=[new_session(wrong), longer])
        with pytest.raises(UserError, match=said):
            save_session(session, wrong, tmp_path / "s.safetensors")
    assert session.tokens == before and not any(tmp_path.iterdir())


def test_the_same_model_loaded_again_goes_on_with_a_session() -> None:
    model = made(tiny_spec())
    sessions = [new_session(model) for _ in range(3)]
    for session in sessions:
        generate(model, [1, 2, 3], max_new_tokens=4, seed=0, session=session)
    sessions[1] = copy.deepcopy(sessions[1])
    sessions[2] = pickle.loads(pickle.dumps(sessions[2]))
    with pytest.raises(UserError, match="another architecture than tiny"):
        generate(made(tiny_spec(BLOCKS["chunk"])), [4], session=sessions[2])
    again = made(tiny_spec())
    new = [
        generate(one, [4], max_new_tokens=5, seed=1, session=session).ids
        for one, session in zip((model, again, again), sessions, strict=True)
    ]
    assert new[0] == new[1] == new[2]


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    model, path = made(tiny_spec()), tmp_path / "s.safetensors"
    with pytest.raises(UserError, match="cannot read a session"):
        load_session(model, path)
    path.write_bytes(b"not safetensors")
    with pytest.raises(UserError, match="cannot read a session"):
        load_session(model, path)
    save_file({"x": torch.zeros(2)}, path)
    with pytest.raises(UserError, match="it is not a session; save_session writes one"):
        load_session(model, path)
    saved(model, path)
    tensors = load_file(path)
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["session"])

    def damage(message: str, facts: dict[str, Any], tensors: dict[str, torch.Tensor] = tensors) -> None:
        save_file(tensors, path, metadata={"session": json.dumps(about | facts)})
        with pytest.raises(UserError, match=message):
            load_session(model, path)

    damage("got a session of format 2; this version reads 1", {"format": 2})
    damage("pending: got 'x'; the file is damaged", {"pending": "x"})
    damage("got the id 99; the file is damaged", {"pending": [99]})
    damage("tokens: got -1; the file is damaged", {"tokens": -1})
    damage(r"layers\.1\.0: got .*; this model keeps .*Is the file damaged", {"tokens": about["tokens"] + 1})
    damage(r"dtype: got 'int3' for a cache", {"dtype": "int3"})
    damage(r"layers\.0\.1: got None; this model keeps", {}, {k: v for k, v in tensors.items() if k != "layers.0.1"})
    damage(r"layers\.9\.0: got .*; this model keeps None", {}, tensors | {"layers.9.0": torch.zeros(1)})


def test_saving_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, path = made(tiny_spec()), tmp_path / "s.safetensors"
    session = saved(model, path)
    before = path.read_bytes()

    def full(*args: Any, **kwargs: Any) -> bytes:
        raise OSError("no space left")

    monkeypatch.setattr("miniwin.sessions.save", full)
    with pytest.raises(OSError, match="no space left"):
        save_session(session, model, path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_session_left_halfway_is_not_saved(tmp_path: Path) -> None:
    model = made(tiny_spec())
    session = saved(model, tmp_path / "s.safetensors")
    session.cache.layers[0].length += 1
    with pytest.raises(UserError, match="left halfway by a call that failed, so it cannot be saved"):
        save_session(session, model, tmp_path / "s.safetensors")


def test_int8_weights_have_sessions_of_their_own(tmp_path: Path) -> None:
    model, path = quantize(made(tiny_spec())), tmp_path / "s.safetensors"
    session = saved(model, path)
    assert load_session(model, path).tokens == session.tokens
    with pytest.raises(UserError, match="with other weights than those of tiny"):
        load_session(made(tiny_spec()), path)


def test_a_session_of_a_float64_model_can_be_loaded(tmp_path: Path) -> None:
    model, path = made(tiny_spec()).double(), tmp_path / "s.safetensors"
    session = saved(model, path)
    loaded = load_session(model, path)
    assert loaded.dtype == "float64" and loaded.tokens == session.tokens
    new = [generate(model, [6], max_new_tokens=5, seed=1, session=one).ids for one in (session, loaded)]
    assert new[0] == new[1]


def test_a_session_has_its_dtype() -> None:
    model = made(tiny_spec())
    with pytest.raises(UserError, match="cache_dtype: got 'int8' with a session, whose cache has a dtype already"):
        generate(model, [1], session=new_session(model), cache_dtype="int8")


def test_the_command_saves_and_continues(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    settings = ["generate", "miniwin-tiny", "--seed", "0", "-n", "8"]
    code, out, _ = run_cli(*settings, "-p", "def main(", "--cache-dtype", "int8", "--save-session", str(path))
    assert code == 0 and path.exists()
    code, more, err = run_cli(*settings, "-p", "x = 1", "--load-session", str(path), "--save-session", str(path))
    assert code == 0 and more.startswith("x = 1") and "after a prompt of 5" in err
    model = miniwin.load("miniwin-tiny")
    session = load_session(model, path)
    assert session.dtype == "int8" and session.tokens == len("def main(") + len("x = 1") + 16
    code, out, err = run_cli(*settings, "--load-session", str(path), "--cache-dtype", "int8")
    assert code == 2 and "with a session, whose cache has a dtype already" in err
    code, out, err = run_cli(*settings, "--save-session", str(tmp_path / "no" / "s"))
    assert code == 2 and out == "" and "cannot write there; expected a file name" in err


def test_the_command_says_in_one_message_that_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("miniwin.sessions.save", full)
    path = tmp_path / "s"
    code, _, err = run_cli("generate", "miniwin-tiny", "-n", "1", "--save-session", str(path))
    said = "could not be written (No space left on device); make room there, or choose another place"
    assert code == 2 and err == f"error: {path}: {said}\n"


def test_text_goes_on_where_it_was_cut(tmp_path: Path) -> None:
    model = made(spec())
    session = new_session(model)
    first = generate(model, "é", max_new_tokens=9, temperature=0, session=session)
    again = generate(model, "", max_new_tokens=9, temperature=0, session=session)
    assert (first.ids + again.ids)[:18] == generate(model, "é", max_new_tokens=18, temperature=0).ids
