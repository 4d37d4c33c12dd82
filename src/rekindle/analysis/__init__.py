"""Measurements of trained networks."""

from rekindle.analysis.classification import summarize

__all__ = ["summarize"]
