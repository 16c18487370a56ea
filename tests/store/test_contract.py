"""Both stores keep the contract."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pbt.store.base import Store
from pbt.store.memory import MemoryStore
from pbt.store.sqlite import RunStore
from pbt.testing.stores import StoreContract


class TestMemoryStore(StoreContract):
    def make_store(self, meta: Mapping[str, Any]) -> Store:
        return MemoryStore(meta)


class TestRunStore(StoreContract):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path
        self.count = 0

    def make_store(self, meta: Mapping[str, Any]) -> Store:
        self.count += 1
        return RunStore.create(self.folder / f"run{self.count}", meta)

    def reopen(self, store: Store) -> Store:
        store.close()
        assert store.path is not None
        return RunStore.open(store.path)
