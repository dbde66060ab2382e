"""A suite: many measures of one model at many lengths, each with its number of examples, chance level and interval.

run.py         plans the parts, measures those that are not done, puts the rows together
part.py        what a part is, and what every kind of measure needs to plan its parts
tasks.py       tasks; losses.py: bits per byte; shift.py: filler in front; cost.py: times and cache bytes
documents.py   the long documents of a corpus
store.py       the folder: a file for each part that is done
result.py      what a suite found: rows, and the samples behind each row
rows.py        a row from an interval
table.py       the rows on a terminal
"""
