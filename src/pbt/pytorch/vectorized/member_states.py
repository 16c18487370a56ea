"""The states of members as they enter and leave a program: equal to those of a worker of a single member."""

from dataclasses import dataclass
from typing import Any

from pbt.executors.base import RoundTask, State
from pbt.executors.worker import WorkerSpec, context_of
from pbt.pytorch.noise import Noise
from pbt.pytorch.supervised import SupervisedTask
from pbt.pytorch.vectorized.program import Program
from pbt.pytorch.vectorized.settings import Groups, HParamReader, Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The start of a member's round."""

    task: RoundTask
    row: int | None
    """The row of its state in the program; None: not in the program."""
    settings: Settings


def fetch(task: RoundTask, setup: WorkerSpec, supervised: SupervisedTask, reader: HParamReader) -> State:
    """The state that a round starts from: a stored one, or a fresh one."""
    if task.start is not None:
        state = setup.states.get(task.start, task.digest or "", task.blob)
        reader.check(state)
        return state
    key = context_of(task, setup).init_key
    parts = supervised.build(setup.device, Noise(), key).parts
    reader.shared.check(parts)
    fresh = {name: part.state_dict() for name, part in parts.items()}
    fresh["optimizer"] = {"state": {}, "param_groups": None}
    reader.check(fresh)
    return fresh


def state_of(program: Program, row: int, reader: HParamReader) -> State:
    """The state of a member of a program, equal to one captured by a worker of a single member."""
    model, memory = program.dump(row)
    groups = [
        {**settings, "params": places} for settings, places in zip(program.groups(row), reader.places, strict=True)
    ]
    state: dict[str, Any] = {"model": model, "optimizer": {"state": memory, "param_groups": groups}}
    if program.schedules is not None:
        state["scheduler"] = program.schedules.dump(row)
    if (averaged := program.tensors.averaged(row)) is not None:
        state["ema"] = averaged
    return state


def groups_of(state: State) -> Groups | None:
    """The settings of the optimizer in a state, without its parameters; None: a fresh state has none."""
    groups = state["optimizer"]["param_groups"]
    return groups and [{name: value for name, value in group.items() if name != "params"} for group in groups]
