"""The benchmark tasks of the papers, by name. A task is found when its module lies in `rekindle.data.tasks.benchmarks`."""

import difflib
import importlib
import pkgutil

from rekindle.data.tasks import benchmarks
from rekindle.data.tasks.task import Layout, Task, TaskFile
from rekindle.errors import UserError

__all__ = ["TASKS", "Layout", "Task", "TaskFile", "find"]


def _tasks() -> dict[str, Task]:
    modules = [importlib.import_module(f"{benchmarks.__name__}.{info.name}") for info in pkgutil.iter_modules(benchmarks.__path__)]
    return {task.name: task for module in modules for task in vars(module).values() if isinstance(task, Task)}


TASKS: dict[str, Task] = _tasks()


def find(name: str) -> Task:
    """A task by name.

    Returns:
        The task, whose `read` knows its archives.

    Raises:
        UserError: If there is none of that name.
    """
    if name not in TASKS:
        close = difflib.get_close_matches(name, TASKS, 1, 0.4)
        raise UserError(f"no task is called {name!r}; {f'did you mean {close[0]}? ' if close else ''}They are {', '.join(TASKS)}.")
    return TASKS[name]
