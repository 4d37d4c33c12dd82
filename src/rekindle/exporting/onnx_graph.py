"""A run as one ONNX graph, from a decoded picture of any size to the probabilities of its classes.

Resize, crop, normalisation and softmax are inside, since they are what other programs get wrong.
"""

import json
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rekindle.analysis.calibration import at_temperature
from rekindle.data.samples import Preprocessing
from rekindle.errors import UserError, first_line
from rekindle.exporting.pillow_resize import FILTERS, ResizeAndCrop
from rekindle.run import Run

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 18
IMAGE, PROBABILITIES = "image", "probabilities"


class Classifier(nn.Module):
    """From a picture (H, W, 3) uint8 of any size to probabilities (C,), as `rekindle predict` has them.

    Args:
        network: In evaluation mode.
        wanted: What it wants as input.
        temperature: Of its softmax.
    """

    def __init__(self, network: nn.Module, wanted: Preprocessing, temperature: float) -> None:
        super().__init__()
        self.network, self.temperature = network, temperature
        self.resize = ResizeAndCrop(wanted.edge, wanted.image_size, wanted.interpolation)
        std = torch.tensor(wanted.std)
        self.register_buffer("scale", (1.0 / (255.0 * std)).view(3, 1, 1))
        self.register_buffer("offset", (torch.tensor(wanted.mean) / std).view(3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        pixels = self.resize(image) * self.scale - self.offset
        outputs: Tensor = self.network(pixels[None])
        return at_temperature(outputs, self.temperature)[0]


def to_onnx(run: Run) -> "ModelProto":
    """The graph: input "image", (H, W, 3) uint8 RGB of any size; output "probabilities", (C,) float32.

    Names of the classes, in order, stand as a JSON list among the metadata, key "classes".

    Returns:
        A model that onnx has checked.

    Raises:
        UserError: If the network, or its kind of resize, cannot be exported, or a package is missing.
    """
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
        from onnx import checker, helper
    except ImportError:
        raise UserError("exporting to ONNX needs the packages onnx, onnxscript and onnxruntime; pip install 'rekindle[export]'.") from None
    module, recipe = run.model
    wanted = Preprocessing.from_recipe(recipe)
    if wanted.interpolation not in FILTERS:
        raise UserError(
            f"pictures of this run were resized by {wanted.interpolation}, which cannot be exported; {' and '.join(FILTERS)} can."
        )
    model = _traced(Classifier(module, wanted, recipe["temperature"]).eval(), recipe["model"])
    helper.set_model_props(model, {"classes": json.dumps(recipe["classes"], ensure_ascii=False), "model": recipe["model"]})
    model.producer_name = "rekindle"
    checker.check_model(model, full_check=True)
    return model


def _traced(module: Classifier, name: str) -> "ModelProto":
    """By torch's exporter."""
    dim = torch.export.Dim
    edge = module.resize.edge
    try:
        program = torch.onnx.export(
            module, (torch.zeros(edge + 37, edge + 11, 3, dtype=torch.uint8),), dynamo=True, opset_version=OPSET, verbose=False,
            input_names=[IMAGE], output_names=[PROBABILITIES], dynamic_shapes=({0: dim("height"), 1: dim("width")},),
        )  # fmt: skip
    except Exception as error:  # The exporter raises whatever the network's own code does under it.
        raise UserError(f"torch cannot export {name} to ONNX ({first_line(error)}).") from error
    assert program is not None
    model: ModelProto = program.model_proto
    return model
