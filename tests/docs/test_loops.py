"""The code of docs/loops.md runs, on small networks in place of downloaded ones."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import rekindle

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


def block(words: str) -> str:
    """The one block that holds `words`."""
    [code] = [text for text in BLOCKS if words in text]
    return code


def run(words: str, space: dict[str, Any], instead: dict[str, str] | None = None) -> dict[str, Any]:
    """Execute the one block that holds `words`, small."""
    code = block(words)
    for old, new in {**SMALL, **(instead or {})}.items():
        code = code.replace(old, new)
    assert "resnet50" not in code and "microsoft" not in code, "the block downloads a network"
    exec(code, space)  # noqa: S102
    return space


def test_every_block_is_run_here() -> None:
    assert len(BLOCKS) == 5


def test_plain_loop() -> None:
    space = run("for x, y in loader", {"loader": pictures(2)})
    assert space["scheduler"].last_epoch == 4


def objects(batches: list[Any]) -> dict[str, Any]:
    """What the plain loop makes before it trains, equal at every call."""
    torch.manual_seed(0)
    source, model = rekindle.load("cifar_resnet8", classes=3, weights="none")
    tuner = rekindle.Tuner(model, [rekindle.L2SP(alpha=0.01), rekindle.Rifle(periods=4)], source=source, epochs=4, steps_per_epoch=2)
    optimizer = torch.optim.SGD(tuner.param_groups(lr=0.01), momentum=0.9)
    return {
        "rekindle": rekindle, "torch": torch, "criterion": torch.nn.CrossEntropyLoss(), "batches": batches, "model": model, "tuner": tuner,
        "optimizer": optimizer, "scheduler": tuner.scheduler(optimizer),
    }  # fmt: skip


def test_accumulation_precision_clipping_and_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    batches = [list(pictures(2)), list(pictures(2))]
    space = run("GradScaler", objects(batches))
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    assert state["epoch"] == 3 and state["tuner"]["step"] == 2
    assert all(torch.isfinite(p).all() for p in space["model"].parameters())

    run("GradScaler", objects(batches), {"in range(start, tuner.epochs)": "in range(start, 2)"})
    assert torch.load(tmp_path / "last.pt", weights_only=True)["epoch"] == 1
    resumed = run("GradScaler", objects(batches), {"start = 0\n": block('torch.load("last.pt"')})
    assert resumed["start"] == 2
    for name, value in space["model"].state_dict().items():
        assert torch.equal(value, resumed["model"].state_dict()[name]), name


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
