"""A ladder: what a search has found and its baseline at several sizes, the largest of which is predicted beforehand.

growing.py      a model at another size
keeping.py      files, or attributes in a database
plan.py         plan.json: which sizes, models, tokens and seeds there are
planning.py     how the plan of a study is made
standing.py     which trainings there are, and how far they are
fit.py          loss against compute, speed-up, prediction, and their intervals
prediction.py   prediction.json: what the smaller sizes say of the largest, before that is trained
predicting.py   how the prediction is made
scored.py       from trainings to the numbers of the fit
result.py       ladder.json: what came of it
concluding.py   how the result is made
words.py        how it is said
page.py         ladder.md and ladder.html
asking.py       `miniwin search ladder`
"""
