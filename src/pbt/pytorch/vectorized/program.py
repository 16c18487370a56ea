"""The population as one program: forward pass, loss, gradient and optimizer step for all members at once."""

import math
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import vmap

from pbt.pytorch.average import decay_at
from pbt.pytorch.evaluation import detached
from pbt.pytorch.losses import fresh, training_loss
from pbt.pytorch.noise import CounterNoise, Noise
from pbt.pytorch.precision import forward_pass, in_float32
from pbt.pytorch.sources import Inputs
from pbt.pytorch.state import seed_global
from pbt.pytorch.supervised import SupervisedTask
from pbt.pytorch.vectorized.attributes import ModuleAttributes
from pbt.pytorch.vectorized.elementwise import Elementwise, elementwise_rule
from pbt.pytorch.vectorized.member_tensors import MemberTensors
from pbt.pytorch.vectorized.metrics import Measures, Metric, Outputs, quiet
from pbt.pytorch.vectorized.network import StackedNet
from pbt.pytorch.vectorized.optimizers import Separate, Stepper, clip
from pbt.pytorch.vectorized.schedules import VectorizedSchedulers
from pbt.pytorch.vectorized.settings import Groups, Settings
from pbt.pytorch.vectorized.shared import NotShareable, SharedTensors
from pbt.pytorch.vectorized.stacked_tensors import Rows
from pbt.pytorch.vectorized.tuning import Tuning


class Batch(NamedTuple):
    """A batch whose gradient was accumulated in a step."""

    outputs: Outputs
    """(members, ...)."""
    targets: Tensor
    share: float
    """Its fraction of the step's examples."""


