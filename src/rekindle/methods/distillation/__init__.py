"""What the pre-trained network does is kept while its weights move: outputs, activations, relations between classes."""
