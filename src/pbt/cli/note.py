"""`pbt note`: notes and tags of a run."""

from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter
from rich.text import Text

from pbt.cli.options import Flag, print_json
from pbt.runs.catalog import find_run
from pbt.runs.run_notes import Note, read_note, write_note
from pbt.terminal.console import console_for
from pbt.terminal.exit import OK


def note(
    named: Annotated[str, Parameter(name="RUN")],
    text: Annotated[str | None, Parameter(name="TEXT", show_default=False)] = None,
    /,
    *,
    tag: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
    untag: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
    as_json: Annotated[Flag, Parameter(name="--json")] = False,
) -> int:
    """Write a note about a run, and tags; without a text or tags, print them.

    They are kept in notes.json in the run directory, beside the log, which stays
    as it is. `pbt ls`, the dashboard and the report show them.

    Example: pbt note runs/latest "diverges above 0.1" --tag baseline

    Args:
        named: Run directory.
        text: The note, in place of the previous one; "" removes it.
        tag: Tag to add, one word; can be repeated.
        untag: Tag to remove; can be repeated.
        as_json: Print the note and the tags as JSON.
    """
    path = find_run(named)
    found = read_note(path)
    if text is not None or tag or untag:
        kept = [one for one in (*found.tags, *tag) if one not in untag]
        found = Note(text=found.text if text is None else text.strip(), tags=tuple(dict.fromkeys(kept)))
        write_note(path, found)
    if as_json:
        print_json(asdict(found) | {"tags": list(found.tags)})
    else:
        for line in filter(None, (" ".join(f"#{one}" for one in found.tags), found.text)):
            console_for().print(Text(line), soft_wrap=True)
    return OK
