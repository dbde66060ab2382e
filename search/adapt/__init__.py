"""Adapt: a pretrained full-attention model becomes a local/global one, without training.

    adapt("smollm2", Settings(cache=0.25, window=512), "smollm2-local")

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
settings.py    what is asked for
prepared.py    what is known before anything is scored
working.py     search and report, with what is scored in the journal
asking.py      the whole of it, from a reference to the folder
healing.py     the chosen placement trained, with the original as its teacher
result.py      adapt.json, with everything that was found and measured
writing.py     the folder of the result
words.py       what is said
page.py, charts.py  the page
"""
