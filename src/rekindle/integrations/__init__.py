"""A `Tuner` in other people's training loops: one callback for Lightning, one for the Hugging Face Trainer."""
