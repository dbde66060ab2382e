"""Filler in words: sentences of a small grammar of our own, or the sentences of a text that the user names.

No noun or name of the grammar occurs in a fact (`lists.py`), so that filler never answers a question.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random

from miniwin.blocks.spec import UserError

# Sentences of the grammar. Each word in braces is drawn from the list of this name.
FRAMES = (
    "The {kind} {person} {did} the {kind} {thing} {where}.",
    "{When}, the {person} {went} {where} with a {kind} {thing}.",
    "The {person} and the {person} {talked} about the {thing} until {late}.",
    "{When}, nobody {where} {noticed} the {kind} {thing}.",
    "A {kind} {person} once {did} a {thing}, but the {person} {never} spoke of it.",
    "It was {weather} when the {person} {went} {where}.",
    "The {thing} was {kind}, and the {thing} beside it was even more so.",
    "Because it was {weather}, the {person} {did} the {thing} {where}.",
    "Why the {person} {did} the {kind} {thing}, the {person} could not say.",
    "{When}, the {person} {talked} with a {kind} {person}, and then {went} {where}.",
    "There was a {kind} {thing} {where}, and the {person} {never} looked at it.",
    "The {person} {noticed} that the {thing} had grown {kind} {late_by}.",
    "Whenever it was {weather}, the {kind} {person} {did} another {thing}.",
    "Not one {person} {where} {noticed} how {kind} the {thing} was.",
)
WORDS = {
    "kind": "old young quiet heavy narrow patient broken bright dusty gentle crooked hollow modest proud rough sharp "
    "silent simple slow smooth stubborn tall tired uneven warm weary wide worn cheap costly curious faded famous "
    "fragile humble lonely pale plain sturdy",
    "person": "miller sailor weaver carpenter clerk judge widow shepherd baker mason tailor surgeon pilot farmer "
    "porter singer soldier stranger teacher tenant traveller uncle writer blacksmith captain cousin driver fisherman "
    "gardener hunter inspector lawyer merchant neighbour nurse painter printer student watchman poet",
    "thing": "wagon ladder kettle blanket barrel hammer candle curtain anchor bell bridge brush bucket button cart "
    "chain chimney clock coat compass cradle desk drawer fence fiddle gate glove hinge kite lamp lantern lock mirror "
    "needlework oar pillow pipe plough pump rope saddle sail shovel sleeve spade spoon statue stove table trunk "
    "umbrella wheel whistle window wreath",
    "did": "mended carried painted sold borrowed cleaned counted described dropped examined found hid kept lifted "
    "measured moved polished pulled pushed repaired sketched studied tied turned watched weighed wrapped built",
    "went": "walked wandered hurried rode drove limped strolled marched returned climbed stepped rushed",
    "talked": "talked argued joked quarrelled laughed wondered whispered complained agreed",
    "noticed": "noticed remembered mentioned understood guessed suspected believed",
    "never": "never rarely seldom hardly scarcely",
    "where": "by the river|across the meadow|behind the mill|near the harbour|along the shore|under the old oak|"
    "up the hill|past the church|through the village|beside the canal|at the edge of the forest|around the pond|"
    "over the ridge|down the lane|towards the lighthouse|between the barns|on the far bank|below the cliff|"
    "outside the town wall|at the crossroads|close to the well|beyond the orchard",
    "when": "in the early morning|late in the autumn|after the long winter|before the rain began|at noon|"
    "during the market|in those years|towards evening|on the first warm day|a little later|that same night|"
    "once the snow had gone|at the end of the week|while the others slept|shortly before dawn|in the heat of summer",
    "late": "midnight|the lamps went out|the tide turned|supper|the sun rose|it grew cold|the last guest had left",
    "late_by": "over the years|since the spring|in the rain|without any reason|after the storm|with time",
    "weather": "raining windy foggy mild freezing snowing cloudy stormy sunny damp chilly",
}
CHOICES = {name: tuple(text.split("|") if "|" in text else text.split()) for name, text in WORDS.items()}
_SLOT = re.compile(r"\{(\w+)\}")
_ARTICLE = re.compile(r"\b([Aa])(?= [aeiou])")
# A sentence ends with its mark and the quotes after it. Chinese and Japanese have no space behind it.
_SENTENCE = re.compile(r"""\S.*?(?:[.!?]["'”’)\]]*(?=\s|$)|[。！？][”’』」]*|(?=\n\s*\n)|$)""", re.DOTALL)
LONGEST = 400  # characters: a longer sentence is cut, so that a text can be filled almost up to its length


@dataclass(frozen=True)
class BuiltIn:
    """Sentences of the grammar above: more than a million different ones."""

    def pieces(self, random: Random) -> Iterator[str]:
        while True:
            text = _SLOT.sub(lambda slot: random.choice(CHOICES[slot[1].lower()]), random.choice(FRAMES))
            yield _ARTICLE.sub(r"\1n", text[0].upper() + text[1:])


@dataclass(frozen=True)
class TextFile:
    """The sentences of a UTF-8 text file, such as a novel, in their order from a random one on, and round again."""

    path: Path

    @cached_property
    def sentences(self) -> tuple[str, ...]:
        """
        Raises:
            UserError: the file cannot be read, or has no text.
        """
        try:
            text = self.path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"filler: cannot read {self.path}: {error}; expected a text file in UTF-8") from None
        found = [" ".join(match[0].split()) for match in _SENTENCE.finditer(text)]
        cut = [part for sentence in found for part in _cut(sentence)]
        if not cut:
            raise UserError(f"filler: {self.path} has no text; expected a text file with sentences")
        return tuple(cut)

    def pieces(self, random: Random) -> Iterator[str]:
        sentences = self.sentences
        start = random.randrange(len(sentences))
        while True:
            yield from sentences[start:]
            start = 0


def _cut(sentence: str) -> Iterator[str]:
    while len(sentence) > LONGEST:
        place = sentence.rfind(" ", 1, LONGEST)
        place = LONGEST if place < 0 else place
        yield sentence[:place].strip()
        sentence = sentence[place:].strip()
    if sentence:
        yield sentence
