"""`pbt.toml`: an experiment whose members are runs of a program, without a line of Python.

The file is data. Nothing in it is executed but the command, when the run starts.
"""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pbt.core.exploit import Truncation
from pbt.core.explore import Perturb
from pbt.core.strategy import Plan, Strategy
from pbt.errors import ConfigError, UsageError, nearest
from pbt.initial import latin_hypercube, sobol
from pbt.runs.experiment import Experiment
from pbt.runs.placement import Placement
from pbt.space import HParams, Space
from pbt.strategies.registry import NEED_A_RUN, named
from pbt.tasks.command.domains import space_of
from pbt.tasks.command.task import Command

EXAMPLE = """\
# A population of programs. Check it and start it with: pbt run pbt.toml

# The program, run once per member and round, without a shell. {out} is the folder of its checkpoint, {start} a copy of
# the one to start from; a part in brackets falls away if it has no value. All placeholders: docs/command.md
command = "python train.py --lr {lr} --dropout {dropout} [--resume {start}] --out {out} --steps {steps} --seed {seed}"

# The name of the score in {out}/metrics.json, or in the last line of the output that is JSON.
score = "accuracy"
objective = "maximize"    # or "minimize"

population = 8            # members
rounds = 10               # rounds per member
steps = 1000              # training steps per round, as {steps}
seed = 0

# initial = "sobol"       # initial values spread evenly; without it they are drawn
# timeout = 3600          # seconds for a round, after which the member has failed
# cwd = "."               # the program's working directory, seen from this file
# in_place = true         # for programs that resume from the folder in which they save; then leave out {start}
# reads_env = true        # for programs that read PBT_HPARAMS, PBT_OUT, ... themselves
# metrics = "eval.json"   # another file in {out} with the numbers
# keep_logs = 3           # newest logs kept per member, in the folder logs of the run

[space]                   # by hyperparameter: a scale, and a range or options
lr = "log:1e-5..1e-1"
dropout = "0..0.5"
# layers = "int:1..8"
# batch = "ordered:16,32,64"
# optimizer = ["sgd", "adam"]

# [patterns]              # for programs that print no JSON: a regular expression per number
# accuracy = 'val accuracy: (\\S+)'

# [in_effect]             # values that the program prints, compared with those that were decided
# lr = 'learning rate: (\\S+)'

# [env]                   # environment variables of the program
# WANDB_MODE = "offline"

[plan]
truncation = 0.2          # fraction that is replaced by copies of as many of the best
perturb = [0.8, 1.2]      # factors by which copied values change
burn_in = 0               # steps before the first copy
# name = "pb2"            # another algorithm: pbt run --help, docs/comparing.md

[placement]
executor = "auto"         # processes, inline or ray
# workers = 4             # programs at the same time
# device = "cuda"
# devices_per_member = 2  # for torchrun and other programs that use several GPUs
"""
"""What `pbt init` writes."""

_KINDS: Mapping[str, tuple[type, ...]] = {
    "command": (str, list),
    "space": (dict,),
    "score": (str,),
    "objective": (str, list),
    "population": (int,),
    "rounds": (int,),
    "steps": (int,),
    "seed": (int,),
    "note": (str,),
    "initial": (list, str),
    "metrics": (str,),
    "patterns": (dict,),
    "in_effect": (dict,),
    "in_place": (bool,),
    "reads_env": (bool,),
    "timeout": (int, float),
    "env": (dict,),
    "cwd": (str,),
    "keep_logs": (int,),
    "plan": (dict,),
    "placement": (dict,),
}
_PLAN: Mapping[str, tuple[type, ...]] = {
    "name": (str,),
    "truncation": (int, float),
    "perturb": (list,),
    "burn_in": (int,),
    "mode": (str,),
}
_PLACEMENT: Mapping[str, tuple[type, ...]] = {
    "executor": (str,),
    "workers": (int,),
    "threads": (int,),
    "device": (str,),
    "devices_per_member": (int,),
}
_FILE_BYTES = 1 << 20
_OF_COMMAND = ("score", "metrics", "patterns", "in_effect", "in_place", "reads_env", "timeout", "keep_logs")
_OF_EXPERIMENT = ("objective", "population", "rounds", "seed", "note", "initial")
_WORDS = {str: "text", list: "a list", dict: "a table", int: "a whole number", float: "a number", bool: "true or false"}


