"""The exceptions raised by this package.

::

    PBTError
    ├── UsageError              the request cannot be carried out
    │   ├── ConfigError         invalid configuration file or option
    │   ├── SpaceError          invalid search space or hyperparameter
    │   ├── TaskError           invalid task
    │   ├── StateError          a state contains a value that cannot be stored
    │   ├── DeviceError         the device does not exist
    │   ├── DataError           a data set is absent, damaged or of the wrong shape
    │   │   └── ExampleError    an example cannot be read: the run stopped and can be resumed
    │   ├── MissingExtraError   an optional dependency is not installed
    │   └── RunError            a run directory cannot be used
    │       ├── RunExistsError  the directory exists already
    │       ├── RunLockedError  another process writes to it
    │       ├── RunFormatError  another version wrote it, or it is not a run directory
    │       │   └── RunUnbegunError  its creation was interrupted: it is empty
    │       ├── CorruptError    its bytes are not the bytes that were written
    │       └── DiskError       its disk is full, failing or read-only: the run stopped and can be resumed
    ├── PopulationLostError     every member failed; no member is left to train
    └── WorkerError             the executor failed
        └── InfrastructureError memory, a disk or the network failed: the run stopped and can be resumed

Every message gives the expected value, the actual value and the remedy. The command line prints the message
without a traceback and exits with `exit_code`.
"""

import difflib
from collections.abc import Iterable


class PBTError(Exception):
    """Base class of all exceptions of this package; `exit_code` is the exit status of the command line."""

    exit_code = 1


class UsageError(PBTError):
    """The request cannot be carried out."""

    exit_code = 2


class ConfigError(UsageError):
    """Invalid configuration file or option."""


class SpaceError(UsageError):
    """Invalid search space or hyperparameter."""


class TaskError(UsageError):
    """Invalid task."""


class StateError(UsageError):
    """A state contains a value that cannot be stored."""


class DeviceError(UsageError):
    """The requested device does not exist."""


class DataError(UsageError):
    """A data set is absent, damaged or of the wrong shape."""


class ExampleError(DataError):
    """An example of a data set cannot be read; all members would need it, so the run stops, and can be resumed."""


class MissingExtraError(UsageError):
    """An optional dependency is not installed."""

    def __init__(self, feature: str, extra: str) -> None:
        from pbt.installed import install_command  # reads files, which the core never does

        super().__init__(
            f"{feature} needs packages that are not installed: those of the extra '{extra}'; "
            f"install them with: {install_command(extra)}"
        )


class RunError(UsageError):
    """A run directory cannot be used."""


class RunExistsError(RunError):
    """The run directory exists already."""


class RunLockedError(RunError):
    """Another process writes to the run directory."""


class RunFormatError(RunError):
    """Another version wrote the run directory, or it is not a run directory."""


class RunUnbegunError(RunFormatError):
    """Creation of the run was interrupted: the directory is still empty, and a run can be started in it."""


class CorruptError(RunError):
    """The bytes of a run directory are not the bytes that were written."""


class DiskError(RunError):
    """The disk of a run directory cannot be read or written: full, failing, read-only, or at its configured limit.

    The log is intact, so the run can be resumed; `exit_code` is EX_TEMPFAIL, a temporary failure.
    """

    exit_code = 75


class PopulationLostError(PBTError):
    """Every member failed; no member is left to train."""


class OriginalError(Exception):
    """The traceback of an exception in a task, as text: the `__cause__` of the error that ended the run."""


class WorkerError(PBTError):
    """The executor failed."""


class InfrastructureError(WorkerError):
    """Memory, a disk or the network of a machine or a cluster failed; no member is to blame.

    The log is intact, so the run can be resumed; `exit_code` is EX_TEMPFAIL, a temporary failure.
    """

    exit_code = 75


def original(traceback: str) -> OriginalError | None:
    """The traceback as an exception to `raise ... from`; None for an empty traceback."""
    return OriginalError(f"\n\n{traceback.strip()}") if traceback.strip() else None


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint to append to an error message: `; did you mean 'lr'?`, or the known names if none is close."""
    names = sorted(known)
    match = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if match:
        return f"; did you mean '{match[0]}'?"
    return f"; known: {', '.join(names)}" if names else ""
