"""The trials done so far, in a file: a night of them is continued by the next one."""

import hashlib
import json
from dataclasses import asdict
from itertools import chain, zip_longest
from pathlib import Path

from tests.crash.trials import Verdict
from tests.helpers.paths import SOURCE


def version():
    """A digest of the package and of these trials: counts of another version are other counts."""
    sha = hashlib.sha256()
    for folder in (SOURCE, Path(__file__).parent):
        for path in sorted(folder.rglob("*.py")):
            sha.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return sha.hexdigest()[:16]


class Counts:
    """What came of each trial, by name, written after every one.

    Args:
        path: The file; None: nothing is kept.
        seed: Of everything random.

    Raises:
        SystemExit: The file has counts of another version of the code, or of another seed.
    """

    def __init__(self, path, seed):
        self._path = None if path is None else Path(path)
        self._head = {"version": version(), "seed": seed}
        self.groups, self.done = {}, {}
        if self._path is not None and self._path.exists():
            self._read()

    def _read(self):
        content = json.loads(self._path.read_text(encoding="utf-8"))
        for what, own in self._head.items():
            if content[what] != own:
                raise SystemExit(
                    f"{self._path}: expected counts of {what} {own}, found {content[what]}; name a new file"
                )
        self.groups = content["groups"]
        self.done = {name: Verdict(**verdict) for name, verdict in content["done"].items()}

    def names(self, key, make):
        """The names of a group of trials: as in the file, because two traces of one run may differ by a call."""
        if key not in self.groups:
            self.groups[key] = make()
        return self.groups[key]

    def put(self, name, verdict):
        """Keep what came of a trial."""
        self.done[name] = verdict
        if self._path is not None:
            done = {name: asdict(verdict) for name, verdict in self.done.items()}
            part = self._path.with_name(f"{self._path.name}.part")
            part.write_text(json.dumps({**self._head, "groups": self.groups, "done": done}, indent=0), encoding="utf-8")
            part.replace(self._path)


def spread(names):
    """The names in an order in which each beginning is a sample of every group, from its beginning to its end."""
    groups = {}
    for name in names:
        groups.setdefault(":".join(name.split(":")[:1]), []).append(name)
    turns = zip_longest(*(_halved(group) for group in groups.values()))
    return [name for name in chain.from_iterable(turns) if name is not None]


def _halved(names):
    """The first, the middle, the quarters, and so on."""
    bits = max(1, (len(names) - 1).bit_length())
    order = (int(f"{i:0{bits}b}"[::-1], 2) for i in range(2**bits))
    return [names[i] for i in order if i < len(names)]
