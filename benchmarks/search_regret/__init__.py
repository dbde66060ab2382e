"""How many tokens a search needs, for every sampler and pruner, by replaying searches over a table of results.

python -m benchmarks.search_regret                     every case that has no result file yet; killed, it goes on
python -m benchmarks.search_regret --only loss-tpe     cases whose names begin so; --list names them
python -m benchmarks.search_regret --placements        which coding of placements suits TPE, by how many there are
python -m benchmarks.search_regret --page              README.md and its plot, from the result files

A replay trains nothing: where a worker would train to a rung, the table says what it would have measured. Samplers and
pruners are those of real searches, called as workers call them. Seconds are not simulated: the clock counts tokens.

cases.py      what is compared: questions, samplers, pruners, numbers of workers
problem.py    a table as a search sees it: what an assignment has at each rung
replay.py     one search: which architecture was trained how far, after how many tokens of all workers
truth.py      what the table says once the noise of seeds is taken off: the best, and the hypervolume of all
curves.py     how good what was found is, after so many tokens
results.py    the result files, one for each case
placements.py  searches over a made-up loss with more placements than the grid has
page.py plot.py    the page
"""
