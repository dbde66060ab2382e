"""BABILong (arXiv:2406.10149): tasks 1 to 5 of bAbI (arXiv:1502.05698), whose facts are hidden in other text.

    moves.py      1 to 3: people who walk, take things along and put them down
    relations.py  4: which room lies north of which
    gifts.py      5: who gave what to whom

The small world is simulated here, by the published definitions, with people and rooms of our own. In the papers a text
has up to 10, 68, 32, 2 and 126 facts, as in specs/suites/babilong.yaml; the defaults of `max_facts` are smaller. The
novels of PG-19 are not at hand: name a text file as filler, or take the built-in sentences.
"""
