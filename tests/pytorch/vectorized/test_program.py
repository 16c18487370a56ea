"""One program: networks that hold more than plain parameters, optimizers chosen, members that fail alone."""

import random
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional

from pbt.core.population import StateRef
from pbt.errors import TaskError
from pbt.executors.base import Failure, Report
from pbt.executors.inline import InlineExecutor
from pbt.executors.worker import WorkerSpec
from pbt.pytorch import attribute, dropout, loss, optimizer
from pbt.pytorch.vectorized import ELEMENTWISE, VectorizedExecutor
from pbt.pytorch.vectorized.elementwise import ElementwiseAdam
from pbt.pytorch.vectorized.metrics import Measures
from pbt.pytorch.vectorized.optimizers import Separate
from pbt.pytorch.vectorized.program import Program
from pbt.pytorch.vectorized.settings import HParamReader
from pbt.pytorch.vectorized.tuning import CPU
from pbt.store.files import StateFiles
from pbt.testing.executors import finish, make_task
from pbt.testing.states import check_close, state_of
from tests.helpers.networks import dense, plain
from tests.helpers.tasks import DENSE, NETWORKS, PLAIN, doubled
from tests.helpers.trajectories import Trajectory, check_same_course

ADAM = replace(PLAIN, optimizer=partial(torch.optim.Adam, lr=0.01))
VALUES = {m: {"lr": 0.01 * (m + 1)} for m in range(3)}


def opened(task, executor=VectorizedExecutor, **fields):
    return executor(WorkerSpec(task=task, states=StateFiles(None)), **fields)


def compare(task, run):
    """Assert that the rounds are those of separate runs."""
    courses = []
    for executor in (InlineExecutor, VectorizedExecutor):
        with opened(task, executor) as one:
            courses.append(run(Trajectory(one)))
    check_same_course(courses[1], courses[0])
    return courses[1]


def refused(task, hparams=VALUES, cause="refused"):
    """What the population is told."""
    with opened(task) as executor:
        outcomes = finish(executor, [make_task(m, hparams=values) for m, values in hparams.items()])
    (message,) = {outcome.message for outcome in outcomes.values() if outcome.cause == cause}
    assert len(outcomes) == len(hparams)
    assert "\n" not in message
    return message


# What a network may hold


class Replacing(nn.Module):
    """Replaces one buffer by a new tensor, changes another in place, and has one that is no part of its state."""

    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(6, 4), nn.Linear(4, 3)
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("passing", torch.zeros(4), persistent=False)

    def forward(self, x):
        x = self.inner(x)
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(dim=0)
            self.count += 1
            self.passing += 1
        return self.head(x - self.mean + 0.01 * self.passing.clamp(max=3))


def test_buffers() -> None:
    """Buffers that the network replaces or changes are each member's own, through rounds and copies."""
    task = replace(PLAIN, model=partial(doubled, Replacing))
    course = compare(task, lambda course: course.train(4, VALUES))
    assert state_of(course.stored[1])["model"]["count"] == 4
    with opened(task) as executor:
        course = Trajectory(executor).train(4, VALUES).train(3, VALUES, {0: 2})
        assert [state_of(course.stored[m])["model"]["count"].item() for m in VALUES] == [7, 7, 7]
        assert not torch.equal(*(state_of(course.stored[m])["model"]["mean"] for m in (0, 1)))


def test_what_is_no_part_of_the_state_begins_anew() -> None:
    """A buffer that is not stored is fresh in each round, so that a run that is resumed goes on alike."""
    task = replace(PLAIN, model=partial(doubled, Replacing))
    with opened(task) as executor:
        course = Trajectory(executor).train(4, VALUES)
        kept = dict(course.stored)
        digests = course.train(2, VALUES).digests
    with opened(task) as executor:
        assert Trajectory(executor, step=4, round=1, stored=kept).train(2, VALUES).digests == digests


