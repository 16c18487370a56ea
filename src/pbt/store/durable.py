"""Files that are complete or absent at every instant: atomic replacement, fsync, and reading without surprises."""

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from pbt.errors import CorruptError, DiskError, RunError
from pbt.store.encoded_bytes import pieces_of
from pbt.store.system import CAREFUL, FOLDER, physical_memory, sync

TEMPORARY = ".tmp"
AHEAD = 32 << 20
"""Bytes of a file from which it is moved to the disk while it is written."""
REMEDY = "make room or repair the disk, then resume the run"
MOVED = "the run directory was renamed or removed meanwhile; resume the run under its new name"


def write_durable(path: Path, *content: Any) -> None:
    """Write a file that is complete or absent at every instant, even after a power loss.

    Args:
        path: The file.
        content: Its bytes, in one or several buffers.

    Raises:
        DiskError: It cannot be written; no partial file is left.
    """
    # A unique name per attempt: an abandoned worker may still be writing the same state.
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}{TEMPORARY}")
    with (
        disk_errors(path, f" ({sum(map(len, content))} bytes)"),
        renaming(temporary, path, durable=True),
        temporary.open("xb") as file,
    ):
        if sum(map(len, content)) < AHEAD:
            file.writelines(content)
        else:
            _write_ahead(file, content)
        file.flush()
        sync(file.fileno())


def _write_ahead(file: BinaryIO, content: Sequence[Any]) -> None:
    """Write in pieces, while a thread moves the pieces before to the disk, so that memory and disk work at once."""
    moved: Future[None] | None = None
    with ThreadPoolExecutor(1) as disk:
        for piece in (piece for buffer in content for _, piece in pieces_of(memoryview(buffer))):
            file.write(piece)
            if moved is None or moved.done():
                if moved is not None:
                    moved.result()  # the system reports a failed write to one fsync only
                file.flush()
                moved = disk.submit(sync, file.fileno())
    if moved is not None:
        moved.result()


@contextmanager
def replacing(path: Path, temporary: Path) -> Iterator[None]:
    """Replace a file atomically by a temporary file that the body writes; not durable, for reproducible files.

    An existing file or link of the temporary name is removed first: the left-over of a killed run, or a link that
    would redirect the write.

    Raises:
        DiskError: It cannot be written; the temporary file is removed.
    """
    with disk_errors(path), renaming(temporary, path):
        temporary.unlink(missing_ok=True)
        yield


def replace_file(path: Path, content: bytes) -> None:
    """Replace a file outside a run's own: atomically, not durably; its folder is made if it does not exist.

    Raises:
        RunError: It cannot be written; no partial file is left.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with renaming(temporary, path):
            temporary.unlink(missing_ok=True)
            temporary.write_bytes(content)
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror or error}); choose another path (--out)") from error


@contextmanager
def renaming(temporary: Path, path: Path, *, durable: bool = False) -> Iterator[None]:
    """Rename `temporary` to `path` after the body, or remove it after an error."""
    try:
        yield
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


@contextmanager
def disk_errors(path: Path, size: str = "") -> Iterator[None]:
    """Translate OSError.

    Raises:
        DiskError: Writing failed.
    """
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOENT and not path.parent.is_dir():
            raise DiskError(f"cannot write {path}{size}: {MOVED}") from error
        raise DiskError(f"cannot write {path}{size}: {error.strerror or error}; {REMEDY}") from error


def sync_folder(folder: Path) -> None:
    """Make the file names in a folder durable; without it a power loss can lose a synced file's name."""
    if FOLDER is None:
        return  # the system names files durably, or not at all
    descriptor = os.open(folder, os.O_RDONLY | FOLDER)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def open_plain(path: Path) -> int:
    """A descriptor of a regular file that fits into memory; links are not followed, pipes and devices do not block.

    Raises:
        CorruptError: It is not such a file.
        OSError: It is a directory, or cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | CAREFUL)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise CorruptError(f"{path}: expected a regular file, found a link") from error
        raise
    try:
        _check_plain(os.fstat(descriptor), path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check_plain(found: os.stat_result, path: Path) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    memory = physical_memory()
    if not stat.S_ISREG(found.st_mode):
        raise CorruptError(f"{path}: expected a regular file, found something else")
    if memory is not None and found.st_size > memory:
        raise CorruptError(f"{path}: expected a file that fits into memory, found {found.st_size:,} bytes")


def read_plain(path: Path) -> bytes:
    """The content of such a file.

    Raises:
        CorruptError: It is no regular file that fits into memory.
        OSError: It cannot be read.
    """
    with open(open_plain(path), "rb") as file:
        return file.read()
