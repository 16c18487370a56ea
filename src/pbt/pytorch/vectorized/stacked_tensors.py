"""Where the numbers of a population lie: one (members, numbers) tensor per dtype, and a view per name into it.

So a copy between members is one gather, whatever the network is made of, and what one member holds is one row.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

_ALIGN = 16
"""Every tensor begins at a multiple of so many numbers, where vectorized kernels like it."""


class Rows:
    """Tensors of the same names, shapes and dtypes for every member.

    Args:
        like: What one member has; the values do not matter.
        members: How many rows.
        device: Where they lie.
    """

    def __init__(self, like: Mapping[str, Tensor], members: int, device: str) -> None:
        self.members = members
        places: dict[str, tuple[torch.dtype, int]] = {}
        sizes: dict[torch.dtype, int] = {}
        for name, tensor in like.items():
            places[name] = tensor.dtype, sizes.get(tensor.dtype, 0)
            sizes[tensor.dtype] = places[name][1] + -(-tensor.numel() // _ALIGN) * _ALIGN
        self._flats = {dtype: torch.zeros((members, size), dtype=dtype, device=device) for dtype, size in sizes.items()}
        self._places = [(name, tensor.shape, *places[name]) for name, tensor in like.items()]
        self.views = self._views_of(self._flats)
        """By name (members, *shape), into the same memory."""
        self._fetched: dict[str, Tensor] | None = None

    def _views_of(self, flats: Mapping[torch.dtype, Tensor]) -> dict[str, Tensor]:
        return {
            name: flats[dtype][:, start : start + shape.numel()].view(self.members, *shape)
            for name, shape, dtype, start in self._places
        }

    @property
    def flat(self) -> Tensor | None:
        """All numbers as (members, numbers), gaps between tensors included; None: they have several dtypes, or none."""
        return next(iter(self._flats.values())) if len(self._flats) == 1 else None

    @property
    def nbytes(self) -> int:
        """Memory of all rows."""
        return sum(flat.numel() * flat.element_size() for flat in self._flats.values())

    def row(self, index: int) -> dict[str, Tensor]:
        """The tensors of one member, sharing memory: that of the copies in the CPU's memory, if there are."""
        return {name: view[index] for name, view in (self._fetched or self.views).items()}

    def fetch(self) -> None:
        """Copy all rows from an accelerator, in one piece, and serve `row` from the copies until `release`."""
        if not any(flat.device.type == "cpu" for flat in self._flats.values()):
            copies = {dtype: flat.cpu() for dtype, flat in self._flats.items()}
            self._fetched = self._views_of(copies)

    def release(self) -> None:
        """Let go of the copies."""
        self._fetched = None

    @torch.no_grad()
    def gather(self, sources: Sequence[int]) -> None:
        """Give every row what the row at its place in `sources` has; all are read before one is written."""
        index = None
        for flat in self._flats.values():
            index = torch.tensor(sources, device=flat.device) if index is None else index
            flat.copy_(flat.index_select(0, index))

    @torch.no_grad()
    def approach(self, others: "Rows", rates: Tensor) -> None:
        """Move every row towards the same row of the others, by its share of the distance: rates (members,)."""
        for dtype, flat in self._flats.items():
            flat.lerp_(others._flats[dtype], rates.to(dtype).unsqueeze(1).expand_as(flat))

    @torch.no_grad()
    def load(self, index: int, tensors: Mapping[str, Tensor]) -> None:
        """Set one row; the names must be those of the rows.

        Raises:
            KeyError: A name is missing.
            RuntimeError: A shape is another.
        """
        for name, view in self.views.items():
            if tensors[name].shape != view.shape[1:]:
                raise RuntimeError(f"'{name}' has shape {tuple(tensors[name].shape)}, not {tuple(view.shape[1:])}")
            view[index].copy_(tensors[name])
