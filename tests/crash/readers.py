"""Readers that look at a run again and again while it is written: `python -m tests.crash.readers RUN_DIR NUMBER`.

Prints, for each reader, how often it looked and how many events it saw; whatever goes wrong ends it with 1.
"""

import contextlib
import os
import sys
import time
from pathlib import Path

from pbt import Run
from pbt.errors import CorruptError
from pbt.store.reader import RunReader
from pbt.store.verify import verify_run
from pbt.testing.invariants import violations
from tests.crash.picture import ended

PATIENCE = 90.0


def look(path):
    """Look until the run has ended; how often, and how many events there were."""
    seen, looks, last = [], 0, False
    deadline = time.monotonic() + PATIENCE
    while not last:
        last = ended(path)  # asked before, so that the end is looked at as well
        assert time.monotonic() < deadline, f"not at its end after {len(seen)} events"
        with RunReader(path) as reader:
            events = reader.events()
            assert events[: len(seen)] == seen, "what had been told is told otherwise"
            new = reader.events(len(seen))
            assert new[: len(events) - len(seen)] == events[len(seen) :]
            best = Run.open(path).view.best
            if best is not None:
                with contextlib.suppress(KeyError):  # there is a better one by now
                    reader.load_state(best.state)
        # Between two commits all members stand at the same round: a wave is one transaction.
        assert len({member.round for member in Run.open(path).view.members}) == 1, "half a round"
        assert not (found := violations(path)), found
        assert not (found := [problem for problem in verify_run(path) if not problem.harmless]), found
        seen, looks = events, looks + 1
    return looks, len(seen)


def main(path, number):
    deadline = time.monotonic() + PATIENCE
    while not (path / "run.db").exists() or not ended_or_begun(path):
        assert time.monotonic() < deadline, "there is no run"
        time.sleep(0.005)
    children = []
    for _ in range(number):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                # One write: eight of them share the pipe.
                os.write(1, "{} {}\n".format(*look(path)).encode())
                code = 0
            except BaseException:  # noqa: BLE001 (told, and the child's end)
                import traceback

                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(pid)
    return max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children)


def ended_or_begun(path):
    """Whether the creation of the run is over."""
    try:
        return bool(RunReader(path).events())
    except CorruptError:
        raise
    except Exception:  # noqa: BLE001 (its creation goes on)
        return False


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
