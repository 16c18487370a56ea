"""The counts of kill trials: continued where they stopped, of one version, without trials that struck too early."""

import json

import pytest

from tests.crash.__main__ import table
from tests.crash.counts import Counts, spread
from tests.crash.trials import Verdict, persisting

STRUCK = Verdict(struck=True, strikes=2, lost=3, seconds=1.5)


def test_counts_are_continued(tmp_path) -> None:
    """A second night finds the names and verdicts of the first, and refuses those of another version or seed."""
    path = tmp_path / "counts.json"
    first = Counts(path, seed=0)
    assert first.names("a/b/call:2", lambda: ["a/b/call:write:1", "a/b/call:write:2"])[0] == "a/b/call:write:1"
    first.put("a/b/call:write:1", STRUCK)
    second = Counts(path, seed=0)
    assert second.names("a/b/call:2", lambda: pytest.fail("traced again")) == ["a/b/call:write:1", "a/b/call:write:2"]
    assert second.done == {"a/b/call:write:1": STRUCK}
    with pytest.raises(SystemExit, match="seed 1"):
        Counts(path, seed=1)
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": "older"}))
    with pytest.raises(SystemExit, match="older"):
        Counts(path, seed=0)


def test_each_beginning_is_a_sample() -> None:
    """Groups take turns, each from its beginning to its end, and nothing is left out."""
    names = [f"a/call:{i}" for i in range(5)] + [f"b/instant:{i}" for i in range(2)]
    order = spread(names)
    assert order[:4] == ["a/call:0", "b/instant:0", "a/call:4", "b/instant:1"]
    assert sorted(order) == sorted(names)


def test_a_strike_before_the_run_is_not_counted(tmp_path) -> None:
    """Neither the call that makes the run directory is a trial, nor one that struck before it is counted."""
    early = Verdict(struck=True, strikes=1, early=True)
    *_, line = table({"a/b/call:mkdir:1": early, "a/b/call:write:1": STRUCK}).splitlines()
    assert line.split()[:7] == ["a/b/call", "1", "1", "2", "1", "0", "3"]
    calls = [
        f'mkdir("{tmp_path}", 0777) = 0',
        f'mkdir("{tmp_path}/states", 0700) = 0',
        f"write(3<{tmp_path}/lock>, 9) = 9",
    ]
    trace = "\n".join(calls)
    assert persisting(trace, tmp_path) == [("mkdir", 2), ("write", 1)]
