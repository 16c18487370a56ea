"""The frozen tensors of a network, held once for all members of a program."""

from collections.abc import Collection, Mapping

from torch import Tensor, nn

from pbt.pytorch.frozen import candidates, enough, fingerprints, same_values
from pbt.store.frozen import Frozen, packed


class NotShareable(Exception):  # noqa: N818 (not an error: the members then have their own)
    """Members of a program cannot share tensors, because these differ or were changed.

    Args:
        names: The tensors.
        reason: The reason, for the log.
    """

    def __init__(self, names: Collection[str], reason: str) -> None:
        super().__init__(reason)
        self.names = frozenset(names)
        self.reason = reason


class SharedTensors:
    """The tensors of a network that are not trained, until they are found to differ between members or to change.

    Args:
        model: The network of one member.
        saved: The names of its tensors that a state contains.
        apart: Names of tensors that each member has for itself.
    """

    def __init__(self, model: nn.Module, saved: Collection[str], apart: Collection[str]) -> None:
        found = candidates(model, unsaved=True)
        self._in_states = frozenset(saved)
        self.tensors = {name: tensor.detach() for name, tensor in found.items() if name not in apart}
        """By name, one for all members."""
        self.own = [name for name in found if name in apart and name in self._in_states]
        """The names of the saved ones that each member has for itself."""
        self._loaded = False
        self._before: Mapping[str, int] = {}
        self._versions: Mapping[str, int] = {}
        self._marks: Mapping[str, Frozen] | None = None

    @property
    def nbytes(self) -> int:
        """Memory of the tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def load(self, given: Mapping[str, Tensor]) -> None:
        """Take over the tensors of the first member; those of every other one must be the same.

        Raises:
            NotShareable: They differ.
        """
        here = {name: tensor for name, tensor in self.tensors.items() if name in given}
        differing = [name for name, tensor in here.items() if not same_values(tensor, given[name])]
        if differing and self._loaded:
            raise NotShareable(differing, "differ between members")
        for name in differing:
            # Not copied into it: the network may have it from elsewhere.
            self.tensors[name] = given[name].detach().to(self.tensors[name].device, copy=True)
        if not self._loaded:
            self._before = dict(zip(self.tensors, fingerprints(self.tensors.values()), strict=True))
            self._versions = {name: tensor._version for name, tensor in self.tensors.items()}
            self._loaded = True

    def check(self) -> None:
        """Raise NotShareable if a tensor has changed since it was loaded."""
        now = dict(zip(self.tensors, fingerprints(self.tensors.values()), strict=True))
        changed = [
            name
            for name, tensor in self.tensors.items()
            if now[name] != self._before[name] or tensor._version != self._versions[name]
        ]
        if changed:
            raise NotShareable(changed, "are not trained, but change in training")

    def marks(self, own: Mapping[str, Tensor]) -> Mapping[str, Frozen]:
        """The frozen tensors of a member's state, stored once; empty if they are small.

        Args:
            own: Frozen tensors that the member has for itself.
        """
        if own:
            return packed(saved, self._marks) if enough(saved := {**self._saved(), **own}) else {}
        if self._marks is None:
            self._marks = packed(saved) if enough(saved := self._saved()) else {}
        return self._marks

    def _saved(self) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in self.tensors.items() if name in self._in_states}
