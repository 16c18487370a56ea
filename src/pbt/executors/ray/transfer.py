"""Files of states between the driver and the nodes: in pieces, each file only where it is not yet."""

from collections.abc import Mapping
from typing import Any

from pbt.core.population import StateRef
from pbt.executors.retry import START_SECONDS
from pbt.store.files import StateFiles
from pbt.store.manifest import FileContent

PIECE = 16 << 20
"""Bytes on the way at once."""


def send_files(ray: Any, actor: Any, states: StateFiles, needed: Mapping[StateRef, Mapping[str, int]]) -> None:
    """Send an idle actor the files that its next batch needs and its node lacks.

    Raises:
        RayError: The actor does not answer.
        CorruptError: A file of the run is missing.
    """
    files = {sha256: size for ref in needed for sha256, size in needed[ref].items()}
    if not files or states.objects is None:
        return
    lacking = ray.get(actor.missing.remote(files), timeout=START_SECONDS)
    for sha256, size in lacking.items():
        for offset in _offsets(size):
            piece = states.objects.read(sha256, offset, PIECE)
            ray.get(actor.append.remote(FileContent(size, sha256), offset, piece), timeout=START_SECONDS)


def fetch_files(ray: Any, actor: Any, states: StateFiles, ref: StateRef, files: Mapping[str, int]) -> None:
    """Fetch the files of a new state, durably, and record that it needs them.

    Raises:
        RayError: The actor does not answer.
        CorruptError: A file arrived damaged.
        DiskError: One cannot be written.
    """
    objects = states.objects
    if objects is None:
        return
    with objects.writing():
        for sha256, size in objects.missing(files).items():
            for offset in _offsets(size):
                call = actor.read.options(concurrency_group="files")
                piece = ray.get(call.remote(sha256, offset, PIECE), timeout=START_SECONDS)
                objects.append(FileContent(size, sha256), offset, piece)
        states.write_references(ref, files)


def _offsets(size: int) -> range:
    return range(0, max(1, size), PIECE)
