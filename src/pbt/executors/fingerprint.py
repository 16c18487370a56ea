"""The fingerprint of a task: digests of its code and data, equal on every machine that trains the same members.

Tasks on a cluster open their data on each node. The digests are taken where a task opens its data anyway, so that
nothing is read twice.
"""

import hashlib
import pickletools
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

Fingerprint = Mapping[str, str]
"""Digests by name: `the code of tasks`, `the train data`."""
SENT = "__pbt_source__"
"""The attribute of a module whose text is sent to workers (see `transport`)."""

_recordings: list[dict[str, str]] = []
"""The fingerprints that are being taken in this process."""


@runtime_checkable
class HasFingerprint(Protocol):
    """A task that states what it is made of, besides its code and the data of a `SupervisedTask`."""

    def fingerprint(self) -> Mapping[str, str]:
        """Digests by name, such as `{"data": ...}`; a worker whose digests differ from the driver's is refused."""


@contextmanager
def recording(found: dict[str, str] | None) -> Iterator[None]:
    """Collect the digests of the data that tasks open inside the block.

    Args:
        found: Where to; None: collect nothing.
    """
    if found is None:
        yield
        return
    _recordings.append(found)
    try:
        yield
    finally:
        _recordings.remove(found)


def record(digests: Callable[[], Mapping[str, str]]) -> None:
    """Add digests to the fingerprints that are being taken; they are computed only then."""
    if _recordings:
        taken = digests()
        for found in _recordings:
            found.update(taken)


def own_digests(task: Any) -> dict[str, str]:
    """The digests that a task states itself."""
    return dict(task.fingerprint()) if isinstance(task, HasFingerprint) else {}


def modules_of(sent: bytes) -> list[str]:
    """The user's modules that a pickled task needs: those that it names, and those whose objects they hold.

    Installed packages and the standard library are left out; so are modules whose text is sent along.
    """
    found: dict[str, None] = {}
    waiting = [*named_in(sent)]
    while waiting:
        name = waiting.pop()
        module = sys.modules.get(name)
        if name in found or name == "__main__" or module is None or _source(module) is None:
            continue
        found[name] = None
        values = list(vars(module).values())
        waiting += [value.__name__ for value in values if isinstance(value, ModuleType)]
        waiting += [kind for value in values if isinstance(kind := getattr(value, "__module__", None), str)]
    return sorted(found)


def code_digests(modules: Iterable[str]) -> dict[str, str]:
    """The digest of the source of each of these modules that is loaded in this process."""
    digests = {}
    for name in modules:
        module = sys.modules.get(name)
        source = None if module is None else _source(module)
        if source is not None and source.is_file():
            digests[f"the code of {name}"] = hashlib.sha256(source.read_bytes()).hexdigest()[:12]
    return digests


def differences(here: Fingerprint, there: Fingerprint) -> list[str]:
    """The names of the digests in which two fingerprints differ, of those that both have."""
    return sorted(name for name in here.keys() & there.keys() if here[name] != there[name])


def named_in(sent: bytes) -> set[str]:
    """All strings of a pickle that name a loaded module: a superset of the modules that it imports."""
    return {
        text.partition(" ")[0]
        for _, text, _ in pickletools.genops(sent)
        if isinstance(text, str) and text.partition(" ")[0] in sys.modules
    }


def _source(module: ModuleType) -> Path | None:
    """The file of a user's module; None: an installed or a built-in one."""
    file = getattr(module, "__file__", None)
    if not isinstance(file, str) or not file.endswith(".py") or SENT in vars(module):
        return None
    path = Path(file).resolve()
    return None if any(path.is_relative_to(folder) for folder in _installed()) else path


def _installed() -> list[Path]:
    paths = sysconfig.get_paths()
    folders = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    return [*(Path(folder).resolve() for folder in folders), Path(__file__).resolve().parent.parent]
