"""Models of Stable-Baselines3: arguments that may change between rounds, schedules, and the capture of their state."""

import inspect
import warnings
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule
from stable_baselines3.common.vec_env import unwrap_vec_normalize
from torch.optim import Optimizer

from pbt.errors import TaskError, nearest
from pbt.executors.base_values import is_number, plain
from pbt.pytorch.live import Live
from pbt.store.folder import Folder
from pbt.values import Value

_SCHEDULES = (FloatSchedule, LinearSchedule, ConstantSchedule)
_BUILT_IN = frozenset({
    "buffer_size", "exploration_final_eps", "exploration_fraction", "exploration_initial_eps", "n_steps", "seed",
    "stats_window_size", "verbose",
})  # fmt: skip
"""Arguments of which the constructor makes something else, so that a later change has no effect."""
_COUNTERS = ("num_timesteps", "_episode_num", "_n_updates", "_n_calls")


class RunProgress:
    """A schedule of a model, over the steps of the whole run instead of those of one `learn`.

    Args:
        model: The model, whose `num_timesteps` is the progress.
        schedule: The user's schedule: progress remaining (1 to 0) -> value.
        total: Steps of the run; None: the schedule is constant.
    """

    def __init__(self, model: Any, schedule: Any, total: int | None) -> None:
        self._model, self._schedule, self._total = model, schedule, total
        self._factor = 1.0

    def __call__(self, _: float) -> float:
        """The value at the present step of the run."""
        left = 1.0 if self._total is None else max(0.0, 1.0 - self._model.num_timesteps / self._total)
        return float(self._schedule(left)) * self._factor

    @property
    def base(self) -> float:
        """The value at the start of training."""
        return float(self._schedule(1.0)) * self._factor

    def rebase(self, value: Any) -> bool:
        """Scale the schedule so that it starts at a value; returns whether that is possible."""
        built = float(self._schedule(1.0))
        if built:
            self._factor = value / built
        return bool(built) or not value


def use_run_progress(model: Any, total: int | None) -> None:
    """Make a model's schedules depend on the progress of the run.

    Raises:
        TaskError: A schedule changes during training, and the length of the run is not known.
    """
    for name, schedule in list(vars(model).items()):
        if name == "learning_rate" or not isinstance(schedule, _SCHEDULES):
            continue
        inner = schedule.value_schedule if isinstance(schedule, FloatSchedule) else schedule
        constant = isinstance(inner, ConstantSchedule)
        if total is None and not constant:
            raise TaskError(
                f"the model's {name} depends on the progress of training; pass the steps of the whole run, as in "
                "SB3Task(total_steps=100_000)"
            )
        setattr(model, name, RunProgress(model, schedule, None if constant else total))


@dataclass(frozen=True, slots=True)
class AlgorithmBinding:
    """An argument of the algorithm's constructor: a number, or the start of a schedule."""

    argument: str

    def apply(self, live: Live, value: Value) -> None:
        """Set the argument, and the copies that buffers have of it."""
        model = live.parts["model"]
        self._check(model, value)
        schedule = self._schedule(model)
        if schedule is not None:
            if not schedule.rebase(value):
                raise TaskError(f"{self}: expected a schedule that does not start at 0, which cannot be scaled")
            if self.argument == "learning_rate":
                for optimizer in optimizers(model).values():
                    for group in optimizer.param_groups:
                        group["lr"] = schedule(1.0)
            return
        for holder, name in self._places(model):
            current = getattr(holder, name)
            if hasattr(current, "fill_"):
                current.fill_(value)
            else:
                setattr(holder, name, value)

    def read(self, live: Live) -> list[Value]:
        """The value in effect, from the model and from its buffers."""
        model = live.parts["model"]
        schedule = self._schedule(model)
        if schedule is None:
            # A tensor has the number in its own precision.
            return [_rounded(getattr(holder, name), model, self.argument) for holder, name in self._places(model)]
        rates: list[Value] = [schedule.base]
        if self.argument == "learning_rate":
            now = schedule(1.0)
            groups = [group for optimizer in optimizers(model).values() for group in optimizer.param_groups]
            rates += [schedule.base if group["lr"] == now else float(group["lr"]) for group in groups]
        return rates

    def _schedule(self, model: Any) -> RunProgress | None:
        found = getattr(model, "lr_schedule" if self.argument == "learning_rate" else self.argument, None)
        return found if isinstance(found, RunProgress) else None

    def _places(self, model: Any) -> Iterator[tuple[Any, str]]:
        yield model, self.argument
        for buffer in (getattr(model, "rollout_buffer", None), getattr(model, "replay_buffer", None)):
            if buffer is not None and hasattr(buffer, self.argument):
                yield buffer, self.argument
        if hasattr(model, f"{self.argument}_tensor"):
            yield model, f"{self.argument}_tensor"

    def _check(self, model: Any, value: Value) -> None:
        known = inspect.signature(type(model).__init__).parameters
        if self.argument not in known:
            raise TaskError(f"{self}: no such argument of {type(model).__name__}{nearest(self.argument, known)}")
        if not is_number(value):
            raise TaskError(f"{self}: expected a number, got {value!r}")
        current = getattr(model, self.argument, None)
        changes = is_number(current) or self._schedule(model) is not None
        if self.argument in _BUILT_IN or not changes:
            raise TaskError(
                f"{self}: {type(model).__name__} reads this argument ({current!r:.60}) only when it is built; pass "
                f"hparams[...] to it in build, and bind argument()"
            )

    def __str__(self) -> str:
        return f"algorithm({self.argument!r})"


