"""Files of states, stored by content: each once per run, under its SHA-256.

Which state needs which file is written beside the state (`000003-000002.files`), not in the database: a worker writes
it before its state is named anywhere, so that a sweep of the main process never removes a file that a worker has just
found to be there already. A lock on the folder separates the two: shared while a state is written, exclusive for a
sweep, which is skipped while a worker writes.
"""

import contextlib
import json
import os
import secrets
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pbt.errors import CorruptError, DiskError
from pbt.store.durable import TEMPORARY, disk_errors, renaming
from pbt.store.folder import Folder, workspace
from pbt.store.frozen import Convert, Pack
from pbt.store.manifest import FileContent, Manifest
from pbt.store.system import CAREFUL, SYNCED, lock, read_at, sync
from pbt.store.trees import check_content, copy_file, hash_file, read_tree

_LOCK = ".lock"
_HASH = 64


@dataclass(frozen=True, slots=True)
class FileObjects:
    """A folder of files named by their SHA-256. Plain and picklable: every worker process has its own copy."""

    root: Path

    def open_file(self, sha256: str) -> int:
        """A descriptor of the file with this content, for reading.

        Raises:
            CorruptError: It is missing, or not a regular file.
            DiskError: It cannot be read.
        """
        path = self.root / sha256
        try:
            descriptor = os.open(path, os.O_RDONLY | CAREFUL)
        except FileNotFoundError:
            raise CorruptError(f"{path}: expected a file of a state, found none; it was swept or deleted") from None
        except OSError as error:
            raise DiskError(f"cannot read {path}: {error.strerror or error}") from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise CorruptError(f"{path}: expected a regular file, found something else")
        return descriptor

    def check(self, content: FileContent) -> None:
        """Compare a stored file with its name.

        Raises:
            CorruptError: It is missing or has changed.
        """
        descriptor = self.open_file(content.sha256)
        try:
            check_content(descriptor, content, self.root / content.sha256)
        finally:
            os.close(descriptor)

    def keep(self, folder: Folder) -> Manifest:
        """Store the files of a folder that are not here yet, each durable on return.

        Raises:
            StateError: The folder cannot be stored.
            CorruptError: The stored content that it stands for is missing.
            DiskError: A file cannot be written.
        """
        untouched = folder.untouched
        if untouched is None:
            path, current = folder.path, workspace.get()
            private = current is not None and current.contains(path)

            def take(name: str, file: int, found: os.stat_result) -> str:
                # A file with another name may be written to under that name.
                return self._take(file, path / name, found.st_size, link=private and found.st_nlink == 1)

            return read_tree(path, take)
        for content in untouched.files.values():
            if not self._has(content):
                self._copy_from(folder, content)
        return untouched

    def keep_pack(self, pack: Pack, convert: Convert) -> FileContent:
        """Store frozen tensors that are not here yet, durable on return.

        Raises:
            StateError: A tensor cannot be stored.
            DiskError: The file cannot be written.
        """
        content = pack.content(convert)
        if not self._has(content):
            path = self.root / content.sha256
            temporary = self.root / f"{content.sha256}.{secrets.token_hex(8)}{TEMPORARY}"
            with disk_errors(path, f" ({content.size:,} bytes)"), renaming(temporary, path):
                with temporary.open("x+b") as file:
                    file.writelines(pack.buffers(convert))
                    file.flush()
                    # The tensors may have changed since they were hashed.
                    check_content(file.fileno(), content, temporary)
                    sync(file.fileno())
                temporary.chmod(stat.S_IMODE(temporary.stat().st_mode) & 0o555)
        return content

    def _copy_from(self, folder: Folder, content: FileContent) -> None:
        """Store a file of another run or machine."""
        if folder.objects is None:
            raise CorruptError(f"{folder!r}: expected its files in this run, found only their hashes")
        source = folder.objects.open_file(content.sha256)
        try:
            found = self._take(source, self.root / content.sha256, content.size, link=False)
        finally:
            os.close(source)
        if found != content.sha256:
            raise CorruptError(f"{folder!r}: expected content with SHA-256 {content.sha256}, found {found}")

    def _take(self, source: int, path: Path, size: int, *, link: bool) -> str:
        sha256 = hash_file(source)
        content = FileContent(size, sha256)
        if self._has(content):
            return sha256
        temporary = self.root / f"{sha256}.{secrets.token_hex(8)}{TEMPORARY}"
        with disk_errors(path, f" into the run ({size:,} bytes)"), renaming(temporary, self.root / sha256):
            self._write(source, path, temporary, link=link)
            with temporary.open(SYNCED) as file:
                if not link:
                    check_content(file.fileno(), content, temporary)
                sync(file.fileno())
            temporary.chmod(stat.S_IMODE(temporary.stat().st_mode) & 0o555)
        return sha256

    def _write(self, source: int, path: Path, temporary: Path, *, link: bool) -> None:
        if link:
            with contextlib.suppress(OSError):  # another disk, or a file system without hard links
                temporary.hardlink_to(path)
                return
        copy_file(source, temporary)

    def missing(self, files: Mapping[str, int]) -> dict[str, int]:
        """The files that are not here, of these sizes by SHA-256."""
        return {sha256: size for sha256, size in files.items() if not self._has(FileContent(size, sha256))}

    def read(self, sha256: str, offset: int, count: int) -> bytes:
        """A piece of a file.

        Raises:
            CorruptError: The file is missing.
        """
        descriptor = self.open_file(sha256)
        try:
            return read_at(descriptor, count, offset)
        finally:
            os.close(descriptor)

    def append(self, content: FileContent, offset: int, piece: bytes) -> None:
        """Store the next piece of a file; with the last one it is checked, durable and named.

        One sender at a time may send a file.

        Raises:
            CorruptError: The pieces are not its content.
            DiskError: It cannot be written.
        """
        self.prepare()
        path = self.root / f"{content.sha256}.incoming{TEMPORARY}"
        with disk_errors(path):
            with path.open("r+b" if offset else "wb") as file:
                file.seek(offset)
                file.write(piece)
            if offset + len(piece) < content.size:
                return
            with renaming(path, self.root / content.sha256, durable=True), path.open(SYNCED) as file:
                check_content(file.fileno(), content, path)
                sync(file.fileno())

    def prepare(self) -> None:
        """Make the folder."""
        self.root.parent.mkdir(mode=0o700, exist_ok=True)
        self.root.mkdir(exist_ok=True)

    def _has(self, content: FileContent) -> bool:
        try:
            found = (self.root / content.sha256).lstat()
        except OSError:
            return False
        # A file of another size is damaged; it is written again.
        return stat.S_ISREG(found.st_mode) and found.st_size == content.size

    @contextmanager
    def writing(self) -> Iterator[None]:
        """While a state is written, no sweep removes a file."""
        self.prepare()
        with self._locked(shared=True, wait=True):
            yield

    def sweep(self, needed: Callable[[], Collection[str]]) -> bool:
        """Delete every file not in `needed`; False if a state is being written, in which case nothing is deleted."""
        try:
            with self._locked():
                keep = needed()
                for name in self.names():
                    if name not in keep:
                        (self.root / name).unlink(missing_ok=True)
        except BlockingIOError:
            return False
        return True

    def names(self) -> list[str]:
        """The files in the folder, unfinished ones included."""
        entries = os.scandir(self.root) if self.root.is_dir() else ()
        return sorted(entry.name for entry in entries if entry.name != _LOCK)

    @contextmanager
    def _locked(self, *, shared: bool = False, wait: bool = False) -> Iterator[None]:
        descriptor = os.open(self.root / _LOCK, os.O_RDWR | os.O_CREAT | CAREFUL, 0o666)
        try:
            lock(descriptor, shared=shared, wait=wait)
            yield
        finally:
            os.close(descriptor)


