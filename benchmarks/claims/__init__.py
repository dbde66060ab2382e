"""The decisive experiment: does this family keep what it promises, beyond the length that it was trained on?

python -m benchmarks.claims --list           what there is to run
python -m benchmarks.claims                  every run that has no result yet; killed, it goes on where it was
python -m benchmarks.claims --only tasks     one experiment; or --variant, --seed
python -m benchmarks.claims --only speed     by itself, on a quiet machine; --only filler, after champion and longer
python -m benchmarks.claims --quick          three variants, two seeds, under 15 minutes, with what to expect
python -m benchmarks.claims --choose         which seed of the champion the zoo gets, by the validation split
python -m benchmarks.claims --page           README.md and the plots, from the result files alone

variants.py     architectures of equal size, which differ in positions and in the global layer
experiments.py  what is trained, on what, and what is measured
training.py     one training, in the user's cache
tuning.py       the learning rate of each variant, by a sweep that is the same for all
running.py      one run: train, measure, write a result file
results.py      the result files
ablation.py     what each head of a model does; filler.py: what its global layers look at; speed.py: time by length
choosing.py     the validation scores behind --choose
published_claims.py  the published claims: a test, a figure with its interval, a verdict
page.py         README.md; plots.py: its plots
"""
