"""A chat with a model: messages, and a cache that has read them.

    chat = model.chat(system="Answer in one sentence.", temperature=0)
    chat.say("Why is the sky blue?", stream=print)
    chat.say("And at sunset?")          # reads the new message only
    chat.messages                       # what was said, as every chat template takes it

An answer stays in the cache as the model drew it. Encoding its text again could give other tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from os import PathLike
from typing import Any, Protocol, Unpack

from miniwin.chat.context import Context
from miniwin.chat.format import ChatFormat, Message, as_messages, make_chat_format, template_text
from miniwin.generation import Generation, generate
from miniwin.generation.settings import Options, checked
from miniwin.inference import InferenceModel
from miniwin.specs import UserError, user_path

MOST = 1024  # new tokens of an answer, by default


class ChatModel(InferenceModel, Protocol):
    """A model that may have a chat format."""

    chat_format: ChatFormat | None


class Chat:
    """What was said so far is in `messages`. `last` is the last answer as it was generated, with its times."""

    def __init__(
        self,
        model: ChatModel,
        *,
        system: str | None = None,
        messages: Sequence[Message] = (),
        template: str | PathLike[str] | None = None,
        context: int | None = None,
        **settings: Unpack[Options],
    ) -> None:
        """system: the system message. messages: what was said before. template: a file with a chat template, for a
        model that has none. context: tokens of the chat at most, answers included; by default what the model's files
        say. settings: those of `generate`; with a seed, the whole chat is the same each time.

        Raises:
            UserError: the model has no chat template or no tokenizer, or a setting is wrong.
        """
        self.model = model
        self.format = chat_format_of(model, template)
        self.limit = self.format.context if context is None else _limit(context)
        self.settings: Options = {"max_new_tokens": MOST, **settings}
        self.settings["speculate"] = checked(model, self.settings).speculation  # a draft is loaded once
        dtype = self.settings.pop("cache_dtype", None)
        assert model.tokenizer is not None
        self.tokenizer = model.tokenizer
        self._ends = self.format.end_ids(model.tokenizer)
        self._context = Context(model, dtype)
        self._text: str | None = None  # the text of the ids in the context
        self._now = datetime.now().isoformat()
        self._drawn = 0
        self.last: Generation | None = None
        start = [] if system is None else [{"role": "system", "content": system}]
        self.messages: list[dict[str, Any]] = [*start, *(as_messages(messages) if messages else ())]

    @property
    def tokens(self) -> int:
        """Tokens of the chat so far."""
        return len(self._context.ids)

    def say(
        self,
        text: str,
        *,
        stream: Callable[[str], None] | None = None,
        going_on: Callable[[], bool] | None = None,
    ) -> str:
        """Say `text` as the user, and return the answer.

        stream: called with each piece of the answer as soon as the piece is certain. going_on: asked after each token;
        where it says no, the answer ends there, and stays in `messages`.

        Raises:
            UserError: the template refuses the message, or the context is full. Nothing has been said then.
        """
        return self._answer([*self.messages, {"role": "user", "content": text}], stream, going_on)

    def regenerate(
        self, *, stream: Callable[[str], None] | None = None, going_on: Callable[[], bool] | None = None
    ) -> str:
        """Answer the last message of the user once more; see `say`.

        Raises:
            UserError: there is none.
        """
        asked = [place for place, message in enumerate(self.messages) if message["role"] == "user"]
        if not asked:
            raise UserError("there is no answer yet to give again")
        return self._answer(self.messages[: asked[-1] + 1], stream, going_on)

    def reset(self, system: str | None = None) -> None:
        """Begin a new chat. system: another system message; by default the one there was."""
        kept = [one for one in self.messages[:1] if one["role"] == "system"]
        self.messages = kept if system is None else [{"role": "system", "content": system}]
        self._context.reset()
        self._text = self.last = None

    def _answer(
        self,
        messages: list[dict[str, Any]],
        stream: Callable[[str], None] | None,
        going_on: Callable[[], bool] | None,
    ) -> str:
        prompt = self.format.render(messages, add_generation_prompt=True, now=self._now)
        ids = self._ids(prompt)
        settings: Options = {**self.settings, "max_new_tokens": self._room(len(ids))}
        if settings.get("seed") is not None:
            settings["seed"] = (int(settings["seed"] or 0) + self._drawn) % 2**63
        new = self._context.go_to(ids, settings["max_new_tokens"])
        try:
            result = generate(
                self.model,
                new,
                session=self._context.session,
                stream=stream,
                ends=self._ends,
                going_on=going_on,
                **settings,
            )
        except BaseException:  # also Ctrl-C: the cache may hold half a token
            self._context.undo()
            self._text = None
            raise
        ended = self._context.session.pending[-1:] if result.ended == "separator" else []
        self._context.took([*new, *result.ids, *ended])
        whole = result.text.endswith("\ufffd") or not self.tokenizer.decode(result.ids).endswith("\ufffd")
        self._text = f"{prompt}{result.text}{self.tokenizer.decode(ended)}" if whole else None
        self._drawn += 1
        self.messages = [*messages, {"role": "assistant", "content": result.text}]
        self.last = result
        return result.text

    def _ids(self, prompt: str) -> list[int]:
        """The ids of a prompt. What the context holds keeps its ids."""
        ids = self.tokenizer.encode_marked(prompt)
        if self._text and prompt.startswith(self._text):
            before = self.tokenizer.encode_marked(self._text)
            if ids[: len(before)] == before:
                return [*self._context.ids, *ids[len(before) :]]
        return ids

    def _room(self, tokens: int) -> int:
        """How many new tokens an answer may have."""
        if not tokens:
            raise UserError("the chat template makes no text of these messages")
        if self.limit is None:
            return self.settings["max_new_tokens"]
        if tokens >= self.limit:
            raise UserError(
                f"the context is full: the chat has {tokens:,} tokens with this message, and the model's context "
                f"{self.limit:,}; begin a new chat"
            )
        return min(self.settings["max_new_tokens"], self.limit - tokens)


def chat_format_of(model: ChatModel, template: str | PathLike[str] | None) -> ChatFormat:
    if model.tokenizer is None:
        raise UserError(f"{model.ref} has no tokenizer, so it cannot chat; import it again with --tokenizer FILE")
    if template is not None:
        special = model.special
        named = {"eos": special.ends[:1] if special else (), "bos": (special.bos,) if special else ()}
        ids = {f"{name}_token": one for name, some in named.items() for one in some if one is not None}
        names = {name: model.tokenizer.decode([one]) for name, one in ids.items()}
        ends = [model.tokenizer.decode([one]) for one in model.ends]
        context = None if model.chat_format is None else model.chat_format.context
        return make_chat_format(template_text(user_path(template)), names, ends, model.tokenizer, context)
    if model.chat_format is None:
        raise UserError(
            f"{model.ref} has no chat template: it was not made for chats. `miniwin generate` continues a text; "
            "--template FILE (template=FILE in Python) gives a template to chat with all the same"
        )
    return model.chat_format


def _limit(context: object) -> int:
    if type(context) is not int or context < 1:
        raise UserError(f"context: got {context!r}; expected a number of tokens, at least 1")
    return context
