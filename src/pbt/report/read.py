"""Read a `RunSnapshot` from a run directory, also while it is written, or from a run in memory."""

from pathlib import Path

from pbt.errors import RunFormatError
from pbt.report.snapshot import RunSnapshot, snapshot_of
from pbt.runs.results import Run
from pbt.store.reader import RunReader

RECORDED = ("seed", "space")
"""Metadata without which a run cannot be read."""


def read_snapshot(run: Run | str | Path) -> RunSnapshot:
    """Read the current state of a run; the log is read once, so a round is included whole or not at all.

    Raises:
        RunFormatError: The path is not a run directory, has another version, or was not created by `pbt.run`.
        CorruptError: The database is damaged.
    """
    path = run.path if isinstance(run, Run) else Path(run)
    if path is None:
        return snapshot_of(run)  # type: ignore[arg-type]  # only a Run has no path
    with RunReader(path) as reader:
        meta = reader.meta
        missing = [name for name in RECORDED if name not in meta]
        if missing:
            raise RunFormatError(f"{path}: expected a run with a recorded {', '.join(missing)}, found none")
        logged = run if isinstance(run, Run) else Run(reader, path)
        # A round's times are committed together with the round, so the journal, read later, has them all.
        return snapshot_of(logged, reader.journal(), writing=reader.is_writing())
