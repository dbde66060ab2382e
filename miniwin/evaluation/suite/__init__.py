"""A suite: many measures of one model at many lengths, each with its number of examples, chance level and interval.

result.py   what a suite found: rows, and the samples behind each row
"""
