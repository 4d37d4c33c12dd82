"""Rules that combine the gradient of the loss with that of a regulariser."""