class References:
    """The files that states need, for sweeps: one list per state, each read once.

    Args:
        objects: The files.
    """

    def __init__(self, objects: FileObjects) -> None:
        self._objects = objects
        self._read: dict[str, frozenset[str]] = {}

    def sweep(self, suffix: str) -> bool:
        """Delete the files that no state needs; False if a state is being written, in which case none is deleted.

        Args:
            suffix: Suffix of the lists.

        Raises:
            ValueError: A list is damaged.
        """
        return not self._objects.root.is_dir() or self._objects.sweep(lambda: self._needed(suffix))

    def _needed(self, suffix: str) -> set[str]:
        paths = {path.name: path for path in self._objects.root.parent.glob(f"*{suffix}")}
        self._read = {name: self._read.get(name) or frozenset(from_text(p.read_bytes())) for name, p in paths.items()}
        return set().union(*self._read.values())


def references(manifests: Collection[Manifest]) -> dict[str, int]:
    """The sizes of all files of these folders, by SHA-256."""
    return {content.sha256: content.size for manifest in manifests for content in manifest.files.values()}


def to_text(files: Mapping[str, int]) -> bytes:
    """The content of a file of references."""
    return json.dumps(dict(sorted(files.items())), indent=0).encode()


def from_text(text: bytes) -> dict[str, int]:
    """The sizes by SHA-256 in a file of references.

    Raises:
        ValueError: It is not one.
    """
    found = json.loads(text)
    if type(found) is not dict or any(len(sha) != _HASH or type(size) is not int for sha, size in found.items()):
        raise ValueError("expected sizes by SHA-256")
    return found
