"""What people would use instead. Each peer is imported where it is used: one that is not installed is only absent."""
