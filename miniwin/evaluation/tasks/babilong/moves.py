"""Where is it? Tasks 1, 2 and 3 of bAbI (arXiv:1502.05698): people walk, take things along and put them down.

    qa1   Where is Milo?                                one supporting fact: the last room that Milo went to
    qa2   Where is the apple?                           two: who has or had it last, and where they are or put it down
    qa3   Where was the apple before the attic?         three: two rooms after another, and who carried it

The world is simulated step by step. A story ends where the question has an answer and enough has happened.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Annotated, Literal

from pydantic import Field

from miniwin.blocks.spec import PositiveInt
from miniwin.evaluation.tasks.registry import TASKS
from miniwin.evaluation.tasks.words import Passage, TextTask
from miniwin.evaluation.tasks.words.lists import OBJECTS, PEOPLE, ROOMS

FOUR = 4  # people in a story
WALKED = ("went to", "moved to", "walked to", "ran to", "travelled to")
TOOK = ("took", "picked up", "grabbed")
LEFT = ("put down", "dropped", "left")

Facts = Annotated[PositiveInt, Field(ge=2, le=1000)]


@dataclass
class World:
    """Who is where, who carries what, and in which rooms each thing has been, one after the other."""

    random: Random
    people: list[str]
    said: list[str] = field(default_factory=list)
    place: dict[str, str] = field(default_factory=dict)
    moved: dict[str, int] = field(default_factory=dict)  # the fact that says where a person is
    carried: dict[str, str] = field(default_factory=dict)  # thing -> who has it
    been: dict[str, list[str]] = field(default_factory=lambda: {thing: [] for thing in OBJECTS})

    def walk(self) -> None:
        person = self.random.choice(self.people)
        room = self.random.choice([one for one in ROOMS if one != self.place.get(person)])
        self.place[person] = room
        self.moved[person] = len(self.said)
        for thing, who in self.carried.items():
            if who == person:
                self.been[thing].append(room)
        self.said.append(f"{person} {self.random.choice(WALKED)} the {room}.")

    def handle(self) -> None:
        """Someone takes a thing that lies where they are, or puts one down. Nobody takes what they cannot see."""
        can: list[Callable[[], None]] = []
        for thing in OBJECTS:
            owner, rooms = self.carried.get(thing), self.been[thing]
            if owner is not None:
                can.append(lambda who=owner, what=thing: self._put(who, what))  # type: ignore[misc]
                continue
            for person, room in self.place.items():
                if not rooms or rooms[-1] == room:  # a thing that nobody has seen yet may lie anywhere
                    can.append(lambda who=person, what=thing: self._take(who, what))  # type: ignore[misc]
        if can:
            self.random.choice(can)()
        else:
            self.walk()

    def _take(self, person: str, thing: str) -> None:
        self.carried[thing] = person
        if not self.been[thing]:
            self.been[thing].append(self.place[person])
        self.said.append(f"{person} {self.random.choice(TOOK)} the {thing}.")

    def _put(self, person: str, thing: str) -> None:
        del self.carried[thing]
        self.said.append(f"{person} {self.random.choice(LEFT)} the {thing}.")


class _Story(TextTask):
    @property
    def words_chance(self) -> float:
        return 1 / len(ROOMS)


@TASKS.register
class Qa1(_Story):
    """One supporting fact: where a person is. max_facts: a story has from 2 to so many sentences."""

    type: Literal["babilong-qa1"] = "babilong-qa1"
    max_facts: Facts = 10

    def words(self, random: Random) -> Passage:
        world = World(random, random.sample(PEOPLE, FOUR))
        for _ in range(random.randint(2, self.max_facts)):
            world.walk()
        person = random.choice(list(world.place))
        return Passage(
            facts=tuple(world.said),
            question=f"Question: Where is {person}?",
            answers=(world.place[person],),
            about=world.moved[person],
        )


@TASKS.register
class Qa2(_Story):
    """Two supporting facts: where a thing is. max_facts: a story has from 2 to so many sentences."""

    type: Literal["babilong-qa2"] = "babilong-qa2"
    max_facts: Facts = 20

    def words(self, random: Random) -> Passage:
        world = _lived(random, self.max_facts, lambda world: any(world.been.values()))
        thing = random.choice([one for one in OBJECTS if world.been[one]])
        return Passage(
            facts=tuple(world.said),
            question=f"Question: Where is the {thing}?",
            answers=(world.been[thing][-1],),
        )


@TASKS.register
class Qa3(_Story):
    """Three supporting facts: where a thing was before. max_facts: a story has from 4 to so many sentences."""

    type: Literal["babilong-qa3"] = "babilong-qa3"
    max_facts: Annotated[PositiveInt, Field(ge=4, le=1000)] = 32

    def words(self, random: Random) -> Passage:
        world = _lived(random, self.max_facts, lambda world: any(len(rooms) > 1 for rooms in world.been.values()))
        thing = random.choice([one for one in OBJECTS if len(world.been[one]) > 1])
        rooms = world.been[thing]
        # Of a room where the thing has been twice, the last time counts. So asked, the answer is the one before it.
        now = random.choice(sorted(set(rooms[1:])))
        place = max(number for number, room in enumerate(rooms) if room == now)
        return Passage(
            facts=tuple(world.said),
            question=f"Question: Where was the {thing} before the {now}?",
            answers=(rooms[place - 1],),
        )


def _lived(random: Random, most: int, ready: Callable[[World], bool]) -> World:
    """A world with up to `most` sentences, in which there is something to ask about."""
    for _ in count():
        world = World(random, random.sample(PEOPLE, FOUR))
        wanted = random.randint(2, most)
        while len(world.said) < wanted:
            if world.place and random.random() < 0.4:
                world.handle()
            else:
                world.walk()
        if ready(world):
            return world
    raise AssertionError("some world is ready")
