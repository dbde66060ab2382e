"""`python -m benchmarks.search_chaos`: a search that is killed again and again, beside the same search undisturbed.

Four workers search on two objectives with halving, in PostgreSQL (the tests' throwaway server) or in a journal file.
Workers, and now and then the command itself, are killed with SIGKILL at random moments, 40 times in all. In between
the server is stopped as by a crash and started again, and the disk with the checkpoints is filled to the last byte,
until the command ends. Then there is room again, and the same command is given again, as a user would.

The other search has one worker, trains every architecture to the end, and is left in peace. Both try the same grid of
assignments. So each architecture has to have the same values in both, at each rung that it has reached, to the bit.

One line is printed for each thing that has to hold. The exit code is 1 if any does not.

A full disk is a tmpfs of its own, which needs root on Linux. Elsewhere the operating system limits the size of the
files that the command may write instead, and the line of the disk says so.
"""
