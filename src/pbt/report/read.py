"""One snapshot of a run, from a directory that may still be written or from a run in memory."""

from pathlib import Path

from pbt.errors import RunFormatError
from pbt.report.snapshot import RunSnapshot, snapshot_of
from pbt.runs.results import Run
from pbt.store.reader import RunReader

RECORDED = ("seed", "space")
"""What cannot be done without."""


def read_story(run: Run | str | Path) -> RunSnapshot:
    """The run as it is at this moment; the log is read at once, so a round is there whole or not at all.

    Raises:
        RunFormatError: It is no run directory, one of another version, or one that `pbt.run` did not begin.
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
        taken = run if isinstance(run, Run) else Run(reader, path)
        # A round's times are written together with the round, so what is read later is never less.
        return snapshot_of(taken, reader.journal(), writing=reader.is_writing())
