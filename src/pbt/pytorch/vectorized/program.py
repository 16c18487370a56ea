"""The population as one program: forward, loss, gradient and step for all members at once."""

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.optim import Optimizer

from pbt.errors import TaskError
from pbt.pytorch.average import decay_at
from pbt.pytorch.data import Inputs
from pbt.pytorch.evaluation import detached
from pbt.pytorch.losses import training_loss
from pbt.pytorch.noise import CounterNoise, Noise
from pbt.pytorch.state import seed_global
from pbt.pytorch.supervised import SupervisedTask
from pbt.pytorch.vectorized.elementwise import ELEMENTWISE, Elementwise
from pbt.pytorch.vectorized.metrics import Measures, Metric, Outputs, quiet
from pbt.pytorch.vectorized.network import StackedNet
from pbt.pytorch.vectorized.optimizers import Separate, Stepper, clip, is_hooked
from pbt.pytorch.vectorized.schedules import VectorizedSchedulers
from pbt.pytorch.vectorized.settings import Groups, Settings
from pbt.pytorch.vectorized.stacked_tensors import Rows
from pbt.pytorch.vectorized.tuning import Tuning


class Batch(NamedTuple):
    """A batch whose gradient was accumulated in a step."""

    outputs: Outputs
    """With members in front."""
    targets: Tensor
    share: float
    """Its part of the step's examples."""


