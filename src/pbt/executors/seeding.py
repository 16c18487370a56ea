"""Global random generators and thread counts around a round: seeded inside, restored afterwards.

Only for user code that draws from global generators; this package draws by key.
"""

import importlib.util
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import Any


@contextmanager
def seeded(seed: int, device: str = "cpu") -> Iterator[None]:
    """Seed the global generators inside and restore them afterwards; libraries that are not loaded stay unloaded."""
    with preserved(), sown(seed, device):
        yield


@contextmanager
def preserved() -> Iterator[None]:
    """Restore generators and torch's thread count on exit; libraries that are not loaded stay unloaded."""
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    cuda = torch.cuda if torch and torch.cuda.is_initialized() else None
    before = (random.getstate(), numpy and numpy.random.get_state(), torch and torch.get_rng_state())
    threads = int(torch.get_num_threads()) if torch else 1
    before_cuda = cuda and cuda.get_rng_state_all()
    try:
        yield
    finally:
        random.setstate(before[0])
        if numpy:
            numpy.random.set_state(before[1])
        if torch:
            torch.set_rng_state(before[2])
            use_threads(threads)
        if cuda:
            cuda.set_rng_state_all(before_cuda)


@contextmanager
def sown(seed: int, device: str = "cpu") -> Iterator[None]:
    """Seed the global generators.

    Torch is seeded even if it is first imported inside, so that a worker's first round is like any other.
    """
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    random.seed(seed)
    if numpy:
        numpy.random.seed(seed % 2**32)
    if torch:
        # Not torch.manual_seed: without CUDA it stores every call with its traceback.
        torch.default_generator.manual_seed(seed)
        if device.startswith("cuda") or torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(seed)
        yield
        return
    late = _TorchSeeder(seed)
    sys.meta_path.insert(0, late)
    try:
        yield
    finally:
        if late in sys.meta_path:
            sys.meta_path.remove(late)


class _TorchSeeder(MetaPathFinder):
    """Seeds torch when it is imported."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:  # noqa: ARG002
        """The spec of torch from the other finders, extended to seed it after execution."""
        if name != "torch":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_seed(module: Any) -> None:
                execute(module)
                module.manual_seed(self._seed)

            spec.loader.exec_module = execute_and_seed  # type: ignore[method-assign]
        return spec


def use_threads(count: int) -> None:
    """Set torch's number of CPU threads, if torch is loaded; results depend on it in their last bits."""
    torch = sys.modules.get("torch")
    if torch and torch.get_num_threads() != count:
        torch.set_num_threads(count)
