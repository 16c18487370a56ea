"""Ray Tune as a side of a comparison: its installation and its process.

Ray Tune is installed into `.bench-venv` when it is first needed; all other packages, such as torch, come from the
environment of the benchmarks.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Self

from pbt.mnist.config.record import Config

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".bench-venv"
CONSTRAINTS = ROOT / "constraints.txt"
REQUIREMENT = "ray[tune]"
PATIENCE = 60.0
"""Seconds that it may take to exit."""


class UnavailableError(Exception):
    """Ray Tune cannot be installed, or does not run."""


class RayTune:
    """A population under Ray Tune's PBT.

    Args:
        arguments: Arguments of `benchmarks.ray_tune_pbt`.
        config: Configuration, passed as a file.

    Raises:
        UnavailableError: It cannot be installed.
    """

    def __init__(self, arguments: Sequence[str], config: Config | None = None) -> None:
        self._python = installed()
        self._arguments = list(arguments)
        self._config = config
        self.name = ""
        """With its version."""

    @classmethod
    def of_config(cls, config: Config) -> Self:
        """The population of a configuration."""
        return cls(["mnist", "--trials", str(config.train.num_worker_tot)], config)

    @classmethod
    def of_toy(cls, trials: int, rounds: int) -> Self:
        """The noisy quadratic, with this many rounds per turn."""
        return cls(["toy", "--trials", str(trials), "--rounds", str(rounds)])

    def turn(self) -> float:
        """Do the work once; return the seconds."""
        self._write("go")
        seconds: float = self._read()["seconds"]
        return seconds

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        arguments = self._arguments
        if self._config is not None:
            (folder / "config.json").write_text(json.dumps(self._config.to_dict()), encoding="utf-8")
            arguments = [*arguments, "--config", str(folder / "config.json")]
        self._errors = (folder / "errors.txt").open("w+", encoding="utf-8")
        self._process = subprocess.Popen(
            [str(self._python), "-m", "benchmarks.ray_tune_pbt", *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            # A process group, so that its children can be ended with it.
            start_new_session=True,
        )
        try:
            self.name = self._read()["name"]
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()
        self._folder.cleanup()

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            said = self._errors.read().strip().splitlines() or ["it said nothing"]
            raise UnavailableError(f"Ray Tune ended early: {said[-1]}")
        return json.loads(line)


@cache
def installed() -> Path:
    """The Python interpreter with Ray Tune, which is installed if needed.

    Raises:
        UnavailableError: It cannot be installed.
    """
    python = FOLDER / "bin" / "python"
    stamp, wanted = FOLDER / "stamp", _stamp()
    if python.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    print(f"installing {REQUIREMENT} into {FOLDER.name}", file=sys.stderr)
    venv.create(FOLDER, with_pip=True, clear=True)
    # addsitedir instead of a plain line, to follow the .pth files in that folder.
    borrowed = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
    own = Path(sysconfig.get_path("purelib", vars={"base": str(FOLDER)}))
    (own / "borrowed.pth").write_text(borrowed, encoding="utf-8")
    command = [str(python), "-m", "pip", "install", "--quiet", REQUIREMENT, "-c", str(CONSTRAINTS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["pip said nothing"]
        raise UnavailableError(f"{REQUIREMENT} cannot be installed: {said[-1]}")
    stamp.write_text(wanted, encoding="utf-8")
    return python


def _stamp() -> str:
    parts = [REQUIREMENT.encode(), sys.version.encode(), sys.prefix.encode(), CONSTRAINTS.read_bytes()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()
