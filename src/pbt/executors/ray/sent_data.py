"""Transfer of `Cluster(data=...)`: once into the object store, and once to each node that trains.

Arrays stay in shared memory. A folder becomes files in the node's temporary folder, which its workers
share; a worker that starts removes those that no living worker uses.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pbt.errors import TaskError
from pbt.executors.cluster_data import ClusterData

_FOLDER = "pbt-data-"
_USERS, _NEW = ".users-", ".new-"


@dataclass(frozen=True, slots=True)
class SentData:
    """References to data in the object store."""

    arrays: Mapping[str, Any] | None
    """The reference of each array; None: a folder."""
    files: Mapping[str, Any]
    """The reference of the content of each file, by relative path."""
    digest: str
    """The digest of the names and contents of the files."""


def send(ray: Any, data: ClusterData) -> SentData:
    """Put data into the object store.

    Raises:
        TaskError: A file cannot be read.
    """
    if not isinstance(data, Path):
        return SentData({name: ray.put(np.ascontiguousarray(array)) for name, array in data.items()}, {}, "")
    digest, files = hashlib.sha256(), {}
    try:
        for path in sorted(path for path in data.rglob("*") if path.is_file()):
            content = np.fromfile(path, dtype=np.uint8)
            name = path.relative_to(data).as_posix()
            digest.update(f"{name}\0{content.size}\0".encode() + hashlib.sha256(content.data).digest())
            files[name] = ray.put(content)
    except OSError as error:
        raise TaskError(f"Cluster(data=...): {error.filename} cannot be read ({error.strerror})") from error
    return SentData(None, files, digest.hexdigest()[:16])


def receive(ray: Any, sent: SentData) -> ClusterData:
    """In a worker: the data that the driver sent.

    Raises:
        RayError: It cannot be fetched.
        OSError: It cannot be written.
    """
    if sent.arrays is not None:
        return dict(zip(sent.arrays, ray.get(list(sent.arrays.values())), strict=True))
    root = Path(tempfile.gettempdir())
    _sweep(root)
    folder = root / f"{_FOLDER}{os.getuid()}-{sent.digest}"
    users = folder.with_name(f"{folder.name}{_USERS}{os.getpid()}")
    users.touch(mode=0o600)
    if not folder.is_dir():
        made = Path(tempfile.mkdtemp(prefix=f"{folder.name}{_NEW}{os.getpid()}-", dir=root))
        for name, reference in sent.files.items():
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            ray.get(reference).tofile(made / name)
        try:
            made.rename(folder)
        except OSError:
            # Another worker of this node was faster.
            shutil.rmtree(made, ignore_errors=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to another user")
    return folder


def _sweep(root: Path) -> None:
    """Remove the folders of this user that no living worker uses."""
    own = f"{_FOLDER}{os.getuid()}-"
    for user in root.glob(f"{own}*{_USERS}*"):
        if not Path(f"/proc/{user.name.rpartition('-')[2]}").exists():
            user.unlink(missing_ok=True)
    for folder in [path for path in root.glob(f"{own}*") if path.is_dir()]:
        _, new, maker = folder.name.partition(_NEW)
        used = Path(f"/proc/{maker.partition('-')[0]}").exists() if new else any(root.glob(f"{folder.name}{_USERS}*"))
        if not used:
            shutil.rmtree(folder, ignore_errors=True)
