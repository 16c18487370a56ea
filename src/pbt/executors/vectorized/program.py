"""The population as one program: forward, loss, gradient and step for all members at once."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import vmap

from pbt.errors import TaskError
from pbt.executors.vectorized.elementwise import ELEMENTWISE, SMALL
from pbt.executors.vectorized.network import StackedNet
from pbt.executors.vectorized.optimizers import Separate, Stepper
from pbt.executors.vectorized.settings import Settings
from pbt.executors.vectorized.stack import Rows
from pbt.pytorch.data import Inputs
from pbt.pytorch.noise import Noise
from pbt.pytorch.state import seed_global
from pbt.pytorch.supervised import SupervisedTask

Metric = Callable[..., Tensor]


class Program:
    """`members` networks on one device.

    Args:
        task: What is trained.
        members: How many.
        device: Where.

    Raises:
        TaskError: The network keeps state that is no tensor.
    """

    def __init__(self, task: SupervisedTask, members: int, device: str) -> None:
        self.members = members
        self._task = task
        self._device = device
        self._noise = Noise(device)
        model: nn.Module = task.build(device, self._noise, seed=0).parts["model"]
        params, buffers = dict(model.named_parameters()), dict(model.named_buffers())
        self._fresh_buffers = {name: buffer.clone() for name, buffer in buffers.items()}
        self.params = Rows(params, members, device)
        self.buffers = Rows(buffers, members, device)
        self._saved = _saved_names(model, {**params, **buffers})
        self._net = StackedNet(model, self._noise, device)
        self._leaves = {name: view.detach().requires_grad_() for name, view in self.params.views.items()}
        self._rows = torch.arange(members, device=device)
        self._slow: set[Any] = set()
        self._stepper: Stepper | None = None
        self._settings: Sequence[Settings] = ()
        self._unused = False

    @property
    def draws(self) -> bool:
        """Whether the network draws from each member's key."""
        return self._net.draws

    @property
    def nbytes(self) -> int:
        """Memory of all parameters and buffers."""
        return self.params.nbytes + self.buffers.nbytes

    def configure(self, settings: Sequence[Settings]) -> None:
        """Each member's settings, from now on."""
        self._settings = settings
        self._net.configure(settings)
        wanted = self._fitting()
        if not isinstance(self._stepper, wanted):
            before, self._stepper = self._stepper, self._make(wanted)
            if before is not None:
                for i in range(self.members):
                    self._stepper.load(i, before.dump(i))
        self._stepper.configure([own.groups for own in settings])

    def fit(self, inputs: Inputs, targets: Tensor, *, shared: bool, keys: Sequence[int]) -> tuple[Tensor, Tensor]:
        """One training step of all members.

        Args:
            inputs: (n, ...) each if shared, else (members, n, ...).
            targets: Likewise.
            shared: Whether all members see the same batch.
            keys: What each member's noise is drawn from.

        Returns:
            The loss of each member (members,), and the outputs (members, n, ...), both detached.
        """
        losses, outputs = self._gradient(inputs, targets, shared=shared, keys=keys)
        gradients = [leaf.grad for leaf in self._leaves.values()]
        assert self._stepper is not None  # noqa: S101 (configured before)
        if any(gradient is None for gradient in gradients) and not isinstance(self._stepper, Separate):
            # Torch leaves alone what has no gradient.
            self._unused = True
            self.configure(self._settings)
        _clip(gradients, [own.clip_norm for own in self._settings])
        self._stepper.step(gradients)
        return losses, outputs

    def _gradient(self, inputs: Inputs, targets: Tensor, *, shared: bool, keys: Sequence[int]) -> tuple[Tensor, Tensor]:
        for leaf in self._leaves.values():
            leaf.grad = None
        self._noise.at(*keys)
        # For noise that is hidden inside layers or written in functional form.
        seed_global(keys[0], self._device)
        self._net.train()
        outputs = self._outputs(self._leaves, inputs, shared=shared)
        losses = self._losses(outputs, targets, shared=shared)
        # The gradient of a sum is each member's own: no loss depends on another member.
        losses.sum().backward()  # type: ignore[no-untyped-call]
        return losses.detach(), outputs.detach()

    @torch.no_grad()
    def outputs(self, inputs: Inputs) -> Tensor:
        """What all members say of the same inputs (n, ...) in evaluation: (members, n, ...)."""
        self._net.eval()
        return self._outputs(self.params.views, inputs, shared=True)

    def measure(self, metric: Metric, outputs: Tensor, targets: Tensor, *, shared: bool) -> Tensor:
        """A metric of each member (members,)."""
        return self._each(metric, metric, outputs, targets, shared=shared)

    def _each(self, name: Any, function: Metric, outputs: Tensor, targets: Tensor, *, shared: bool) -> Tensor:
        """A function of each member's outputs; where `vmap` cannot run it, one member after the other."""
        if name not in self._slow:
            try:
                return vmap(function, (0, None if shared else 0), randomness="different")(outputs, targets)
            except Exception:  # noqa: BLE001 (whatever it is, the loop will do it or say it)
                self._slow.add(name)
        each = (function(outputs[i], targets if shared else targets[i]) for i in range(self.members))
        return torch.stack([torch.as_tensor(value, device=outputs.device) for value in each])

    def _outputs(self, params: Mapping[str, Tensor], inputs: Inputs, *, shared: bool) -> Tensor:
        dims = (0, 0, 0, 0, *[None if shared else 0 for _ in inputs])
        run = vmap(self._net.run, dims, randomness="different")
        outputs, replaced = run(params, self.buffers.views, self._net.attributes, self._rows, *inputs)
        with torch.no_grad():
            for name, value in replaced.items():
                self.buffers.views[name].copy_(value)
        result: Tensor = outputs
        return result

    def _losses(self, outputs: Tensor, targets: Tensor, *, shared: bool) -> Tensor:
        loss, settings = self._task.loss, [own.loss for own in self._settings]
        if all(own == settings[0] for own in settings):
            return self._each("loss", partial(loss, **settings[0]), outputs, targets, shared=shared)
        if loss is F.cross_entropy and not targets.is_floating_point() and set(settings[0]) == {"label_smoothing"}:
            amounts = torch.tensor([own["label_smoothing"] for own in settings], device=outputs.device)
            dims = (0, None if shared else 0, 0)
            return vmap(_smoothed_cross_entropy, dims)(outputs, targets, amounts.to(outputs.dtype))
        each = (loss(outputs[i], targets if shared else targets[i], **own) for i, own in enumerate(settings))
        return torch.stack(list(each))

    def gather(self, sources: Sequence[int]) -> None:
        """Give every member everything of the member at its place in `sources`."""
        self.params.gather(sources)
        self.buffers.gather(sources)
        if self._stepper is not None:
            self._stepper.gather(sources)

    def load(self, index: int, model: Mapping[str, Tensor], memory: dict[int, dict[str, Any]]) -> None:
        """Set one member.

        Raises:
            TaskError: The state is of another network.
        """
        if set(model) != set(self._saved):
            raise TaskError(
                f"the state of 'model' does not fit what was built (expected {sorted(self._saved)}, got "
                f"{sorted(model)}); a hyperparameter must not change shapes"
            )
        given = {name: model[key] for key, name in self._saved.items()}
        try:
            self.params.load(index, given)
            self.buffers.load(index, {**self._fresh_buffers, **given})
        except RuntimeError as error:
            raise TaskError(
                f"the state of 'model' does not fit what was built ({error}); a hyperparameter must not change shapes"
            ) from error
        assert self._stepper is not None  # noqa: S101 (configured before)
        self._stepper.load(index, memory)

    def dump(self, index: int) -> tuple[dict[str, Tensor], dict[int, dict[str, Any]]]:
        """One member's network and what its optimizer remembers; tensors are shared, not copied."""
        row = {**self.params.row(index), **self.buffers.row(index)}
        memory = {} if self._stepper is None else self._stepper.dump(index)
        return {key: row[name] for key, name in self._saved.items()}, memory

    def _fitting(self) -> type[Any]:
        flat = self.params.flat
        if flat is None or self._unused or (self._device == "cpu" and flat.shape[1] > SMALL):
            return Separate
        rule = ELEMENTWISE.get(type(self._task.optimizer([torch.zeros(1, requires_grad=True)])))
        return rule if rule is not None and rule.suits([own.groups for own in self._settings]) else Separate

    def _make(self, kind: type[Any]) -> Stepper:
        if kind is Separate:
            return Separate(self._task.optimizer, self.params)
        stepper: Stepper = kind(self.params, self.params.flat)
        return stepper


