"""What stands on the features, and how it starts."""
