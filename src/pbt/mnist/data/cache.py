"""The download cache of MNIST's four files; damaged files are replaced."""

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
    """The folder of downloaded files: `pbt/mnist` in the user's cache folder."""
    return platformdirs.user_cache_path("pbt") / "mnist"


def cached_mnist(
    cache: Path, specs: Sequence[Spec], *, download: bool, progress: Progress | None, mirrors: Sequence[str]
) -> list[IdxFile]:
    """MNIST's files from the cache; missing and damaged ones are downloaded first.

    Raises:
        DownloadError: A file is missing or damaged, and cannot be downloaded or must not be.
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
    """The file, if it exists and has MNIST's content."""
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
    damage = f"{', '.join(map(str, damaged))} is damaged, and " if damaged else ""
    if not download:
        raise DownloadError(f"{damage}downloading was declined")
    if os.environ.get("PBT_OFFLINE", "").lower() not in ("", "0", "false", "no"):
        raise DownloadError(f"{damage}PBT_OFFLINE forbids downloading it")
    for path in damaged:
        log.warning("%s: expected MNIST's content, found other bytes; the file is downloaded again", path)
    try:
        fetch_mnist(cache, mirrors=mirrors, progress=progress, specs=wanted, replace=True)
    except DownloadError as error:
        raise DownloadError(f"{damage}it cannot be downloaded ({error})") from error
    for path in damaged:
        # A damaged file of another name would be found before the downloaded .gz file.
        if path.name not in {f"{spec.name}.gz" for spec in wanted}:
            path.unlink(missing_ok=True)
