"""The contract of executors with their own arithmetic: many networks and optimizers, compared with separate runs."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from pbt.executors.base import Report
from pbt.pytorch import loss
from pbt.testing.executors import finish, make_task
from tests.helpers.supervised import BROKEN, HPARAMS, SupervisedContract
from tests.helpers.tasks import DENSE, NETWORKS, OPTIMIZERS, PLAIN
from tests.helpers.trajectories import Trajectory, Values


class NetworksContract(SupervisedContract):
    """Many networks and optimizers, compared with separate runs."""

    def agree(self, name: str) -> None:
        """Dropout, clipping, weight decay and momentum differ between members; one becomes NaN, and is replaced."""
        first: dict[int, Values] = dict(enumerate(HPARAMS))
        later = {m: HPARAMS[3 if m == BROKEN else m] | {"p": 0.3} for m in range(4)}

        def run(course: Trajectory) -> Trajectory:
            course.train(6, first)
            assert list(course.failures) == [BROKEN]
            return course.train(6, later, {BROKEN: 1})

        self.compare(NETWORKS[name], run)

    def test_residual_convolutions(self) -> None:
        """Convolutions with a shortcut, batch normalization with running statistics, dropout of channels."""
        self.agree("residual")

    def test_layer_normalization(self) -> None:
        """Layer normalization, with and without weights."""
        self.agree("layer_norms")

    def test_group_normalization(self) -> None:
        """Group normalization and pooling."""
        self.agree("group_norms")

    def test_attention(self) -> None:
        """An embedding and `nn.MultiheadAttention`, also by the operation that never computes its weights."""
        self.agree("attention")
        self.agree("fused_attention")

    def test_causal_attention(self) -> None:
        """Attention written by hand, with a mask that is no part of the state."""
        self.agree("causal_attention")

    def test_depthwise_convolutions(self) -> None:
        """Grouped, dilated and transposed convolutions in one and two dimensions."""
        self.agree("depthwise")

    def test_tied_weights(self) -> None:
        """Weights with two names are one tensor with one gradient and one optimizer state."""
        self.agree("tied")

    def test_two_inputs(self) -> None:
        """Several inputs, and layers, including dropout, that are used twice in a step."""
        self.agree("two_inputs")

    def test_frozen_and_unused_parameters(self) -> None:
        """Parameters without a gradient stay unchanged and have no optimizer state."""
        self.agree("partly")

    def test_recurrent(self) -> None:
        """A recurrent network agrees, or is refused in one line that names the operation and another executor."""
        with self.open(NETWORKS["lstm"]) as executor:
            outcome = finish(executor, [make_task(0, hparams=HPARAMS[0])])[0, 1]
        if isinstance(outcome, Report):
            self.agree("lstm")
        else:
            assert outcome.cause == "refused"
            # On the CPU `vmap` names the operation; cuDNN's way fails in an operation before it.
            assert self.device != "cpu" or "lstm" in outcome.message
            assert "cannot be trained as one program" in outcome.message
            assert "use the executor 'processes'" in outcome.message
            assert "\n" not in outcome.message

    def optimize(self, name: str) -> None:
        """Train a hundred steps, with a copy and changed settings of all members after sixty."""
        optimized = OPTIMIZERS[name]
        first = {member: optimized.hparams(member) for member in range(4)}
        later = {member: optimized.hparams(member + 1) for member in range(4)}

        def run(course: Trajectory) -> Trajectory:
            course.train(60, first)
            assert not course.failures
            return course.train(40, later, {2: 0})

        self.compare(optimized.task, run)

    def test_sgd(self) -> None:
        """`SGD` without momentum: a learning rate and a weight decay for each member."""
        self.optimize("sgd")

    def test_sgd_momentum(self) -> None:
        """`SGD` with a momentum and a dampening for each member."""
        self.optimize("sgd_momentum")

    def test_sgd_nesterov(self) -> None:
        """`SGD` with Nesterov's momentum."""
        self.optimize("sgd_nesterov")

    def test_adam(self) -> None:
        """`Adam` with betas, epsilon and weight decay for each member."""
        self.optimize("adam")

    def test_adamw(self) -> None:
        """`AdamW`."""
        self.optimize("adamw")

    def test_rmsprop(self) -> None:
        """`RMSprop`, centered, with momentum."""
        self.optimize("rmsprop")

    def test_counts_in_parameter_groups(self) -> None:
        """An optimizer that counts in its groups and evaluates with other weights than it trains."""
        self.optimize("schedule_free")

    def test_any_other_optimizer(self) -> None:
        """An optimizer without special support."""
        self.optimize("nadam")

    def test_orders(self) -> None:
        """Batches in a separate order per member, and in stored order."""
        values = {0: HPARAMS[0], 1: HPARAMS[1], 2: HPARAMS[3]}
        for task in (replace(DENSE, order="member"), replace(DENSE, order="stored")):
            self.compare(task, lambda course: course.train(9, values))

    def test_augmentation(self) -> None:
        """Batches augmented with separate draws per member, from the given generator and from the global one."""
        values = {0: HPARAMS[0], 1: HPARAMS[1], 2: HPARAMS[3]}
        self.compare(replace(DENSE, augment=jittered), lambda course: course.train(5, values))

    def test_smoothing(self) -> None:
        """Label smoothing per member, and none for one; also with a custom loss."""
        smoothed: dict[int, Values] = {0: {"lr": 0.1, "s": 0.1}, 1: {"lr": 0.1, "s": 0.0}, 2: {"lr": 0.1}}
        for task in (PLAIN, replace(PLAIN, loss=halved)):
            bound = replace(task, bind={**PLAIN.bind, "s": loss("label_smoothing")})
            self.compare(bound, lambda course: course.train(5, smoothed).train(4, smoothed, {2: 0}))

    def test_metrics(self) -> None:
        """Metrics equal those of separate runs, including ones that read tensor values, and for two outputs."""
        values: dict[int, Values] = {m: {"lr": 0.1 * (m + 1)} for m in range(3)}
        self.compare(replace(PLAIN, metrics={"odd": odd_one}, score="odd"), lambda course: course.train(5, values))
        pair = replace(PLAIN, model=paired, loss=of_pair, metrics={"second": second}, score="loss")
        self.compare(pair, lambda course: course.train(5, values))


