"""Resources of nodes and workers: room, and amounts as text."""

from collections.abc import Mapping, Sequence

_TENTHS = 10_000
"""Ray counts fractions of a resource in these units."""


def room(free: Sequence[Mapping[str, float]], need: Mapping[str, float]) -> int:
    """The number of workers that the nodes can hold; a worker cannot span two nodes."""
    need = {name: value for name, value in need.items() if value}
    return sum(min(_tenths(node.get(name, 0.0)) // _tenths(value) for name, value in need.items()) for node in free)


def _tenths(amount: float) -> int:
    return max(0, round(_TENTHS * amount))


def amounts(resources: Mapping[str, float]) -> str:
    """Resources as text, without those that Ray counts for itself."""
    own = ("node:", "accelerator_type:", "object_store_memory", "memory")
    shown = [f"{value:g} {name}" for name, value in sorted(resources.items()) if value and not name.startswith(own)]
    return ", ".join(shown) or "nothing"
