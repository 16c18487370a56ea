"""Stacked tensors of a population: one (members, numbers) tensor per dtype, with a view per name.

A member is one row, and a copy between members is one gather, for any network.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

_ALIGN = 16
"""Every tensor begins at a multiple of this many numbers, as vectorized kernels prefer."""


class Rows:
    """Tensors of the same names, shapes and dtypes for every member.

    Args:
        like: The tensors of one member; their values are not used.
        members: Number of rows.
        device: The device.
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
        """Views by name, (members, *shape)."""
        self._fetched: dict[str, Tensor] | None = None

    def _views_of(self, flats: Mapping[torch.dtype, Tensor]) -> dict[str, Tensor]:
        return {
            name: flats[dtype][:, start : start + shape.numel()].view(self.members, *shape)
            for name, shape, dtype, start in self._places
        }

    @property
    def flat(self) -> Tensor | None:
        """All numbers, (members, numbers), including gaps between tensors; None unless there is exactly one dtype."""
        return next(iter(self._flats.values())) if len(self._flats) == 1 else None

    @property
    def nbytes(self) -> int:
        """Memory of all rows."""
        return sum(flat.numel() * flat.element_size() for flat in self._flats.values())

    def row(self, index: int) -> dict[str, Tensor]:
        """Views of the tensors of one member, in the copies on the CPU after `fetch`."""
        return {name: view[index] for name, view in (self._fetched or self.views).items()}

    def fetch(self) -> None:
        """Copy all rows from an accelerator to the CPU in one piece; `row` reads the copies until `release`."""
        if not any(flat.device.type == "cpu" for flat in self._flats.values()):
            copies = {dtype: flat.cpu() for dtype, flat in self._flats.items()}
            self._fetched = self._views_of(copies)

    def release(self) -> None:
        """Free the copies."""
        self._fetched = None

    @torch.no_grad()
    def gather(self, sources: Sequence[int]) -> None:
        """Copy row `sources[i]` to each row i; all rows are read before one is written."""
        index = None
        for flat in self._flats.values():
            index = torch.tensor(sources, device=flat.device) if index is None else index
            flat.copy_(flat.index_select(0, index))

    @torch.no_grad()
    def approach(self, others: "Rows", rates: Tensor) -> None:
        """Move every row towards the same row of `others` by a fraction of the distance, rates (members,)."""
        for dtype, flat in self._flats.items():
            flat.lerp_(others._flats[dtype], rates.to(dtype).unsqueeze(1).expand_as(flat))

    @torch.no_grad()
    def load(self, index: int, tensors: Mapping[str, Tensor]) -> None:
        """Set one row; the names must be those of the rows.

        Raises:
            KeyError: A name is missing.
            RuntimeError: A shape differs.
        """
        for name, view in self.views.items():
            if tensors[name].shape != view.shape[1:]:
                raise RuntimeError(f"'{name}' has shape {tuple(tensors[name].shape)}, not {tuple(view.shape[1:])}")
            view[index].copy_(tensors[name])