def read_config(file: Path) -> Experiment:
    """The experiment of a `pbt.toml`.

    Raises:
        ConfigError: The file does not exist, is no TOML, or has an unknown key or a value of another kind.
        UsageError: A value is invalid.
    """
    try:
        if file.stat().st_size > _FILE_BYTES:
            raise ConfigError(f"{file}: expected at most {_FILE_BYTES >> 20} MiB, got {file.stat().st_size:,} bytes")
        given = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{file}: does not exist; write one with: pbt init {file}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read ({error})") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{file}: expected TOML, found an error: {error}") from error
    try:
        return experiment_from(given, file.parent)
    except UsageError as error:
        raise ConfigError(f"{file}: {error}") from error


def experiment_from(given: Mapping[str, Any], folder: Path) -> Experiment:
    """The experiment of a configuration.

    Args:
        given: The content of a `pbt.toml`.
        folder: The folder from which `cwd` is seen.

    Raises:
        UsageError: A value is missing or invalid.
    """
    _check(given, _KINDS, "")
    for name in ("command", "space"):
        if name not in given:
            raise ConfigError(f"expected '{name}', found none; pbt init writes an example")
    for name in ("patterns", "in_effect", "env"):
        _check(given.get(name, {}), dict.fromkeys(given.get(name, {}), (str,)), f"{name}.")
    space = space_of(given["space"])
    own = {name: given[name] for name in _OF_COMMAND if name in given}
    task = Command(given["command"], cwd=folder / given.get("cwd", "."), env=dict(given.get("env", {})), **own)
    placement = given.get("placement", {})
    _check(placement, _PLACEMENT, "placement.")
    rest = {
        name: given[name] for name in ("objective", "population", "rounds", "seed", "note", "initial") if name in given
    }
    if "initial" in rest:
        rest["initial"] = _initial(space, given)
    return Experiment(
        task=task,
        space=space,
        plan=_plan(given.get("plan", {}), given.get("steps", 1), given.get("rounds")),
        placement=Placement(**{"executor": "auto", **placement}),
        **rest,
    )


def _initial(space: Space, given: Mapping[str, Any]) -> Sequence[HParams]:
    """The initial values: tables, or the points of a named design, one per member."""
    initial: Any = given["initial"]
    if isinstance(initial, str):
        designs = {"sobol": sobol, "latin-hypercube": latin_hypercube}
        if initial not in designs:
            raise ConfigError(f"initial: expected 'sobol', 'latin-hypercube' or tables, got '{initial}'")
        return designs[initial](space, given.get("population", Experiment.population), given.get("seed", 0))
    for values in initial:
        if not isinstance(values, dict):
            raise ConfigError(f"initial: expected tables of hyperparameters, as {{ lr = 0.1 }}, got {values!r:.80}")
    return tuple(initial)


def _plan(given: Mapping[str, Any], steps: int, rounds: int | None) -> Strategy:
    _check(given, _PLAN, "plan.")
    rules: dict[str, Any] = {name: given[name] for name in ("burn_in", "mode") if name in given}
    if "truncation" in given:
        rules["exploit"] = Truncation(given["truncation"])
    if not all(isinstance(factor, (int, float)) for factor in given.get("perturb", ())):
        raise ConfigError(f"plan.perturb: expected numbers, got {given['perturb']!r:.80}")
    if "perturb" in given:
        rules["explore"] = Perturb(tuple(given["perturb"]))
    plan = Plan(interval=steps, **rules)
    name = given.get("name", "own")
    if name in NEED_A_RUN:
        raise ConfigError(
            f"plan.name: '{name}' follows a finished run; name it on the command line: --plan {name} --of RUN"
        )
    return named(name, plan, rounds=rounds)


def _check(given: Mapping[str, Any], kinds: Mapping[str, tuple[type, ...]], prefix: str) -> None:
    """Check keys and the kinds of their values."""
    for name, value in given.items():
        if name not in kinds:
            raise ConfigError(f"unknown key '{prefix}{name}'{nearest(name, kinds)}")
        # A boolean is an int in Python.
        if not isinstance(value, kinds[name]) or (isinstance(value, bool) and bool not in kinds[name]):
            expected = " or ".join(_WORDS[kind] for kind in kinds[name])
            raise ConfigError(f"{prefix}{name}: expected {expected}, got {value!r:.80}")
