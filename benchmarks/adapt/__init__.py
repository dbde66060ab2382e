"""Pretrained models made local/global by `miniwin adapt`, and how fast they then decode.

miniwin adapt smollm2 --cache 22% --out smollm2-local ...     the page says the whole command
python -m benchmarks.adapt --take smollm2-local               keeps adapt.json as results/smollm2-local.json
python -m benchmarks.adapt --time smollm2 smollm2-local       decodes with both in turns, into the same file
python -m benchmarks.adapt                                    writes README.md from results/
"""
