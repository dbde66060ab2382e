"""What a client may send. A field that has no effect here is refused, never ignored silently.

Taken and without effect, because clients send them and they mean nothing for a local model: `user`, `metadata`,
`store: false`, `service_tier: auto`. Fields of things that we do not do are taken at the value that switches them off.
Besides OpenAI's fields there are top_k and min_p.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from miniwin.blocks.messages.escaping import escaped_line
from miniwin.generation.settings import SEEDS
from miniwin.serving.errors import APIError

CHOICES = 16  # texts of one request at most
STOPS, STOP_LENGTH = 16, 1000  # stop strings at most, and characters of each
SHOWN = 300  # characters of a message that quotes what came

Number = Annotated[float, Field(allow_inf_nan=False)]
Stop = Annotated[str, Field(min_length=1, max_length=STOP_LENGTH)]
Zero = Annotated[float, Field(ge=0, le=0)]


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    include_usage: bool = False
    include_obfuscation: Literal[False] | None = None


class Common(BaseModel):
    """Fields of both APIs."""

    model_config = ConfigDict(extra="forbid", strict=True)
    model: str
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    min_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1, le=CHOICES)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=STOPS)] | None = None
    seed: Annotated[int, Field(ge=SEEDS[0], le=SEEDS[1])] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    presence_penalty: Zero | None = None
    frequency_penalty: Zero | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    user: str | None = None
    metadata: dict[str, str] | None = None
    store: Literal[False] | None = None
    service_tier: Literal["auto", "default"] | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def with_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


class CompletionRequest(Common):
    prompt: str | list[str] | list[int] | list[list[int]]
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    echo: Literal[False] | None = None
    suffix: Literal[""] | None = None
    best_of: Literal[1] | None = None

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts, each of which is continued by itself."""
        given: Any = self.prompt
        return list(given) if isinstance(given, list) and given and not isinstance(given[0], int) else [given]


class ChatRequest(Common):
    messages: Annotated[list[dict[str, Any]], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    tool_choice: Literal["none"] | None = None
    parallel_tool_calls: bool | None = None  # without tools there is nothing to call
    response_format: dict[str, Literal["text"]] | None = None
    modalities: list[Literal["text"]] | None = None


Request = TypeVar("Request", bound=Common)


def parsed(raw: bytes, kind: type[Request]) -> Request:
    """The request in a body.

    Raises:
        APIError: it is not JSON in UTF-8, or a field is wrong, or not for this server.
    """
    try:
        data = json.loads(raw.decode("utf-8"), parse_constant=_refused, object_pairs_hook=_once)
        json.dumps(data, ensure_ascii=False).encode("utf-8")  # halves of surrogate pairs are no text
    except (ValueError, RecursionError) as error:
        raise APIError(400, f"the body is not JSON in UTF-8: {quoted(error)}", code="invalid_json") from None
    if not isinstance(data, dict):
        raise APIError(400, f"the body is a {type(data).__name__}; expected a JSON object", code="invalid_json")
    try:
        request = kind.model_validate(data)
    except ValidationError as error:
        raise _wrong(error, kind) from None
    if request.stream_options is not None and not request.stream:
        raise APIError(400, "stream_options: only with stream: true", param="stream_options")
    if isinstance(request, ChatRequest):
        if request.top_logprobs and not request.logprobs:
            raise APIError(400, "top_logprobs: only with logprobs: true", param="top_logprobs")
        if request.max_tokens is not None and request.max_completion_tokens is not None:
            raise APIError(400, "max_tokens: max_completion_tokens says the same; give one", param="max_tokens")
    return request


def quoted(text: object) -> str:
    """On one line, without control characters, and not too long."""
    line = escaped_line(str(text))
    return line if len(line) <= SHOWN else f"{line[:SHOWN]}..."


def _wrong(error: ValidationError, kind: type[Common]) -> APIError:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = [str(part) for part in first["loc"]]
    name = quoted(place[0]) if place else None
    if first["type"] == "extra_forbidden":
        known = ", ".join(kind.model_fields)
        return APIError(400, f"{quoted('.'.join(place))}: this server has no such field; it has {known}", param=name)
    return APIError(400, f"{name}: {quoted(first['msg'])}", param=name)


def _refused(name: str) -> None:
    raise ValueError(f"{name} is no number in JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a field is given twice")
    return found
