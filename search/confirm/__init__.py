"""Confirmation: the best trials and the baseline once more, with new seeds, on text that nothing has seen.

plan.py        which trainings there are, and how far they are
training.py    one of them: train, then measure
scores.py      what is measured on the test split, for each piece of text
comparing.py   differences with intervals
result.py      confirm.json
words.py       how it is said
asking.py      `miniwin search confirm`
"""
