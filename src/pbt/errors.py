"""Every error this package raises on purpose.

::

    PBTError
    ├── UsageError              what was asked for cannot be done as asked
    │   ├── ConfigError         a configuration file or option is wrong
    │   ├── SpaceError          a search space or a hyperparameter is wrong
    │   ├── TaskError           a task cannot be used in the way it was given
    │   ├── StateError          a state holds something that cannot be stored
    │   ├── DeviceError         a device that is not there
    │   ├── DataError           a data set is absent, damaged or of the wrong shape
    │   ├── MissingExtraError   an optional dependency is not installed
    │   └── RunError            a run directory cannot be used
    │       ├── RunExistsError  it is already there
    │       ├── RunLockedError  another process writes to it
    │       ├── RunFormatError  another version wrote it, or it is no run directory
    │       ├── CorruptError    its bytes are not the bytes that were written
    │       └── DiskError       its disk is full, failing or read-only: the run stopped, and can go on
    ├── PopulationLostError     every member failed, nothing is left to train
    └── WorkerError             the executor itself cannot go on

A message says what was expected, what was found and what to do. The command line prints it without a
traceback and exits with `exit_code`.
"""

import difflib
from collections.abc import Iterable


class PBTError(Exception):
    """Root of the tree; `exit_code` is what the command line exits with."""

    exit_code = 1


class UsageError(PBTError):
    """What was asked for cannot be done as asked."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration file or option is wrong."""


class SpaceError(UsageError):
    """A search space or a hyperparameter is wrong."""


class TaskError(UsageError):
    """A task cannot be used in the way it was given."""


class StateError(UsageError):
    """A state holds something that cannot be stored."""


class DeviceError(UsageError):
    """A device that is not there was asked for."""


class DataError(UsageError):
    """A data set is absent, damaged or of the wrong shape."""


class MissingExtraError(UsageError):
    """An optional dependency is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(
            f"{what} needs packages that are not installed; "
            f"install them with: pip install 'population-based-training[{extra}]'"
        )


class RunError(UsageError):
    """A run directory cannot be used."""


class RunExistsError(RunError):
    """The run directory is already there."""


class RunLockedError(RunError):
    """Another process writes to the run directory."""


class RunFormatError(RunError):
    """The run directory was written by another version, or is none."""


class RunUnbegunError(RunFormatError):
    """The creation of the run was interrupted: the directory holds nothing yet, and the run can be started in it."""


class CorruptError(RunError):
    """The bytes of a run directory are not the bytes that were written."""


class DiskError(RunError):
    """The disk of a run directory cannot be written or read: full, failing, read-only, or at a bound that was set.

    What was logged stays, so the run can go on: `exit_code` is the customary one of a failure that may pass.
    """

    exit_code = 75


class PopulationLostError(PBTError):
    """Every member failed, so that nothing is left to train."""


class OriginalError(Exception):
    """The traceback of an exception in a task, as text: the `__cause__` of the error that ended the run."""


class WorkerError(PBTError):
    """The executor itself cannot go on."""


def original(traceback: str) -> OriginalError | None:
    """What to raise an error from whose first cause is this traceback; None: there is none."""
    return OriginalError(f"\n\n{traceback.strip()}") if traceback.strip() else None


def nearest(name: str, known: Iterable[str]) -> str:
    """A suggestion to append to an error: `; did you mean 'lr'?`, or the known names if none is near."""
    names = sorted(known)
    match = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if match:
        return f"; did you mean '{match[0]}'?"
    return f"; known: {', '.join(names)}" if names else ""
