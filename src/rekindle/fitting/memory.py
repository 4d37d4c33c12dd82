"""Whether a step of training fits in memory, told before any picture is read: a typing error is not to end in a killed process."""

import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from rekindle.errors import UserError, number_of
from rekindle.spec import RunSpec
from rekindle.training.trainer import EVAL_BATCH

COPIES = 4  # Of the weights: themselves, their gradients, the optimiser's momentum, and the pre-trained ones.
HALF = 0.5  # What bf16 leaves of activations, at the least.
HUNGRIEST = 2**15  # Bytes a pixel: about what xcit_large_24_p8 keeps, the hungriest of fifteen architectures; ResNet-18 keeps 442.
MEMORY, GROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


def size_warnings(spec: RunSpec, model: nn.Module, image_size: int, images: int, device: torch.device) -> list[str]:
    """Sentences on sizes that are allowed but doubtful; the arguments are those of `check_memory`, which may refuse them."""
    found = [text] if (text := check_memory(spec, model, image_size, images, device)) else []
    if spec.batch_size > max(images, RunSpec.batch_size):
        found.append(
            f"--batch-size {spec.batch_size} is more than the {number_of(images, 'training image')}; each epoch is one step of all of them."
        )
    return found


def check_memory(spec: RunSpec, model: nn.Module, image_size: int, images: int, device: torch.device) -> str:
    """Estimate a training step's memory on one device.

    Args:
        spec: The run; its precision may be "auto".
        model: The network, before it has its new head.
        image_size: Edge of the crops.
        images: Training images; a batch has no more.
        device: Where it is to be trained.

    Returns:
        A sentence where it may not fit, else "".

    Raises:
        UserError: If it is more than the device has at all.
    """
    batch = math.ceil(min(spec.batch_size, images) / (spec.grad_accum_steps * spec.devices))
    weights = COPIES * sum(p.numel() * p.element_size() for p in model.parameters())
    free, whole = device_memory(device)
    if weights + (batch + 2) * image_size**2 * HUNGRIEST <= free:  # Looking at images needs no more than two in training.
        return ""  # Any network fits; a closer look takes half a second.
    one = activation_bytes(model, image_size)
    if one is None:
        return ""
    whole_step, largest = (size * (1.0 if spec.precision == "32" else HALF) for size in one)
    need = weights + max(batch * whole_step, min(EVAL_BATCH, images) * 2 * largest)  # Looking at images keeps a layer's input and output.
    if need <= free:
        return ""
    text = (
        f"training in steps of {number_of(batch, 'image')} of {image_size} x {image_size} pixels needs at least {_gib(need)} on {device}, which has "
        f"{_gib(free)} free of {_gib(whole)}"
    )
    remedy = "give a smaller --batch-size or --image-size, or more --grad-accum-steps"
    if need > whole:
        raise UserError(f"{text}; {remedy}.")
    return f"{text}; if memory runs out, {remedy}."


def activation_bytes(model: nn.Module, image_size: int) -> tuple[int, int] | None:
    """Bytes of one image that a float32 training step keeps for its backward pass, and the most of them in one tensor.

    Nothing is computed and nothing allocated for it. None where the network cannot run without numbers in its tensors, or not at this size, which its first real pass will tell.
    """
    state = {name: tensor.detach().to("meta").requires_grad_() for name, tensor in model.named_parameters()}
    state |= {name: tensor.detach().to("meta") for name, tensor in model.named_buffers()}
    weights = {tensor.untyped_storage()._cdata for tensor in state.values()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    try:
        with torch.enable_grad(), saved_tensors_hooks(keep, lambda tensor: tensor):
            outputs = torch.func.functional_call(model, state, (torch.empty(2, 3, image_size, image_size, device="meta"),))
    except Exception:  # noqa: BLE001  Networks are anybody's code; where this fails, there is no estimate.
        return None
    del outputs
    return sum(kept.values()) // 2, max(kept.values(), default=0) // 2


def device_memory(device: torch.device) -> tuple[float, float]:
    """Bytes that are free and bytes that there are, on a GPU or for this process; infinite where the system does not tell."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused, torch.cuda.mem_get_info(device)[1]
    try:
        lines = dict(line.split(":", 1) for line in MEMORY.read_text("utf-8").splitlines())
        free, whole = (1024.0 * int(lines[name].split()[0]) for name in ("MemAvailable", "MemTotal"))
    except (OSError, ValueError, KeyError):
        return math.inf, math.inf
    limit, used = _of_group()
    return min(free, limit - used), min(whole, limit)


def _of_group() -> tuple[float, float]:
    """What a container may use, and what it uses without the copies of files that it can drop."""
    try:
        limit = int((GROUP / "memory.max").read_text("utf-8"))
        parts = dict(line.split() for line in (GROUP / "memory.stat").read_text("utf-8").splitlines())
        return limit, int((GROUP / "memory.current").read_text("utf-8")) - int(parts["inactive_file"])
    except (OSError, ValueError, KeyError):  # No container, one without a limit ("max"), or another version of them.
        return math.inf, 0.0


def _gib(count: float) -> str:
    return f"{count / 2**30:.1f} GiB"
