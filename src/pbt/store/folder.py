"""Checkpoint folders and files as parts of a state: `Folder`, and the manifest that stands for its content.

A manifest lists relative paths, sizes and SHA-256 hashes. It is part of the encoded state, so that the digest of a
state covers the content of its folders; the files themselves are stored by content (`store.objects`).
"""

import contextlib
import errno
import hashlib
import os
import re
import stat
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from shutil import rmtree
from typing import Any, NamedTuple, Protocol

from pbt.errors import CorruptError, DiskError, StateError

PIECE = 1 << 20
"""Bytes read at once; the memory that a file of any size takes."""
_SHA256 = re.compile(r"[0-9a-f]{64}")

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

    @property
    def path(self) -> Path:
        """The folder.

        Raises:
            DiskError: It cannot be made.
        """
        if self._path is None:
            try:
                if self._root is not None:
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

    def __exit__(self, *_: object) -> None:
        workspace.reset(self._token)
        if self._path is not None:
            rmtree(self._path, ignore_errors=True)


class FileContent(NamedTuple):
    """The content of a file."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The content of a folder, or of a single file."""

    files: Mapping[str, FileContent]
    """By relative path with `/`, sorted; a single file has its name here."""
    empty: tuple[str, ...] = ()
    """Subfolders without files, sorted."""
    single: bool = False
    """Whether this is a file rather than a folder."""

    def to_plain(self) -> dict[str, Any]:
        """The form in the structure of a state."""
        files = {path: list(content) for path, content in self.files.items()}
        return {"file": files} if self.single else {"folder": [files, list(self.empty)]}

    @classmethod
    def from_plain(cls, tag: str, body: Any) -> "Manifest":
        """The manifest of a structure.

        Raises:
            ValueError: It is not a manifest, or a path leads outside the folder.
        """
        files, empty = (body, []) if tag == "file" else body
        if type(files) is not dict or type(empty) is not list or (tag == "file" and len(files) != 1):
            raise ValueError("expected the files of a folder")
        contents = {_inside(path): _content(*content) for path, content in files.items()}
        manifest = cls(files=contents, empty=tuple(map(_inside, empty)), single=tag == "file")
        _check_tree(manifest)
        return manifest


class Objects(Protocol):
    """Files by content (`store.objects`)."""

    def open_file(self, sha256: str) -> int:
        """A descriptor of the file with this content, for reading.

        Raises:
            CorruptError: It is missing.
        """


