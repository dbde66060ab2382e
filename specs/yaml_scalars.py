"""What an unquoted word means by the YAML 1.2 core schema, and how a value is quoted in a message."""

from __future__ import annotations

import json
import math
import re
from typing import Any

NOTHING = frozenset(("null", "~", "none", "nil", "nothing", "undefined", "no", "off", "-", ""))  # meant as null
LARGEST = 2**63 - 1  # the largest whole number
_MOST_DIGITS = 400  # enough for every float, few enough for int()

_INT = re.compile(r"[-+]?[0-9]+\Z")
_OTHER_INT = re.compile(r"0o[0-7]+\Z|0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}


def is_number_too_large(text: str) -> bool:
    """Whether a word is a whole number too large for the 64 bits of a tensor's integers."""
    whole = _INT.match(text) or _OTHER_INT.match(text)
    return whole is not None and (len(text) > _MOST_DIGITS or abs(plain(text)) > LARGEST)


def plain(text: str) -> Any:
    """The value of an unquoted word by the YAML 1.2 core schema."""
    if text in _WORDS:
        return _WORDS[text]
    if len(text) > _MOST_DIGITS:
        return text
    if _INT.match(text):
        return int(text)
    if _OTHER_INT.match(text):
        return int(text, 0)
    return float(text) if _FLOAT.match(text) else text


def shown(value: Any) -> str:
    """A value as it is quoted in a message: on one line, as YAML would write it, and short."""
    if isinstance(value, str):
        quoted = f"'{value}'" if value.isprintable() else json.dumps(value)
    elif isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    else:
        try:
            quoted = json.dumps(value, ensure_ascii=False, default=str)
        except (TypeError, ValueError):  # not from YAML: a key that is no text, a number of thousands of digits
            return f"a {type(value).__name__}"
    return quoted if len(quoted) <= 60 else quoted[:56] + "..." + quoted[-1]
