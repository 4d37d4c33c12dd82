"""The benchmark tasks of the papers, by name."""

import difflib

from rekindle.data.tasks.aircraft import AIRCRAFT
from rekindle.data.tasks.birds import CUB
from rekindle.data.tasks.caltech import CALTECH
from rekindle.data.tasks.cars import CARS
from rekindle.data.tasks.cifar import CIFAR10, CIFAR100
from rekindle.data.tasks.dogs import DOGS
from rekindle.data.tasks.flowers import FLOWERS
from rekindle.data.tasks.food import FOOD_30, FOOD_150
from rekindle.data.tasks.indoor import INDOOR
from rekindle.data.tasks.pets import PETS
from rekindle.data.tasks.task import Layout, Task, TaskFile
from rekindle.data.tasks.textures import DTD
from rekindle.errors import UserError

__all__ = ["TASKS", "Layout", "Task", "TaskFile", "find"]

TASKS: dict[str, Task] = {
    task.name: task
    for task in (CUB, AIRCRAFT, FLOWERS, DTD, INDOOR, CARS, DOGS, FOOD_30, FOOD_150, CALTECH, CIFAR10, CIFAR100, PETS)
}  # fmt: skip


def find(name: str) -> Task:
    """A task by name.

    Raises:
        UserError: If there is none of that name.
    """
    if name not in TASKS:
        close = difflib.get_close_matches(name, TASKS, 1, 0.4)
        raise UserError(f"no task is called {name!r}; {f'did you mean {close[0]}? ' if close else ''}They are {', '.join(TASKS)}.")
    return TASKS[name]
