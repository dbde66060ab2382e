"""A ladder of the product, run once: `python -m benchmarks.search_ladder`.

search.yaml     the search whose winner is held against its baseline, at 0.36 million parameters
train.yaml      how each trial is trained
running.py      the search, then the ladder, then the page and its files beside this one
"""
