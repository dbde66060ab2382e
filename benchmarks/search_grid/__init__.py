"""A tabular benchmark of architecture search: one grid of small architectures, each trained once, every rung recorded.

python -m benchmarks.search_grid --list             the runs, in their order, and which are done
python -m benchmarks.search_grid                    every run that has no result yet; killed, it goes on where it was
python -m benchmarks.search_grid --shard 1/2        the first of two processes that share the work
python -m benchmarks.search_grid --table            grid.parquet and README.md, from the result files

    from benchmarks.search_grid.table import Table
    table = Table.load()
    table.row({"window": 16, ...}).value("loss@2048")

space.yaml    the search space; base.yaml and train.yaml: what it starts from, and how all are trained
grid.py       the runs: the architectures of the space, their seeds, and the order
running.py    one run: train, measure at each rung
results.py    the result files, one a run
table.py      the table, to be read in milliseconds; table_file.py: its Parquet file
noise.py      what the seeds say of the noise, and the rungs of the end
card.py       README.md, the data card
"""
