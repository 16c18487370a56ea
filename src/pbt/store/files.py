"""Where states are kept: one immutable file each, or inside the record that goes to the database if they are small."""

import contextlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pbt.core.population import StateRef, Stored
from pbt.errors import CorruptError, RunError
from pbt.store.codec import decode_checked, encode_with_digest

SUFFIX = ".safetensors"
TEMPORARY = ".tmp"
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
            RunError: The file cannot be written; nothing of it is left.
        """
        blob, digest = encode_with_digest(state)
        if self.folder is None or len(blob) <= self.inline_limit:
            return Stored(digest=digest, size=len(blob), blob=blob)
        write_durable(self.folder / file_name(ref), blob)
        return Stored(digest=digest, size=len(blob))

    def get(self, ref: StateRef, digest: str, blob: bytes | None = None) -> Any:
        """A fresh copy of the state, free to be changed, from `blob` if given, else from its file.

        Raises:
            CorruptError: It is not there, or its content does not hash to `digest`.
            RunError: The file cannot be read.
        """
        where = f"state of member {ref.member}, round {ref.round}"
        if blob is None:
            if self.folder is None:
                raise CorruptError(f"{where}: expected its bytes in memory, found none")
            path = self.folder / file_name(ref)
            blob, where = _read(path), str(path)
        try:
            return decode_checked(blob, digest)
        except CorruptError as error:
            raise CorruptError(f"{where}: {error}; `pbt verify` lists everything that is damaged") from error

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
        RunError: It cannot be written; nothing of it is left.
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
        raise RunError(
            f"cannot write {path} ({len(content)} bytes): {error.strerror or error}; "
            "make room or repair the disk, then resume the run"
        ) from error


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable: the content of a file is of no use under a name that was lost."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise CorruptError(
            f"{path}: expected the file of a state, found none; `pbt verify` lists everything that is damaged"
        ) from None
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror or error}; repair the disk, then resume") from error
