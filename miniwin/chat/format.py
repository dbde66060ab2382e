"""The chat format of a model: the template that turns messages into text, and the tokens that end an answer.

A model keeps it in two files of its folder:

    chat_template.jinja   the template, as transformers keeps it
    chat.json             {"format": 1, "bos_token": "<s>", "eos_token": "</s>", "end_tokens": ["</s>", ...],
                           "context": 8192}

bos_token, eos_token and the like are names that the template may use. An answer ends at any of end_tokens. `context` is
for how many tokens the model was made, where its files say so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from miniwin.chat.rendering import TemplateProblem, render
from miniwin.files.json_files import JSONProblem, parse_json
from miniwin.files.writing import write_text
from miniwin.specs.base import UserError
from miniwin.specs.yaml_scalars import shown
from miniwin.tokenizer.interface import Tokenizer

TEMPLATE, TOKENS = "chat_template.jinja", "chat.json"
FILES = (TEMPLATE, TOKENS)
FORMAT = 1
LARGEST = 1 << 20  # bytes of a template; published ones have at most some ten thousand
# The names that transformers gives to a template, where the tokenizer has them.
NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
REASONING = ("reasoning_content", "thinking", "reasoning")  # names of the same field; templates read the first
PROBE = "0123456789"  # an answer that is found again in what a template makes of it

Message = Mapping[str, Any]  # role, content, and what else the template knows


@dataclass(frozen=True)
class ChatFormat:
    """template: the text of a Jinja template. end_tokens: they end an answer. names: bos_token and the like. context:
    tokens of a chat at most, None if that is not known."""

    template: str
    end_tokens: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    context: int | None = None

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        now: str | None = None,
    ) -> str:
        """The text of a chat, as `apply_chat_template` of transformers makes it.

        add_generation_prompt: end with what comes before an answer. tools: descriptions of functions, for templates
        that know them. now: the day that a template may write, as ISO 8601 writes it; by default today.

        Raises:
            UserError: the messages are not messages, or the template refuses them, or is wrong.
        """
        chat = {"messages": as_messages(messages), "add_generation_prompt": add_generation_prompt, "tools": tools}
        return render(self.template, [chat], self.names, now=now)[0][0]

    def end_ids(self, tokenizer: Tokenizer) -> tuple[int, ...]:
        """The ids of the tokens that end an answer."""
        found = (tokenizer.token_id(token) for token in self.end_tokens)
        return tuple(dict.fromkeys(one for one in found if one is not None))

    def write(self, folder: Path) -> None:
        """Write both files into a folder."""
        tokens = {"format": FORMAT, "bos_token": None, "eos_token": None, **self.names}
        write_text(folder / TEMPLATE, self.template)
        text = json.dumps(
            {**tokens, "end_tokens": list(self.end_tokens), "context": self.context}, indent=2, ensure_ascii=False
        )
        write_text(folder / TOKENS, text + "\n")


def as_messages(messages: object) -> list[dict[str, Any]]:
    """The messages as a template reads them.

    Raises:
        UserError: one of them is not a message.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise UserError(
            f'messages: got {shown(messages)}; expected a list such as [{{"role": "user", "content": "Hi"}}]'
        )
    found = []
    for number, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise UserError(f"messages[{number}]: got {shown(message)}; expected a role and a content")
        reasoning = next((message[name] for name in REASONING if message.get(name) is not None), None)
        more = {} if reasoning is None else {"thinking": reasoning, **message, "reasoning_content": reasoning}
        found.append({**message, **more})
    return found


def read_chat_format(folder: Path, read: Callable[[str], bytes | None] = lambda name: None) -> ChatFormat | None:
    """The chat format that a folder keeps, None if it keeps none. read: the bytes of a file, where they are known.

    Raises:
        UserError: a file is missing or damaged.
    """
    if not (folder / TEMPLATE).is_file():
        return None
    template = template_text(folder / TEMPLATE, read(TEMPLATE))
    path = folder / TOKENS
    try:
        raw = read(TOKENS)
        data = parse_json(path.read_bytes() if raw is None else raw)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); it belongs to {TEMPLATE}") from None
    except JSONProblem as error:
        raise UserError(f"{path}: {error}") from None
    ends = data.get("end_tokens") if isinstance(data, dict) else None
    if not isinstance(ends, list) or not all(isinstance(one, str) for one in ends):
        raise UserError(f"{path}: end_tokens: got {shown(ends)}; expected the tokens that end an answer, a list")
    if data.get("format") != FORMAT:
        raise UserError(f"{path}: format: got {shown(data.get('format'))}; this version reads {FORMAT}")
    names = {name: data[name] for name in NAMES if data.get(name) is not None}
    wrong = next((name for name, token in names.items() if not isinstance(token, str)), None)
    if wrong is not None:
        raise UserError(f"{path}: {wrong}: got {shown(names[wrong])}; expected a token")
    context = data.get("context")
    if context is not None and (type(context) is not int or context < 1):
        raise UserError(f"{path}: context: got {shown(context)}; expected a number of tokens")
    return ChatFormat(template, tuple(ends), names, context)


def template_text(path: Path, raw: bytes | None = None) -> str:
    """The template in a file. raw: its bytes, where they are known.

    Raises:
        UserError: it cannot be read, is too large, or not text.
    """
    try:
        if raw is None:
            with path.open("rb") as file:
                raw = file.read(LARGEST + 1)
        if len(raw) > LARGEST:
            raise UserError(f"{path}: larger than {LARGEST >> 20} MiB; expected a chat template")
        return raw.decode("utf-8-sig").replace("\r\n", "\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); expected a chat template") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8; expected a chat template, a text in Jinja's language") from None


def make_chat_format(
    template: str,
    names: Mapping[str, str],
    ends: Sequence[str],
    tokenizer: Tokenizer,
    context: int | None = None,
) -> ChatFormat:
    """The chat format of a model from elsewhere.

    names: bos_token, eos_token and the like. ends: tokens at which the model's files say that texts end. An
    answer ends at these: eos_token, ends, and the special token that the template itself writes after an answer.

    Raises:
        TemplateProblem: the template cannot be used.
    """
    if len(template.encode("utf-8", "replace")) > LARGEST:
        raise TemplateProblem(f"it is larger than {LARGEST >> 20} MiB")
    names = {name: names[name] for name in NAMES if names.get(name)}
    plain = ChatFormat(template, (), names)
    found = [token for token in (names.get("eos_token"), *ends, _closing(plain, tokenizer.special)) if token]
    known = tuple(one for one in dict.fromkeys(found) if tokenizer.token_id(one) is not None)
    return ChatFormat(template, known, names, context)


def _closing(chat_format: ChatFormat, special: Sequence[str]) -> str | None:
    """The special token that the template writes after an answer."""
    try:
        text = chat_format.render([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": PROBE}])
    except TemplateProblem as problem:
        if problem.chat is None:
            raise
        return None  # it wants other messages
    _, found, after = text.rpartition(PROBE)
    after = after.lstrip()
    fitting = [token for token in special if found and token and after.startswith(token)]
    return max(fitting, key=len, default=None)
