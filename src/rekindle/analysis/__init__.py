"""Measurements of trained networks."""

from rekindle.analysis.classification import mean_nll, summarize

__all__ = ["mean_nll", "summarize"]
