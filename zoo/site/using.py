"""How a model is used, in two lines of Python that can be copied."""

from __future__ import annotations

import json

from miniwin.blocks.messages.escaping import escaped_line
from miniwin.display.page.sheet import copyable
from miniwin.zoo.card import example_of
from miniwin.zoo.card_values import trained_tasks
from miniwin.zoo.catalogue.described import Described
from miniwin.zoo.configured import sources
from miniwin.zoo.index_query import shown

PROMPTS = {"python-stdlib": "def main("}  # of models that were trained on this text
PROMPT = "Once upon a time"
LONGEST = 2048  # bytes of a prompt that a page shows


def usage(entry: Described) -> str:
    """HTML: the two lines; and before them, for an entry of an added zoo, how that zoo is added."""
    return _adding(entry) + copyable(f"import miniwin\n{_line(entry)}")


def _line(entry: Described) -> str:
    load = f'miniwin.load("{entry.to_load}")'
    if entry.kind == "chat":
        return f'print({load}.chat().say("Hello"))'
    tasks = trained_tasks(entry.provenance)
    if tasks and tasks[0].shortest <= LONGEST:
        example = example_of(tasks[0])
        start, end = example.answers[0]
        prompt = json.dumps(example.text[:start].decode("ascii"))
        return f"print({load}.generate({prompt}, max_new_tokens={end - start}, temperature=0.0))"
    run = entry.provenance.get("run") or {}
    source = str((run.get("data") or {}).get("source"))
    return f"print({load}.generate({json.dumps(PROMPTS.get(source, PROMPT))}, max_new_tokens=64))"


def _adding(entry: Described) -> str:
    """Nothing where the zoo is a folder: its path is of use on this machine only."""
    place = next((one.place for one in sources() if one.name == entry.zoo), None)
    if not isinstance(place, str):
        return ""
    command = f"miniwin zoo source add {entry.zoo} {escaped_line(shown(place))}"
    return f'<p class="note">The zoo {entry.zoo} is added once:</p>{copyable(command)}'
