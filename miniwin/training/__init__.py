"""Training: `launch` sets it up, `loop` runs it, and the rest is what the loop is made of."""
