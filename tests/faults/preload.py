"""What the process loads that others are forked from: itself loads nothing more, and starts no thread, since it could not be forked then."""

import importlib
import os

os.environ["OMP_NUM_THREADS"] = "1"

LOADED = (
    "sklearn.linear_model", "sklearn.model_selection", "rekindle.cli", "rekindle.data.check", "rekindle.data.tasks.prepare", "rekindle.fitting.fit",
    "rekindle.report.compare", "rekindle.report.run_page", "rekindle.report.run_pictures", "rekindle.study.local_engine", "rekindle.training.trainer",
)  # fmt: skip

for name in LOADED:
    importlib.import_module(name)

importlib.import_module("torch").set_num_threads(1)
