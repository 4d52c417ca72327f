"""What models are trained for, one file a task; see `base` for what a task is."""

from typing import Any

from ..config import TASKS, found
from .base import AbstractTask, Curves, Data, Terms


def task_of(name: str, **options: Any) -> AbstractTask:
    """The task of that name, with these options."""
    return found(TASKS[name].task)(**options)


__all__ = ["TASKS", "AbstractTask", "Curves", "Data", "Terms", "task_of"]
