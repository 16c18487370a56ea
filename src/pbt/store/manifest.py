"""The content of a folder or file as part of a state: relative paths, sizes and SHA-256 hashes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, NamedTuple

_SHA256 = re.compile(r"[0-9a-f]{64}")


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
        contents = {inside(path): file_content(*content) for path, content in files.items()}
        manifest = cls(files=contents, empty=tuple(map(inside, empty)), single=tag == "file")
        _check_tree(manifest)
        return manifest


def file_content(size: Any, sha256: Any) -> FileContent:
    """The record of a file's content.

    Raises:
        ValueError: It is not one.
    """
    if type(size) is not int or size < 0 or type(sha256) is not str or not _SHA256.fullmatch(sha256):
        raise ValueError("expected the size and SHA-256 of a file")
    return FileContent(size, sha256)


def inside(name: Any) -> str:
    """The name, if it is a relative path that stays inside its folder and can be written as JSON.

    Raises:
        ValueError: It is not.
    """
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
