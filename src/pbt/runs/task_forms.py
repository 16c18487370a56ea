"""The forms in which a task may be given."""

from typing import TYPE_CHECKING, Any, TypeAlias

from pbt.errors import TaskError
from pbt.executors.worker import Task, TrainFunction

if TYPE_CHECKING:
    from pbt.pytorch.modules import Buildable

AnyTask: TypeAlias = "TrainFunction | Task | Buildable"
"""A function, a task such as `SupervisedTask`, or the class form."""


def trainable(task: Any) -> TrainFunction | Task:
    """Convert a task to the form that workers take.

    Raises:
        TaskError: The task has none of the supported forms.
    """
    if isinstance(task, Task):
        return task
    if all(hasattr(task, name) for name in ("build", "train", "evaluate")):
        from pbt.pytorch.modules import ModuleTask

        if not hasattr(task, "bind"):
            raise TaskError(
                f"{type(task).__name__} needs a `bind` table that maps each hyperparameter to the place of its effect"
            )
        return ModuleTask(task)
    if callable(task):
        train: TrainFunction = task
        return train
    raise TaskError(
        "expected a task: a function (hparams, state, steps, ctx), a SupervisedTask, or an object with "
        f"bind, build, train and evaluate; got {type(task).__name__}"
    )
