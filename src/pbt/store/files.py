"""Storage of states: one immutable file each, or inline in the database row for small states.

The codec, and with it numpy, is imported by the first state: a command that reads only the log starts without it.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pbt.core.population import StateRef, Stored
from pbt.errors import CorruptError, DiskError, StateError
from pbt.store.database import LOOK
from pbt.store.durable import REMEDY, disk_errors, open_plain, read_plain, sync_folder, write_durable
from pbt.store.encoded_bytes import EncodedBytes, InFile, InMemory
from pbt.store.folder import Folder
from pbt.store.frozen import Pack
from pbt.store.layout import LIVE, SCRATCH
from pbt.store.manifest import FileContent, Manifest
from pbt.store.objects import FileObjects, from_text, references, to_text

SUFFIX = ".safetensors"
REFERENCES = ".files"
"""Suffix of the list of files that a state needs, beside it."""
OBJECTS = "objects"
"""The folder of the files of `Folder`s, below that of the states."""
INLINE_LIMIT = 32768
"""Largest encoded state, in bytes, that is stored in the database, where it needs no file and no fsync of its own."""


LARGE = 4 << 20
"""Bytes of an encoded state from which it is hashed by a thread while it is written."""


class _Writing(contextlib.ExitStack):
    """The writing of a state."""

    reserved = False
    """Whether no file is swept until the end."""


@dataclass(frozen=True, slots=True)
class StateFiles:
    """Reads and writes states. Plain and picklable: every worker process has its own copy.

    Args:
        folder: The folder of the files; None: every state stays in its record.
        inline_limit: Largest encoded size, in bytes, that stays in the record.
    """

    folder: Path | None
    inline_limit: int = INLINE_LIMIT
    beside: Path | None = None
    """Where the files of `Folder`s are kept if there is no `folder`; None: a state with one is refused."""

    objects: FileObjects | None = field(init=False, repr=False, compare=False)
    """The files of the `Folder`s in states, by content; None: such a state is refused."""

    def __post_init__(self) -> None:
        # Made once: a path for every state that is read would take as long as reading a small one.
        base = self.folder or self.beside
        object.__setattr__(self, "objects", None if base is None else FileObjects(base / OBJECTS))

    @property
    def workspaces(self) -> Path | None:
        """The folder for the working folders of rounds, on the disk of the states; None: anywhere."""
        if self.folder is not None:
            return self.folder.with_name(SCRATCH)
        return None if self.beside is None else self.beside / SCRATCH

    @property
    def live(self) -> Path | None:
        """The folder for the points of the rounds in progress; None: no reader shares one."""
        return None if self.folder is None else self.folder.with_name(LIVE)

    def put(self, ref: StateRef, state: Any) -> Stored:
        """Store a state under this name; on return it is durable, or complete in `Stored.blob`.

        Raises:
            StateError: It contains a value that cannot be stored; the message names the key.
            DiskError: The file cannot be written; no partial file is left.
        """
        from pbt.store.codec import encode_whole

        with _Writing() as writing:
            encoded = encode_whole(
                state,
                lambda folder: self._keep_folder(folder, writing),
                None if self.objects is None else lambda pack: self._keep_pack(pack, writing),
            )
            needed = {**references(encoded.folders), **encoded.packs}
            if needed:
                self.write_references(ref, needed)
        size, folders = encoded.size, bool(needed)
        if self.folder is None or size <= self.inline_limit:
            return Stored(digest=encoded.digest(), size=size, blob=encoded.blob(), folders=folders)
        if size < LARGE:
            write_durable(self.folder / file_name(ref), *encoded.pieces)
            return Stored(digest=encoded.digest(), size=size, folders=folders)
        with ThreadPoolExecutor(1) as beside:
            digest = beside.submit(encoded.digest)
            write_durable(self.folder / file_name(ref), *encoded.pieces)
        return Stored(digest=digest.result(), size=size, folders=folders)

    def _keep_folder(self, folder: Folder, writing: _Writing) -> Manifest:
        return self._reserved(writing).keep(folder)

    def _keep_pack(self, pack: Pack, writing: _Writing) -> FileContent:
        from pbt.store.structure import plain_bytes

        return self._reserved(writing).keep_pack(pack, plain_bytes)

    def _reserved(self, writing: _Writing) -> FileObjects:
        """The files, none of which is swept until the end of `writing`."""
        objects = self._with_objects()
        if not writing.reserved:
            with disk_errors(objects.root):
                writing.enter_context(objects.writing())
            writing.reserved = True
        return objects

    def _with_objects(self) -> FileObjects:
        if self.objects is None:
            raise StateError("expected a run that stores the files of a Folder, found none")
        return self.objects

    def write_references(self, ref: StateRef, files: Mapping[str, int]) -> None:
        """Record the files that a state needs, durably; they are in `objects` already.

        Raises:
            DiskError: It cannot be written.
        """
        objects = self._with_objects()
        with disk_errors(objects.root):
            sync_folder(objects.root)
        write_durable(objects.root.with_name(references_name(ref)), to_text(files))

    def references(self, ref: StateRef) -> dict[str, int]:
        """The sizes of the files that a state needs, by SHA-256; empty if it has no `Folder`.

        Raises:
            CorruptError: The record of them is damaged.
        """
        base = self.folder or self.beside
        if base is None:
            return {}
        path = base / references_name(ref)
        try:
            return from_text(read_plain(path))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise CorruptError(f"{path}: expected sizes of files by SHA-256, found something else; {LOOK}") from error

    def check(self, ref: StateRef, digest: str, blob: bytes | None, checked: set[str], *, mend: bool = False) -> int:
        """Compare a state and the files of its `Folder`s with their hashes; returns the size of the encoded state.

        Args:
            ref: The state.
            digest: Its expected digest.
            blob: The state itself, if it has no file of its own.
            checked: Files that need no second look; those checked now are added.
            mend: Write the record of the needed files again if it is damaged or missing.

        Raises:
            CorruptError: The state or a file is missing or has changed, or a file is not recorded as needed.
            DiskError: One cannot be read.
        """
        from pbt.store.codec import folders_of, packs_of

        self.get(ref, digest, blob)
        with contextlib.nullcontext(InMemory(blob)) if blob is not None else self._file(ref) as content:
            size, needed = content.size, {**references(folders_of(content)), **packs_of(content)}
        for sha256, length in needed.items():
            if sha256 not in checked:
                self._with_objects().check(FileContent(length, sha256))
                checked.add(sha256)
        try:
            recorded = self.references(ref)
        except CorruptError:
            if not mend:
                raise
            recorded = None
        if recorded != needed:
            path = self._with_objects().root.with_name(references_name(ref))
            if not mend:
                raise CorruptError(f"{path}: expected the files of the state, found others or none; {LOOK}")
            self.write_references(ref, needed)
        return size

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
        from pbt.store.codec import decode_checked

        try:
            if blob is not None:
                return decode_checked(InMemory(blob), digest, self.objects)
            with self._file(ref) as content:
                return decode_checked(content, digest, self.objects)
        except CorruptError as error:
            where = f"state of member {ref.member}, round {ref.round}"
            if blob is None and self.folder is not None:
                where = str(self.folder / file_name(ref))
            raise CorruptError(f"{where}: {error}; {LOOK}") from error

    @contextlib.contextmanager
    def _file(self, ref: StateRef) -> Iterator[EncodedBytes]:
        """The bytes of a state's file."""
        path = self._path(ref)
        with _reading(path):
            descriptor = open_plain(path)
            try:
                yield InFile(descriptor)
            finally:
                os.close(descriptor)

    def _path(self, ref: StateRef) -> Path:
        if self.folder is None:
            raise CorruptError(
                f"state of member {ref.member}, round {ref.round}: expected its bytes in memory, found none"
            )
        return self.folder / file_name(ref)

    def read(self, ref: StateRef) -> bytes:
        """The content of a state's file, unchecked.

        Raises:
            CorruptError: The file is missing.
            DiskError: It cannot be read.
        """
        path = self._path(ref)
        with _reading(path):
            return read_plain(path)

    def remove(self, ref: StateRef) -> None:
        """Delete the file of a state, if it has one."""
        base = self.folder or self.beside
        if base is not None:
            (base / file_name(ref)).unlink(missing_ok=True)
            (base / references_name(ref)).unlink(missing_ok=True)


def file_name(ref: StateRef) -> str:
    """The name of a state's file."""
    return f"{ref.member:06d}-{ref.round:06d}{SUFFIX}"


def references_name(ref: StateRef) -> str:
    """The name of the list of files that a state needs."""
    return f"{ref.member:06d}-{ref.round:06d}{REFERENCES}"


def ref_of(name: str, suffix: str = SUFFIX) -> StateRef | None:
    """The state whose file has this name; None for any other name."""
    member, _, round_ = name.removesuffix(suffix).partition("-")
    if not (member.isdecimal() and round_.isdecimal()):
        return None
    ref = StateRef(int(member), int(round_))
    return ref if f"{ref.member:06d}-{ref.round:06d}{suffix}" == name else None


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise CorruptError(f"{path}: expected the file of a state, found none; {LOOK}") from None
    except OSError as error:
        raise DiskError(f"cannot read {path}: {error.strerror or error}; {REMEDY}") from error