def test_tied_weights_are_one() -> None:
    """Both names of a tied weight are in the state, and are the same in it."""
    with opened(NETWORKS["tied"]) as executor:
        values = {m: {"lr": 0.1, "momentum": 0.9, "decay": 0.0, "clip": 1.0, "p": 0.1} for m in range(2)}
        course = Trajectory(executor).train(3, values)
    state = state_of(course.stored[1])
    assert torch.equal(state["model"]["embed.weight"], state["model"]["head.weight"])
    assert len(state["optimizer"]["state"]) == len(state["model"]) - 1


def test_unused_parameters() -> None:
    """What has no gradient is not remembered, in this round or after a resume, under an optimizer that counts."""
    task = replace(NETWORKS["partly"], optimizer=partial(torch.optim.Adam, lr=0.01), bind={"lr": optimizer("lr")})

    def run(course):
        return course.train(4, VALUES).train(3, VALUES, {0: 1})

    state = state_of(compare(task, run).stored[0])
    assert sorted(state["optimizer"]["state"]) == [4, 5, 6, 7]
    with opened(task) as executor:
        course = Trajectory(executor).train(4, VALUES)
        kept = dict(course.stored)
        digests = course.train(3, VALUES).digests
    with opened(task) as executor:
        assert Trajectory(executor, step=4, round=1, stored=kept).train(3, VALUES).digests == digests


class Complex(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 8, dtype=torch.complex64)
        self.turn = nn.Conv1d(1, 2, 3, dtype=torch.complex64)
        self.head = nn.Linear(12, 3).double()

    def forward(self, x):
        z = self.first(torch.polar(torch.ones_like(x), x).to(torch.complex64))
        return self.head(self.turn(z.unsqueeze(1)).abs().flatten(1).double())


def test_complex_numbers() -> None:
    """Complex layers, linear and convolutional, are trained as alone, and clipped to the norm of all numbers."""
    task = replace(PLAIN, model=Complex, clip_norm=0.5)
    courses = []
    for executor in (InlineExecutor, VectorizedExecutor):
        with opened(task, executor) as one:
            courses.append(Trajectory(one).train(8, VALUES))
    for member in VALUES:
        found, expected = (state_of(course.stored[member])["model"] for course in courses[::-1])
        check_close(found, expected, f"member {member}", 1e-5)


class Alternating(nn.Module):
    """Uses one of its layers only now and then."""

    def __init__(self):
        super().__init__()
        self.often, self.rarely = nn.Linear(6, 3), nn.Linear(6, 3)
        self.steps = 0

    def forward(self, x):
        self.steps += self.training
        return self.often(x) + (self.rarely(x) if self.training and self.steps % 3 == 0 else 0)


@pytest.mark.parametrize("make", [torch.optim.Adam, partial(torch.optim.SGD, momentum=0.9)])
def test_parameters_that_are_used_now_and_then(make) -> None:
    """Each parameter has its own count of steps, whoever steps it."""
    task = replace(PLAIN, model=partial(doubled, Alternating), optimizer=partial(make, lr=0.01))
    # One member, because the layer counts for all that are trained in a process.
    compare(task, lambda course: course.train(7, {0: VALUES[0]}).train(4, {0: VALUES[1]}))


class ByList(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(6, 4), nn.Linear(4, 3)
        self.both = [self.head.weight, self.head.bias]

    def forward(self, x):
        return functional.linear(self.inner(x), *self.both)


class WithHook(nn.Module):
    def __init__(self, after):
        super().__init__()
        self.head = nn.Linear(6, 3)
        add = self.head.weight.register_post_accumulate_grad_hook if after else self.head.weight.register_hook
        add(lambda gradient: None)

    def forward(self, x):
        return self.head(x)


class WithExtra(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 3)

    def get_extra_state(self):
        return {"seen": 3}

    def set_extra_state(self, state):
        return

    def forward(self, x):
        return self.head(x)


class Deciding(nn.Module):
    def __init__(self, item):
        super().__init__()
        self.head, self.item = nn.Linear(6, 3), item

    def forward(self, x):
        x = self.head(x)
        return x * x.sum().item() if self.item else (x if x.sum() > 0 else -x)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.LSTM(6, 3)

    def forward(self, x):
        return self.inner(x)[0]


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (ByList, "'head.weight' by a reference other than an attribute"),
        (partial(WithHook, True), "a hook on the gradient of 'head.weight'"),
        (partial(WithHook, False), "a hook on the gradient of 'head.weight'"),
        (WithExtra, "keeps '_extra_state', which is neither a parameter nor a buffer"),
        (partial(Deciding, True), "it decides by the values in a tensor"),
        (partial(Deciding, False), "it decides by the values in a tensor"),
        (Recurrent, "no rule for the operation 'aten::lstm"),
    ],
)
def test_networks_that_are_refused(model, words) -> None:
    """What would be wrong for members in one program is refused, with the reason and who trains it."""
    message = refused(replace(PLAIN, model=partial(doubled, model)))
    assert words in message
    assert "use the executor 'processes'" in message


