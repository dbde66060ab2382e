"""Tasks for long contexts, one file each: what to look up, count or order, and the answer that is right.

A task is used for training data (`source: examples`), for evaluation, and as an objective of a search
(`maximize last-write@4096`). A new task is one new file here and one line below.

    task.py       what a task has to say: an example, and the chance level
    registry.py   tasks by name
    drawing.py    which examples there are: a function of task, length, seed, index and split
    placing.py    records at random places in filler
    words/        the same asked in words, for models with any tokenizer
    writes.py     what tasks about the order of writes share
    eliminating.py    how far one gets by knowing what is left to answer
    babilong/     five tasks of BABILong; ruler/: those of RULER that can be generated
"""

from miniwin.evaluation.tasks.babilong.gifts import Qa5
from miniwin.evaluation.tasks.babilong.moves import Qa1, Qa2, Qa3
from miniwin.evaluation.tasks.babilong.relations import Qa4
from miniwin.evaluation.tasks.compression import Compression
from miniwin.evaluation.tasks.copy import Copy
from miniwin.evaluation.tasks.counting import Counting
from miniwin.evaluation.tasks.drawing import SPLITS, draw
from miniwin.evaluation.tasks.first_write import FirstWrite
from miniwin.evaluation.tasks.fuzzy_recall import FuzzyRecall
from miniwin.evaluation.tasks.induction import Induction
from miniwin.evaluation.tasks.last_write import LastWrite
from miniwin.evaluation.tasks.memorisation import Memorisation
from miniwin.evaluation.tasks.multi_hop import MultiHop
from miniwin.evaluation.tasks.needle import Needle
from miniwin.evaluation.tasks.position_modulo import PositionModulo
from miniwin.evaluation.tasks.recall import Recall
from miniwin.evaluation.tasks.registry import TASKS
from miniwin.evaluation.tasks.ruler.common_words import CommonWords
from miniwin.evaluation.tasks.ruler.frequent_words import FrequentWords
from miniwin.evaluation.tasks.ruler.needles import Needles
from miniwin.evaluation.tasks.ruler.variables import VariableTracking
from miniwin.evaluation.tasks.scattered_facts import ScatteredFacts
from miniwin.evaluation.tasks.selective_copying import SelectiveCopying
from miniwin.evaluation.tasks.several_needles import SeveralNeedles
from miniwin.evaluation.tasks.signature import Signature
from miniwin.evaluation.tasks.sorted_order import SortedOrder
from miniwin.evaluation.tasks.task import Example, Task
from miniwin.evaluation.tasks.which_first import WhichFirst

__all__ = [
    "SPLITS",
    "TASKS",
    "CommonWords",
    "Compression",
    "Copy",
    "Counting",
    "Example",
    "FirstWrite",
    "FrequentWords",
    "FuzzyRecall",
    "Induction",
    "LastWrite",
    "Memorisation",
    "MultiHop",
    "Needle",
    "Needles",
    "PositionModulo",
    "Qa1",
    "Qa2",
    "Qa3",
    "Qa4",
    "Qa5",
    "Recall",
    "ScatteredFacts",
    "SelectiveCopying",
    "SeveralNeedles",
    "Signature",
    "SortedOrder",
    "Task",
    "VariableTracking",
    "WhichFirst",
    "draw",
]
