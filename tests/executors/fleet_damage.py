"""Tasks that leave things behind or break in odd ways. In a module of their own: a worker starts without pytest."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np


class UnspeakableError(Exception):
    """An error whose text cannot be formatted."""

    def __str__(self):
        raise RuntimeError("no text")


def break_oddly(hparams, state, steps, ctx):
    """Members 1 to 4 break, each in a way of its own."""
    if ctx.member == 1:
        raise UnspeakableError
    if ctx.member == 2:
        raise ValueError("a name that is no text: \udcff")
    if ctx.member == 4:
        return {}, float("nan")
    return {"x": np.ones(3)}, {"score": 1.0, "note": "half a character: \udcff"}


def leave_things(hparams, state, steps, ctx):
    """Leaves a thread, a program and a forked process, which all go on for a minute and hold what the worker held."""
    threading.Thread(target=time.sleep, args=(60,)).start()
    program = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], close_fds=False)
    fork = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    fork.start()
    for pid in (program.pid, fork.pid):
        (Path(hparams["folder"]) / str(pid)).touch()
    return {"x": np.ones(3)}, 1.0


def leave_and_stop(hparams, state, steps, ctx):
    """Leaves a forked process, and is stopped."""
    leave_things(hparams, state, steps, ctx)
    os.kill(os.getpid(), signal.SIGSTOP)
    return {}, 1.0
