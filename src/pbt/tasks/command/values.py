"""The values of a round for its program: by placeholder, and as environment variables."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pbt.executors.worker import Context
from pbt.space import HParams
from pbt.tasks.command.template import text_of

PREFIX = "PBT_"
HPARAM_PREFIX = "PBT_HPARAM_"


def round_values(ctx: Context, steps: int, out: Path, start: Path | None, hparams_file: Path) -> dict[str, Any]:
    """The values of the placeholders besides the hyperparameters; `start` is absent in the first round."""
    devices = visible(ctx.devices)
    values: dict[str, Any] = {
        "out": out,
        "steps": steps,
        "first_step": ctx.first_step,
        "last_step": ctx.first_step + steps,
        "seed": ctx.seed,
        "round_seed": ctx.key("command", ctx.member, ctx.round) % 2**31,
        "member": ctx.member,
        "round": ctx.round,
        "device": devices[0],
        "devices": ",".join(devices),
        "threads": ctx.threads,
        "hparams": hparams_file,
    }
    return values if start is None else {**values, "start": start}


def environment(
    values: Mapping[str, Any], hparams: HParams, devices: Sequence[str], own: Mapping[str, str]
) -> dict[str, str]:
    """The environment of a program: this process's, the values as `PBT_*`, and the user's own variables last."""
    env = dict(os.environ)
    env.setdefault("OMP_NUM_THREADS", str(values["threads"]))
    env.setdefault("PYTHONUNBUFFERED", "1")  # lines arrive while it runs
    for name in [name for name in env if name == f"{PREFIX}START" or name.startswith(HPARAM_PREFIX)]:
        del env[name]
    env |= {f"{PREFIX}{name.upper()}": text_of(value) for name, value in values.items()}
    env |= {variable(name): text_of(value) for name, value in hparams.items()}
    shown = cuda_visible(devices)
    return env | ({} if shown is None else {"CUDA_VISIBLE_DEVICES": shown}) | dict(own)


def variable(name: str) -> str:
    """The environment variable of a hyperparameter: `optimizer.weight-decay` is `PBT_HPARAM_OPTIMIZER_WEIGHT_DECAY`."""
    return HPARAM_PREFIX + name.upper().translate(str.maketrans(".-/", "___"))


def visible(devices: Sequence[str]) -> list[str]:
    """Devices by the names that the program knows: its first GPU is `cuda:0`."""
    count = iter(range(len(devices)))
    return [f"cuda:{next(count)}" if device.startswith("cuda") else device for device in devices]


def cuda_visible(devices: Sequence[str]) -> str | None:
    """`CUDA_VISIBLE_DEVICES` for these devices of this process; None: unchanged."""
    indices = [int(device.partition(":")[2] or 0) for device in devices if device.startswith("cuda")]
    if not indices:
        return None
    # Within a restricted set, as on Ray, an index counts in that set.
    shown = [part.strip() for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if part.strip()]
    return ",".join(shown[i] if i < len(shown) else str(i) for i in indices)
