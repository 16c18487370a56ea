"""The download cache: MNIST's own four files and nothing else, so that a damaged one is replaced."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import platformdirs

from pbt.errors import DataError
from pbt.mnist.data.download import DownloadError, Progress, fetch_mnist
from pbt.mnist.data.idx import IdxFile, Spec, locate, read_idx_file

log = logging.getLogger("pbt")


def cache_folder() -> Path:
    """Where downloaded files are kept: `mnist` in the user's cache folder for `pbt`."""
    return platformdirs.user_cache_path("pbt") / "mnist"


def cached_mnist(
    cache: Path, specs: Sequence[Spec], *, download: bool, progress: Progress | None, mirrors: Sequence[str]
) -> list[IdxFile]:
    """MNIST's files from the cache; those that are absent or damaged are downloaded first.

    Raises:
        DownloadError: A file is absent or damaged, and cannot or must not be downloaded.
        DataError: The cache cannot be written.
    """
    there = {spec.name: locate(cache, spec) for spec in specs}
    files = {spec.name: _whole(there[spec.name], spec) for spec in specs}
    wanted = [spec for spec in specs if files[spec.name] is None]
    damaged = [path for spec in wanted if (path := there[spec.name]) is not None]
    if wanted:
        _fetch(cache, wanted, damaged, download=download, progress=progress, mirrors=mirrors)
        for spec in wanted:
            files[spec.name] = _whole(cache / f"{spec.name}.gz", spec)
    return [file for file in files.values() if file is not None]


def _whole(path: Path | None, spec: Spec) -> IdxFile | None:
    """The file, if it is there and has MNIST's content."""
    try:
        file = None if path is None else read_idx_file(path, spec.ndim)
    except DataError:
        return None
    return file if file is not None and file.sha256 == spec.sha256 else None


def _fetch(
    cache: Path,
    wanted: Sequence[Spec],
    damaged: Sequence[Path],
    *,
    download: bool,
    progress: Progress | None,
    mirrors: Sequence[str],
) -> None:
    told = f"{', '.join(map(str, damaged))} is damaged, and " if damaged else ""
    if not download:
        raise DownloadError(f"{told}downloading was declined")
    if os.environ.get("PBT_OFFLINE", "").lower() not in ("", "0", "false", "no"):
        raise DownloadError(f"{told}PBT_OFFLINE forbids downloading it")
    for path in damaged:
        log.warning("%s: expected MNIST's content, found other bytes; the file is downloaded again", path)
    try:
        fetch_mnist(cache, mirrors=mirrors, progress=progress, specs=wanted, replace=True)
    except DownloadError as error:
        raise DownloadError(f"{told}it cannot be downloaded ({error})") from error
    for path in damaged:
        # What was fetched is a .gz file; a damaged one of another name would be found before it.
        if path.name not in {f"{spec.name}.gz" for spec in wanted}:
            path.unlink(missing_ok=True)
