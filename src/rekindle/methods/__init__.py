"""The science: one paper, one file."""