def jittered(inputs: Tensor, generator: torch.Generator) -> Tensor:
    """An augmentation that draws from both generators."""
    own = torch.randn(inputs.shape, generator=generator, dtype=inputs.dtype, device=inputs.device)
    return inputs + 0.1 * own + 0.1 * torch.randn_like(inputs)


def halved(outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """A custom loss that branches on its setting."""
    smoothing = label_smoothing / 2 if label_smoothing > 0.05 else 0.0
    return nn.functional.cross_entropy(outputs, targets, label_smoothing=smoothing)


def odd_one(outputs: Tensor, targets: Tensor) -> Tensor:
    """A metric that branches on a tensor value."""
    first = outputs[0].argmax().item()
    return (targets == first).double().mean() if outputs.sum() > 0 else outputs.mean()


class Pair(nn.Module):
    """A network with two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(6, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Scores, and what they are made of."""
        inner = torch.tanh(self.inner(x))
        return {"scores": self.head(inner), "inner": inner}


def paired() -> nn.Module:
    """The network of two outputs, in double precision."""
    return Pair().double()


def of_pair(outputs: Any, targets: Tensor) -> Tensor:
    """A loss of both outputs."""
    result: Tensor = nn.functional.cross_entropy(outputs["scores"], targets) + outputs["inner"].square().mean()
    return result


def second(outputs: Any, targets: Tensor) -> Tensor:
    """A metric of one of them."""
    result: Tensor = outputs["inner"].mean()
    return result
