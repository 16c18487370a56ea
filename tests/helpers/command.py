"""The command `pbt`, called in this process as a shell would start it: folder, environment, streams, exit code."""

import contextlib
import io
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from pbt.cli.app import main
from tests.helpers.paths import SOURCE

_CALLERS = {"NO_COLOR", "FORCE_COLOR", "COLUMNS", "CI", "TERM"}


def environment(**more: str) -> dict[str, str]:
    """The environment of a command: no terminal, and no variable of the caller that changes what is printed."""
    return {**{k: v for k, v in os.environ.items() if k not in _CALLERS}, "PYTHONPATH": str(SOURCE), **more}


def python(code: str, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own in this folder, with the package's sources and these arguments."""
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def pbt(folder: Path, *words: str, code: int | None = 0, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the command in this folder.

    Args:
        folder: The working directory.
        words: The arguments.
        code: The exit code that it must have; None: any.
        more: Environment variables.
    """
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(folder),
        _fresh_process(environment(**more)),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        found = main(list(words))
    done = subprocess.CompletedProcess(["pbt", *words], found, out.getvalue(), err.getvalue())
    assert "Traceback" not in done.stderr, done.stderr
    assert code is None or done.returncode == code, done.stdout + done.stderr
    return done


@contextlib.contextmanager
def _fresh_process(variables: dict[str, str]) -> Iterator[None]:
    """Undo what a command changes in its process, and hide what pytest changed."""
    path, modules = list(sys.path), set(sys.modules)
    folder = str(Path.cwd())
    with (
        mock.patch.dict(os.environ, variables, clear=True),
        mock.patch.object(sys, "dont_write_bytecode", True),
        mock.patch.object(logging.root, "handlers", []),
    ):
        try:
            yield
        finally:
            sys.path[:] = path
            for name in set(sys.modules) - modules:
                if str(getattr(sys.modules[name], "__file__", None) or "").startswith(folder):
                    del sys.modules[name]
