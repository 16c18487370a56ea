"""Kills runs at every system call that persists something and at random instants, and compares what they come to.

`scripts/crash` does a sample, `scripts/crash --full` everything there is, `scripts/crash NAME ...` the trials of these
names again. `scripts/crash --full --hours 8 --counts FILE` ends after that time and writes what came of each trial to
the file; the same command continues there, and prints the table of all nights. Exits with 1 where a run differs from
the undisturbed one, leaves an error or a process, or hangs.
"""

# ruff: noqa: T201 (a program that prints)

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

# Before numpy: children are forked from this process, which therefore has one thread.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from tests.crash.counts import Counts, spread
from tests.crash.tasks import EXECUTORS
from tests.crash.trials import Bench

FULL = None
SAMPLE = {
    ("inline", "walk", "call"): 60,
    ("inline", "walk", "instant"): 15,
    ("inline", "folders", "call"): 30,
    ("inline", "folders", "instant"): 4,
    ("processes", "folders", "workercall"): 3,
    ("inline", "program", "instant"): 2,
    ("processes", "program", "instant"): 1,
    ("processes", "program", "child"): 1,
    ("processes", "walk", "call"): 3,
    ("processes", "walk", "workercall"): 3,
    ("processes", "walk", "instant"): 3,
    ("inline", "network", "call"): 8,
    ("vectorized", "network", "call"): 8,
    ("vectorized", "network", "instant"): 4,
    ("programs", "network", "instant"): 1,
}
"""How many trials of each kind; what is not here is in the full matrix only."""
MATRIX = {
    **{(executor, task, "call"): FULL for executor, task in (
        ("inline", "walk"), ("inline", "network"), ("inline", "digits"), ("processes", "walk"),
        ("vectorized", "network"), ("programs", "network"),
    )},
    ("inline", "folders", "call"): FULL,
    ("processes", "walk", "workercall"): FULL,
    ("processes", "folders", "workercall"): FULL,
    ("programs", "network", "workercall"): FULL,
    **{(executor, task, "instant"): 200 for executor, task in (
        ("inline", "walk"), ("inline", "network"), ("inline", "digits"), ("processes", "walk"),
        ("vectorized", "network"), ("programs", "network"),
    )},
    ("inline", "folders", "instant"): 200,
    ("processes", "folders", "instant"): 200,
    ("inline", "program", "instant"): 50,
    ("processes", "program", "instant"): 50,
    ("inline", "program", "child"): 50,
    ("processes", "program", "child"): 50,
    ("ray", "walk", "instant"): 50,
    ("processes", "walk", "workers"): 50,
    ("programs", "network", "workers"): 10,
    ("inline", "walk", "stop"): 50,
    ("processes", "walk", "stop"): 50,
    ("vectorized", "network", "stop"): 10,
}  # fmt: skip
"""Everything; FULL: every system call there is."""


def main():
    """Do what the command line says; the exit code."""
    options = _options()
    counts = Counts(options.counts, options.seed)
    folder = Path(tempfile.mkdtemp(prefix="pbt-crash-", dir=options.dir)).resolve()
    bench = Bench(folder, options.seed, timed=not options.untimed)
    try:
        names = options.names or _names(bench, options, counts)
        left = [name for name in names if name not in counts.done]
        _do(bench, left if options.end is None else spread(left), counts, options.end)
    except BaseException:
        print(f"what was left is in {folder}", file=sys.stderr)
        raise
    verdicts = {name: counts.done[name] for name in names if name in counts.done}
    print(table(verdicts))
    if len(verdicts) < len(names):
        again = f"; the same command continues with {options.counts}" if options.counts else ""
        print(f"\n{len(names) - len(verdicts)} of {len(names)} trials are left{again}")
    wrong = [name for name, verdict in verdicts.items() if verdict.wrong]
    if wrong:
        print(f"\n{len(wrong)} of {len(verdicts)} differ; run directories are in {folder}; again with:")
        print(*(f"  scripts/crash --seed {options.seed} {name}" for name in wrong), sep="\n")
        return 1
    shutil.rmtree(folder)
    return 0


