"""`pbt dashboard`: live report of runs in a browser."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from pbt.dashboard import HOST, PORT, TOKEN
from pbt.errors import UsageError
from pbt.runs.catalog import RUNS, comparisons_in, find_run, opened, runs_in, trials_in
from pbt.store.layout import DATABASE
from pbt.terminal.console import console_for
from pbt.terminal.exit import print_error

if TYPE_CHECKING:
    from pbt.dashboard.serve import Address


def dashboard(
    named: Annotated[str, Parameter(name="RUN_OR_FOLDER")] = str(RUNS),
    /,
    *,
    host: str = HOST,
    port: int = PORT,
    token: Annotated[str | None, Parameter(env_var=TOKEN, show_default=False)] = None,
) -> int:
    """Show a run, or all runs in a folder, live in a browser, until Ctrl-C.

    Prints the address to open. By default only this machine can open it; with
    another --host the address contains a token. Runs are only read.

    Example: pbt dashboard runs

    Args:
        named: Run directory, or a folder of run directories.
        host: Name or address to listen on; 0.0.0.0 listens on all addresses of this machine.
        port: Port to listen on; 0 chooses a free one.
        token: Access token, at least 16 characters. Default: none on this machine alone, otherwise a random one.
    """
    from pbt.dashboard.serve import serve

    target = _target(named)

    def announce(address: "Address", known: str | None) -> None:
        # A given token is not printed: the output may be logged.
        console_for().print(address.url(known if token is None else None), soft_wrap=True)
        if token is not None:
            print_error("append ?token=YOUR-TOKEN to the address the first time")
        print_error("press Ctrl-C to stop")

    return 128 + serve(target, host, port, token, announce)


def _target(named: str) -> Path:
    """The run or folder to show.

    Raises:
        UsageError: There is no run.
    """
    path = Path(named)
    if path.is_dir() and not any((folder / DATABASE).is_file() for folder in (path, RUNS / named)):
        if not runs_in(path) and not trials_in(path) and not comparisons_in(path):
            raise UsageError(f"{path}: expected a run directory or a folder of runs, found a folder without runs")
        return path
    run = find_run(named)
    # An unreadable run is an error here; in a folder it is listed with the reason.
    with opened(run):
        return run
