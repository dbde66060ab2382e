"""Chats to train on (`source: chat`): JSON lines become messages, and messages token ids of which some are answers.

    {"conversations": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]}

`messages` is another name for the list. A message may have what else its template knows. `tools` and `tool_calls` may
be JSON within a string, as MiniMind writes them.

The template makes one text of a chat. What of it the model said is what the template marks with {% generation %}. In a
template without such marks, an answer begins where the prompt for it ends:

    begin   the length of the text of all messages before, with add_generation_prompt
    end     behind the token that ends the answer
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from miniwin.blocks.messages.listing import some
from miniwin.chat.format import ChatFormat, as_messages
from miniwin.chat.rendering import TemplateProblem, render
from miniwin.data.finding import SourceFile
from miniwin.data.plain_text import TextReader
from miniwin.specs import UserError
from miniwin.specs.yaml_scalars import shown
from miniwin.tokenizer import Tokenizer

LISTS = ("conversations", "messages")
ROLES = ("system", "developer", "user", "assistant", "tool")
ANSWER = "assistant"
DAY = "2025-01-01"  # what a template writes as today: the same data on every day
EXPECTED = 'expected {"conversations": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}'

Span = tuple[int, int]


def read_chats(file: SourceFile, reader: TextReader) -> Iterator[tuple[str, str]]:
    """`file:line`, and the chat in it as canonical JSON.

    Raises:
        UserError: a line is not a chat, or has no answer.
    """
    try:
        with file.path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                text = reader.text(line, number)
                if text.strip(" \t\r\n\v\f"):
                    where = f"{file.path}:{number}"
                    yield where, json.dumps(_chat(where, text), sort_keys=True, ensure_ascii=False)
    except OSError as error:
        raise UserError(f"data: cannot read {file.path}: {error.strerror or error}") from None


def _chat(where: str, line: str) -> dict[str, Any]:
    """The variables of the template that a line gives."""
    try:
        record = _clean(json.loads(line, object_pairs_hook=_once))
    except (ValueError, RecursionError) as error:
        other = "nested too deeply" if isinstance(error, RecursionError) else "a number is too long"
        reason = error.msg if isinstance(error, json.JSONDecodeError) else other
        raise UserError(f"{where}: not JSON ({reason}); {EXPECTED}") from None
    except _Twice as twice:
        raise UserError(f"{where}: {twice} is given twice; which one is meant cannot be known") from None
    if not isinstance(record, dict):
        raise UserError(f"{where}: got {shown(record)}; {EXPECTED}")
    if all(one in record for one in LISTS):
        raise UserError(f"{where}: has both {' and '.join(LISTS)}; expected one list of messages")
    name = next((one for one in LISTS if one in record), None)
    if name is None:
        hint = "; for lines of plain text write source: jsonl" if isinstance(record.get("text"), str) else ""
        raise UserError(f"{where}: got the fields {some(map(repr, record), 12) or 'none'}; {EXPECTED}{hint}")
    messages = record[name]
    if not isinstance(messages, list) or not messages:
        raise UserError(f"{where}: {name}: got {shown(messages)}; {EXPECTED}")
    found, tools = [], _parsed(record.get("tools"))
    for place, message in enumerate(messages):
        at = f"{where}: {name}[{place}]"
        if not isinstance(message, dict) or "role" not in message:
            raise UserError(f"{at}: got {shown(message)}; {EXPECTED}")
        if message["role"] not in ROLES:
            raise UserError(f"{at}: role: got {shown(message['role'])}; expected one of {', '.join(ROLES)}")
        if not isinstance(message.get("content"), str | list) and not message.get("tool_calls"):
            raise UserError(f"{at}: content: got {shown(message.get('content'))}; expected text")
        tools = _parsed(message.get("tools")) if tools is None else tools
        found.append({**message, **_calls(at, message)})
    if not any(message["role"] == ANSWER for message in found):
        raise UserError(
            f"{where}: no answer in it: {len(found)} messages, none of role {ANSWER}; expected at least one, since "
            "the loss is that of answers"
        )
    return {"messages": found, "tools": tools}


class _Twice(Exception):
    """The name of a field that an object has twice."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise _Twice(shown(name))
        found[name] = value
    return found


