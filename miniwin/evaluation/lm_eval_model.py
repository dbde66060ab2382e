"""MiniWin's models in EleutherAI's lm-evaluation-harness (https://github.com/EleutherAI/lm-evaluation-harness).

Importing this file makes the name `miniwin` known there, and needs the extra `lm-eval`. `miniwin lm-eval` does so for
the harness's own command line. In Python:

    import miniwin.evaluation.lm_eval_model
    lm_eval.simple_evaluate(model="miniwin", model_args={"pretrained": "miniwin-1m"}, tasks=["lambada_openai"])

Numbers are those of the harness's model `hf`, with two exceptions. `max_length` has no default: our layers take any
length, so nothing is cut off unless it is given, or the model has learned positions (embed_positions). And a rolling
likelihood never predicts the <bos> in front of a text, as `miniwin eval` never does; `hf` predicts a second <bos> where
a tokenizer adds one.
"""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window, simple_parse_args_string
from tqdm import tqdm

from miniwin.blocks.messages.listing import some
from miniwin.evaluation.continuations import score_continuations
from miniwin.generation import generate_batch
from miniwin.generation.settings import Options, beginning
from miniwin.inference import chunk_for, rows_at_once
from miniwin.language_model import LanguageModel
from miniwin.loading import load
from miniwin.specs import UserError

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

UNBOUNDED = 2**31 - 1  # tokens
MAX_GEN_TOKS = 256  # the harness's default, where a task does not say
SAMPLING = ("temperature", "top_k", "top_p", "min_p")
IGNORED = {"num_beams": 1, "use_cache": True, "num_return_sequences": 1}  # what we do anyhow

log = logging.getLogger("lm_eval.miniwin")  # the harness shows what its own loggers say


