"""`pbt lineage` and `pbt schedule`: the ancestry of a network and its hyperparameter schedule."""

import sys
from typing import Annotated, Literal

from cyclopts import Parameter

from pbt.cli.options import Flag, print_json
from pbt.runs.catalog import find_run, opened
from pbt.runs.schedule_io import schedule_text
from pbt.terminal.console import console_for
from pbt.terminal.exit import OK
from pbt.terminal.trees import ancestry_json, ancestry_table, tree_json, tree_text


def lineage(
    named: Annotated[str, Parameter(name="RUN")],
    member: Annotated[int | None, Parameter(name="MEMBER")] = None,
    /,
    *,
    as_json: Annotated[Flag, Parameter(name="--json")] = False,
) -> int:
    """Show the family tree of the population, or the ancestry of one member.

    Example: pbt lineage runs/latest

    Args:
        named: Run directory.
        member: Show only the ancestry of this member.
        as_json: Print JSON. Scores are those that the task returned.
    """
    with opened(find_run(named)) as (run, _):
        if member is None:
            if as_json:
                print_json(tree_json(run))
                return OK
            console = console_for()
            for line in tree_text(run):
                console.print(line, soft_wrap=True)
            return OK
        links = run.lineage(member)
        if as_json:
            print_json(ancestry_json(links))
            return OK
        console = console_for()
        console.print(ancestry_table(run, links, console.width))
    return OK


def schedule(
    named: Annotated[str, Parameter(name="RUN")],
    /,
    *,
    member: int | None = None,
    format_: Annotated[Literal["json", "csv", "toml"], Parameter(name="--format")] = "json",
) -> int:
    """Print the hyperparameter schedule of the best network; pbt.read_schedule reads the output.

    Example: pbt schedule runs/latest --format csv > schedule.csv

    Args:
        named: Run directory.
        member: Print the schedule of this member's newest network instead.
        format_: Output format.
    """
    with opened(find_run(named)) as (run, _):
        sys.stdout.write(schedule_text(run.schedule(member), format_))
    return OK
