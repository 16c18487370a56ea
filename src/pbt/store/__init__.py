"""Storage of runs: an event log and immutable states, on disk with one writer and many readers, or in memory."""

from pbt.store.base import JournalEntry, NewEntry, Problem, Store
from pbt.store.codec import decode, digest, encode
from pbt.store.files import StateFiles
from pbt.store.layout import check_run_name
from pbt.store.memory import MemoryStore
from pbt.store.reader import Logged, RunReader
from pbt.store.sqlite import RunStore
from pbt.store.verify import verify_run

__all__ = [
    "JournalEntry",
    "Logged",
    "MemoryStore",
    "NewEntry",
    "Problem",
    "RunReader",
    "RunStore",
    "StateFiles",
    "Store",
    "check_run_name",
    "decode",
    "digest",
    "encode",
    "verify_run",
]
