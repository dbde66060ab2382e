"""The weights that every trial of a search begins with: those of a run, a zoo entry or an imported model.

study.json keeps under `weights` which model it is, with the sha256 of its file. Another file is refused, here and on
every other machine. What becomes of each tensor is in miniwin/training/weight_rules.py. The text is read by the
tokenizer of the weights, so a train spec leaves it out, or names the same one.

With 0 tokens a trial is these weights in another architecture. A process reads them once, and all its models share the
tensors; nothing is copied, and nothing is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from miniwin.references import ENTRY
from miniwin.runs import BEST, IMPORT, RUN
from miniwin.search.candidate import without_tokenizer
from miniwin.search.spec_errors import SpaceError
from miniwin.specs import ModelSpec, TrainSpec, UserError, user_path
from miniwin.specs.validation_errors import Problem

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from miniwin.blocks import Decoder
    from miniwin.data import Corpus
    from miniwin.language_model import LanguageModel
    from miniwin.tokenizer import Tokenizer
    from miniwin.training.origin import Origin
    from miniwin.training.start import Start
    from miniwin.training.weight_rules import Move


class FirstWeights:
    """The model that `record` is about: what study.json has. maps: `map` of the search spec. origin: the model, if it
    has been looked up already."""

    def __init__(self, record: Mapping[str, Any], maps: Sequence[str], origin: Origin | None = None) -> None:
        self.record, self.maps = dict(record), list(maps)
        self._tensors: tuple[torch.device, dict[str, Tensor]] | None = None
        self._fitting: dict[str, str | None] = {}  # by a model: why it does not fit
        if origin is not None:
            self.__dict__["origin"] = origin  # cached_property

    @classmethod
    def find(cls, ref: str, folder: Path, maps: Sequence[str]) -> FirstWeights:
        """What `weights: REF` of a search spec means. folder: where relative paths start.

        Raises:
            SpaceError: it is no model with weights.
        """
        from miniwin.training.origin import find_origin

        try:
            origin = find_origin(_beside(ref, folder) or ref)
        except UserError as error:
            raise SpaceError([Problem(("weights",), _said(error))]) from None
        lasting = str(user_path(origin.ref).absolute())
        if origin.found.entry is not None and not user_path(origin.ref).is_dir():
            lasting = origin.found.entry.ref  # with its version
        return cls({**origin.record(), "ref": lasting}, maps, origin)

    @property
    def ref(self) -> str:
        return str(self.record["ref"])

    @property
    def described(self) -> str:
        """Which weights, for a person."""
        licence = self.record.get("licence")
        return f"{self.ref} ({', '.join(filter(None, [self.record['kind'], licence]))})"

    @property
    def identity(self) -> tuple[str, ...]:
        """What of the weights decides a result."""
        return (self.record["sha256"], self.record["spec_hash"], *self.maps)

    @cached_property
    def origin(self) -> Origin:
        """The model itself, as this machine has it.

        Raises:
            UserError: it is not there, or its weights are not those that the study began with.
        """
        from miniwin.training.origin import find_origin

        try:
            origin = find_origin(self.ref)
        except UserError as error:
            raise UserError(
                f"the study begins with the weights of {self.ref}, which this machine does not have: {_said(error)}; "
                "put it there, under the same path or name"
            ) from None
        if changed := self.difference(origin.record()):
            raise UserError(
                f"the study begins with the weights of {self.ref}, and they are not what they were ({changed}): put "
                "them back, or search anew with another --out"
            )
        return origin

    def difference(self, now: Mapping[str, Any]) -> str | None:
        """How the weights of another record differ from these; None if they are the same. Files may move."""
        for name, shown in (("sha256", 12), ("spec_hash", 12)):
            if now[name] != self.record[name]:
                return f"{name} {self.record[name][:shown]} then, {now[name][:shown]} now"
        return None

    # -- the text

    def trained(self, train: TrainSpec, base: Path) -> TrainSpec:
        """A train spec as the study keeps it: without a tokenizer, which is that of the weights.

        Raises:
            SpaceError: it names another tokenizer.
        """
        from miniwin.training.before import tokenizer_of_weights

        try:
            tokenizer_of_weights(self.origin, train, train.resolved(base))
        except UserError as error:
            raise SpaceError([Problem(("train",), _said(error))]) from None
        return train if self.origin.tokenizer is None else without_tokenizer(train)

    def tokenizer(self, train: TrainSpec, base: Path) -> Tokenizer:
        """What reads the text: the tokenizer of the weights; of a vocabulary that is no text, that of the train
        spec."""
        from miniwin.training.before import tokenizer_of_weights

        return tokenizer_of_weights(self.origin, train, train.resolved(base))

    # -- candidates

    def check(self, model: ModelSpec, train: TrainSpec) -> None:
        """Nothing is read but the spec of the weights.

        Raises:
            UserError: the weights do not fit the model, and no map says what to do; or `lora` cannot be honoured.
        """
        from miniwin.training.adapter_targets import check_lora

        key = f"{model.hash} {train.lora}"
        if key not in self._fitting:
            why = None
            try:
                self._moves(model)
                if train.lora is not None and train.tokens:
                    check_lora(model, train, self.start(model))
            except UserError as error:
                why = _said(error)
            self._fitting[key] = why
        if why := self._fitting[key]:
            raise UserError(why)

    def start(self, model: ModelSpec) -> Start:
        """What a training of the model begins with."""
        from miniwin.training.start import Start

        return Start(self.origin, model, self.maps)

    def _moves(self, model: ModelSpec) -> list[Move]:
        import torch

        from miniwin.training.weight_rules import moves

        with torch.device("meta"):
            new = model.build()
        return moves(self._shapes, new, self.maps, (self.origin.ref, model.name))

    @cached_property
    def _shapes(self) -> Decoder:
        return self.origin.shapes()

    def model(self, spec: ModelSpec, train: TrainSpec, device: torch.device) -> LanguageModel:
        """The model that a training of 0 tokens would end with. Its tensors are shared with all others: only read them.

        Tensors that are fresh are drawn as that training would draw them.
        """
        from miniwin.language_model import LanguageModel
        from miniwin.machine.matmul_choice import settle

        decoder = self._decoder(spec, train, device)
        settle(decoder, device)
        origin = self.origin
        return LanguageModel(
            decoder.eval(), spec, origin.tokenizer, origin.ref, origin.folder, origin.special, origin.chat_format
        )

    def _decoder(self, spec: ModelSpec, train: TrainSpec, device: torch.device) -> Decoder:
        import torch

        tensors, moves = self._read(device), self._moves(spec)
        with torch.device("meta"):
            decoder = spec.build()
        wanted = decoder.state_dict()
        taken = {move.name: tensors[move.source][: move.rows] for move in moves if move.source is not None}
        whole = {name: tensor for name, tensor in taken.items() if tensor.shape == wanted[name].shape}
        if len(whole) == len(wanted):
            decoder.load_state_dict(whole, assign=True)
            return decoder
        with torch.random.fork_rng(devices=[]):  # some are fresh
            torch.manual_seed(train.seed)
            decoder = spec.build()
        with torch.no_grad():
            for name in taken.keys() - whole.keys():
                tensor = decoder.state_dict()[name]
                tensor[: len(taken[name])].copy_(taken[name])
        decoder.load_state_dict(whole, assign=True, strict=False)
        return decoder.to(device)

    def _read(self, device: torch.device) -> dict[str, Tensor]:
        """The weights on a device, read once."""
        from miniwin.weights import wide

        if self._tensors is None or self._tensors[0] != device:
            tensors = wide(self.origin.tensors())
            self._tensors = device, {name: _single(tensor).to(device) for name, tensor in tensors.items()}
        return self._tensors[1]


def prepared(train: TrainSpec, base: Path, weights: FirstWeights | None, **how: Any) -> tuple[Tokenizer, Corpus]:
    """The tokenizer of a search, and its text. base: where relative paths in the train spec start. how: as of
    `miniwin.data.prepare`."""
    from miniwin.data import prepare
    from miniwin.tokenizer import load_tokenizer

    if weights is None:
        tokenizer, chats = load_tokenizer(train.tokenizer, base), None
    else:
        tokenizer, chats = weights.tokenizer(train, base), weights.origin.chat_format
    return tokenizer, prepare(train.data, tokenizer, base, chat_format=chats, **how)


def _single(tensor: Tensor) -> Tensor:
    """In float32, as a training has its weights."""
    return tensor.float() if tensor.is_floating_point() else tensor


def _beside(ref: str, folder: Path) -> str | None:
    """The path of a model that lies beside the search spec; None if there is none."""
    near = folder / user_path(ref)
    found = near.name == BEST and near.is_file()
    found = found or any((near / name).is_file() for name in (RUN, IMPORT, ENTRY))
    return str(near.absolute()) if found else None


def _said(error: UserError) -> str:
    """The messages of `miniwin train --from`, as a search spec writes these things."""
    text = str(error).removeprefix("--from: ").replace("no --from for random", "no weights for random")
    return text.replace("--map '", "map: '").replace("--map ", "map: ").replace("--from", "weights")