def _options():
    parser = argparse.ArgumentParser(prog="scripts/crash", description=__doc__)
    parser.add_argument("names", nargs="*", help="trials to do again, by name")
    parser.add_argument("--full", action="store_true", help="everything there is, which takes hours")
    parser.add_argument("--executor", choices=EXECUTORS, action="append", help="only this one (again for more)")
    parser.add_argument("--task", action="append", help="only this one (again for more)")
    parser.add_argument("--kind", action="append", help="only this kind of trial (again for more)")
    parser.add_argument("--instants", type=int, help="how many random instants, in place of 200")
    parser.add_argument("--calls", type=int, help="how many system calls, in place of every one")
    parser.add_argument("--seed", type=int, default=0, help="of everything random")
    parser.add_argument("--untimed", action="store_true", help="no bound in seconds: other programs have the cores")
    parser.add_argument("--dir", help="where run directories go while they are needed")
    end = parser.add_mutually_exclusive_group()
    end.add_argument("--hours", type=float, help="begin no trial after this time, and spread trials over all kinds")
    end.add_argument("--until", type=_moment, metavar="HH:MM", help="the same, as a time of day")
    parser.add_argument("--counts", metavar="FILE", help="continue with the trials in this file, and write them there")
    options = parser.parse_args()
    options.end = options.until
    if options.hours is not None:
        options.end = datetime.now().astimezone() + timedelta(hours=options.hours)
    return options


def _moment(text):
    """The next time at which a clock shows this."""
    now = datetime.now().astimezone()
    clock = datetime.strptime(text, "%H:%M").time()  # noqa: DTZ007 (a time of day)
    moment = now.replace(hour=clock.hour, minute=clock.minute, second=0, microsecond=0)
    return moment if moment > now else moment + timedelta(days=1)


def _names(bench, options, counts):
    found = []
    for (executor, task, kind), count in (MATRIX if options.full else SAMPLE).items():
        asked = (options.executor, executor), (options.task, task), (options.kind, kind)
        if any(wanted and it not in wanted for wanted, it in asked):
            continue
        wanted = {
            "instant": options.instants,
            "child": options.instants,
            "call": options.calls,
            "workercall": options.calls,
        }.get(kind)
        wanted = count if wanted is None else wanted
        key = f"{executor}/{task}/{kind}:{'every' if wanted is None else wanted}"
        found += counts.names(key, partial(bench.names, executor, task, kind, wanted))
    return found


def _do(bench, names, counts, end):
    began = time.monotonic()
    for i, name in enumerate(names, 1):
        if end is not None and datetime.now().astimezone() >= end:
            break
        verdict = bench.do(name)
        counts.put(name, verdict)
        print(f"\r{i}/{len(names)}  {time.monotonic() - began:.0f} s  {name:<60}", end="", file=sys.stderr, flush=True)
        for what in verdict.wrong:
            print(f"\n{name}: {what}", file=sys.stderr)
    print(file=sys.stderr)


def table(verdicts):
    """Counts by executor, task and kind, without trials that struck before there was a run."""
    groups = defaultdict(list)
    for name, verdict in verdicts.items():
        if verdict.wrong or not verdict.early:
            groups[":".join(name.split(":")[:1])].append(verdict)
    lines = [("executor/task/kind", "trials", "struck", "strikes", "identical", "differ", "most lost", "seconds")]
    for group, found in groups.items():
        wrong = sum(bool(verdict.wrong) for verdict in found)
        lines.append(
            (
                group,
                len(found),
                sum(verdict.struck for verdict in found),
                sum(verdict.strikes for verdict in found),
                len(found) - wrong,
                wrong,
                max(verdict.lost for verdict in found),
                f"{sum(verdict.seconds for verdict in found):.0f}",
            )
        )
    widths = [max(len(str(line[i])) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join(str(cell).ljust(w) for cell, w in zip(line, widths, strict=True)) for line in lines)


if __name__ == "__main__":
    sys.exit(main())