def _calls(at: str, message: dict[str, Any]) -> dict[str, Any]:
    """tool_calls as templates read them: a list."""
    said = message.get("tool_calls")
    calls = _parsed(said)
    if said and calls is None:
        raise UserError(f"{at}: tool_calls: got {shown(said)}; expected a list, or a text that is one in JSON")
    return {} if calls is None else {"tool_calls": calls}


def _clean(value: Any) -> Any:
    """The same with texts that UTF-8 can hold, without NUL, which may be a token of its own."""
    if isinstance(value, str):
        return value.replace("\0", "").encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {_clean(name): _clean(one) for name, one in value.items()}
    return [_clean(one) for one in value] if isinstance(value, list) else value


def _parsed(value: Any) -> list[Any] | None:
    """A list, which may be JSON within a string; None for anything else."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, list) else None


class ChatEncoder:
    """Chats to ids, and which of them are counted: those of answers, or of `loss: all` every one but the first."""

    def __init__(self, chat_format: ChatFormat, tokenizer: Tokenizer, loss: str) -> None:
        self.format, self.tokenizer, self.loss = chat_format, tokenizer, loss

    def encode(self, chats: Sequence[tuple[str, str]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """ids (L,) and counted (L,) of each chat, given as `read_chats` gives it.

        Raises:
            UserError: the template refuses a chat, or its answers cannot be told from the rest.
        """
        for where, text in chats:
            chat = json.loads(text)
            chat["messages"] = as_messages(chat["messages"])
            said, spans = self._spans(where, chat)
            ids, starts = self.tokenizer.encode_marked_at(said)
            counted = np.zeros(len(ids), dtype=np.uint8)
            places = np.array(starts)
            for begin, end in spans if self.loss == "answers" else [(0, len(said))]:
                counted[(places >= begin) & (places < end)] = 1
            if not counted.any():
                raise UserError(f"{where}: its answers have no tokens; expected some text in one of them")
            yield np.array(ids, dtype=np.int64), counted

    def _spans(self, where: str, chat: dict[str, Any]) -> tuple[str, list[Span]]:
        """The text of a chat, and where answers are in it."""
        messages = chat["messages"]
        answers = [place for place, message in enumerate(messages) if message["role"] == ANSWER]
        asked = [{**chat, "add_generation_prompt": False}]
        for place in answers:
            asked.append({**chat, "messages": messages[:place], "add_generation_prompt": True})
            asked.append({**chat, "messages": messages[: place + 1], "add_generation_prompt": False})
        if answers[0] == 0:
            raise UserError(f"{where}: begins with an answer; expected a message of user or system before it")
        try:
            (text, marked), *others = render(self.format.template, asked, self.format.names, spans=True, now=DAY)
        except TemplateProblem as problem:
            raise UserError(f"{where}: the chat template refuses this chat: {problem.problem}") from None
        if marked:
            return text, [(begin, self._with_end(text, end)) for begin, end in marked]
        spans = []
        for number in range(len(answers)):
            (before, _), (after, _) = others[2 * number : 2 * number + 2]
            if not text.startswith(before):
                raise UserError(
                    f"{where}: the chat template writes what comes before answer {number + 1} otherwise once it is "
                    "answered, so it cannot be told where the answer begins; mark answers in the template with "
                    "{% generation %} and {% endgeneration %}, and name it as data.template"
                )
            spans.append((len(before), self._end(text, len(before), after)))
        return text, spans

    def _end(self, text: str, begin: int, after: str) -> int:
        """Where an answer ends, its end token included. after: the text of the chat as far as this answer."""
        if text.startswith(after):
            found = [
                after.rfind(token, begin) + len(token) for token in self.format.end_tokens if token in after[begin:]
            ]
            return max(found, default=len(after))
        found = [at + len(token) for token in self.format.end_tokens if (at := text.find(token, begin)) >= 0]
        return min(found, default=len(text))

    def _with_end(self, text: str, end: int) -> int:
        """The end of a marked answer, with the token that ends it if that comes next."""
        return max((end + len(one) for one in self.format.end_tokens if text.startswith(one, end)), default=end)
