"""Tasks that are asked in words: what such a task has to say, and the text around its facts.

passage.py      a question in words: facts, question, answers
word_task.py    the base of a task with a form in words, and of one that has no other form
layout.py       facts at places in filler, as long as there is room
prose.py        filler: sentences of a small grammar, or those of a text file
lists.py        names, places and nouns to make facts of
"""

from miniwin.evaluation.tasks.words.layout import lay
from miniwin.evaluation.tasks.words.passage import Filler, Passage
from miniwin.evaluation.tasks.words.prose import BuiltIn, TextFile
from miniwin.evaluation.tasks.words.word_task import TextTask, WordTask, draw_passage

__all__ = ["BuiltIn", "Filler", "Passage", "TextFile", "TextTask", "WordTask", "draw_passage", "lay"]
