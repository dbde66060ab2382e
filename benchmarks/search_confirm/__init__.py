"""How far the intervals of a confirmation can be trusted, by simulating confirmations over the table of results.

python -m benchmarks.search_confirm --take STUDY    documents.json, from a confirmation that was really trained
python -m benchmarks.search_confirm                 simulate, and write README.md; about a minute

A real confirmation says one interval, and nobody knows the truth. In a simulation the truth is known: it is that of the
table (benchmarks/search_regret/truth.py), between the winner of a search and a baseline. What seeds do is drawn from
the pairs of runs of the table; what documents do, from the documents of the real confirmation. The interval is the
product's own.

documents.py     what documents do to a difference between two architectures
simulation.py    one search with its confirmation, and how often the interval holds the truth
page.py          README.md
"""
