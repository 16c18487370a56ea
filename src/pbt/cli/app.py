"""The `pbt` command: train, inspect, resume and verify runs.

Results go to stdout, progress and messages to stderr. Invalid input gives one message and exit code 2.
"""

import logging
import sys
from collections.abc import Sequence
from contextlib import suppress
from shutil import get_terminal_size
from textwrap import fill
from typing import Annotated, Literal

import cyclopts
from cyclopts import App, Parameter

from pbt.cli.help import HelpFormatter
from pbt.errors import UsageError
from pbt.terminal.exit import OK, USAGE, exit_code_of, print_error


def _version() -> str:
    from pbt.executors.machine import version_of
    from pbt.installed import DISTRIBUTION

    return f"pbt {version_of(DISTRIBUTION) or '(not installed)'}"


app = App(
    name="pbt",
    help="""Population Based Training: train a population of networks and find a hyperparameter schedule.

Example: pbt run task.py:experiment --executor processes

Exit codes:
    0  success
    1  the run failed
    2  invalid input
    3  finished, but some members failed and were not replaced
   75  stopped by a full or failing disk, or at --max-disk; can be resumed
  130  stopped by Ctrl-C; can be resumed
  143  stopped by SIGTERM; can be resumed""",
    help_format="plaintext",
    help_formatter=HelpFormatter(),
    version=_version,
    suppress_keyboard_interrupt=False,
)

# By name, so that a command imports nothing of the others.
for command, place in {
    "mnist": "digits:app",
    "report": "report:report",
    "dashboard": "dashboard:dashboard",
    "lineage": "ancestry:lineage",
    "schedule": "ancestry:schedule",
    "replay": "replay:replay",
    "export": "export:export",
    "compare": "compare:compare",
    "init": "command:init",
    "run": "train:run",
    "resume": "train:resume",
    "status": "look:status",
    "ls": "look:ls",
    "verify": "look:verify",
    "note": "note:note",
    "doctor": "doctor:doctor",
    "demo": "demo:demo",
}.items():
    app.command(f"pbt.cli.{place}", name=command)


@app.command
def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"] | None, Parameter(name="SHELL", show_default=False)] = None, /
) -> int:
    """Install completion of commands and options for a shell, loaded when a shell starts.

    Example: pbt completion zsh

    Args:
        shell: The shell. Default: the one that runs this command.
    """
    from cyclopts.completion.detect import ShellDetectionError

    try:
        file = app.install_completion(shell=shell)
    except (ShellDetectionError, ValueError) as error:
        raise UsageError("the shell was not recognized; name it, as in: pbt completion bash") from error
    except OSError as error:
        raise UsageError(f"{error.filename}: cannot be written ({error.strerror or error})") from error
    print_error(f"wrote {file}; start a new shell to use it")
    return OK


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    logger = logging.getLogger("pbt")
    if not any(isinstance(handler, _StderrHandler) for handler in logger.handlers):
        logger.addHandler(_StderrHandler())
    before = logger.level
    logger.setLevel(logging.WARNING)  # commands that train also show notes
    for stream in (sys.stdout, sys.stderr):
        # Characters that the terminal cannot encode are replaced, not an error.
        with suppress(AttributeError, ValueError):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        return exit_code_of(lambda: _call(sys.argv[1:] if argv is None else list(argv)))
    finally:
        logger.setLevel(before)  # a program may call this function


def _call(tokens: list[str]) -> int:
    if not tokens or tokens[0] in app.help_flags:
        app.resolved_commands()  # for their descriptions
    console = None
    if not tokens or any(token in app.help_flags for token in tokens):
        from rich.console import Console

        console = Console()  # of this call: the width of the terminal may have changed since the last one
    try:
        code = app(tokens, console=console, exit_on_error=False, print_error=False, result_action="return_value")
    except cyclopts.CycloptsError as error:
        help_line = " ".join(["pbt", *(error.command_chain or ()), "--help"])
        print_error(f"error: {' '.join(str(error).split())}\nsee: {help_line}")
        return USAGE
    return code if isinstance(code, int) else OK


class _StderrHandler(logging.Handler):
    """Print the package's notes and warnings as messages of the command."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print on stderr; a live display redirects it above itself."""
        if not logging.root.handlers:  # they would print it a second time
            level = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
            print_error(_wrapped(f"{level}{record.getMessage()}"))


def _wrapped(text: str) -> str:
    """The text in lines of the terminal's width, broken between words; elsewhere on one line."""
    from pbt.terminal.console import is_terminal  # it imports rich

    if not is_terminal(sys.stderr):
        return text
    width = max(20, get_terminal_size().columns - 1)
    lines = fill(f"pbt: {text}", width, break_long_words=False, break_on_hyphens=False)
    return lines.removeprefix("pbt: ")
