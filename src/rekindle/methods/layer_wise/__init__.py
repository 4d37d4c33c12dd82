"""Which layers train, and how fast."""
