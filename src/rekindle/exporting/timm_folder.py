"""A folder that `timm.create_model("local-dir:FOLDER", pretrained=True)` reads, and that is a model repository of the Hugging Face Hub."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from rekindle import data as data_room
from rekindle.data import Picture
from rekindle.data.samples import Preprocessing
from rekindle.errors import UserError, first_line, number_of
from rekindle.files import write_atomic, write_json
from rekindle.records import package_versions, read_spec
from rekindle.run import Run

CARD = """---
library_name: timm
pipeline_tag: image-classification
tags: [image-classification, timm, rekindle]
---
# {title}

{network} fine-tuned by rekindle {version} to tell apart {count} classes: {classes}.

{figures}

Method `{method}`, {epochs} epochs, {size} pixels, random seed {seed}. The licence of the pre-trained weights holds for these too.

```python
import timm, torch
from PIL import Image

model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()   # or "hf-hub:NAME/REPOSITORY"
config = timm.data.resolve_model_data_config(model)
transform = timm.data.create_transform(**config, is_training=False)
with torch.no_grad():
    probabilities = model(transform(Image.open("picture.jpg").convert("RGB"))[None]).softmax(1)[0]
print(model.pretrained_cfg["label_names"][probabilities.argmax()])
```
"""


def write_timm_folder(run: Run, folder: Path) -> None:
    """Write config.json, model.safetensors and README.md, the model card.

    Raises:
        UserError: If the network is none of timm's, or a method changed its layers.
    """
    import timm

    module, recipe = run.model
    name = recipe["model"]
    if ":" in name or not timm.is_model(name):
        raise UserError(f"{name} is no network of timm, so there is no timm folder of it; export it with --format onnx.")
    wanted = Preprocessing.from_recipe(recipe)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(_weights(module, recipe), folder / "model.safetensors")
    write_json(folder / "config.json", _config(name, module, recipe["classes"], wanted))
    write_atomic(folder / "README.md", _card(run))


def _weights(module: torch.nn.Module, recipe: dict[str, Any]) -> dict[str, Tensor]:
    """The network's, with the temperature inside the classifier, since timm knows none; the classifier is linear, or ends in a ReLU."""
    tensors = {key: value.detach().contiguous().clone() for key, value in module.state_dict().items()}
    for name in recipe.get("head_modules", []):
        for key, _ in module.get_submodule(name).named_parameters():
            tensors[f"{name}.{key}"] /= recipe["temperature"]
    return tensors


def answers_of_timm(folder: Path, pictures: Sequence[Picture]) -> Tensor:
    """Probabilities (N, C) of the folder, by timm's own loading and transforms.

    Returns:
        (N, C) float32, rows of sum 1.

    Raises:
        UserError: If timm cannot build the network with these weights.
    """
    import timm
    from timm.data.config import resolve_model_data_config
    from timm.data.transforms_factory import create_transform

    try:
        model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    except RuntimeError as error:
        raise UserError(
            f"timm cannot build the network of this run, whose layers a method or --head-type changed ({first_line(error)})."
        ) from None
    transform = create_transform(**resolve_model_data_config(model), is_training=False)
    rows = []
    with torch.no_grad():
        for picture in pictures:
            pixels = transform(Image.fromarray(data_room.decode_whole(picture)))
            rows.append(model(pixels[None]).float().softmax(1)[0])
    return torch.stack(rows)


def _config(name: str, module: torch.nn.Module, classes: list[str], wanted: Preprocessing) -> dict[str, Any]:
    own: dict[str, Any] = module.pretrained_cfg  # type: ignore[assignment]
    shown: dict[str, Any] = {
        "num_classes": len(classes),
        "input_size": [3, wanted.image_size, wanted.image_size],
        "mean": list(wanted.mean),
        "std": list(wanted.std),
        "interpolation": wanted.interpolation,
        "crop_pct": math.nextafter(wanted.image_size / wanted.edge, 0),  # timm rounds size / crop_pct down, which must give the edge.
        "crop_mode": "center",
        "first_conv": own.get("first_conv"),
        "classifier": own.get("classifier"),
        "label_names": classes,
    }
    # A network with position embeddings is built for pictures of a size.
    sized = hasattr(module, "set_input_size") and wanted.image_size != own["input_size"][-1]
    return {
        "architecture": name.partition(".")[0], "num_classes": len(classes), "label_names": classes, "pretrained_cfg": shown,
        **({"model_args": {"img_size": wanted.image_size}} if sized else {}),
    }  # fmt: skip


def _card(run: Run) -> str:
    spec, recipe, result = read_spec(run.folder), run.model[1], run.result
    measured = [
        f"Accuracy on {number_of(result[split]['count'], f'{words} picture')}: {100 * result[split]['accuracy']:.1f} %."
        for split, words in (("test", "test"), ("val", "validation"))
        if result.get(split)
    ]
    return CARD.format(
        title=run.folder.resolve().name, network=recipe["model"], version=package_versions(("rekindle",))["rekindle"], count=len(recipe["classes"]),
        classes=", ".join(recipe["classes"]), figures=" ".join(measured), method=spec.method, epochs=result.get("epochs"),
        size=recipe["image_size"], seed=spec.seed,
    )  # fmt: skip
