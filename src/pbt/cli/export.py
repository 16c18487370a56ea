"""`pbt export`: export a run for other programs."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from pbt.cli.options import Flag
from pbt.errors import RunError, UsageError
from pbt.runs.catalog import find_run, opened
from pbt.runs.export import csv_text, jsonl_text, newick, ray_policies, write_parquet
from pbt.runs.results import Run
from pbt.terminal.console import console_for, is_terminal
from pbt.terminal.exit import OK
from pbt.text import printable

_TEXTS: Mapping[str, Callable[[Run, Path], str]] = {
    "csv": lambda run, _: csv_text(run.history()),
    "raw": lambda run, _: csv_text(run.history(), raw=True),
    "jsonl": lambda run, _: jsonl_text(run.history()),
    "newick": lambda run, path: newick(run.tree, path.name),
}


def export(
    named: Annotated[str, Parameter(name="RUN")],
    /,
    *,
    format_: Annotated[Literal["csv", "jsonl", "parquet", "ray", "newick"], Parameter(name="--format")],
    out: Path | None = None,
    raw: Flag = False,
) -> int:
    """Export the history or family tree of a run, or its schedules for Ray Tune.

    csv, jsonl, parquet: the history, a row per member and round.
    newick: the family tree, with branch lengths in training steps.
    ray: a folder of policy files for PopulationBasedTrainingReplay; one training
    iteration is one round.

    Example: pbt export runs/latest --format csv --out history.csv

    Args:
        named: Run directory.
        format_: Output format.
        out: New file, or for ray a folder. Default: stdout; parquet and ray require a name.
        raw: For programs: csv with every text as it is, control characters and formulas included.
    """
    path = find_run(named)
    if raw and format_ != "csv":
        raise UsageError(f"--raw is for --format csv; {format_} has every text as it is, or escaped")
    if raw and out is None and is_terminal(sys.stdout):
        raise UsageError("--raw requires --out NEW_FILE or a pipe: texts of a run could control this terminal")
    form: str = "raw" if raw else format_
    if out is None and format_ in {"parquet", "ray"}:
        kind = "NEW_FILE" if format_ == "parquet" else "FOLDER"
        raise UsageError(f"--format {format_} requires --out {kind}")
    with opened(path) as (run, _):
        if not run.tree.reports:
            raise RunError(f"{path}: expected a run with at least one finished round, found none yet")
        if out is None:
            sys.stdout.write(_TEXTS[form](run, path))
            return OK
        if format_ == "ray":
            written = _write_policies(run, out)
        else:
            _check_new(out)
            if format_ == "parquet":
                write_parquet(run.history(), out)
            else:
                out.write_text(_TEXTS[form](run, path), encoding="utf-8")
            written = [out]
    for file in written:
        console_for().print(printable(file), soft_wrap=True)
    return OK


def _write_policies(run: Run, folder: Path) -> list[Path]:
    texts = {folder / name: text for name, text in ray_policies(run).items()}
    for file in texts:
        _check_new(file)
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in texts.items():
        file.write_text(text, encoding="utf-8")
    return list(texts)


def _check_new(file: Path) -> None:
    if file.exists():
        raise UsageError(f"{file} already exists; choose a new file name")
