"""For each task that is asked in words an oracle and a guesser.

The oracle reads the text up to the answers, or up to some of them, and returns all answers. It knows the rule of the
task from its definition, and nothing of the generator. The guesser returns one of the possible answers.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import NamedTuple

from miniwin.evaluation.tasks.words.lists import (
    ANIMALS,
    CITIES,
    COINED,
    INSTRUMENTS,
    NOUNS,
    OBJECTS,
    PEOPLE,
    ROOMS,
    TRADES,
    coined,
)
from miniwin.evaluation.tasks.words.stdlib import functions

NAME = r"[A-Z]\w+ [A-Z]\w+"
Oracle = Callable[[str], tuple[str, ...]]
Guess = Callable[[Random, str], str]


class WordAnswers(NamedTuple):
    oracle: Oracle
    guess: Guess


def halves(text: str) -> tuple[str, str]:
    """(context, question)"""
    context, _, question = text.rpartition("\n\n")
    return context, question.partition("\n")[0]


def looked_up(fact: str, which: int = -1) -> Oracle:
    """fact: a pattern with a name and a value. The names of the question in their order, and the value of each."""

    def oracle(text: str) -> tuple[str, ...]:
        context, question = halves(text)
        values: dict[str, list[str]] = {}
        for name, value in re.findall(fact, context):
            values.setdefault(name, []).append(value)
        return tuple(values[name][which] for name in re.findall(NAME, question))

    return oracle


def signed_first(text: str) -> tuple[str, ...]:
    context, question = halves(text)
    pairs = re.findall(rf"first, ({NAME}) or ({NAME})\?", question)
    order = re.findall(rf"({NAME}) signed", context)
    return tuple(min(pair, key=order.index) for pair in pairs)


def either_name(random: Random, text: str) -> str:
    given = text.rpartition("\n")[2].count(",")
    return random.choice(re.findall(rf"first, ({NAME}) or ({NAME})\?", text)[given])


def scattered(text: str) -> tuple[str, ...]:
    context, question = halves(text)
    (name,) = re.findall(NAME, question.removeprefix("Question: In ").removeprefix("Question: Wh"))
    patterns = {
        "born": rf"{name} was born in (\w+)\.",
        "instrument": rf"{name} plays the (\w+)\.",
        "trade": rf"{name} learned the trade of a (\w+)\.",
        "animal": rf"favourite animal of {name} is the (\w+)\.",
    }
    (pattern,) = (found for word, found in patterns.items() if word in question)
    return (re.findall(pattern, context)[0],)


def scattered_guess(random: Random, text: str) -> str:
    question = halves(text)[1]
    lists = {"born": CITIES, "instrument": INSTRUMENTS, "trade": TRADES, "animal": ANIMALS}
    (values,) = (found for word, found in lists.items() if word in question)
    return random.choice(values)


def medals(text: str) -> tuple[str, ...]:
    context, question = halves(text)
    (name,) = re.findall(rf"did ({NAME}) win", question)
    return (str(context.count(f"{name} won a medal.")),)


def secret_words(text: str) -> tuple[str, ...]:
    context, question = halves(text)
    known = dict(re.findall(rf"The secret word of ({NAME}) is (\w+)\.", context))
    for name, other in re.findall(rf"({NAME}) has the secret word of ({NAME})\.", context):
        known[name] = known[other]
    return tuple(known[name] for name in re.findall(NAME, question))


# -- BABILong

WALK = r"(?P<walker>\w+) (?:went|moved|walked|ran|travelled) to the (?P<room>\w+)\."
TAKE = r"(?P<taker>\w+) (?:took|picked up|grabbed) the (?P<taken>\w+)\."
DROP = r"(?P<dropper>\w+) (?:put down|dropped|left) the (?P<dropped>\w+)\."


def lived(text: str) -> tuple[dict[str, str], dict[str, list[str]]]:
    """(where each person is, the rooms where each thing was) after the story."""
    place: dict[str, str] = {}
    holder: dict[str, str] = {}
    rooms: dict[str, list[str]] = {}
    for event in re.finditer(f"{WALK}|{TAKE}|{DROP}", text):
        if (person := event["walker"]) in PEOPLE:
            place[person] = event["room"]
            for thing, who in holder.items():
                if who == person:
                    rooms[thing].append(event["room"])
        elif (person := event["taker"]) in PEOPLE:
            holder[event["taken"]] = person
            rooms.setdefault(event["taken"], [place[person]])
            assert rooms[event["taken"]][-1] == place[person], "nobody takes what is elsewhere"
        elif event["dropper"] in PEOPLE:
            assert holder.pop(event["dropped"]) == event["dropper"]
    return place, rooms


def qa1(text: str) -> tuple[str, ...]:
    context, question = halves(text)
    return (lived(context)[0][re.findall(r"Where is (\w+)\?", question)[0]],)


def qa2(text: str) -> tuple[str, ...]:
    context, question = halves(text)
    return (lived(context)[1][re.findall(r"Where is the (\w+)\?", question)[0]][-1],)


def qa3(text: str) -> tuple[str, ...]:
    context, question = halves(text)
    ((thing, room),) = re.findall(r"Where was the (\w+) before the (\w+)\?", question)
    rooms = lived(context)[1][thing]
    return (rooms[len(rooms) - 1 - rooms[::-1].index(room) - 1],)


def qa4(text: str) -> tuple[str, ...]:
    context, question = halves(text)
    back = {"north": "south", "south": "north", "east": "west", "west": "east"}
    known = {}
    for one, way, other in re.findall(r"The (\w+) is (north|south|east|west) of the (\w+)\.", context):
        known[way, other] = one  # what is that way of the other
        known[back[way], one] = other
    if found := re.findall(r"What is (\w+) of the (\w+)\?", question):
        return (known[found[0]],)
    ((room, way),) = re.findall(r"What is the (\w+) (\w+) of\?", question)
    return (known[back[way], room],)


def qa5(text: str) -> tuple[str, ...]:
    context, question = halves(text)
    gifts = re.findall(r"(\w+) (?:gave|handed|passed) the (\w+) to (\w+)\.", context)
    gifts = [gift for gift in gifts if gift[0] in PEOPLE][::-1]
    if found := re.findall(r"Who gave the (\w+) to (\w+)\?", question):
        return (next(giver for giver, *rest in gifts if tuple(rest) == found[0]),)
    if found := re.findall(r"Who did (\w+) give the (\w+) to\?", question):
        return (next(taker for *rest, taker in gifts if tuple(rest) == found[0]),)
    (wanted,) = re.findall(r"What did (\w+) give to (\w+)\?", question)
    return (next(thing for giver, thing, taker in gifts if (giver, taker) == wanted),)


def qa5_guess(random: Random, text: str) -> str:
    return random.choice(OBJECTS if "What did" in halves(text)[1] else PEOPLE)


# -- RULER


def needles(text: str) -> tuple[str, ...]:
    context, question = halves(text)
    keys = re.split(", | and ", question.partition(" to ")[2].rstrip("?"))
    found = re.findall(r"The \w+ that belongs to ([\w -]+?) is ([\w -]+)\.", context)
    return tuple(value for key in keys for other, value in found if other == key)


def same_value(text: str) -> tuple[str, ...]:
    context, question = halves(text)
    (value,) = re.findall(r"the value (\d+)", question)
    names: list[str] = []
    for name, source in re.findall(r"Let (\w+) = (\w+)\.", context):
        if source == value or source in names:
            names.append(name)
    return tuple(names)


def counted(text: str) -> list[str]:
    context = halves(text)[0].partition("\n\n")[2]
    return [word for word, _ in Counter(context.split()).most_common()]


def any_coined(random: Random, text: str) -> str:
    return coined(random.randrange(COINED))


def any_digits(count: int) -> Guess:
    return lambda random, text: str(random.randrange(10**count)).zfill(count)


def any_of(values: tuple[str, ...]) -> Guess:
    return lambda random, text: random.choice(values)


# -- code


def keywords(text: str) -> tuple[str, ...]:
    """The parameters after the first, of the one function of this name that is defined in the text."""
    context, _, call = text.rpartition("\n\n")
    name = call.splitlines()[1].partition("(")[0]
    lines = context[context.index(f"def {name}(") :].splitlines()
    for end in range(1, len(lines) + 1):
        try:
            (node,) = ast.parse("\n".join([*lines[:end], "    pass"])).body
        except SyntaxError:
            continue
        assert isinstance(node, ast.FunctionDef)
        named = [one.arg for one in (*node.args.args, *node.args.kwonlyargs) if one.arg not in ("self", "cls")]
        return tuple(f"{one}={one}" for one in named[1:])
    raise AssertionError(f"{name} is not defined")


def any_parameter(random: Random, text: str) -> str:
    name = random.choice(sorted({name for function in functions() for name in function.parameters}))
    return f"{name}={name}"


MOVED = rf"({NAME}) moved to (\w+)\."
WORD_ANSWERS = {
    "recall": WordAnswers(looked_up(rf"The password of ({NAME}) is (\w+)\."), any_of(NOUNS)),
    "last-write": WordAnswers(looked_up(MOVED), any_of(CITIES)),
    "first-write": WordAnswers(looked_up(MOVED, 0), any_of(CITIES)),
    "which-first": WordAnswers(signed_first, either_name),
    "needle": WordAnswers(lambda text: tuple(re.findall(r"The passkey is (\d+)\.", text)), any_digits(5)),
    "several-needles": WordAnswers(looked_up(rf"The number of ({NAME}) is (\d+)\."), any_digits(4)),
    "counting": WordAnswers(medals, any_digits(1)),
    "multi-hop": WordAnswers(secret_words, any_of(NOUNS)),
    "scattered-facts": WordAnswers(scattered, scattered_guess),
    "signature": WordAnswers(keywords, any_parameter),
    "babilong-qa1": WordAnswers(qa1, any_of(ROOMS)),
    "babilong-qa2": WordAnswers(qa2, any_of(ROOMS)),
    "babilong-qa3": WordAnswers(qa3, any_of(ROOMS)),
    "babilong-qa4": WordAnswers(qa4, any_of(ROOMS)),
    "babilong-qa5": WordAnswers(qa5, qa5_guess),
    "ruler-niah": WordAnswers(needles, any_digits(7)),
    "ruler-vt": WordAnswers(
        same_value, lambda random, text: "".join(random.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=5))
    ),
    "ruler-cwe": WordAnswers(lambda text: tuple(sorted(counted(text)[:10])), any_coined),
    "ruler-fwe": WordAnswers(lambda text: tuple(counted(text)[:3]), any_coined),
}
