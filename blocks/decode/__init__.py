"""Decoding steps that are faster than calling module after module: one native call on a CPU, a CUDA graph on a GPU."""
