"""Confidences that can be believed: logits divided by one temperature (Guo et al., On Calibration of Modern Neural Networks, ICML 2017).

Dividing by a positive number changes no order, so the class that is named stays the same.
"""

import math

from torch import Tensor

LEAST = 20  # Pictures; of fewer, the best temperature says more about them than about the network.
WIDEST = 20.0  # Temperatures are sought from 1/20 to 20.


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature at which the negative log-likelihood of held-out pictures is least; 1 of fewer than `LEAST` pictures.

    As in Platt's scaling (1999) a picture counts 1/(N + 2) of the other classes, since where all answers are right, the likelihood alone
    would make every confidence 1.

    Args:
        logits: (N, C), of pictures that the network was not trained on.
        labels: (N,) true classes.

    Returns:
        A temperature above 0; above 1 for a network that is too sure of itself.
    """
    from scipy.optimize import minimize_scalar

    count, classes = logits.shape
    if count < LEAST or classes < 2:
        return 1.0
    scores = logits.double()
    spread = 1 / (count + 2)
    true = (1 - spread) * scores.gather(1, labels[:, None])[:, 0]
    others = spread * (scores.sum(1) - scores.gather(1, labels[:, None])[:, 0]) / (classes - 1)
    target = float((true + others).mean())

    def loss(log_temperature: float) -> float:
        sharpness = math.exp(-log_temperature)
        return float((scores * sharpness).logsumexp(1).mean()) - sharpness * target

    limit = math.log(WIDEST)
    return math.exp(minimize_scalar(loss, bounds=(-limit, limit), method="bounded", options={"xatol": 1e-4}).x)


def at_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Probabilities (N, C) of logits (N, C).

    Returns:
        (N, C), rows of sum 1.

    Examples:
        >>> import torch
        >>> [round(p, 3) for p in at_temperature(torch.tensor([[2.0, 0.0]]), 2.0)[0].tolist()]
        [0.731, 0.269]
    """
    return (logits.float() / temperature).softmax(1)
