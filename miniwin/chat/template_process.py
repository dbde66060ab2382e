"""The program that renders chat templates. It is started by rendering.py, and imports nothing of MiniWin.

A template is a program that comes from anywhere. Jinja's sandbox keeps it from reaching Python's objects; it does not
keep a template from running or growing without end. The limits of a process do that: of memory, and of processor time,
which does not depend on how busy the machine is.

The environment is the one that transformers renders in, with the same options, filters and functions: blocks and the
space before them leave no lines, `tojson` writes plain JSON, `raise_exception`, `strftime_now`, `break` and `continue`,
and `{% generation %}` around what the model itself says.

    a line of stdin    {"template": text, "names": {...}, "chats": [{"messages": [...], ...}], "spans": bool,
                        "now": day or null, "seconds": of processor time for one chat}
    a line of stdout   {"texts": [text], "spans": [[[start, end], ...]]}, or {"error": why, "chat": number or null}
"""

from __future__ import annotations

import json
import re
import signal
import sys
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from typing import Any

import jinja2.ext
from jinja2 import Environment, Template, TemplateError, TemplateSyntaxError, nodes
from jinja2.exceptions import SecurityError
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

MEMORY = 1 << 29  # bytes
LONGEST = 1 << 24  # characters of a rendered chat
MARKS = ("\U0010fffe", "\U0010ffff")  # no characters: set around what the model says, and taken out again


class _Generation(jinja2.ext.Extension):
    """`{% generation %} ... {% endgeneration %}`: what is between is said by the model."""

    tags = {"generation"}

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        environment.extend(marking=False)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_said"), [], [], body).set_lineno(line)

    def _said(self, caller: Macro) -> str:
        begin, end = MARKS if self.environment.marking else ("", "")  # type: ignore[attr-defined]
        return f"{begin}{caller()}{end}"


class _Dict:
    """`dict` in a template. The class itself would lead to others."""

    def __call__(self, *args: Any, **named: Any) -> dict[Any, Any]:
        return dict(*args, **named)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class _Namespace(Namespace):
    """`namespace` in a template, without names that mean something to Python."""

    def __init__(*args: Any, **named: Any) -> None:
        self, *others = args
        given = dict(*others, **named)
        for name in given:
            _check_name(name)
        Namespace.__init__(self, given)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        Namespace.__setitem__(self, name, value)


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace may not hold {name!r}")


def _raise_exception(message: object) -> None:
    raise TemplateError(str(message))


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: Any = False
) -> str:
    # Jinja's own filter escapes characters for HTML.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


@lru_cache(maxsize=8)
def _compiled(text: str) -> Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals |= {"raise_exception": _raise_exception, "dict": _Dict(), "namespace": _Namespace}
    return environment.from_string(text)


def _rendered(template: Template, values: dict[str, Any]) -> str:
    pieces, length = [], 0
    for piece in template.generate(values):
        pieces.append(piece)
        length += len(piece)
        if length > LONGEST:
            raise TemplateError(f"it writes more than {LONGEST:,} characters")
    return "".join(pieces)


def _without_marks(text: str) -> tuple[str, list[tuple[int, int]]]:
    """The text without the marks, and where in it is what they enclose."""
    spans, kept, length, start = [], [], 0, 0
    for piece in re.split(f"([{''.join(MARKS)}])", text):
        if piece == MARKS[0]:
            start = length
        elif piece == MARKS[1]:
            spans.append((start, length))
        else:
            kept.append(piece)
            length += len(piece)
    return "".join(kept), spans


def _limit_memory() -> None:
    with suppress(ImportError, ValueError, OSError):  # not every system can
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def _limit_time(seconds: float) -> None:
    """From now on, so many seconds of processor time. Then a signal ends the process, whatever it is doing."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """The reply to a request; see the top of the file."""
    texts: list[str] = []
    spans: list[list[tuple[int, int]]] = []
    template = None
    try:
        _limit_time(request["seconds"])
        template = _compiled(request["template"])
        now = request["now"]
        day = datetime.fromisoformat(now) if now else datetime.now()
        template.environment.globals["strftime_now"] = day.strftime
        template.environment.marking = request["spans"]  # type: ignore[attr-defined]
        for chat in request["chats"]:
            _limit_time(request["seconds"])
            values = {"tools": None, "documents": None, **request["names"], **chat}
            text, said = _without_marks(_rendered(template, values))
            texts.append(text)
            spans.append(said)
        return {"texts": texts, "spans": spans}
    except TemplateSyntaxError as error:
        why = f"line {error.lineno}: {error.message}"
    except MemoryError:
        why = "it takes too much memory"
    except Exception as error:  # a template is a program, which may fail in any way
        why = str(error) or type(error).__name__
    return {"error": why, "chat": None if template is None else len(texts)}


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    _limit_memory()
    for line in sys.stdin:
        reply = json.dumps(answer(json.loads(line)))
        sys.stdout.write(f"{reply}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
