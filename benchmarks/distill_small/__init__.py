"""A model of 10 million parameters learns from SmolLM2's logits, or from the text alone, with equally many tokens.

    python -m benchmarks.distill_small --teacher IMPORT --corpora FOLDER --work FOLDER           # all of it
    python -m benchmarks.distill_small --page                                  # README.md anew from results.json

Both arms read the same rows of two novels. The learning rate of each is chosen by bits per byte on validation text,
from the same rates and by the same rule, with the first seed. Then each is trained with all seeds, and measured on the
ends of the two novels and on a third one, which nothing was chosen by.

Several processes may do the same work: each takes what nobody else is at, and a later call finds what is done. --only
text, kl or states does a part of it. `states` computes what the teacher says of all rows, which every run then takes
from the disk (`distill.cache`).
"""
