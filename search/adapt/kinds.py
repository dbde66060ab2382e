"""Questions in plain English about facts in a text, and the facts.

    needle           The passkey of Arno Amber is 48213.            What is the passkey of Arno Amber?
    several          numbers of three people                        What are the numbers of two of them?
    which of two     two people and the room of each                Is the room of Arno Amber 412 or 873?
    two hops         the word of a person; who has the same word    What is the secret word of the latter?
    last write       a person moves three times                     Which city did the person move to last?

Answers are sentences, `Answer: The passkey of Arno Amber is 48213`, of which only the new part is scored: small models
know how to go on with a sentence. The first three kinds ask for what stands in one sentence, and judge a placement. The
others ask for more, and have figures of their own. Facts of one row are about different people, so no answer follows
from another question.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from miniwin.evaluation.tasks.drawing import split_of
from miniwin.evaluation.tasks.words.lists import CITIES, NOUNS, PEOPLE, listed


@dataclass(frozen=True)
class Question:
    """facts: in the order in which they have to stand in the text. parts: of the answer, each with what comes before
    it, what is scored, and the number of the fact that says so."""

    kind: str
    facts: tuple[str, ...]
    text: str
    parts: tuple[tuple[str, str, int], ...]


def names(random: Random, search: bool) -> Iterator[str]:
    """People, each once, in random order: those of the search are never those of the report."""
    every = [f"{first} {noun.capitalize()}" for first in PEOPLE for noun in NOUNS]
    mine = [name for name in every if (split_of(name.encode()) == "train") == search]
    random.shuffle(mine)
    return iter(mine)


def _digits(random: Random, count: int) -> str:
    return f"{random.randrange(10**count):0{count}d}"


def _needle(random: Random, people: Iterator[str]) -> Question:
    name, key = next(people), _digits(random, 5)
    said = f"The passkey of {name} is"
    return Question("needle", (f"{said} {key}.",), f"What is the passkey of {name}?", ((said, key, 0),))


def _several(random: Random, people: Iterator[str]) -> Question:
    who = [next(people) for _ in range(3)]
    numbers = [_digits(random, 4) for _ in who]
    asked = random.sample(range(3), 2)
    said = [f"The number of {name} is" for name in who]
    return Question(
        "several",
        tuple(f"{start} {number}." for start, number in zip(said, numbers, strict=True)),
        f"What are the numbers of {listed([who[one] for one in asked])}?",
        tuple((said[one], numbers[one], one) for one in asked),
    )


def _which(random: Random, people: Iterator[str]) -> Question:
    who, first = [next(people), next(people)], random.sample("123456789", 2)
    rooms = [digit + _digits(random, 2) for digit in first]  # told apart by their first digits
    asked = random.randrange(2)
    one, other = random.sample(rooms, 2)
    said = [f"The room of {name} is" for name in who]
    return Question(
        "which of two",
        tuple(f"{start} {room}." for start, room in zip(said, rooms, strict=True)),
        f"Is the room of {who[asked]} {one} or {other}?",
        ((said[asked], rooms[asked], asked),),
    )


def _hops(random: Random, people: Iterator[str]) -> Question:
    first, second, word = next(people), next(people), random.choice(NOUNS)
    facts = (f"The secret word of {first} is {word}.", f"{second} has the same secret word as {first}.")
    said = f"The secret word of {second} is"
    return Question("two hops", facts, f"What is the secret word of {second}?", ((said, word, 0),))


def _last(random: Random, people: Iterator[str]) -> Question:
    name, cities = next(people), random.sample(CITIES, 3)
    facts = tuple(f"{name} moved to {city}." for city in cities)
    said = f"The last city that {name} moved to is"
    return Question("last write", facts, f"Which city did {name} move to last?", ((said, cities[-1], 2),))


Draw = Callable[[Random, Iterator[str]], Question]
JUDGED: dict[str, Draw] = {"needle": _needle, "several": _several, "which of two": _which}
HARDER: dict[str, Draw] = {"two hops": _hops, "last write": _last}


def draw(random: Random, judged: int, harder: int, search: bool) -> list[Question]:
    """So many questions of each group, the kinds of a group in turn, in random order."""
    people = names(random, search)
    found = []
    for kinds, count in ((JUDGED, judged), (HARDER, harder)):
        draws = list(kinds.values())
        found += [draws[i % len(draws)](random, people) for i in range(count)]
    random.shuffle(found)
    return found
