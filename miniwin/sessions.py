"""A session: everything that a model remembers of a context, to continue later, also in another process.

The file is safetensors. Its tensors are the caches of the layers. Its metadata are the tokens that are not in the cache
yet, the hash of the spec and a digest of the weights. A cache means something only to the model that filled it, so a
session of another model is refused. A session is saved as a whole or not at all.

    session = new_session(model)
    generate(model, "Once upon a time", session=session)
    save_session(session, model, "story.safetensors")
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from miniwin.blocks import Cache
from miniwin.files.json_files import JSONProblem, parse_json
from miniwin.files.tensor_files import readable
from miniwin.files.writing import replacing
from miniwin.inference import InferenceModel
from miniwin.specs import UserError, user_path
from miniwin.tokenizer.stream import CONTEXT

KIND = "miniwin-session"
FORMAT = 1


@dataclass
class Session:
    """cache: of one row. pending: ids that the cache does not hold yet. tail: the last few ids of the context."""

    cache: Cache
    dtype: str  # what the cache was asked to store
    pending: list[int] = field(default_factory=list)
    tail: list[int] = field(default_factory=list)
    spec: str | None = None  # hash of the spec of the model that fills the cache
    owner: weakref.ref[InferenceModel] | None = field(default=None, repr=False, compare=False)  # that model
    # The ids of the context, as far as this process has heard them: guesses are looked up in them. Never saved.
    known: list[int] = field(default_factory=list, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "owner": None}  # a reference means nothing in another process

    @property
    def tokens(self) -> int:
        """Tokens of the context so far, pending ones included."""
        return self.cache.length + len(self.pending)

    def append(self, ids: Sequence[int]) -> None:
        """Add ids to the context. They are pending until the model has read them."""
        self.pending = [*self.pending, *ids]
        self.known.extend(ids)
        self.tail = [*self.tail, *ids][-CONTEXT:]

    def consumed(self, count: int) -> None:
        """The first `count` pending ids are in the cache now."""
        self.pending = self.pending[count:]


def new_session(model: InferenceModel, cache_dtype: str | torch.dtype | None = None) -> Session:
    """An empty session. cache_dtype: what its cache stores; by default the dtype of the weights."""
    dtype = str(cache_dtype or model.dtype).removeprefix("torch.")
    return Session(model.new_cache(1, dtype=cache_dtype), dtype, spec=model.spec.hash, owner=weakref.ref(model))


def check_owner(session: Session, model: InferenceModel) -> None:
    """Raise UserError for a session that another model filled. The same model, loaded again, may continue it."""
    owner = None if session.owner is None else session.owner()
    if owner is model:
        return
    if session.spec not in (None, model.spec.hash):
        whose = owner.ref if owner is not None else "another model"
        raise UserError(f"session: it belongs to {whose}, another architecture than {model.ref}; give a new_session")
    if owner is not None and weights_digest(owner) != weights_digest(model):
        raise UserError(
            f"session: it belongs to {owner.ref}, with other weights than those of {model.ref}; give a new_session"
        )
    session.owner = weakref.ref(model)  # so that the weights are compared only once


def save_session(session: Session, model: InferenceModel, path: str | PathLike[str]) -> None:
    """Write the session to a file, which `load_session` reads.

    Raises:
        UserError: the session is another model's, or a failed call left it halfway, or the file cannot be written.
    """
    check_owner(session, model)
    if session.cache.halfway:
        raise UserError("the session was left halfway by a call that failed, so it cannot be saved")
    about = {
        "kind": KIND,
        "format": FORMAT,
        "model": model.ref,
        "spec": model.spec.hash,
        "weights": weights_digest(model),
        "dtype": session.dtype,
        "tokens": session.cache.length,
        "given": session.cache.given,
        "pending": session.pending,
        "tail": session.tail,
    }
    held = {name: tensor.cpu().contiguous() for name, tensor in session.cache.held().items()}
    with replacing(user_path(path)) as temporary:
        temporary.write_bytes(save(held, metadata={"session": json.dumps(about)}))


def load_session(model: InferenceModel, path: str | PathLike[str]) -> Session:
    """The session that a file holds, for `model` to continue.

    Raises:
        UserError: the file is missing, damaged or not a session, or the session is another model's.
    """
    path = user_path(path)
    try:
        with readable(path) as name, safe_open(name, framework="pt") as file:
            about = _about(path, (file.metadata() or {}).get("session"))
            _check_model(path, about, model)
            session = new_session(model, about["dtype"])
            _fill(path, session.cache, about["tokens"], {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot read a session: {error}") from None
    session.cache.given = about["given"]
    session.pending, session.tail = about["pending"], about["tail"]
    session.known = list(session.tail)
    return session


def weights_digest(model: InferenceModel) -> str:
    """SHA-256 of all weights, with their names, dtypes and shapes."""
    digest = sha256()
    for name, tensor in sorted(model.decoder.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _fill(path: Path, cache: Cache, tokens: int, saved: dict[str, Tensor]) -> None:
    """Put the saved tensors into an empty cache, as `tokens` tokens."""
    cache.reserve(tokens)
    cache.set_length(tokens)
    room = cache.held()
    for name in sorted({*room, *saved}):
        want, got = ((t.shape, t.dtype) if t is not None else None for t in (room.get(name), saved.get(name)))
        if want != got:
            raise UserError(f"{path}: {name}: got {got}; this model keeps {want}. Is the file damaged?")
        room[name].copy_(saved[name])


def _about(path: Path, text: str | None) -> dict[str, Any]:
    try:
        about = parse_json(text or "", names=True)
    except JSONProblem:
        about = None
    if not isinstance(about, dict) or about.get("kind") != KIND:
        raise UserError(f"{path}: it is not a session; save_session writes one, or generate --save-session")
    if about.get("format") != FORMAT:
        raise UserError(f"{path}: got a session of format {about.get('format')!r}; this version reads {FORMAT}")
    kinds: dict[str, type] = dict.fromkeys(("model", "spec", "weights", "dtype"), str)
    kinds |= {"tokens": int, "given": bool, "pending": list, "tail": list}
    for name, kind in kinds.items():
        if type(about.get(name)) is not kind:
            raise UserError(f"{path}: {name}: got {about.get(name)!r}; the file is damaged")
    return about


def _check_model(path: Path, about: dict[str, Any], model: InferenceModel) -> None:
    if about["spec"] != model.spec.hash:
        raise UserError(f"{path}: it is a session of {about['model']}, another architecture than {model.ref}")
    if about["weights"] != weights_digest(model):
        raise UserError(f"{path}: it is a session of {about['model']} with other weights than those of {model.ref}")
    size = model.spec.vocab_size
    for token in (*about["pending"], *about["tail"]):
        if type(token) is not int or not 0 <= token < size:
            raise UserError(f"{path}: got the id {token!r}; the file is damaged")
    if about["tokens"] < 0:
        raise UserError(f"{path}: tokens: got {about['tokens']}; the file is damaged")
