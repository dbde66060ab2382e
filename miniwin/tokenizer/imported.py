"""The tokenizer of an imported model: prompts become the ids that transformers makes of them.

    encode_prompt   begins with what the post-processor puts before a text, such as <bos>, and ends with what it puts
                    behind one; a special token that is written in the prompt is that token
    encode          text is only text, as for other tokenizers here. Data files are read by it

The separator between documents is an id at which the model itself ends texts.
"""

from __future__ import annotations

from collections.abc import Sequence

from miniwin.tokenizer.hugging_face import HFTokenizer
from miniwin.tokenizer.interface import FILE

PROBES = ("a", "0", "the", "\u4e00", " ")  # texts that have some token in any vocabulary


class ImportedTokenizer(HFTokenizer):
    """The tokenizer of a tokenizer.json that came with an imported model."""

    def __init__(self, text: str, where: str = FILE, ends: Sequence[int] = ()) -> None:
        """ends: the ids at which the model's texts end, where its files say so."""
        self._ends = tuple(ends)
        super().__init__(text, where)
        self.prefix = self._before()
        if self.separator != super().separator:
            self.identity += f"+separator-{self.separator}"

    @property
    def separator(self) -> int | None:
        usual, ends = super().separator, [end for end in self._ends if end < self.vocab_size]
        return usual if not ends or usual in ends else ends[0]

    def encode_prompt(self, text: str, begins: bool = True) -> list[int]:
        return self._marked(text, frame=begins)[0]

    def _before(self) -> tuple[int, ...]:
        """The ids that the post-processor puts before a text."""
        for probe in PROBES:
            found = self._encoded(probe, frame=True)
            own = [place for place, sequence in enumerate(found.sequence_ids) if sequence is not None]
            if own:
                return tuple(found.ids[: own[0]])
        return ()