def test_a_refusal_names_the_line_of_the_network() -> None:
    """What stands in the way of one program is named with its place in the user's code."""
    message = refused(replace(PLAIN, model=partial(doubled, partial(Deciding, True))))
    line = Deciding.forward.__code__.co_firstlineno + 2
    assert message.endswith(f"(test_program.py:{line} in forward)")


def grows():
    grows.width += 1
    return nn.Sequential(nn.Linear(6, grows.width), nn.Linear(grows.width, 3)).double()


def test_other_shapes() -> None:
    """A network that is built with other shapes for each member is a failure of the member whose shapes differ."""
    grows.width = 3
    message = refused(replace(PLAIN, model=grows), {0: VALUES[0]}, cause="exception")
    assert "must not change shapes, and members of one program cannot differ in them" in message
    assert "use the executor 'processes'" in message


def test_a_network_that_draws_by_itself() -> None:
    """Draws from every global generator repeat with the seed, whatever the caller drew before."""
    task = replace(DENSE, model=partial(doubled, Noisy), bind={"lr": optimizer("lr")})
    digests = []
    for i in range(2):
        torch.manual_seed(i)
        random.seed(i)
        with opened(task) as executor:
            digests.append(Trajectory(executor).train(4, VALUES).train(3, VALUES, {0: 1}).digests)
    assert digests[0] == digests[1]
    assert len(set(digests[0].values())) == 3


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = functional.dropout(x, 0.3, self.training) + random.random() * torch.rand_like(x)
        return self.head(x)


def test_hidden_noise_differs_between_members() -> None:
    """Functional dropout drops other elements for each member."""
    with opened(replace(PLAIN, model=partial(doubled, Hidden), bind={"lr": optimizer("lr")})) as executor:
        course = Trajectory(executor).train(1, {m: {"lr": 1.0} for m in range(3)})
    weights = [state_of(course.stored[m])["model"]["head.weight"] for m in range(3)]
    assert not torch.equal(weights[0], weights[1])


def test_hidden_noise_is_keyed_by_step() -> None:
    """Where training is cut into rounds does not change what functional dropout draws."""
    digests = []
    for cuts in ([7], [4, 3], [1, 5, 1]):
        with opened(replace(PLAIN, model=partial(doubled, Hidden), bind={"lr": optimizer("lr")})) as executor:
            course = Trajectory(executor)
            for steps in cuts:
                course.train(steps, VALUES)
            digests.append(course.digests)
    assert digests[0] == digests[1] == digests[2]


class Hidden(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 3)
        nn.init.ones_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x):
        return self.head(functional.dropout(x, 0.5, self.training))


# Attributes


class Warm(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 3)
        self.temperature, self.power, self.kind, self.centred = 1.0, 1, "plain", False

    def forward(self, x):
        x = self.head(x) / self.temperature
        return torch.tanh(x) ** self.power + (x if self.kind == "plain" else 0)


def warm(**bound):
    return replace(PLAIN, model=partial(doubled, Warm), bind={**PLAIN.bind, **bound})