def algorithm(argument: str) -> AlgorithmBinding:
    """Bind to an argument of the algorithm's constructor: `algorithm("clip_range")`, `algorithm("gamma")`.

    For an argument that is a schedule, the hyperparameter is its value at the start of training: the schedule keeps its
    shape and is multiplied.

    Args:
        argument: The name of the argument.
    """
    return AlgorithmBinding(argument)


def _rounded(held: Any, model: Any, argument: str) -> Any:
    value, number = plain(held), getattr(model, argument)
    return number if hasattr(held, "fill_") and value == float(np.float32(number)) else value


def optimizers(model: Any) -> dict[str, Optimizer]:
    """The optimizers of a model: `optimizer`, or `actor_optimizer` and others if there are several."""
    found = {}
    for name in model._get_torch_save_params()[0]:
        part = _inner(model, name)
        if isinstance(part, Optimizer):
            found[name.replace(".", "_")] = part
    return {"optimizer": next(iter(found.values()))} if len(found) == 1 else found


def _inner(model: Any, path: str) -> Any:
    for name in path.split("."):
        model = getattr(model, name)
    return model


def capture(model: Any, replay_buffer: bool, scratch: Path) -> dict[str, Any]:
    """The state of a model without its environments.

    Args:
        model: The model.
        replay_buffer: Whether to include the replay buffer.
        scratch: Where its files are written.
    """
    state = {
        "parameters": model.get_parameters(),
        "tensors": {name: tensor.detach() for name, tensor in _trained(model).items()},
        "counters": {name: int(getattr(model, name)) for name in _COUNTERS if hasattr(model, name)},
        # Without the time of day that each episode has.
        "episodes": [[float(episode["r"]), int(episode["l"])] for episode in model.ep_info_buffer or ()],
        "successes": [float(success) for success in model.ep_success_buffer or ()],
        "actions": model.action_space.np_random.bit_generator.state,
    }
    statistics = _statistics(model)
    if statistics:
        state["normalization"] = {
            name: [np.array(one.mean), np.array(one.var), float(one.count)] for name, one in statistics.items()
        }
    buffer = getattr(model, "replay_buffer", None)
    if replay_buffer and buffer is not None:
        state["replay_buffer"] = _stored(buffer, scratch / "replay_buffer")
    return state


def restore(model: Any, state: Mapping[str, Any]) -> None:
    """Load a state captured by `capture` into a newly built model.

    Raises:
        TaskError: The state does not fit the model.
    """
    try:
        model.set_parameters(state["parameters"])
        for name, tensor in _trained(model).items():
            tensor.data.copy_(state["tensors"][name])
        for name, one in _statistics(model).items():
            one.mean, one.var, one.count = state["normalization"][name]
    except (ValueError, RuntimeError, KeyError) as error:
        raise TaskError(
            f"the state does not fit the model that was built ({error}); a hyperparameter must not change shapes"
        ) from error
    for name, count in state["counters"].items():
        setattr(model, name, count)
    window = model._stats_window_size
    model.ep_info_buffer = deque(({"r": r, "l": length, "t": 0.0} for r, length in state["episodes"]), maxlen=window)
    model.ep_success_buffer = deque(state["successes"], maxlen=window)
    model.action_space.np_random.bit_generator.state = state["actions"]
    if "replay_buffer" in state and getattr(model, "replay_buffer", None) is not None:
        _loaded(model.replay_buffer, state["replay_buffer"])


def _trained(model: Any) -> dict[str, Any]:
    """Tensors outside modules that are trained, such as SAC's entropy coefficient; a constant one is built."""
    names = model._get_torch_save_params()[1]
    tensors = {name: _inner(model, name) for name in names}
    return {name: tensor for name, tensor in tensors.items() if tensor is not None and tensor.requires_grad}


def _statistics(model: Any) -> dict[str, Any]:
    """The running means of a `VecNormalize` around the environments, by name."""
    env = unwrap_vec_normalize(model.env)
    if env is None:
        return {}
    seen = getattr(env, "obs_rms", None)
    found = {f"obs.{key}": one for key, one in seen.items()} if isinstance(seen, dict) else {"obs": seen}
    return {name: one for name, one in {**found, "ret": env.ret_rms}.items() if one is not None}


def _arrays(buffer: Any) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of a replay buffer by name, also those in dicts."""
    found = {}
    for name, held in sorted(vars(buffer).items()):
        inner = sorted(held.items()) if isinstance(held, dict) else [("", held)]
        found.update({f"{name}-{i}": array for i, (_, array) in enumerate(inner) if isinstance(array, np.ndarray)})
    return found


def _filled(buffer: Any, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The part of an array that has been written."""
    whole = buffer.full or array.ndim == 0 or len(array) != buffer.buffer_size
    return array if whole else array[: buffer.pos]


def _stored(buffer: Any, folder: Path) -> dict[str, Any]:
    folder.mkdir()
    for name, array in _arrays(buffer).items():
        np.save(folder / f"{name}.npy", _filled(buffer, array), allow_pickle=False)
    return {"files": Folder(folder), "position": int(buffer.pos), "full": bool(buffer.full)}


def _loaded(buffer: Any, state: Mapping[str, Any]) -> None:
    """Fill a new buffer; the episode that was running is over, because the environments are reset."""
    buffer.pos, buffer.full = state["position"], state["full"]
    folder = state["files"].path
    for name, array in _arrays(buffer).items():
        _filled(buffer, array)[...] = np.load(folder / f"{name}.npy", allow_pickle=False)
    if hasattr(buffer, "truncate_last_trajectory"):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"The last trajectory in the replay buffer will be truncated")
            buffer.truncate_last_trajectory()
    elif getattr(buffer, "optimize_memory_usage", False) and (buffer.full or buffer.pos):
        buffer.dones[buffer.pos - 1] = True
