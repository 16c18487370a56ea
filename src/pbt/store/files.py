"""Storage of states: one immutable file each, or inline in the database row for small states."""

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pbt.core.population import StateRef, Stored
from pbt.errors import CorruptError, DiskError, RunError
from pbt.store.codec import decode_checked, encode_with_digest
from pbt.store.database import LOOK

SUFFIX = ".safetensors"
TEMPORARY = ".tmp"
REMEDY = "make room or repair the disk, then resume the run"
INLINE_LIMIT = 32768
"""Largest encoded state, in bytes, that is stored in the database, where it needs no file and no fsync of its own."""


@dataclass(frozen=True, slots=True)
class StateFiles:
    """Reads and writes states. Plain and picklable: every worker process has its own copy.

    Args:
        folder: The folder of the files; None: every state stays in its record.
        inline_limit: Largest encoded size, in bytes, that stays in the record.
    """

    folder: Path | None
    inline_limit: int = INLINE_LIMIT

    def put(self, ref: StateRef, state: Any) -> Stored:
        """Store a state under this name; on return it is durable, or complete in `Stored.blob`.

        Raises:
            StateError: It contains a value that cannot be stored; the message names the key.
            DiskError: The file cannot be written; no partial file is left.
        """
        return self.keep(ref, *encode_with_digest(state))

    def keep(self, ref: StateRef, blob: bytes, digest: str) -> Stored:
        """Store an encoded state under this name, as `put` does.

        Raises:
            DiskError: The file cannot be written; no partial file is left.
        """
        if self.folder is None or len(blob) <= self.inline_limit:
            return Stored(digest=digest, size=len(blob), blob=bytes(blob))
        write_durable(self.folder / file_name(ref), blob)
        return Stored(digest=digest, size=len(blob))

    def get(self, ref: StateRef, digest: str, blob: bytes | None = None) -> Any:
        """A fresh, writable copy of a state, from `blob` if given, else from its file.

        Raises:
            CorruptError: The file is missing, or its content does not match `digest`.
            DiskError: The file cannot be read.
        """
        where = f"state of member {ref.member}, round {ref.round}"
        if blob is None:
            blob = self.read(ref)
            where = str(self.folder / file_name(ref)) if self.folder is not None else where
        try:
            return decode_checked(blob, digest)
        except CorruptError as error:
            raise CorruptError(f"{where}: {error}; {LOOK}") from error

    def read(self, ref: StateRef) -> bytes:
        """The content of a state's file, unchecked.

        Raises:
            CorruptError: The file is missing.
            DiskError: It cannot be read.
        """
        if self.folder is None:
            raise CorruptError(
                f"state of member {ref.member}, round {ref.round}: expected its bytes in memory, found none"
            )
        return _read(self.folder / file_name(ref))

    def remove(self, ref: StateRef) -> None:
        """Delete the file of a state, if it has one."""
        if self.folder is not None:
            (self.folder / file_name(ref)).unlink(missing_ok=True)


def file_name(ref: StateRef) -> str:
    """The name of a state's file."""
    return f"{ref.member:06d}-{ref.round:06d}{SUFFIX}"


def ref_of(name: str) -> StateRef | None:
    """The state whose file has this name; None for any other name."""
    member, _, round_ = name.removesuffix(SUFFIX).partition("-")
    if not (member.isdecimal() and round_.isdecimal()):
        return None
    ref = StateRef(int(member), int(round_))
    return ref if file_name(ref) == name else None


def write_durable(path: Path, content: bytes) -> None:
    """Write a file that is complete or absent at every instant, even after a power loss.

    Raises:
        DiskError: It cannot be written; no partial file is left.
    """
    # A unique name per attempt: an abandoned worker may still be writing the same state.
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}{TEMPORARY}")
    with (
        _disk_errors(path, f" ({len(content)} bytes)"),
        _renaming(temporary, path, durable=True),
        temporary.open("xb") as file,
    ):
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def replacing(path: Path, temporary: Path) -> Iterator[None]:
    """Replace a file atomically by a temporary file that the body writes; not durable, for reproducible files.

    An existing file or link of the temporary name is removed first: the left-over of a killed run, or a link that
    would redirect the write.

    Raises:
        DiskError: It cannot be written; the temporary file is removed.
    """
    with _disk_errors(path), _renaming(temporary, path):
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
        with _renaming(temporary, path):
            temporary.unlink(missing_ok=True)
            temporary.write_bytes(content)
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror or error}); choose another path (--out)") from error


@contextmanager
def _renaming(temporary: Path, path: Path, *, durable: bool = False) -> Iterator[None]:
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
def _disk_errors(path: Path, size: str = "") -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DiskError(f"cannot write {path}{size}: {error.strerror or error}; {REMEDY}") from error


def sync_folder(folder: Path) -> None:
    """Make the file names in a folder durable; without it a power loss can lose a synced file's name."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_plain(path: Path) -> bytes:
    """The content of a regular file that fits into memory; links are not followed, pipes and devices do not block.

    Raises:
        CorruptError: It is not such a file.
        OSError: It cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise CorruptError(f"{path}: expected a regular file, found a link") from error
        raise
    with open(descriptor, "rb") as file:  # noqa: PTH123 (a descriptor, no path)
        found, memory = os.fstat(descriptor), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if not stat.S_ISREG(found.st_mode):
            raise CorruptError(f"{path}: expected a regular file, found something else")
        if found.st_size > memory:
            raise CorruptError(f"{path}: expected a file that fits into memory, found {found.st_size:,} bytes")
        return file.read(found.st_size + 1)


def _read(path: Path) -> bytes:
    try:
        return read_plain(path)
    except FileNotFoundError:
        raise CorruptError(f"{path}: expected the file of a state, found none; {LOOK}") from None
    except OSError as error:
        raise DiskError(f"cannot read {path}: {error.strerror or error}; {REMEDY}") from error
