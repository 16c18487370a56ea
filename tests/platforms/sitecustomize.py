"""Another system, as far as this package sees it: ELSEWHERE is `windows` or `macos`. Imported at the start of Python.

`windows`: there is no `fcntl`, `resource`, `pwd`, `grp` or `termios`, `os` and `signal` lack what Windows lacks, and
`msvcrt.locking` locks bytes for one open file, as there. `macos`: `fcntl` has `F_FULLFSYNC`, whose files are noted.
Neither has `/proc`. Only the package itself sees this: its libraries need the real system.
"""

import builtins
import errno
import io
import os
import struct
import sys
import types
from pathlib import Path

SYSTEM = os.environ.get("ELSEWHERE", "")
FULL = 51
OS = """
fork setsid killpg getpgid setpgid getuid geteuid getgid register_at_fork pread pwrite preadv pwritev sysconf statvfs
fchmod fchown copy_file_range sched_getaffinity getloadavg uname mkfifo fdatasync waitid WNOHANG O_NOFOLLOW
O_NONBLOCK O_CLOEXEC O_DIRECTORY
"""
SIGNAL = "SIGKILL SIGHUP SIGCHLD SIGPIPE SIGALRM SIGUSR1 SIGSTOP pthread_sigmask setitimer sigwait pthread_kill"
MISSING = {"os": OS.split(), "signal": SIGNAL.split(), "select": ["poll", "epoll"]}
BLOCKED = {"fcntl", "resource", "pwd", "grp", "termios", "pty", "tty"}


class Seen(types.ModuleType):
    """A module as the package sees it."""

    def __init__(self, real, missing=(), own=None):
        super().__init__(real.__name__)
        self.__dict__.update(_real=real, _missing=frozenset(missing), **(own or {}))

    def __getattr__(self, name):
        if name in self._missing:
            raise AttributeError(f"module '{self.__name__}' has no attribute '{name}' on this system")
        return getattr(self._real, name)


def _proc_is_hidden(call):
    def hides(path, *rest, **options):
        if isinstance(path, (str, bytes, os.PathLike)) and os.fsdecode(path).startswith("/proc"):
            import traceback

            if any("/pbt/" in frame.filename for frame in traceback.extract_stack(limit=12)[:-1]):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return call(path, *rest, **options)

    return hides


def _windows():
    import fcntl

    reopen = os.open

    def locking(descriptor, mode, count):
        flock = struct.pack("hhqqixxxx", fcntl.F_WRLCK, os.SEEK_CUR, 0, count, 0)
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            writable = reopen(f"/proc/self/fd/{descriptor}", os.O_RDWR)  # Linux locks no others
            try:
                os.lseek(writable, os.lseek(descriptor, 0, os.SEEK_CUR), os.SEEK_SET)
                return locking(writable, mode, count)
            finally:
                os.close(writable)
        try:
            fcntl.fcntl(descriptor, 37, flock)  # F_OFD_SETLK: the lock of an open file, not of a process
        except BlockingIOError:
            raise PermissionError(errno.EACCES, "Permission denied") from None

    msvcrt = types.ModuleType("msvcrt")
    msvcrt.locking, msvcrt.LK_NBLCK = locking, 2
    modules = {name: Seen(__import__(name), missing) for name, missing in MISSING.items()}
    return {**modules, "msvcrt": msvcrt}, BLOCKED


def _macos():
    import fcntl

    def synced(descriptor, command, *rest):
        if command != FULL:
            return fcntl.fcntl(descriptor, command, *rest)
        with Path(os.environ["ELSEWHERE_SYNCED"]).open("a") as file:
            file.write(f"{Path(f'/proc/self/fd/{descriptor}').readlink()}\n")
        return 0

    missing = ["sched_getaffinity", "copy_file_range", "fdatasync"]
    return {"fcntl": Seen(fcntl, own={"F_FULLFSYNC": FULL, "fcntl": synced}), "os": Seen(os, missing)}, set()


def _install():
    import importlib

    modules, blocked = {"windows": _windows, "macos": _macos}[SYSTEM]()
    real = builtins.__import__, importlib.import_module

    def own(name, importer):
        if str(importer).partition(".")[0] == "pbt":
            if name in blocked:
                raise ModuleNotFoundError(f"No module named '{name}'", name=name)
            return modules.get(name)
        return None

    def importing(name, into=None, *rest, **options):
        found = own(name, (into or {}).get("__name__", ""))
        return real[0](name, into, *rest, **options) if found is None else found

    def import_module(name, *rest):
        found = own(name, sys._getframe(1).f_globals.get("__name__", ""))
        return real[1](name, *rest) if found is None else found

    builtins.__import__, importlib.import_module = importing, import_module
    for module, name in (
        (os, "listdir"),
        (os, "scandir"),
        (os, "stat"),
        (os, "open"),
        (io, "open"),
        (builtins, "open"),
    ):
        setattr(module, name, _proc_is_hidden(getattr(module, name)))


if SYSTEM:
    _install()
