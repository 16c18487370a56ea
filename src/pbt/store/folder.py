"""Checkpoint folders and files as parts of a state, and the working folder of a round.

In an encoded state a manifest (`store.manifest`) stands for a folder, so that the digest of a state covers the content
of its folders; the files themselves are stored by content (`store.objects`).
"""

import atexit
import contextlib
import errno
import os
import tempfile
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from shutil import disk_usage, rmtree
from typing import Any

from pbt.errors import CorruptError, DiskError
from pbt.store.manifest import Manifest
from pbt.store.trees import Objects, hand_out, manifest_of

workspace: ContextVar["Workspace | None"] = ContextVar("workspace", default=None)
"""The working folder of the round in progress."""


class Workspace:
    """A private folder for one round, made on first use and removed with everything in it.

    Working copies of stored folders are made in it, and its files may be stored by link, because nothing else writes to
    them.

    Args:
        root: Where to make it; None: the system's temporary folder.
    """

    def __init__(self, root: Path | None) -> None:
        self._root = root
        self._path: Path | None = None
        self.disk_is_full = False
        """Whether the round ended by an error with a full disk, which is then not the member's fault."""

    @property
    def path(self) -> Path:
        """The folder.

        Raises:
            DiskError: It cannot be made.
        """
        if self._path is None:
            try:
                if self._root is not None:
                    self._root.parent.mkdir(mode=0o700, exist_ok=True)
                    self._root.mkdir(exist_ok=True)
                self._path = Path(tempfile.mkdtemp(prefix="round-" if self._root else "pbt-round-", dir=self._root))
            except OSError as error:
                raise DiskError(f"cannot make a working folder: {error}; make room") from error
        return self._path

    def contains(self, path: Path) -> bool:
        """Whether a path leads into the folder."""
        return self._path is not None and path.resolve().is_relative_to(self._path.resolve())

    def __enter__(self) -> "Workspace":
        self._token = workspace.set(self)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        workspace.reset(self._token)
        if error is not None:
            self.disk_is_full = _is_full(error, self._path)
        if self._path is not None:
            rmtree(self._path, ignore_errors=True)


_FULL_BYTES = 1 << 16


def _is_full(error: BaseException, path: Path | None) -> bool:
    """Whether a disk was full: by the error itself, or by the room beside the working folder.

    Libraries report a short write by errors of their own, without the system's number.
    """
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    with contextlib.suppress(OSError):
        return path is not None and disk_usage(path).free < _FULL_BYTES
    return False


class Folder:
    """A checkpoint folder or a single file, as part of a state.

    `train` returns it anywhere in the state: `{"checkpoint": pbt.Folder(ctx.scratch / "out"), "best": 0.93}`. Its
    content is taken when the state is stored, after evaluation. Each file is stored once per run under its SHA-256, so
    a file that does not change costs nothing after the first round. A file below `ctx.scratch` is stored by a hard
    link, unless it has another name elsewhere; any other one by a copy (a reflink on file systems that have them).

    In a loaded state, `path` is a private working copy, made on first access and removed after the round. A Folder
    whose `path` was never accessed is handed on without reading a byte.

    Names and contents are stored; permissions and times are not. A folder comes back under another name, a single file
    keeps its own.

    Args:
        path: An existing folder or file with only regular files and folders inside: no links, devices or pipes.
    """

    __slots__ = ("_copy", "_given", "_manifest", "_objects")

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._given: str | None = os.fspath(path)
        self._manifest: Manifest | None = None
        self._objects: Objects | None = None
        self._copy: Path | None = None

    @classmethod
    def stored(cls, manifest: Manifest, objects: Objects | None) -> "Folder":
        """A folder in a loaded state."""
        folder = cls("")
        folder._given, folder._manifest, folder._objects = None, manifest, objects
        return folder

    @property
    def path(self) -> Path:
        """The folder or file, private to this round; outside a round a copy that is removed when the program ends.

        Raises:
            CorruptError: A stored file is missing, or its content has changed.
            DiskError: The copy cannot be written.
        """
        if self._given is not None:
            return Path(self._given)
        if self._copy is None:
            self._copy = self._working_copy()
        return self._copy

    @property
    def untouched(self) -> Manifest | None:
        """The stored content, if no working copy was made of it; None: the files have to be read."""
        return self._manifest if self._given is None and self._copy is None else None

    @property
    def objects(self) -> Objects | None:
        """Where the stored content is."""
        return self._objects

    def manifest(self, keep: "Callable[[Path], Manifest] | None" = None) -> Manifest:
        """The present content; `keep` reads (and stores) the files."""
        return self.untouched or (keep or manifest_of)(self.path)

    def __repr__(self) -> str:
        if self._given is not None:
            return f"Folder({str(self._given)!r})"
        files = {} if self._manifest is None else self._manifest.files
        return f"<Folder of {len(files)} stored files, {sum(content.size for content in files.values()):,} bytes>"

    def __reduce__(self) -> tuple[Any, ...]:
        untouched = self.untouched
        return (Folder, (str(self.path),)) if untouched is None else (Folder.stored, (untouched, self._objects))

    def _working_copy(self) -> Path:
        if self._manifest is None or self._objects is None:
            raise CorruptError(f"{self!r}: expected stored files, found only their hashes; load the state from its run")
        current = workspace.get()
        into = Path(tempfile.mkdtemp(prefix="pbt-state-", dir=None if current is None else current.path))
        if current is None:
            atexit.register(rmtree, into, ignore_errors=True)
        return hand_out(self._manifest, self._objects, into)