@pytest.mark.parametrize(
    "own",
    [
        [{"t": 0.1}, {"t": 0.3}, {"t": 3.0}],
        [{"t": 2.0}, {"t": 2.0}, {"t": 2.0}],
        [{"t": 2.0}, {}, {"t": 0.7}],
        [{"n": 1}, {"n": 2}, {"n": 3}],
        [{"t": 2.0, "n": 2}, {"n": 3}, {}],
    ],
)
def test_attributes(own) -> None:
    """A number inside the model may differ between members, be only some members', and change from round to round."""
    task = warm(t=attribute("model.temperature"), n=attribute("model.power"))
    values = {m: {"lr": 0.1, **extra} for m, extra in enumerate(own)}
    other = {m: values[2 - m] for m in values}
    compare(task, lambda course: course.train(4, values).train(4, other, {0: 1}).train(3, values))


@pytest.mark.parametrize(("path", "options"), [("kind", ["plain", "other"]), ("centred", [True, False])])
def test_attributes_that_are_no_numbers(path, options) -> None:
    """Text and truth values may be set, but not differ."""
    task = warm(k=attribute(f"model.{path}"))
    message = refused(task, {m: {"lr": 0.1, "k": option} for m, option in enumerate(options)})
    assert f"attribute('model.{path}')" in message
    assert "cannot differ between members" in message
    compare(task, lambda course: course.train(3, {m: {"lr": 0.1, "k": options[1]} for m in range(2)}))


def test_one_layer_s_dropout() -> None:
    """The probability of one layer alone may be bound, and differ."""
    bind = {"lr": optimizer("lr"), "p": dropout(), "q": attribute("model.6.p")}
    values = {m: {"lr": 0.05, "p": 0.2, "q": q} for m, q in enumerate((0.2, 0.0, 0.5))}
    with pytest.raises(TaskError, match="'p' should be"):
        HParamReader(replace(DENSE, bind=bind)).settle(values[1], None)
    task = replace(DENSE, bind={"lr": optimizer("lr"), "q": bind["q"]})
    compare(task, lambda course: course.train(5, {m: {"lr": 0.05, "q": v["q"]} for m, v in values.items()}))


# Optimizers


def steppers(program):
    return type(program._stepper)


def program_of(task, members=2, hparams=VALUES):
    reader = HParamReader(task)
    program = Program(task, members, "cpu", reader.stand_in)
    program.configure([reader.settle(hparams[i], None) for i in range(members)])
    return program


def by_groups(params):
    params = list(params)
    return torch.optim.Adam([{"params": params[:2]}, {"params": params[2:]}])


def some(params):
    return torch.optim.Adam(p for p in params if p.dim() > 1)


def turned(params):
    return torch.optim.Adam(reversed(list(params)))


def hooked(params):
    made = torch.optim.Adam(params)
    made.register_step_post_hook(lambda *args: None)
    return made


class OwnAdam(torch.optim.Adam):
    pass


def halves():
    return plain().half()


def mixed():
    model = plain()
    model[0].double()
    return model


def large():
    return nn.Linear(6, CPU.small).double()


@pytest.mark.parametrize(
    "changes",
    [{"optimizer": make} for make in (by_groups, some, turned, hooked, OwnAdam, torch.optim.NAdam)]
    + [{"model": model} for model in (halves, mixed, large)],
)
def test_what_torch_steps_itself(changes) -> None:
    """Torch's own optimizers step what is not one group of all parameters, of a usual type, under the exact class."""
    assert steppers(program_of(ADAM)) is ElementwiseAdam
    assert steppers(program_of(replace(ADAM, **changes))) is Separate


@pytest.mark.parametrize("make", [by_groups, some, turned, hooked])
def test_optimizers_of_some_parameters(make) -> None:
    """Groups, parameters that are left out, another order and hooks are as in separate runs."""
    task = replace(ADAM, optimizer=make)
    compare(task, lambda course: course.train(5, VALUES).train(4, VALUES, {0: 2}))


def clamping(params):
    params = list(params)
    made = torch.optim.SGD(params, lr=0.5)
    made.register_step_post_hook(lambda *args: [p.data.clamp_(-0.2, 0.2) for p in params])
    return made


def test_hooks_of_an_optimizer() -> None:
    """What an optimizer does besides its step is done for each member."""
    course = compare(replace(PLAIN, optimizer=clamping), lambda course: course.train(5, VALUES))
    assert max(x.abs().max() for x in state_of(course.stored[1])["model"].values()) <= 0.2


