"""Reading and copying of folders and files: in pieces, whatever their size, and only what has come to rest."""

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from pbt.errors import CorruptError, DiskError, StateError
from pbt.store.manifest import FileContent, Manifest, inside
from pbt.store.system import CAREFUL, read_at, write_at

PIECE = 1 << 20
"""Bytes read at once; the memory that a file of any size takes."""


class Objects(Protocol):
    """Files by content (`store.objects`)."""

    def open_file(self, sha256: str) -> int:
        """A descriptor of the file with this content, for reading.

        Raises:
            CorruptError: It is missing.
        """


def manifest_of(path: Path) -> Manifest:
    """Read a folder or file without storing it.

    Raises:
        StateError: It is missing, empty, still being written, or contains something other than files and folders.
    """
    return read_tree(path, lambda _, file, __: hash_file(file))


def read_tree(path: Path, read: Callable[[str, int, os.stat_result], str]) -> Manifest:
    """Read every file of a folder, or a single file; two looks at the tree must agree.

    Args:
        path: The folder or file.
        read: `(name, descriptor, status) -> SHA-256` of an open file.

    Raises:
        StateError: It is missing, empty, still being written, not readable, or contains something other than files and
            folders.
        DiskError: The disk fails.
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
    except PermissionError as error:
        what = f"{error.filename or path}: cannot be read ({error.strerror})"
        raise StateError(f"{what}; change its permissions") from None
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
        return inside(name)
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
    descriptor = os.open(path, os.O_RDONLY | CAREFUL)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def hash_file(descriptor: int) -> str:
    """SHA-256 of an open file, read from its start in pieces."""
    sha, offset = hashlib.sha256(), 0
    while piece := read_at(descriptor, PIECE, offset):
        sha.update(piece)
        offset += len(piece)
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
        raise CorruptError(f"{path}: expected {content.size:,} bytes with SHA-256 {content.sha256}, found {size:,}")
    found = hash_file(descriptor)
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
        while piece := read_at(source, PIECE, offset):
            write_at(file.fileno(), piece, offset)
            offset += len(piece)


_NO_RANGES = frozenset({errno.EINVAL, errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF})
"""The file system or kernel does not copy ranges between these files."""
