"""The machine at hand: its devices, memory and processes, and which matrix product is fastest on it."""