def test_from_one_way_to_the_other() -> None:
    """Where settings of later rounds suit one way only, what is remembered goes along, in both directions."""
    task = replace(
        PLAIN,
        optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9),
        bind={"lr": optimizer("lr"), "momentum": optimizer("momentum")},
    )
    alike = {m: {"lr": 0.05 * (m + 1), "momentum": 0.5 + 0.1 * m} for m in range(3)}
    unlike = {m: {**values, "momentum": 0.9 * (m > 0)} for m, values in alike.items()}
    compare(task, lambda course: course.train(4, alike).train(3, unlike, {2: 1}).train(4, alike).train(2, unlike))


def test_a_counting_optimizer_from_one_way_to_the_other() -> None:
    """A count of steps is each parameter's own also after the change."""
    task = replace(ADAM, bind={"lr": optimizer("lr"), "max": optimizer("maximize")})
    alike = {m: {"lr": 0.01, "max": False} for m in range(3)}
    unlike = {m: {"lr": 0.01, "max": m == 1} for m in range(3)}
    compare(task, lambda course: course.train(4, alike).train(3, unlike).train(4, alike, {1: 0}))


def test_one_of_your_own(monkeypatch) -> None:
    """An optimizer that is added steps all rows, and agrees with separate runs."""
    task = replace(ADAM, optimizer=partial(OwnAdam, lr=0.01))
    monkeypatch.setitem(ELEMENTWISE, OwnAdam, ElementwiseAdam)
    assert steppers(program_of(task)) is ElementwiseAdam
    compare(task, lambda course: course.train(5, VALUES))


# Members that fail, populations that change


def test_a_metric_that_raises_for_one_member() -> None:
    """A metric that cannot be computed of one member's outputs is that member's failure."""

    def strict(outputs, targets):
        if outputs.abs().max().item() > 1e100:
            raise ValueError("outputs are out of bounds")
        return outputs.mean()

    values = {0: {"lr": 0.1}, 1: {"lr": 1e300}, 2: {"lr": 0.2}}
    task = replace(PLAIN, metrics={"strict": strict}, score="strict")
    course = compare(task, lambda course: course.train(5, values))
    assert course.failures[1].cause == "exception"
    line = strict.__code__.co_firstlineno + 2
    assert course.failures[1].message == f"ValueError: outputs are out of bounds (test_program.py:{line} in strict)"
    assert "strict" in course.failures[1].traceback


def hopeless(outputs, targets):
    raise ValueError("never")


def test_a_loss_that_always_raises() -> None:
    """Where nobody's loss can be computed all fail, as in separate runs."""
    course = compare(replace(PLAIN, loss=hopeless), lambda course: course.train(2, VALUES))
    assert [failure.cause for failure in course.failures.values()] == ["exception"] * 3


@pytest.mark.parametrize("task", [DENSE, ADAM, replace(ADAM, optimizer=torch.optim.NAdam)])
def test_a_population_that_changes_its_size(task) -> None:
    """Members that leave, enter and are copied twice at once go on from the states they had."""
    fields = {"momentum": 0.5, "decay": 0.0, "clip": 1.0, "p": 0.1} if task is DENSE else {}
    values = {m: {"lr": 0.01 * (m + 1), **fields} for m in range(5)}

    def run(course):
        course.train(4, {m: values[m] for m in (0, 1, 2)})
        course.train(3, values, {3: 1, 4: 1, 0: 1})
        return course.train(3, {m: values[m] for m in (4, 2)}, {2: 3})

    compare(task, run)


def test_chunks() -> None:
    """No more members are trained at a time than a chunk has room for, in the order they came."""
    with opened(PLAIN, members_per_program=2) as executor:
        assert executor.slots == 2
        executor.submit([make_task(member) for member in (3, 0, 4, 1, 2)])
        waves = [[outcome.member for outcome in executor.wait()] for _ in range(4)]
    assert waves == [[3, 0], [4, 1], [2], []]


