"""Files and folders: written whole, read with suspicion, hashed, and kept where a user expects them."""
