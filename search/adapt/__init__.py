"""Adapt: a pretrained full-attention model becomes a local/global one, without training.

    adapt("smollm2", cache=0.25, window=512, out="smollm2-local")

Which layers stay global is searched for: candidates share the weights of the one model that was loaded, and each is
judged by what it loses on text and on questions about facts far back in the text.

plan.py        which parts can become local, how many may stay global, and the spec of each placement
kinds.py       the questions, and the facts that they are about
texts.py       the text around the facts, some for the search and some for the report
rows.py        rows of tokens: text, facts, and questions at the end
layers.py      the layers of all candidates, over the same weights; a row through them, from where it is known
scoring.py     nats of text and of answers
journal.py     every scored placement, on disk at once, so that nothing is scored twice
searching.py   single repairs, random draws, swaps, removals
measuring.py   the report's figures, with paired intervals
asking.py      the whole of it: what is asked for, checked, searched, measured and written
writing.py     the folder of the result
page.py        the page
"""
