"""Errors of devices and memory: too little memory, a device that can no longer be used; processes that share a GPU."""

import os
import re
import sys
from pathlib import Path

_NEED = re.compile(r"Tried to allocate [\d.]+ \w+")
_CAPACITY = re.compile(r"total capacity of [\d.]+ \w+(?: of which [\d.]+ \w+ is free)?")
_UNUSABLE = re.compile(r"(?:CUDA|No CUDA|Unexpected error from cuda)", re.IGNORECASE)
_NO_MEMORY = "DefaultCPUAllocator: can't allocate memory"
_ASSERT = "device-side assert"
_MPS_FOLDER = "/tmp/nvidia-mps"  # noqa: S108 (NVIDIA's default)


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception, or one that it was raised from, is torch's for a device without enough memory."""
    return _is("OutOfMemoryError", error)


def device_lost(error: BaseException) -> bool:
    """Whether no further operation can run on the device in this process, as after a fault of the device."""
    if out_of_memory(error):
        return False
    return _is("AcceleratorError", error) or (type(error) is RuntimeError and bool(_UNUSABLE.match(str(error))))


def memory_short(error: BaseException) -> bool:
    """Whether an exception, or one that it was raised from, is for a machine without enough memory."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, MemoryError) or (type(found) is RuntimeError and _NO_MEMORY in str(found)):
            return True
        found = found.__cause__
    return False


def memory_text(error: BaseException) -> str:
    """The message about a machine without enough memory: the need, the free memory and the remedy."""
    need = (str(error).splitlines() or [""])[0] or type(error).__name__
    info = Path("/proc/meminfo")
    lines = info.read_text(encoding="ascii").splitlines() if info.exists() else []
    kib = {line.partition(":")[0]: int(line.split()[1]) for line in lines}
    free = (
        f"; {kib['MemAvailable'] / 2**20:.1f} of {kib['MemTotal'] / 2**20:.1f} GiB are available now"
        if {"MemAvailable", "MemTotal"} <= kib.keys()
        else ""
    )
    return (
        f"not enough memory on this machine for a round ({need}{free}); use fewer workers, smaller batches or a "
        "machine with more memory, then resume: no finished round is lost"
    )


def _is(name: str, error: BaseException) -> bool:
    # Without torch there are no such errors.
    kind = getattr(sys.modules.get("torch"), name, None)
    found: BaseException | None = error
    while found is not None and kind is not None:
        if isinstance(found, kind):
            return True
        found = found.__cause__
    return False


def need_of(error: BaseException) -> str:
    """The memory that an operation needed, and that of the device, from torch's message."""
    text = " ".join(str(error).split())
    found = [match[0] for pattern in (_NEED, _CAPACITY) if (match := pattern.search(text))]
    return ", ".join(found) or text[:200]


def lost_text(device: str, error: BaseException) -> str:
    """The message about a device that can no longer be used in this process."""
    text = (str(error).splitlines() or [type(error).__name__])[0]
    cause = (
        "; an index is out of range, such as a class or a token: training on the CPU shows its line"
        if _ASSERT in text
        else ""
    )
    return f"the device '{device}' can no longer be used in this process ({text}){cause}"


def mps_is_on() -> bool:
    """Whether NVIDIA's Multi-Process Service runs, with which processes use a GPU at the same time, not in turns."""
    folder = Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", _MPS_FOLDER))
    try:
        pid = int((folder / "nvidia-cuda-mps-control.pid").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return (folder / "control").exists()
    return Path(f"/proc/{pid}").exists()
