"""What rekindle costs beside what it stands on: ratios of two things measured in turn, so that the machine matters little."""
