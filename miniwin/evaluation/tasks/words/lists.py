"""Names, places and things that facts are made of. None of them is a word of the filler (`prose.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random


def _split(words: str) -> tuple[str, ...]:
    return tuple(words.split())


PEOPLE = _split(
    "Adela Arno Bettina Boris Carla Cyril Dagmar Dorian Edda Elmar Fabia Florin Greta Gustav Hanna Hector Ilse Ivo "
    "Jarmila Jonas Kira Kuno Livia Lorenz Maren Milo Nadja Norbert Odette Oskar Petra Quirin Renata Rufus Selma Silas "
    "Tamara Tilo Ulla Urban Vera Viktor Wanda Wenzel Xenia Yara Zdenka Zeno"
)
CITIES = _split(
    "Lisbon Oslo Cairo Lima Prague Dublin Athens Quito Havana Vienna Nairobi Boston Warsaw Madrid Helsinki Tokyo "
    "Bogota Dakar Delhi Geneva Hanoi Kyoto Lagos Manila Milan Moscow Naples Paris Riga Rome Seoul Sofia Sydney Tunis "
    "Turin Zagreb Berlin Brussels Budapest Chicago"
)
INSTRUMENTS = _split(
    "accordion banjo bassoon cello clarinet cornet guitar harp harpsichord lute mandolin marimba oboe organ piano "
    "recorder saxophone trombone trumpet viola"
)
TRADES = _split(
    "barber bookbinder brewer butcher chemist cobbler cook cooper dentist engraver florist glazier goldsmith hatter "
    "jeweller locksmith plumber potter saddler tanner"
)
ANIMALS = _split(
    "badger beaver bison cheetah crane donkey ferret gazelle giraffe hamster hedgehog heron leopard lynx marten moose "
    "ostrich penguin walrus weasel"
)
ROOMS = _split("attic bathroom cellar kitchen library pantry")
OBJECTS = _split("apple backpack football")
# Nouns for keys and values: short, common, and different in their first letters.
NOUNS = _split(
    "acorn amber apron arrow badge basil beacon berry blossom bottle bracelet cactus camel canoe carrot castle cedar "
    "cherry cinnamon clover cobalt comet copper coral cotton crystal dagger daisy diamond dolphin dragon eagle ember "
    "emerald falcon feather fern flute fossil galaxy garlic ginger glacier granite grape hazel helmet honey indigo "
    "island ivory jacket jasmine jewel jungle kernel koala lavender lemon lily lizard lotus magnet mango maple marble "
    "meteor mint mosaic mushroom nectar nickel nutmeg oasis olive onion opal orchid otter oyster panther papaya parrot "
    "peach pearl pepper pigeon planet plum poppy prism pumpkin quartz rabbit radish raven ribbon rocket ruby saffron "
    "salmon sapphire scarlet sesame shadow silver spider spiral sponge squirrel sugar sunset swan tiger timber tomato "
    "topaz tulip turtle valley vanilla velvet violet volcano walnut willow wizard yarrow zebra zephyr"
)


def full_names(random: Random, count: int) -> list[str]:
    """Names of people, all different: a first name and a noun."""
    chosen = random.sample(range(len(PEOPLE) * len(NOUNS)), count)
    return [f"{PEOPLE[one % len(PEOPLE)]} {NOUNS[one // len(PEOPLE)].capitalize()}" for one in chosen]


def listed(items: Sequence[str]) -> str:
    """`a`, `a and b`, or `a, b and c`."""
    return " and ".join(part for part in (", ".join(items[:-1]), items[-1]) if part)


_ONSETS, _VOWELS = ["b", "d", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z"], "aeiou"
COINED = (len(_ONSETS) * len(_VOWELS)) ** 3  # different words that can be coined


def coined(number: int) -> str:
    """Word number `number`, of COINED, that nobody has heard before: three syllables, such as `tamilo`."""
    syllables = []
    for _ in range(3):
        number, onset = divmod(number, len(_ONSETS))
        number, vowel = divmod(number, len(_VOWELS))
        syllables.append(_ONSETS[onset] + _VOWELS[vowel])
    return "".join(syllables)
