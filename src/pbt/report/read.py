"""Read a `RunSnapshot` from a run directory, also while it is written, or from a run in memory."""

from pathlib import Path

from pbt.report.snapshot import RunSnapshot, snapshot_of
from pbt.runs.catalog import opened
from pbt.runs.results import Run
from pbt.store.layout import LOCK
from pbt.store.lock import is_locked


def read_snapshot(run: Run | str | Path) -> RunSnapshot:
    """Read the current state of a run; the log is read once, so a round is included whole or not at all.

    Raises:
        RunFormatError: The path is not a run directory, has another version, or was not created by `pbt.run`.
        CorruptError: The database is damaged.
    """
    if not isinstance(run, Run):
        with opened(run) as (found, state):
            # A round's times are committed together with the round, so the journal, read later, has them all.
            return snapshot_of(found, found.journal(), writing=state == "running")
    if run.path is None:
        return snapshot_of(run)
    return snapshot_of(run, run.journal(), writing=is_locked(run.path / LOCK))