class Program:
    """`members` networks on one device.

    Args:
        task: What is trained.
        members: How many.
        device: Where.
        stand_in: A network whose parameters optimizers can be made of that are never stepped.
        tuning: How it computes there.

    Raises:
        TaskError: The network keeps state that is no tensor, or cannot stand for all members.
    """

    def __init__(
        self, task: SupervisedTask, members: int, device: str, stand_in: nn.Module, tuning: Tuning | None = None
    ) -> None:
        self.members = members
        self.tuning = tuning = tuning or Tuning.of(device)
        self._task = task
        self._device = device
        self.noise = CounterNoise(device) if tuning.counter_noise else Noise()
        parts = task.build(device, self.noise, seed=0).parts
        model: nn.Module = parts["model"]
        params, buffers = dict(model.named_parameters()), dict(model.named_buffers())
        self.params = Rows(params, members, device)
        self.buffers = Rows(buffers, members, device)
        self._saved = _saved_names(model, {**params, **buffers})
        self._passing = {name: b.clone() for name, b in buffers.items() if name not in self._saved.values()}
        self._trained = [parameter.requires_grad for parameter in params.values()]
        # Without the scheduler, which wraps the `step` of its optimizer.
        self._rule = _rule(task.optimizer(model.parameters()), list(params.values()), self.params, tuning)
        self._net = StackedNet(model, self.noise, device, tuning)
        self._leaves = {
            name: view.detach().requires_grad_(trained)
            for (name, view), trained in zip(self.params.views.items(), self._trained, strict=True)
        }
        self._rows = torch.arange(members, device=device)
        self._loss = training_loss(task.loss, device)
        self._measures = Measures(members, device)
        self._stepper: Stepper | None = None
        self._settings: Sequence[Settings] = ()
        self._norms: Tensor | None = None
        """Each member's `clip_norm`, infinite where it has none; None: nobody has one. A captured graph reads it."""
        self._decays = torch.zeros(members, dtype=torch.float64, device=device)
        """Each member's decay of the average, where there is one."""
        self._step = torch.zeros((), dtype=torch.float64, device=device)
        """The number of the step, on the device."""
        self._groups: list[Groups] = []
        """Each member's optimizer settings, as its scheduler has left them."""
        self.average = None if task.ema is None else Rows(params, members, device)
        """The averaged weights."""
        stand_ins = [] if task.scheduler is None else [task.optimizer(stand_in.parameters()) for _ in range(members)]
        self.schedules = VectorizedSchedulers(task, stand_ins) if stand_ins else None

    @property
    def draws(self) -> bool:
        """Whether the network draws from each member's key."""
        return self._net.draws

    @property
    def faults(self) -> Mapping[int, Exception]:
        """By member, what its loss or a metric of its outputs first raised since `configure`."""
        return self._measures.faults

    def set_faults(self, faults: Mapping[int, Exception]) -> None:
        """Replace them by these."""
        self._measures.faults.clear()
        self._measures.faults.update(faults)

    @property
    def nbytes(self) -> int:
        """Memory of all parameters and buffers."""
        return self.params.nbytes + self.buffers.nbytes + (0 if self.average is None else self.average.nbytes)

    def configure(self, settings: Sequence[Settings]) -> None:
        """Each member's settings, from now on."""
        self._settings, self._groups = settings, [own.groups for own in settings]
        if self.schedules is not None:
            self.schedules.configure(settings)
        self._measures.configure([own.loss for own in settings])
        self._net.configure(settings)
        norms = [own.task["clip_norm"] for own in settings]
        if all(norm is None for norm in norms):
            self._norms = None
        else:
            limits = torch.tensor([math.inf if norm is None else norm for norm in norms], dtype=torch.float64)
            self._norms = limits.to(self._device) if self._norms is None else self._norms.copy_(limits)
        if self.average is not None:
            self._decays.copy_(torch.tensor([own.task["ema"] for own in settings], dtype=torch.float64))
        self._use(self._fitting())

    @property
    def signature(self) -> Sequence[Any]:
        """What a captured graph of a step depends on, beside tensors that are changed in place."""
        stepper = self._stepper.signature if isinstance(self._stepper, Elementwise) else id(self._stepper)
        own = self._settings[0].task
        sizes = own["batch_size"], own["accumulate"]
        return [stepper, self._net.signature, self._measures.signature, sizes, self._norms is None]

    @property
    def uncapturable(self) -> str | None:
        """Why a step cannot be a graph; None: nothing is known that would keep it from being one."""
        if not isinstance(self._stepper, Elementwise):
            return "the optimizer steps one member after the other"
        if self.schedules is not None and not self.schedules.by_score:
            return "the learning-rate scheduler computes in Python at every step"
        return None

    def _fitting(self) -> type[Any]:
        """How these members can be stepped; the same whether they were in memory or are loaded later."""
        rule = self._rule
        if rule is None or not rule.suits(self._groups):
            return Separate
        remembered = [self._stepper.dump(i) for i in range(self.members)] if type(self._stepper) is Separate else []
        return rule if all(rule.holds(memory, len(self._leaves)) for memory in remembered) else Separate

    def _use(self, kind: type[Any]) -> None:
        """Step by this from now on."""
        stepper = self._stepper
        if stepper is None or type(stepper) is not kind:
            memories = [] if stepper is None else [stepper.dump(i) for i in range(self.members)]
            self._stepper = stepper = self._make(kind)
            for i, memory in enumerate(memories):
                stepper.load(i, memory)
        stepper.configure(self._groups)

    def _make(self, kind: type[Any]) -> Stepper:
        if kind is Separate:
            return Separate(self._task.optimizer, self.params, self._trained)
        stepper: Stepper = kind(self.params, self.params.flat, self.tuning.block)
        return stepper

    def begin(self, keys: Sequence[int], step: int, hidden: int) -> None:
        """Name a training step to the device and to all that draws.

        Args:
            keys: What each member's noise is drawn from, as `noise.key` gives them.
            step: Its number, from 0.
            hidden: The seed of noise that is hidden inside layers or written in functional form.
        """
        self.noise.at(*keys, step=step)
        self._step.fill_(step)
        seed_global(hidden, self._device)

    def step(self, inputs: Inputs, targets: Tensor, *, shared: bool) -> tuple[Tensor, list[Batch]]:
        """One training step of all members, the one that `begin` named: nothing but operations on the device.

        Args:
            inputs: (n, ...) each if shared, else (members, n, ...).
            targets: Likewise.
            shared: Whether all members see the same batch.

        Returns:
            The loss of each member (members,), and the batches whose gradients were accumulated, all detached.
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
        self._advance()
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum(0), done

    def mark_used(self) -> None:
        """After steps by a graph, which runs no Python: note what a step notes beside its tensors."""
        if isinstance(self._stepper, Elementwise):
            self._stepper.mark_used()

    def count(self) -> None:
        """Name the next step, by an operation on the device."""
        self._step.add_(1)
        if isinstance(self.noise, CounterNoise):
            self.noise.step.add_(1)

    def _advance(self) -> None:
        """Step the optimizers by the gradients that were accumulated, then the schedulers and the averages."""
        gradients = [leaf.grad for leaf in self._leaves.values()]
        assert self._stepper is not None  # noqa: S101 (configured before)
        if any(gradient is None for gradient in gradients) and not isinstance(self._stepper, Separate):
            # Torch leaves alone what has no gradient.
            self._use(Separate)
        if self._norms is not None:
            clip(gradients, self._norms)
        self._stepper.step(gradients)
        if self.schedules is not None and not self.schedules.by_score:
            self._adjust(self.schedules.step())
        if self.average is not None:
            self.average.approach(self.params, 1 - decay_at(self._decays, self._step))

    def schedule_by(self, losses: Sequence[float]) -> None:
        """After a round: step schedulers that go by the validation loss of each member."""
        if self.schedules is not None and self.schedules.by_score:
            self._adjust(self.schedules.step(losses))

    def _adjust(self, changes: Sequence[Groups]) -> None:
        """Take what schedulers changed."""
        assert self._stepper is not None  # noqa: S101 (configured before)
        merged = [zip(own, new, strict=True) for own, new in zip(self._groups, changes, strict=True)]
        self._groups = [[{**group, **change} for group, change in pairs] for pairs in merged]
        self._stepper.adjust(changes)

    def _gradient(self, inputs: Inputs, targets: Tensor, share: float, *, shared: bool) -> tuple[Tensor, Outputs]:
        """The loss over a batch times its share of the step, whose gradient is accumulated, and the outputs."""
        self._net.train()
        outputs = self._outputs(
            self._leaves, self.buffers.views, self._net.attributes, self._rows, inputs, shared=shared
        )
        losses = self._measures.losses(self._loss, outputs, targets, shared=shared)
        if len(self.faults) < self.members:
            # The gradient of a sum is each member's own: no loss depends on another member.
            (losses.sum() if share == 1 else losses.sum() * share).backward()  # type: ignore[no-untyped-call]
        self._net.check_reached()
        return losses.detach() * share, detached(outputs)

    @torch.no_grad()
    def outputs(self, inputs: Inputs, first: int, last: int) -> Outputs:
        """What these members say of the same inputs (n, ...) in evaluation: (members, n, ...).

        Args:
            inputs: They are left as they are.
            first: The first member.
            last: The one after the last member.
        """
        self._net.eval()
        weights = self.params if self.average is None else self.average
        views = (weights.views, self.buffers.views, self._net.attributes)
        params, buffers, attributes = ({name: view[first:last] for name, view in of.items()} for of in views)
        if not self._is_chain(inputs):
            inputs = tuple(x.clone() for x in inputs)
        return self._outputs(params, buffers, attributes, self._rows[first:last], inputs, shared=True)

    def measure(self, metric: Metric, outputs: Outputs, targets: Tensor, *, shared: bool, first: int = 0) -> Tensor:
        """A metric of the outputs (members, ...) of all members, or of those from `first` on: (members,)."""
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
        if self._is_chain(inputs):
            x = inputs[0].expand(len(rows), *inputs[0].shape) if shared else inputs[0]
            return self._net.run_chain({**params, **buffers}, x)
        dims = (0, 0, 0, 0, *[None if shared else 0 for _ in inputs])
        run = vmap(self._net.run, dims, randomness="different")
        with quiet():
            outputs, replaced = run(params, buffers, attributes, rows, *inputs)
        with torch.no_grad():
            for name, value in replaced.items():
                buffers[name].copy_(value)
        return outputs

    def set_mode(self, *, training: bool) -> None:
        """Training or evaluation, for optimizers that tell them apart."""
        if isinstance(self._stepper, Separate):
            self._stepper.set_mode(training=training)

    def groups(self, index: int) -> Groups:
        """The settings of one member's optimizer, with what it counts in them."""
        return self._stepper.groups(index) if isinstance(self._stepper, Separate) else self._groups[index]

    def gather(self, sources: Sequence[int]) -> None:
        """Give every member everything of the member at its place in `sources`, as if it came from its state."""
        self.params.gather(sources)
        self.buffers.gather(sources)
        if self.average is not None:
            self.average.gather(sources)
        with torch.no_grad():
            for name, buffer in self._passing.items():
                self.buffers.views[name].copy_(buffer)
        if self._stepper is not None:
            self._stepper.gather(sources)

    def load(self, index: int, state: Mapping[str, Any]) -> None:
        """Set one member; the state must be of this network."""
        model, memory = state["model"], state["optimizer"]["state"]
        given = {name: model[key] for key, name in self._saved.items()}
        if self.average is not None:
            self.average.load(index, state["ema"])
        self.params.load(index, given)
        self.buffers.load(index, {**self._passing, **given})
        assert self._stepper is not None  # noqa: S101 (configured before)
        if isinstance(self._stepper, Elementwise) and not self._stepper.holds(memory, len(self._leaves)):
            self._use(Separate)
        self._stepper.load(index, memory)

    def fetch(self) -> None:
        """Copy what members hold from an accelerator in a few large pieces, which `dump` then reads."""
        for rows in self._all_rows():
            rows.fetch()

    def release(self) -> None:
        """Let go of the copies: members are trained on."""
        for rows in self._all_rows():
            rows.release()

    def _all_rows(self) -> list[Rows]:
        kept = self._stepper.rows if isinstance(self._stepper, Elementwise) else []
        return [self.params, self.buffers, *kept, *([] if self.average is None else [self.average])]

    def dump(self, index: int) -> tuple[dict[str, Tensor], dict[int, dict[str, Any]]]:
        """One member's network and what its optimizer remembers; tensors are shared, not copied."""
        row = {**self.params.row(index), **self.buffers.row(index)}
        memory = {} if self._stepper is None else self._stepper.dump(index)
        model = OrderedDict((key, row[name]) for key, name in self._saved.items())
        vars(model).update(vars(self._saved))  # `_metadata`: the versions of the layers
        return model, memory


def _rule(optimizer: Optimizer, made_of: list[Tensor], params: Rows, tuning: Tuning) -> type[Elementwise] | None:
    """What does the same as this optimizer over all rows at once; None: nothing, or it would not be faster."""
    flat, groups = params.flat, optimizer.param_groups
    if flat is None or flat.dtype not in (torch.float32, torch.float64):
        return None
    if tuning.small is not None and flat.shape[1] > tuning.small:
        return None
    whole = len(groups) == 1 and [id(p) for p in groups[0]["params"]] == [id(p) for p in made_of]
    return ELEMENTWISE.get(type(optimizer)) if whole and not is_hooked(optimizer) else None


def _saved_names(model: nn.Module, tensors: Mapping[str, Tensor]) -> OrderedDict[str, str]:
    """By key of the `state_dict`, the tensor's one name: tied weights have several keys."""
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
