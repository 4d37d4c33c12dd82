"""Penalties on the weights themselves."""
