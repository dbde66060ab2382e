"""A suite: many measures of one model at many lengths, each with its number of examples, chance level and interval.

run.py             plans the parts, measures those that are not done, puts the rows together
part.py            what a part is, and what every kind of measure needs to plan its parts
tasks.py           tasks; losses.py: bits per byte; shift.py: filler in front; cost.py: times and cache bytes
documents.py       the long documents of a corpus
trained.py         what 1x means for a model
store.py           the folder: a file for each part that is done
progress.py        what a person sees meanwhile
result.py          what a suite found: rows, and the samples behind each row
rows.py            a row from an interval; units.py: how values are written; samples.py: what a value is made of
result_table.py    the rows on a terminal
page.py            the page; charts.py and page_tables.py: what stands on it; verdicts.py: what it says in words
comparison.py      several results side by side; pairs.py: the difference of two rows
comparison_table.py, comparison_page.py    the comparison on a terminal, and its page
stored_results.py  results that a path names
"""
