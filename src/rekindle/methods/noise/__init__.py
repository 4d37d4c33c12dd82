"""Noise in training: dropout of features, weights, blocks and labels, and stochastic normalisation."""