def _saved_names(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """By key of the `state_dict`, the tensor's one name: tied weights have several keys."""
    names = {id(tensor): name for name, tensor in tensors.items()}
    saved = {}
    for key, value in model.state_dict(keep_vars=True).items():
        if id(value) not in names:
            raise TaskError(
                f"the network keeps '{key}', which is neither a parameter nor a buffer; use executor='processes'"
            )
        saved[key] = names[id(value)]
    return saved


def _smoothed_cross_entropy(outputs: Tensor, targets: Tensor, smoothing: Tensor) -> Tensor:
    """`F.cross_entropy` with `label_smoothing` as a tensor (Szegedy et al. 2016, arXiv:1512.00567, section 7)."""
    logs = F.log_softmax(outputs, dim=1)
    return (1 - smoothing) * F.nll_loss(logs, targets) - smoothing * logs.mean()


@torch.no_grad()
def _clip(gradients: Sequence[Tensor | None], norms: Sequence[float | None]) -> None:
    """Scale each member's gradient down to its norm in place, as `torch.nn.utils.clip_grad_norm_` does."""
    if all(norm is None for norm in norms):
        return
    there = [gradient for gradient in gradients if gradient is not None]
    squares = torch.stack([gradient.flatten(1).square().sum(dim=1) for gradient in there]).sum(dim=0)
    wanted = torch.tensor([math.inf if norm is None else norm for norm in norms]).to(squares)
    # An infinite gradient times zero is NaN, as there; without a norm nothing is touched.
    factor = torch.where(wanted.isinf(), 1.0, (wanted / (squares.sqrt() + 1e-6)).clamp(max=1.0))
    for gradient in there:
        gradient.mul_(factor.view(-1, *[1] * (gradient.dim() - 1)))
