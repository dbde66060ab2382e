"""What people would use instead. A peer is imported where it is used, so a peer that is not installed is merely
absent."""