@dataclass(slots=True, eq=False)
class Folder:
    """A checkpoint folder or a single file, as part of a state.

    `train` returns it anywhere in the state: `{"checkpoint": pbt.Folder(ctx.scratch / "out"), "best": 0.93}`. Its
    content is taken when the state is stored, after evaluation. Each file is stored once per run under its SHA-256, so
    a file that does not change costs nothing after the first round. A file below `ctx.scratch` is stored by a hard
    link, any other one by a copy (a reflink on file systems that have them).

    In a loaded state, `path` is a private working copy, made on first access and removed after the round. A Folder
    whose `path` was never accessed is handed on without reading a byte.

    Names and contents are stored; permissions and times are not. A folder comes back under another name, a single file
    keeps its own.

    Args:
        path: An existing folder or file with only regular files and folders inside: no links, devices or pipes.
    """

    _given: str | os.PathLike[str] | None
    _manifest: Manifest | None = None
    _objects: Objects | None = None
    _copy: Path | None = field(default=None, init=False)
    _removal: "weakref.finalize[Any, Any] | None" = field(default=None, init=False)
    __weakref__: Any = field(init=False, repr=False)

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._given, self._manifest, self._objects = os.fspath(path), None, None
        self._copy = self._removal = None

    @classmethod
    def stored(cls, manifest: Manifest, objects: Objects | None) -> "Folder":
        """A folder in a loaded state."""
        folder = cls("")
        folder._given, folder._manifest, folder._objects = None, manifest, objects
        return folder

    @property
    def path(self) -> Path:
        """The folder or file, private to this round; outside a round it is removed with this object.

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
            self._removal = weakref.finalize(self, rmtree, into, ignore_errors=True)
        return hand_out(self._manifest, self._objects, into)


def manifest_of(path: Path) -> Manifest:
    """Read a folder or file without storing it.

    Raises:
        StateError: It is missing, empty, still being written, or contains something other than files and folders.
    """
    return read_tree(path, lambda name, file, _: hash_file(file, name))


def read_tree(path: Path, read: Callable[[str, int, os.stat_result], str]) -> Manifest:
    """Read every file of a folder, or a single file; two looks at the tree must agree.

    Args:
        path: The folder or file.
        read: `(name, descriptor, status) -> SHA-256` of an open file.

    Raises:
        StateError: It is missing, empty, still being written, or contains something other than files and folders.
        DiskError: It cannot be read.
    """
    try:
        before, empty = _look(path)
        if not before:
            raise StateError(f"{path}: expected a checkpoint with at least one file, found an empty folder")
        single = "" in before
        files = {}
        for name in sorted(before):
            inner = path / name if name else path
            with _open(inner) as descriptor:
                found = os.fstat(descriptor)
                if not _same(found, before[name]):
                    raise _changing(inner)
                files[name or _checked(path.name)] = FileContent(found.st_size, read(name, descriptor, found))
                if not _same(os.fstat(descriptor), found):
                    raise _changing(inner)
        after, empty_after = _look(path)
    except FileNotFoundError as error:
        if not os.path.lexists(path):
            raise StateError(f"{path}: expected a folder or file with a checkpoint, found nothing") from None
        raise _changing(Path(error.filename or path)) from None
    except OSError as error:
        raise DiskError(f"cannot read {error.filename or path}: {error.strerror or error}") from error
    if before.keys() != after.keys() or empty != empty_after or any(not _same(before[n], after[n]) for n in before):
        raise _changing(path)
    return Manifest(files=files, empty=tuple(empty), single=single)


def _look(path: Path) -> tuple[dict[str, os.stat_result], list[str]]:
    """The files below a folder by relative path (one with the name "" if it is a file), and the empty folders."""
    files: dict[str, os.stat_result] = {}
    empty: list[str] = []

    def look(name: str, found: os.stat_result) -> None:
        where = path / name if name else path
        if stat.S_ISREG(found.st_mode):
            files[name] = found
            return
        if not stat.S_ISDIR(found.st_mode):
            raise StateError(
                f"{where}: expected only files and folders in a state, found {_kind(found.st_mode)}; copy its content, "
                "or leave it out"
            )
        with os.scandir(where) as entries:
            inner = sorted(entries, key=lambda entry: entry.name)
        if not inner and name:
            empty.append(_checked(name))
        for entry in inner:
            look(_checked(f"{name}/{entry.name}" if name else entry.name), entry.stat(follow_symlinks=False))

    look("", os.lstat(path))
    return files, sorted(empty)


def _checked(name: str) -> str:
    try:
        return _inside(name)
    except ValueError as error:
        raise StateError(f"{name!r}: {error}; rename it") from None


def _kind(mode: int) -> str:
    kinds = ((stat.S_ISLNK, "a link"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
    return next((kind for is_kind, kind in kinds if is_kind(mode)), "a device")


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_ino, one.st_size, one.st_mtime_ns) == (other.st_ino, other.st_size, other.st_mtime_ns)


def _changing(path: Path) -> StateError:
    return StateError(
        f"{path}: expected a finished checkpoint, found one that is still being written; wait for its writer before "
        "the round ends"
    )


@contextlib.contextmanager
def _open(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def hash_file(descriptor: int, name: object, most: int | None = None) -> str:
    """SHA-256 of an open file, read from its start in pieces.

    Raises:
        StateError: It is longer than `most` bytes.
    """
    sha, offset = hashlib.sha256(), 0
    while piece := os.pread(descriptor, PIECE, offset):
        sha.update(piece)
        offset += len(piece)
        if most is not None and offset > most:
            raise StateError(f"{name}: expected {most:,} bytes, found more")
    return sha.hexdigest()


def hand_out(manifest: Manifest, objects: Objects, into: Path) -> Path:
    """Write a private copy of stored content below a folder.

    Raises:
        CorruptError: A stored file is missing, or its content has changed.
        DiskError: The copy cannot be written.
    """
    target = into / "checkpoint"
    if manifest.single:
        target = into
    try:
        target.mkdir(exist_ok=manifest.single)
        for name in manifest.empty:
            (target / name).mkdir(parents=True)
        for name, content in manifest.files.items():
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            source = objects.open_file(content.sha256)
            try:
                copy_file(source, path)
            finally:
                os.close(source)
            with _open(path) as copied:
                check_content(copied, content, path)
    except OSError as error:
        raise DiskError(f"cannot write {error.filename or target}: {error.strerror or error}; make room") from error
    return target / next(iter(manifest.files)) if manifest.single else target


def check_content(descriptor: int, content: FileContent, path: Path) -> None:
    """Compare an open file with its manifest.

    Raises:
        CorruptError: It differs.
    """
    size = os.fstat(descriptor).st_size
    if size != content.size:
        raise CorruptError(f"{path}: expected {content.size:,} bytes, found {size:,}; the stored file has changed")
    found = hash_file(descriptor, path)
    if found != content.sha256:
        raise CorruptError(f"{path}: expected content with SHA-256 {content.sha256}, found {found}")


def copy_file(source: int, path: Path) -> None:
    """Copy an open file to a new one: by reflink where the file system can, in the kernel or in pieces elsewhere.

    Raises:
        OSError: It cannot be written.
    """
    with path.open("xb") as file:
        offset, size = 0, os.fstat(source).st_size
        try:
            while offset < size:
                count = os.copy_file_range(source, file.fileno(), 1 << 30, offset, offset)
                if count == 0:
                    break
                offset += count
        except (OSError, AttributeError) as error:
            if isinstance(error, OSError) and error.errno not in _NO_RANGES:
                raise
        while piece := os.pread(source, PIECE, offset):
            os.pwrite(file.fileno(), piece, offset)
            offset += len(piece)


_NO_RANGES = frozenset({errno.EINVAL, errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF})
"""The file system or kernel does not copy ranges between these files."""


def _content(size: Any, sha256: Any) -> FileContent:
    if type(size) is not int or size < 0 or type(sha256) is not str or not _SHA256.fullmatch(sha256):
        raise ValueError("expected the size and SHA-256 of a file")
    return FileContent(size, sha256)


def _inside(name: Any) -> str:
    """The name, if it is a relative path that stays inside its folder and can be written as JSON."""
    if type(name) is not str or not name or "\0" in name or "\\" in name:
        raise ValueError("expected the name of a file without backslashes and zero bytes")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ValueError("expected the name of a file in UTF-8") from None
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or str(path) != name:
        raise ValueError("expected the name of a file inside the folder")
    return name


def _check_tree(manifest: Manifest) -> None:
    """No name may be both a file and a folder."""
    leaves = [*manifest.files, *manifest.empty]
    parents = {str(parent) for leaf in leaves for parent in PurePosixPath(leaf).parents}
    if len(set(leaves)) != len(leaves) or parents & set(leaves):
        raise ValueError("expected distinct names of files and folders")