@register_model("miniwin")
class MiniWinLM(TemplateLM):
    """A model that `miniwin.load` knows, as the harness asks for one."""

    def __init__(
        self,
        pretrained: str | Path | LanguageModel,
        *,
        device: str | torch.device = "cpu",
        dtype: str | None = None,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        max_length: int | None = None,
        max_gen_toks: int = MAX_GEN_TOKS,
    ) -> None:
        """pretrained: a zoo name, run folder, entry folder or model spec. dtype: as in `load`; auto: as it was saved.

        batch_size: texts side by side, or `auto`: as many as memory is meant to hold, and at most `max_batch_size`.
        max_length: tokens that the model sees at once. A longer text loses its beginning. Default: no bound.

        Raises:
            UserError: a setting is wrong, there is no such model, or it has no tokenizer.
        """
        super().__init__()
        self._rows = _rows(batch_size, max_batch_size)
        self._max_gen_toks = _whole("max_gen_toks", max_gen_toks)
        if isinstance(pretrained, LanguageModel):
            self._model = pretrained
        else:
            self._model = load(str(pretrained), device=device, dtype=None if dtype == "auto" else dtype)
        bound = self._model.spec.embed_positions or UNBOUNDED
        self._max_length = _whole("max_length", bound if max_length is None else max_length)
        if self._model.tokenizer is None:
            raise UserError(f"{self._model.ref} has no tokenizer, so it cannot read the texts of a task")
        self.tokenizer = self._model.tokenizer
        self._device = self._model.device

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: dict[str, Any], additional_config: dict[str, Any] | None = None
    ) -> MiniWinLM:
        """What the command line calls. `arg_dict` is --model_args, and wins over options such as --device."""
        known = [name for name in inspect.signature(cls.__init__).parameters if name != "self"]
        unknown = [name for name in arg_dict if name not in known]
        if unknown:
            raise UserError(f"--model_args: {some(unknown)}: not known; expected some of {', '.join(known)}")
        if "pretrained" not in arg_dict:
            raise UserError("--model_args: expected pretrained=REF: a zoo name, run folder, entry folder or model spec")
        options = {name: value for name, value in (additional_config or {}).items() if value is not None}
        if str(options.get("device")).startswith("cuda") and not torch.cuda.is_available():
            log.info("There is no CUDA here, and the harness asks for it by default. Using the CPU.")
            options["device"] = "cpu"
        return cls(**{**options, **arg_dict})

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: dict[str, Any] | None = None) -> MiniWinLM:
        return cls.create_from_arg_obj(simple_parse_args_string(arg_string), additional_config)

    @property
    def max_length(self) -> int:
        return self._max_length

    @property
    def max_gen_toks(self) -> int:
        return self._max_gen_toks

    @property
    def eot_token_id(self) -> int | None:
        return self._model.ends[0] if self._model.ends else None

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text without a context: an imported model's <bos>, or else the document separator."""
        return self.tokenizer.prefix[-1] if self.tokenizer.prefix else beginning(self._model)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """The ids of a text, special tokens that are written in it included, behind an imported model's prefix."""
        ids = self.tokenizer.encode_prompt(string, begins=False)
        prefix = list(self.tokenizer.prefix)
        begun = add_special_tokens is False or ids[: len(prefix)] == prefix
        return ids if begun else prefix + ids

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[tuple[str, str] | None, list[int], list[int]]],
        disable_tqdm: bool = False,
        **kwargs: Any,
    ) -> list[tuple[float, bool]]:
        pairs = [self._pair(text, context, continuation) for text, context, continuation in requests]
        answers: list[tuple[float, bool]] = [(0.0, False)] * len(pairs)
        with tqdm(total=len(pairs), disable=disable_tqdm, desc="Running loglikelihood requests") as bar:
            for batch in score_continuations(self._model, pairs, rows=self._rows):
                for number, found in batch:
                    answers[number] = (-found.nats, found.greedy)
                    if (text := requests[number][0]) is not None:
                        self.cache_hook.add_partial("loglikelihood", text, answers[number])
                bar.update(len(batch))
        return answers

    def _pair(
        self, text: tuple[str, str] | None, context: list[int], continuation: list[int]
    ) -> tuple[list[int], list[int]]:
        """The context, cut on the left where both are longer than `max_length`, and the continuation."""
        if not continuation:
            raise UserError(f"the continuation {text and text[1]!r} has no token of its own after its context")
        if len(continuation) > self.max_length:
            raise UserError(
                f"max_length: {self.max_length} tokens have no room for a continuation of {len(continuation)}: "
                f"{text and text[1]!r:.80}"
            )
        if context in ([], [self.prefix_token_id]):
            context = list(self.tokenizer.prefix) or [self.prefix_token_id]
        return context[-max(self.max_length + 1 - len(continuation), 1) :], continuation

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[float]:
        windows: list[tuple[None, list[int], list[int]]] = []
        owners: list[int] = []
        for number, request in enumerate(requests):
            ids = self.tok_encode(request.args[0], add_special_tokens=False)
            for window in get_rolling_token_windows(ids, self.prefix_token_id, self.max_length, context_len=1):
                windows.append((None, *make_disjoint_window(window)))
                owners.append(number)
        totals = [0.0] * len(requests)
        found = self._loglikelihood_tokens(windows, disable_tqdm=disable_tqdm)
        for owner, (likelihood, _) in zip(owners, found, strict=True):
            totals[owner] += likelihood
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        groups: dict[str, list[int]] = {}  # requests with the same settings are generated together
        for number, request in enumerate(requests):
            groups.setdefault(json.dumps(request.args[1], sort_keys=True, default=str), []).append(number)
        texts = [""] * len(requests)
        with tqdm(total=len(requests), disable=disable_tqdm, desc="Running generate_until requests") as bar:
            for numbers in groups.values():
                options = self._options(requests[numbers[0]].args[1])
                room = self.max_length - options["max_new_tokens"]
                if room < 1:
                    raise UserError(
                        f"max_length: {self.max_length} tokens have no room for a prompt and "
                        f"{options['max_new_tokens']} new tokens (max_gen_toks)"
                    )
                prompts = {number: self.tok_encode(requests[number].args[0])[-room:] for number in numbers}
                waiting = sorted(numbers, key=lambda number: len(prompts[number]), reverse=True)
                while waiting:
                    longest = max(len(prompts[waiting[0]]), 1)
                    most = rows_at_once(self._model, longest + options["max_new_tokens"], chunk_for(longest))
                    most = min(most, self._rows or most)
                    batch, waiting = waiting[:most], waiting[most:]
                    # The harness has seeded torch. Each text draws from a seed of its own: a task may repeat a request.
                    seeds = torch.randint(2**63 - 1, (len(batch),)).tolist()
                    made = generate_batch(self._model, [prompts[number] for number in batch], seeds=seeds, **options)
                    for number, generation in zip(batch, made, strict=True):
                        texts[number] = generation.text
                        self.cache_hook.add_partial("generate_until", requests[number].args, generation.text)
                    bar.update(len(batch))
        return texts

    def _options(self, given: Mapping[str, Any]) -> Options:
        """The settings of a task's `generation_kwargs` as `generate` has them."""
        settings: dict[str, Any] = dict(normalize_gen_kwargs(dict(given), self.max_gen_toks))
        sampled = settings.pop("do_sample")
        stops = tuple(stop for stop in settings.pop("until") if stop)
        options = Options(max_new_tokens=settings.pop("max_gen_toks"), stop=stops, temperature=0.0)
        for name in SAMPLING:
            if (value := settings.pop(name, None)) is not None and sampled:
                options[name] = value  # type: ignore[literal-required]
        if sampled and given.get("temperature") is None:
            options["temperature"] = 1.0
        others = [name for name, value in settings.items() if value is not None and IGNORED.get(name, ...) != value]
        if others:
            raise UserError(
                f"generation_kwargs: {some(others)}: not known to MiniWin; expected some of until, max_gen_toks, "
                f"do_sample, {', '.join(SAMPLING)}"
            )
        return options

    @property
    def tokenizer_name(self) -> str:
        return self.tokenizer.name

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        return self.apply_chat_template([]) if chat_template else None

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """MiniWin keeps no chat templates, of imported models neither."""
        raise UserError(f"{self._model.ref} has no chat template; leave out --apply_chat_template")

    def get_model_info(self) -> dict[str, Any]:
        """What the harness writes beside the results."""
        model = self._model
        dtype = str(model.dtype).removeprefix("torch.")
        count = sum(parameter.numel() for parameter in model.parameters())
        return {"model_ref": model.ref, "model_num_parameters": count, "model_dtype": dtype}


def _rows(batch_size: int | str, most: int | None) -> int | None:
    """Texts side by side, at most; None: as many as memory is meant to hold."""
    if str(batch_size).partition(":")[0] == "auto":
        return None if most is None else _whole("max_batch_size", most)
    return _whole("batch_size", int(batch_size) if str(batch_size).isdecimal() else batch_size, "auto or ")


def _whole(name: str, value: object, otherwise: str = "") -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"{name}: expected {otherwise}a whole number of at least 1, got {value!r}")
    return value
