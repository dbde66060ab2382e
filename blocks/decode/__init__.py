"""Whole decoding steps that are faster than the module by module one: native on a CPU, as a graph on a GPU."""
