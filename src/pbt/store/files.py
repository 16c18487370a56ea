"""Where states are kept: one immutable file each, or inside the record that goes to the database if they are small."""

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
from pbt.errors import CorruptError, DiskError
from pbt.store.codec import decode_checked, encode_with_digest
from pbt.store.database import LOOK

SUFFIX = ".safetensors"
TEMPORARY = ".tmp"
REMEDY = "make room or repair the disk, then resume the run"
INLINE_LIMIT = 32768
"""Encoded bytes up to which a state lives in the database: there it costs no file, and no fsync of its own."""


@dataclass(frozen=True, slots=True)
class StateFiles:
    """Puts and gets states. Plain and picklable: every worker process has its own.

    Args:
        folder: Where the files are; None: every state stays in its record.
        inline_limit: Encoded bytes up to which a state stays in its record.
    """

    folder: Path | None
    inline_limit: int = INLINE_LIMIT

    def put(self, ref: StateRef, state: Any) -> Stored:
        """Store the state under this name: when this returns it is durable, or complete in `Stored.blob`.

        Raises:
            StateError: The state holds something that cannot be stored; the message names the key.
            DiskError: The file cannot be written; nothing of it is left.
        """
        return self.keep(ref, *encode_with_digest(state))

    def keep(self, ref: StateRef, blob: bytes, digest: str) -> Stored:
        """Store an encoded state under this name, as `put` does.

        Raises:
            DiskError: The file cannot be written; nothing of it is left.
        """
        if self.folder is None or len(blob) <= self.inline_limit:
            return Stored(digest=digest, size=len(blob), blob=bytes(blob))
        write_durable(self.folder / file_name(ref), blob)
        return Stored(digest=digest, size=len(blob))

    def get(self, ref: StateRef, digest: str, blob: bytes | None = None) -> Any:
        """A fresh copy of the state, free to be changed, from `blob` if given, else from its file.

        Raises:
            CorruptError: It is not there, or its content does not hash to `digest`.
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
        """The bytes of a state's file, unchecked.

        Raises:
            CorruptError: It is not there.
            DiskError: It cannot be read.
        """
        if self.folder is None:
            raise CorruptError(
                f"state of member {ref.member}, round {ref.round}: expected its bytes in memory, found none"
            )
        return _read(self.folder / file_name(ref))

    def remove(self, ref: StateRef) -> None:
        """Remove the file of this state, if it has one."""
        if self.folder is not None:
            (self.folder / file_name(ref)).unlink(missing_ok=True)


def file_name(ref: StateRef) -> str:
    """The name of a state's file."""
    return f"{ref.member:06d}-{ref.round:06d}{SUFFIX}"


def ref_of(name: str) -> StateRef | None:
    """The state whose file has this name; None: it is no state's."""
    member, _, round_ = name.removesuffix(SUFFIX).partition("-")
    if not (member.isdecimal() and round_.isdecimal()):
        return None
    ref = StateRef(int(member), int(round_))
    return ref if file_name(ref) == name else None


def write_durable(path: Path, content: bytes) -> None:
    """Write a file so that at every instant, and after a power loss, it is whole or not there.

    Raises:
        DiskError: It cannot be written; nothing of it is left.
    """
    # A name of its own per attempt: a worker that was given up may still be writing the same state.
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}{TEMPORARY}")
    try:
        try:
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
    except OSError as error:
        raise DiskError(f"cannot write {path} ({len(content)} bytes): {error.strerror or error}; {REMEDY}") from error


@contextmanager
def replacing(path: Path, temporary: Path) -> Iterator[None]:
    """Around the making of a temporary file that then takes the place of another; for files that can be made again.

    Whatever has the temporary name goes first: what a killed run left, or a link, which would be written through.

    Raises:
        DiskError: It cannot be written; the temporary file is gone.
    """
    try:
        try:
            temporary.unlink(missing_ok=True)
            yield
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise DiskError(f"cannot write {path}: {error.strerror or error}; {REMEDY}") from error


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable: the content of a file is of no use under a name that was lost."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_plain(path: Path) -> bytes:
    """The bytes of a plain file that memory has room for: no link is followed, no pipe or device is waited for.

    Raises:
        CorruptError: It is none.
        OSError: It cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise CorruptError(f"{path}: expected a plain file, found a link") from error
        raise
    with open(descriptor, "rb") as file:  # noqa: PTH123 (a descriptor, no path)
        found, memory = os.fstat(descriptor), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if not stat.S_ISREG(found.st_mode):
            raise CorruptError(f"{path}: expected a plain file, found something else")
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
