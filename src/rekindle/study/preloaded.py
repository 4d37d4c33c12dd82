"""What every run needs and takes seconds to import: done once, in the process that those of a study are forked from.

It is imported for that alone. A library that fails here fails again in a run, where the failure is told.
"""

import gc
import importlib
from contextlib import suppress

for name in ("rekindle.fitting.job", "rekindle.training.trainer", "sklearn.linear_model", "sklearn.model_selection"):
    with suppress(Exception):
        importlib.import_module(name)
gc.freeze()  # What is looked through for garbage is copied from the process that it was forked from.