class Program:
    """`members` networks on one device.

    Args:
        task: The task.
        members: Number of members.
        device: The device.
        stand_in: A network whose parameters serve optimizers that are never stepped.
        tuning: The choices for the kind of device; None: the default for `device`.
        apart: Names of tensors that are not trained and that members do not share.

    Raises:
        TaskError: The state of the network is not only tensors, or the network cannot run for all members.
    """

    def __init__(
        self,
        task: SupervisedTask,
        members: int,
        device: str,
        stand_in: nn.Module,
        tuning: Tuning | None = None,
        apart: Collection[str] = (),
    ) -> None:
        self.members = members
        self.tuning = tuning = tuning or Tuning.of(device)
        self._task = task
        self._device = device
        self.noise = CounterNoise(device) if tuning.counter_noise else Noise()
        parts = task.build(device, self.noise, seed=0).parts
        model: nn.Module = parts["model"]
        self.tensors = MemberTensors(model, members, device, apart, averaged=task.ema is not None)
        """The tensors of all members."""
        self.params, self.buffers = self.tensors.params, self.tensors.buffers
        own = list(self.tensors.own.values())
        self._trained = [parameter.requires_grad for parameter in own]
        # Without the scheduler, which wraps the `step` of its optimizer.
        self._rule, self._places = elementwise_rule(task.optimizer(model.parameters()), own, self.params, tuning.small)
        self._net = StackedNet(model, self.noise, device, tuning)
        self._leaves = {
            name: view.detach().requires_grad_(trained)
            for (name, view), trained in zip(self.params.views.items(), self._trained, strict=True)
        }
        self._rows = torch.arange(members, device=device)
        self.loss = fresh(task.loss)
        """The loss of all members."""
        self._loss = training_loss(self.loss, device)
        self.recorded: dict[str, Tensor] | None = None
        """The gradient of the last step by parameter, (members, *shape), if it is set to a dictionary before."""
        self._measures = Measures(members, device)
        self._stepper: Stepper | None = None
        self._settings: Sequence[Settings] = ()
        self._norms: Tensor | None = None
        """Each member's `clip_norm`, infinite: no clipping; None: no member clips. A captured graph reads it."""
        self._decays = torch.zeros(members, dtype=torch.float64, device=device)
        """Each member's decay of the average; unused without an average."""
        self._step = torch.zeros((), dtype=torch.float64, device=device)
        """The number of the step, on the device."""
        self._groups: list[Groups] = []
        """Each member's optimizer settings, including the changes of its scheduler."""
        stand_ins = [] if task.scheduler is None else [task.optimizer(stand_in.parameters()) for _ in range(members)]
        self.schedules = VectorizedSchedulers(task, stand_ins) if stand_ins else None

    @property
    def draws(self) -> bool:
        """Whether the network draws from each member's key."""
        return self._net.draws

    @property
    def faults(self) -> Mapping[int, Exception]:
        """The first exception of each member's loss or metrics since `configure`."""
        return self._measures.faults

    def set_faults(self, faults: Mapping[int, Exception]) -> None:
        """Replace the faults."""
        self._measures.faults.clear()
        self._measures.faults.update(faults)

    @property
    def shared(self) -> SharedTensors:
        """The tensors that all members share."""
        return self.tensors.shared

    def configure(self, settings: Sequence[Settings], *, stacked: Collection[str] | None = None) -> None:
        """Set each member's settings; `stacked` as in `StackedNet.configure`."""
        self._settings, self._groups = settings, [own.groups for own in settings]
        if self.schedules is not None:
            self.schedules.configure(settings)
        self._measures.configure([own.loss for own in settings])
        self._net.configure(settings, stacked=stacked)
        norms = [own.task["clip_norm"] for own in settings]
        if all(norm is None for norm in norms):
            self._norms = None
        else:
            limits = torch.tensor([math.inf if norm is None else norm for norm in norms], dtype=torch.float64)
            self._norms = limits.to(self._device) if self._norms is None else self._norms.copy_(limits)
        if self.tensors.average is not None:
            self._decays.copy_(torch.tensor([own.task["ema"] for own in settings], dtype=torch.float64))
        self._use(self._fitting())

    @torch.no_grad()
    def bind_buffers(self) -> None:
        """Set the bound buffers of every member, which a loaded state has overwritten.

        Raises:
            NotShareable: Members share one.
        """
        for i, own in enumerate(self._settings):
            for path, value in own.attributes.items():
                name = self._net.buffer_of(path)
                if name in self.shared.tensors:
                    raise NotShareable([name], "are bound to a hyperparameter")
                if name is not None:
                    self.buffers.views[name][i].fill_(value)  # type: ignore[arg-type] # checked by the binding

    @property
    def plain(self) -> ModuleAttributes:
        """The network's attributes that no state holds."""
        return self._net.plain

    @property
    def signature(self) -> Sequence[Any]:
        """The values that a captured graph of a step depends on, except tensors changed in place."""
        stepper = self._stepper.signature if isinstance(self._stepper, Elementwise) else id(self._stepper)
        own = self._settings[0].task
        sizes = own["batch_size"], own["accumulate"]
        return [stepper, self._net.signature, self._measures.signature, sizes, self._norms is None]

    @property
    def uncapturable(self) -> str | None:
        """The reason why a step cannot be captured as a graph; None: no known reason."""
        if not isinstance(self._stepper, Elementwise):
            return "the optimizer steps one member after the other"
        if self.schedules is not None and not self.schedules.by_score:
            return "the learning-rate scheduler computes in Python at every step"
        return None

    def _fitting(self) -> type[Any]:
        """The class of the optimizers for these members; the same whether they were in memory or are loaded later."""
        rule = self._rule
        if rule is None or not rule.suits(self._groups):
            return Separate
        memories = [self._stepper.dump(i) for i in range(self.members)] if type(self._stepper) is Separate else []
        return rule if all(rule.holds(memory, len(self._leaves)) for memory in memories) else Separate

    def _use(self, kind: type[Any]) -> None:
        """Switch to this class of optimizers, with their state."""
        stepper = self._stepper
        if stepper is None or type(stepper) is not kind:
            memories = [] if stepper is None else [stepper.dump(i) for i in range(self.members)]
            self._stepper = stepper = self._make(kind)
            for i, memory in enumerate(memories):
                stepper.load(i, memory)
        stepper.configure(self._groups)

    def _make(self, kind: type[Any]) -> Stepper:
        if kind is Separate:
            names = self.tensors.names
            held = {i: self.shared.tensors[name] for i, name in enumerate(names) if name in self.shared.tensors}
            return Separate(self._task.optimizer, self.params, self._trained, held)
        stepper: Stepper = kind(self.params, self.params.flat, self.tuning.block, self._places)
        return stepper

    def begin(self, keys: Sequence[int], step: int, hidden: int) -> None:
        """Set the number of a training step and the keys of its draws.

        Args:
            keys: The key of each member's noise, from `noise.key`.
            step: The number of the step, from 0.
            hidden: The seed of noise drawn inside layers or in functional form.
        """
        self.noise.at(*keys, step=step)
        self._step.fill_(step)
        seed_global(hidden, self._device)

    def step(self, inputs: Inputs, targets: Tensor, *, shared: bool) -> tuple[Tensor, list[Batch]]:
        """Train all members for one step, whose number `begin` has set, by operations on the device only.

        Args:
            inputs: (n, ...) each if shared, else (members, n, ...).
            targets: (n, ...) if shared, else (members, n, ...).
            shared: Whether all members see the same batch.

        Returns:
            The loss of each member, (members,), and the batches whose gradients were accumulated, all detached.
        """
        for leaf in self._leaves.values():
            leaf.grad = None
        self.noise.begin()
        size, dim = int(self._settings[0].task["batch_size"]), 0 if shared else 1
        count, losses, done = targets.shape[dim], [], []
        for start in range(0, count, size):
            some = tuple(x.narrow(dim, start, min(size, count - start)) for x in inputs)
            of = targets.narrow(dim, start, min(size, count - start))
            share = of.shape[dim] / count
            loss, outputs = self._gradient(some, of, share, shared=shared)
            losses.append(loss)
            done.append(Batch(outputs, of, share))
        if self.recorded is not None:
            self.recorded = {name: leaf.grad.clone() for name, leaf in self._leaves.items() if leaf.grad is not None}
        self._advance()
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum(0), done

    def mark_used(self) -> None:
        """Update the bookkeeping of the optimizers after steps by a graph, which runs no Python."""
        if isinstance(self._stepper, Elementwise):
            self._stepper.mark_used()

    def count(self) -> None:
        """Increment the number of the step, by an operation on the device."""
        self._step.add_(1)
        if isinstance(self.noise, CounterNoise):
            self.noise.step.add_(1)

    def _advance(self) -> None:
        """Step the optimizers by the accumulated gradients, then the schedulers and the averages."""
        gradients = [leaf.grad for leaf in self._leaves.values()]
        assert self._stepper is not None  # noqa: S101 (configured before)
        if any(gradient is None for gradient in gradients) and not isinstance(self._stepper, Separate):
            # Torch's optimizers skip parameters without a gradient.
            self._use(Separate)
        if self._norms is not None:
            clip(gradients, self._norms)
        self._stepper.step(gradients)
        if self.schedules is not None and not self.schedules.by_score:
            self._adjust(self.schedules.step())
        if self.tensors.average is not None:
            self.tensors.average.approach(self.params, 1 - decay_at(self._decays, self._step))

    def schedule_by(self, losses: Sequence[float]) -> None:
        """After a round, step the schedulers that use the validation loss, (members,)."""
        if self.schedules is not None and self.schedules.by_score:
            self._adjust(self.schedules.step(losses))

    def _adjust(self, changes: Sequence[Groups]) -> None:
        """Apply the changes of the schedulers."""
        assert self._stepper is not None  # noqa: S101 (configured before)
        merged = [zip(own, new, strict=True) for own, new in zip(self._groups, changes, strict=True)]
        self._groups = [[{**group, **change} for group, change in pairs] for pairs in merged]
        self._stepper.adjust(changes)

    def _gradient(self, inputs: Inputs, targets: Tensor, share: float, *, shared: bool) -> tuple[Tensor, Outputs]:
        """Accumulate the gradient of a batch; returns its loss times its share of the step, and the outputs."""
        self._net.train()
        outputs = self._outputs(
            self._leaves, self.buffers.views, self._net.attributes, self._rows, inputs, shared=shared
        )
        losses = self._measures.losses(self._loss, outputs, targets, shared=shared)
        if len(self.faults) < self.members:
            # No loss depends on another member, so the gradient of the sum holds each member's gradient.
            (losses.sum() if share == 1 else losses.sum() * share).backward()  # type: ignore[no-untyped-call]
        self._net.check_reached()
        return losses.detach() * share, detached(outputs)

    @torch.no_grad()
    def outputs(self, inputs: Inputs, first: int, last: int) -> Outputs:
        """The outputs (members, n, ...) of some members for the same inputs (n, ...) in evaluation mode.

        Args:
            inputs: The inputs; they are not changed.
            first: The first member.
            last: The end of the range of members, exclusive.
        """
        self._net.eval()
        weights = self.params if self.tensors.average is None else self.tensors.average
        views = (weights.views, self.buffers.views, self._net.attributes)
        params, buffers, attributes = ({name: view[first:last] for name, view in of.items()} for of in views)
        if not self._is_chain(inputs):
            inputs = tuple(x.clone() for x in inputs)
        return self._outputs(params, buffers, attributes, self._rows[first:last], inputs, shared=True)

    def measure(self, metric: Metric, outputs: Outputs, targets: Tensor, *, shared: bool, first: int = 0) -> Tensor:
        """A metric (members,) of outputs (members, ...), whose first member has the number `first`."""
        return self._measures.each(metric, metric, outputs, targets, shared=shared, first=first)

    def _is_chain(self, inputs: Inputs) -> bool:
        return self._net.is_chain and len(inputs) == 1

    def _outputs(
        self,
        params: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        attributes: Mapping[str, Tensor],
        rows: Tensor,
        inputs: Inputs,
        *,
        shared: bool,
    ) -> Outputs:
        precision = self._task.precision
        if self._is_chain(inputs):
            x = inputs[0].expand(len(rows), *inputs[0].shape) if shared else inputs[0]
            with forward_pass(precision, self._device):
                frozen = {name: t.expand(len(rows), *t.shape) for name, t in self.shared.tensors.items()}
                chained = self._net.run_chain({**params, **buffers, **frozen}, x)
            return in_float32(chained, precision)
        dims = (0, 0, 0, 0, *[None if shared else 0 for _ in inputs])
        run = vmap(partial(self._net.run, shared=self.shared.tensors), dims, randomness="different")
        with quiet(), forward_pass(precision, self._device):
            outputs, replaced = run(params, buffers, attributes, rows, *inputs)
        with torch.no_grad():
            for name, value in replaced.items():
                buffers[name].copy_(value)
        return in_float32(outputs, precision)

    def set_mode(self, *, training: bool) -> None:
        """Set training or evaluation mode of optimizers that have modes."""
        if isinstance(self._stepper, Separate):
            self._stepper.set_mode(training=training)

    def groups(self, index: int) -> Groups:
        """The settings of one member's optimizer, including its counters."""
        return self._stepper.groups(index) if isinstance(self._stepper, Separate) else self._groups[index]

    def gather(self, sources: Sequence[int]) -> None:
        """Copy member `sources[i]` to each member i, with the same result as loading its state."""
        self.tensors.gather(sources)
        if self._stepper is not None:
            self._stepper.gather(sources)

    def load(self, index: int, state: Mapping[str, Any]) -> None:
        """Load the state of one member; it must fit this network.

        Raises:
            NotShareable: A shared tensor differs from that of an earlier member.
        """
        self.tensors.load(index, state)
        memory = state["optimizer"]["state"]
        assert self._stepper is not None  # noqa: S101 (configured before)
        if isinstance(self._stepper, Elementwise) and not self._stepper.holds(memory, len(self._leaves)):
            self._use(Separate)
        self._stepper.load(index, memory)

    def fetch(self) -> None:
        """Copy all members from an accelerator to the CPU in a few large pieces, which `dump` then reads."""
        for rows in self._all_rows():
            rows.fetch()

    def release(self) -> None:
        """Free the copies of `fetch` before the members are trained again."""
        for rows in self._all_rows():
            rows.release()

    def _all_rows(self) -> list[Rows]:
        return [*self.tensors.rows, *(self._stepper.rows if isinstance(self._stepper, Elementwise) else [])]

    def dump(self, index: int) -> tuple[dict[str, Any], dict[int, dict[str, Any]]]:
        """The states of one member's network and optimizer; tensors are shared, not copied, frozen ones are marked."""
        return self.tensors.dump(index), {} if self._stepper is None else self._stepper.dump(index)
