"""The code of docs/loops.md runs, on small networks in place of downloaded ones."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

PAGE = (Path(__file__).resolve().parents[2] / "docs/loops.md").read_text("utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
SMALL = {
    '"torchvision:resnet50", classes=200': '"cifar_resnet8", classes=3, weights="none"',
    "epochs=40": "epochs=4",
    'from_pretrained("microsoft/resnet-50", num_labels=200, ignore_mismatched_sizes=True)': "from_config(tiny)",
    "per_device_train_batch_size=32": 'per_device_train_batch_size=4, use_cpu=True, report_to="none", disable_tqdm=True',
    "len(dataset) // 32": "len(dataset) // 4",
    "pl.Trainer(": 'pl.Trainer(accelerator="cpu", enable_progress_bar=False, logger=False, ',
}
pytestmark = pytest.mark.filterwarnings("ignore")


def pictures(count: int) -> DataLoader[Any]:
    """A loader of `count` batches."""
    return DataLoader(TensorDataset(torch.randn(4 * count, 3, 16, 16), torch.arange(4 * count) % 3), batch_size=4)


def run(words: str, space: dict[str, Any]) -> dict[str, Any]:
    """Execute the one block that holds `words`."""
    [code] = [text for text in BLOCKS if words in text]
    for old, new in SMALL.items():
        code = code.replace(old, new)
    assert "resnet50" not in code and "microsoft" not in code, "the block downloads a network"
    exec(code, space)  # noqa: S102
    return space


def test_every_block_is_run_here() -> None:
    assert len(BLOCKS) == 4


def test_plain_loop() -> None:
    space = run("for x, y in loader", {"loader": pictures(2)})
    assert space["scheduler"].last_epoch == 4


def test_accumulation_precision_clipping_and_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    space = run("for x, y in loader", {"loader": pictures(2)})
    model, tuner = (
        space["model"],
        space["rekindle"].Tuner(space["model"], space["methods"], source=space["source"], epochs=4, steps_per_epoch=2),
    )
    optimizer = torch.optim.SGD(tuner.param_groups(lr=0.01))
    space |= {"tuner": tuner, "optimizer": optimizer, "scheduler": tuner.scheduler(optimizer), "batches": [pictures(2), pictures(2)]}
    run("GradScaler", space)
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    assert state["epoch"] == 3 and state["tuner"]["step"] == 2
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_lightning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    space = run("pl.LightningModule", {"loader": pictures(2)})
    assert space["trainer"].global_step == 8


def test_hugging_face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import ResNetConfig

    monkeypatch.chdir(tmp_path)
    tiny = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic", num_labels=3)
    dataset = [{"pixel_values": torch.randn(3, 32, 32), "labels": number % 3} for number in range(9)]
    space = run("AutoModelForImageClassification", {"dataset": dataset, "tiny": tiny})
    assert space["trainer"].state.global_step == 8
