"""The tensors of all members of a program: a row for each member, or shared by all; and their states."""

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pbt.errors import TaskError
from pbt.pytorch.frozen import fingerprints, whole
from pbt.pytorch.vectorized.shared import SharedTensors
from pbt.pytorch.vectorized.stacked_tensors import Rows
from pbt.store.frozen import Frozen


class MemberTensors:
    """Parameters, buffers and averaged weights of `members` networks.

    Args:
        model: A network of this form.
        members: Number of members.
        device: The device.
        apart: Names of tensors that are not trained and that members do not share.
        averaged: Whether there are averaged weights.

    Attributes:
        shared: The tensors that all members share.
        own: The parameters of `model` that members do not share.
        params: These parameters of all members.
        buffers: The buffers of all members.
        average: The averaged weights of all members; None: there are none.

    Raises:
        TaskError: The state of the network is not only tensors.
    """

    def __init__(self, model: nn.Module, members: int, device: str, apart: Collection[str], *, averaged: bool) -> None:
        params: dict[str, Tensor] = dict(model.named_parameters())
        buffers = dict(model.named_buffers())
        self._saved = _saved_names(model, {**params, **buffers})
        self.shared = SharedTensors(model, self._saved.values(), apart)
        self.names = list(params)
        """The names of all parameters, in order."""
        params, buffers = ({n: t for n, t in of.items() if n not in self.shared.tensors} for of in (params, buffers))
        self.own = params
        self.params = Rows(params, members, device)
        self.buffers = Rows(buffers, members, device)
        self.average = Rows(params, members, device) if averaged else None
        self._passing = {name: b.clone() for name, b in buffers.items() if name not in self._saved.values()}
        self._before: list[list[int]] = [[] for _ in range(members)]
        """The fingerprints of `_unshared` at the beginning of the round."""

    @property
    def rows(self) -> list[Rows]:
        """All tensors with a row for each member."""
        return [self.params, self.buffers, *([] if self.average is None else [self.average])]

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return sum(rows.nbytes for rows in self.rows)

    def gather(self, sources: Sequence[int]) -> None:
        """Copy member `sources[i]` to each member i, with the same result as loading its state."""
        for rows in self.rows:
            rows.gather(sources)
        with torch.no_grad():
            for name, buffer in self._passing.items():
                self.buffers.views[name].copy_(buffer)

    def load(self, index: int, state: Mapping[str, Any]) -> None:
        """Load the network in the state of one member.

        Raises:
            NotShareable: A shared tensor differs from that of an earlier member.
        """
        model = whole(state["model"])
        given = {name: model[key] for key, name in self._saved.items()}
        self.shared.load(given)
        if self.average is not None:
            self.average.load(index, state["ema"])
        self.params.load(index, given)
        self.buffers.load(index, {**self._passing, **given})

    def dump(self, index: int) -> dict[str, Any]:
        """The state of one member's network; tensors are shared, not copied, frozen ones are marked."""
        own = {**self.params.row(index), **self.buffers.row(index)}
        row: dict[str, Any] = {**own, **self.shared.tensors, **self._marks(index)}
        model = OrderedDict((key, row[name]) for key, name in self._saved.items())
        vars(model).update(vars(self._saved))  # `_metadata`: the versions of the layers
        return model

    def averaged(self, index: int) -> dict[str, Any] | None:
        """The averaged weights of one member, in a state; None: the task has no average."""
        if self.average is None:
            return None
        row = {**self.shared.tensors, **self._marks(index), **self.average.row(index)}
        return {name: row[name] for name in self.names}

    def _marks(self, index: int) -> Mapping[str, Frozen]:
        """The frozen tensors in the state of one member; unlike others, they are stored apart."""
        own = self._unshared(index)
        same = [now == before for now, before in zip(fingerprints(own.values()), self._before[index], strict=True)]
        return self.shared.marks({name: own[name] for name, unchanged in zip(own, same, strict=True) if unchanged})

    def _unshared(self, index: int) -> dict[str, Tensor]:
        """The tensors of one member that are not trained, but not shared either."""
        if not self.shared.own:
            return {}
        row = {**self.params.row(index), **self.buffers.row(index)}
        return {name: row[name] for name in self.shared.own}

    def mark_start(self) -> None:
        """Record which tensors change in the round that begins."""
        self._before = [fingerprints(self._unshared(index).values()) for index in range(len(self._before))]


def _saved_names(model: nn.Module, tensors: Mapping[str, Tensor]) -> OrderedDict[str, str]:
    """The unique name of each tensor by its keys in the `state_dict`; tied weights have several keys."""
    names = {id(tensor): name for name, tensor in tensors.items()}
    state = model.state_dict(keep_vars=True)
    saved: OrderedDict[str, str] = OrderedDict()
    vars(saved).update(vars(state))
    for key, value in state.items():
        if id(value) not in names:
            raise TaskError(
                f"the network keeps '{key}', which is neither a parameter nor a buffer; use the executor 'processes'"
            )
        saved[key] = names[id(value)]
    return saved
