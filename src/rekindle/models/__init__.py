"""Build or load a network, find its classifier, name its stages."""

from rekindle.models.build import LoadedModel, build, load, names
from rekindle.models.classifier import find_classifier, own_head_type, replace_classifier, source_classifier, width_of_classifier
from rekindle.models.saving import load_model, read_model, save_model
from rekindle.models.stages import stages
from rekindle.models.weights import load_weights

__all__ = [
    "LoadedModel", "build", "find_classifier", "load", "load_model", "load_weights", "names", "own_head_type", "read_model", "replace_classifier", "save_model",
    "source_classifier", "stages", "width_of_classifier",
]  # fmt: skip
