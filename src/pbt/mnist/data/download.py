"""Download MNIST's four gzip files from public mirrors.

A mirror that sends nothing for `TIMEOUT` seconds is given up, so that a user without a network does not wait. Socket
time-outs alone do not ensure this: name resolution has none, and each address of a host gets its own. The transfer
therefore runs in a thread, and the caller waits for its queue.
"""

import gzip
import hashlib
import http.client
import io
import queue
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from pbt.errors import DataError, DiskError
from pbt.mnist.data.idx import SPECS, Spec
from pbt.store.durable import write_durable

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
TIMEOUT = 4.5  # seconds without a byte; two silent mirrors take less than ten
DEADLINE = 600.0  # seconds for one file, against a slow mirror
_CHUNK = 1 << 16  # bytes

Progress = Callable[[str, int, int], None]
"""Called with the file's name, bytes so far and bytes in all (0 if the mirror does not say)."""


class DownloadError(DataError):
    """No mirror provides the file; the message has a reason for each mirror."""


def fetch_mnist(
    folder: Path,
    *,
    mirrors: Sequence[str] = MIRRORS,
    progress: Progress | None = None,
    timeout: float = TIMEOUT,
    specs: Sequence[Spec] = SPECS,
    replace: bool = False,
) -> None:
    """Download the files that `folder` lacks, as `.gz`.

    A file appears under its name only when it is complete and its content is MNIST's.

    Args:
        folder: The folder, created when the first file has arrived.
        mirrors: Addresses ending in a slash, tried in order for each file.
        progress: Called with file name, bytes so far, and bytes in all (0 if unknown).
        timeout: Seconds without a byte after which a mirror is given up.
        specs: The files and the checksums of their content.
        replace: Download all of `specs`, also those that exist.

    Raises:
        DownloadError: No mirror provides a file.
        DataError: The folder cannot be written.
    """
    order = list(mirrors)
    for spec in specs:
        path = folder / f"{spec.name}.gz"
        if replace or not path.exists():
            blob, mirror = _fetch(spec, order, progress, timeout)
            _save(path, blob)
            # The mirror that answered goes first, so that a silent one is waited for once and not for each file.
            order.remove(mirror)
            order.insert(0, mirror)


def _fetch(spec: Spec, mirrors: Sequence[str], progress: Progress | None, timeout: float) -> tuple[bytes, str]:
    reasons = []
    for mirror in mirrors:
        url = f"{mirror}{spec.name}.gz"
        try:
            blob = _transfer(url, spec, progress, timeout)
            _verify(blob, spec)
        except (OSError, http.client.HTTPException, ValueError) as error:
            reasons.append(f"{urllib.parse.urlsplit(url).netloc or mirror}: {_reason(error)}")
        else:
            return blob, mirror
    raise DownloadError("; ".join(reasons) or "there are no mirrors")


def _reason(error: Exception) -> str:
    cause = getattr(error, "reason", None)  # the wrapped error of a URLError
    return str(cause or error) or type(error).__name__


def _transfer(url: str, spec: Spec, progress: Progress | None, timeout: float) -> bytes:
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise ValueError("expected an http or https address")
    # The content is known and gzip never doubles it, so a larger answer is another file.
    cap = spec.num_bytes + 1024
    news: queue.Queue[bytes | int | Exception | None] = queue.Queue()
    given_up = threading.Event()
    args = (url, cap, timeout, news, given_up)
    threading.Thread(target=_pump, args=args, name="pbt-download", daemon=True).start()
    try:
        return _collect(news, spec, cap, progress, timeout)
    finally:
        given_up.set()


def _collect(
    news: "queue.Queue[bytes | int | Exception | None]",
    spec: Spec,
    cap: int,
    progress: Progress | None,
    timeout: float,
) -> bytes:
    blob, total = bytearray(), 0
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        try:
            item = news.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError(f"nothing came for {timeout:g} s") from None
        if item is None:
            return bytes(blob)
        if isinstance(item, Exception):
            raise item
        if isinstance(item, int):
            total = item
        else:
            blob += item
        if max(total, len(blob)) > cap:
            raise ValueError(f"expected at most {cap:,} bytes, found more")
        if progress is not None:
            progress(f"{spec.name}.gz", len(blob), total)
    raise TimeoutError(f"not finished after {DEADLINE:g} s")


def _pump(
    url: str,
    cap: int,
    timeout: float,
    news: "queue.Queue[bytes | int | Exception | None]",
    given_up: threading.Event,
) -> None:
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:  # noqa: S310 - scheme checked by _transfer
            news.put(int(answer.headers.get("Content-Length") or 0))
            num_bytes = 0
            # One piece beyond the cap is passed on: the caller then refuses it and stops the transfer.
            while num_bytes <= cap and not given_up.is_set() and (piece := answer.read1(_CHUNK)):
                num_bytes += len(piece)
                news.put(piece)
    except urllib.error.HTTPError as error:
        error.close()  # it is also the response and holds the connection
        news.put(OSError(f"HTTP status {error.code}"))
    except (OSError, http.client.HTTPException, ValueError) as error:
        news.put(error)
    else:
        news.put(None)


def _verify(blob: bytes, spec: Spec) -> None:
    # The checksum comes before any interpretation of the bytes; of a larger content one byte more is read, so that
    # its checksum differs.
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(blob), mode="rb") as unpacked:
            found = hashlib.sha256(unpacked.read(spec.num_bytes + 1)).hexdigest()
    except EOFError:
        raise ValueError("expected a whole gzip file, found one cut short") from None
    except zlib.error as error:
        raise ValueError(f"expected a gzip file, found a damaged one ({error})") from error
    if found != spec.sha256:
        raise ValueError(f"expected content with SHA-256 {spec.sha256[:12]}..., found {found[:12]}...")


def _save(path: Path, blob: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durable(path, blob)
    except (OSError, DiskError) as error:
        cause = error.__cause__ if isinstance(error, DiskError) else error
        raise DataError(
            f"{path.parent}: the downloaded MNIST cannot be saved ({getattr(cause, 'strerror', None) or cause}); "
            "make the folder writable or set PBT_DATA_DIR to a folder that has the files"
        ) from error
