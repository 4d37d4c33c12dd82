"""Build or load a network, find its classifier, name its stages."""

from rekindle.models.build import LoadedModel, build, load, load_weights, names
from rekindle.models.classifier import find_classifier, replace_classifier, source_classifier
from rekindle.models.files import load_model, save_model
from rekindle.models.stages import stages

__all__ = [
    "LoadedModel", "build", "find_classifier", "load", "load_model", "load_weights", "names", "replace_classifier", "save_model",
    "source_classifier", "stages",
]  # fmt: skip
