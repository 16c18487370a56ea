"""Checks of the command line and its configuration, before any data is read."""

from collections.abc import Mapping, Sequence

from pbt.errors import ConfigError, UsageError
from pbt.mnist.config.record import Config


def check_program(config: Config, *, single: bool) -> None:
    """Check that a program trains this kind of configuration.

    Raises:
        ConfigError: A population for `main.py`; a single network, or a `load_ckpt`, for `main_PBT.py`; one worker of a
            population for either.
    """
    train = config.train
    if train.worker_num:
        raise ConfigError(f"worker_num: expected 0 to train, got {train.worker_num}; a run numbers its workers itself")
    if single and config.evolving:
        names = ", ".join(f"PBT_{name}" for name in config.evolving)
        raise ConfigError(f"expected one network, found {names}; a population is trained by main_PBT.py")
    if not single and train.load_ckpt:
        raise ConfigError("load_ckpt: expected none to train a population; resume a run with: pbt resume RUN")
    if not single and not config.evolving:
        raise ConfigError(
            'expected at least one PBT_<name> key, as "PBT_lr": "0.1,0.0001", found none; '
            "a single network is trained by main.py"
        )


def check_unused(mode: str, **options: object) -> None:
    """Check that no option without effect in this mode was given.

    Raises:
        UsageError: One was.
    """
    unread = {name for name, value in options.items() if value is not None and (name, value) != ("executor", "inline")}
    given = [f"--{name.replace('_', '-')}" for name in sorted(unread)]
    if given:
        raise UsageError(f"{given[0]}: has no effect with -m {mode}, which evaluates in this process; leave it out")


def overrides_of(pairs: Sequence[str], **named: object) -> Mapping[str, object]:
    """The keys of the configuration that the command line overrides.

    Raises:
        ConfigError: A `--set` has no `=`.
    """
    overrides: dict[str, object] = {name: str(value) for name, value in named.items() if value is not None}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"--set: expected key=value, got '{pair}'")
        overrides[key] = value
    return overrides
