"""Read a `RunSnapshot` from a run directory, also while it is written, or from a run in memory."""

from pathlib import Path

from pbt.report.snapshot import RunSnapshot, snapshot_of
from pbt.runs.catalog import opened
from pbt.runs.log_entries import CURVE
from pbt.runs.results import Run
from pbt.store.layout import LOCK
from pbt.store.live import read_live
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
            writing = state == "running"
            live = read_live(Path(run)) if writing else []
            return snapshot_of(found, found.journal(), writing=writing, live=live)
    if run.path is None:
        return snapshot_of(run, [note for note in run.journal() if note.kind == CURVE])
    writing = is_locked(run.path / LOCK)
    return snapshot_of(run, run.journal(), writing=writing, live=read_live(run.path) if writing else [])
