"""`pbt dashboard`: runs in a browser, while they run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from pbt.dashboard import HOST, PORT
from pbt.errors import UsageError
from pbt.runs.catalog import RUNS, find_run, opened, runs_in
from pbt.store.layout import DATABASE
from pbt.terminal.console import console_for
from pbt.terminal.exit import print_error

if TYPE_CHECKING:
    from pbt.dashboard.serve import Address

TOKEN = "PBT_DASHBOARD_TOKEN"  # noqa: S105 (the name of a variable)


def dashboard(
    named: Annotated[str, Parameter(name="RUN_OR_FOLDER")] = str(RUNS),
    /,
    *,
    host: str = HOST,
    port: int = PORT,
    token: Annotated[str | None, Parameter(env_var=TOKEN, show_default=False)] = None,
) -> int:
    """Show a run, or the runs in a folder, in a browser, and keep the pictures up to date until Ctrl-C.

    Runs may still be trained: nothing is written, and nothing is disturbed. It prints the address to open, which only
    this machine can reach unless --host says otherwise; then a token is part of it.

    Example: pbt dashboard runs

    Args:
        named: A run directory, or a folder that holds some.
        host: A name or address of this machine to listen on; 0.0.0.0 is all of them.
        port: The port to listen on; 0 is any that is free.
        token: What browsers have to know, at least 16 characters. Default: none on this machine alone, else a new one.
    """
    from pbt.dashboard.serve import serve

    place = _place(named)

    def announce(address: "Address", known: str | None) -> None:
        # A token that was given is known already, and need not stand in a log.
        console_for().print(address.url(known if token is None else None), soft_wrap=True)
        if token is not None:
            print_error("open it once with ?token=YOUR-TOKEN at its end")
        print_error("Ctrl-C ends it")

    return 128 + serve(place, host, port, token, announce)


def _place(named: str) -> Path:
    """What is shown.

    Raises:
        UsageError: There is nothing to show.
    """
    path = Path(named)
    if path.is_dir() and not any((folder / DATABASE).is_file() for folder in (path, RUNS / named)):
        if not runs_in(path):
            raise UsageError(f"{path}: expected a run directory or a folder with runs in it, found a folder without")
        return path
    run = find_run(named)
    # One that cannot be read is refused now; in a folder it is listed with the reason.
    with opened(run):
        return run
