"""Where the workers of a search run: a launcher starts them, says how each has ended, and stops them.

A launcher is one file here and one row of `LAUNCHERS` in choosing.py. crew.py is what all of them share.
"""