def test_batches_are_not_kept() -> None:
    """No more orders of examples are remembered than members need at a time."""
    with opened(replace(PLAIN, order="member")) as executor:
        Trajectory(executor).train(20, VALUES)
        assert len(executor._worker._batches._drawn) <= len(VALUES)


def test_states_in_rows_are_not_fetched() -> None:
    """A state that is in memory is not read again; one that somebody changed is, and is found out."""

    class Counting:
        def __init__(self):
            self.inner, self.got = StateFiles(None), []

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def get(self, ref, digest, blob=None):
            self.got.append(ref)
            return self.inner.get(ref, digest, blob)

    states = Counting()
    with VectorizedExecutor(WorkerSpec(task=PLAIN, states=states)) as executor:
        course = Trajectory(executor).train(3, VALUES).train(3, VALUES, {0: 2})
        assert states.got == []
        start = StateRef(1, 2), course.stored[0]
        finish(executor, [make_task(1, 3, start, first_step=6)])
        assert set(states.got) == {StateRef(1, 2)}


# Losses and metrics


def test_ignored_targets() -> None:
    """Label smoothing by the formula leaves out targets that torch ignores."""
    generator = torch.Generator().manual_seed(1)
    outputs = torch.randn(3, 5, 4, 2, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, 4, (3, 5, 2), generator=generator)
    targets[:, 1] = -100
    amounts = (0.0, 0.1, 1.0)
    settings = [{"label_smoothing": amounts[0]}, {"label_smoothing": amounts[1]}, {"label_smoothing": amounts[2]}]
    for shared in (False, True):
        measures = Measures(3, "cpu")
        measures.configure(settings)
        given = targets[0] if shared else targets
        found = measures.losses(functional.cross_entropy, outputs, given, shared=shared)
        for i, amount in enumerate(amounts):
            own = targets[0] if shared else targets[i]
            expected = functional.cross_entropy(outputs[i], own, label_smoothing=amount)
            assert found[i].item() == pytest.approx(expected.item(), abs=1e-12)


def test_a_smoothing_that_torch_refuses() -> None:
    """A member with an impossible value fails, the others do not."""
    task = replace(PLAIN, bind={**PLAIN.bind, "s": loss("label_smoothing")})
    with opened(task) as executor:
        tasks = [make_task(m, hparams={"lr": 0.1, "s": s}) for m, s in enumerate((0.1, 1.5))]
        outcomes = finish(executor, tasks)
    assert isinstance(outcomes[0, 1], Report)
    assert isinstance(outcomes[1, 1], Failure)
    assert "label_smoothing" in outcomes[1, 1].message


def test_probabilities_as_targets() -> None:
    """Targets that are no classes are left to torch."""
    outputs, targets = torch.randn(2, 4, 3).double(), torch.rand(2, 4, 3).double()
    settings = [{"label_smoothing": 0.1}, {"label_smoothing": 0.2}]
    measures = Measures(2, "cpu")
    measures.configure(settings)
    found = measures.losses(functional.cross_entropy, outputs, targets, shared=False)
    for i, own in enumerate(settings):
        check_close(found[i], functional.cross_entropy(outputs[i], targets[i], **own))


def test_values_of_other_types() -> None:
    """Metrics may be numbers of Python, and whole ones."""
    outputs = torch.arange(6.0).view(2, 3)
    measures = Measures(2, "cpu")
    found = measures.each("m", lambda o, t: int(o.sum().item()), outputs, torch.zeros(2, 3), shared=False)
    assert found.tolist() == [3, 12]
    assert measures.faults == {}


def test_no_warnings() -> None:
    """An operation that runs for one member after the other is not complained of; warnings are errors here."""
    compare(
        replace(PLAIN, model=partial(doubled, Cells), bind={"lr": optimizer("lr")}),
        lambda course: course.train(3, VALUES),
    )


class Cells(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.GRUCell(3, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.cell(x[:, 3:], self.cell(x[:, :3])))


def test_dense_is_small() -> None:
    """The networks of the contract are stepped as one where they can be."""
    assert steppers(program_of(replace(DENSE, model=partial(doubled, dense), bind=PLAIN.bind))) is not Separate
