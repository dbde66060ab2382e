"""Python runs this first in every process that a test starts: conftest.py puts this folder on PYTHONPATH.

Looking for garbage takes a third of what a process computes that imports PyTorch and ends: among its million objects
hundreds of times while they come, and once more when it ends.
"""

import atexit
import gc

gc.set_threshold(20_000)
atexit.register(gc.freeze)
