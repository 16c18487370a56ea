"""The class form: several parts, one hand-over."""

import pytest
import torch
from torch import nn

import pbt
from pbt import Float, Plan, truncation
from pbt.core.events import Decided, Reported
from pbt.core.population import StateRef
from pbt.errors import TaskError
from pbt.executors.base import Report, RoundTask
from pbt.executors.worker import WorkerSpec
from pbt.pytorch import ModuleTask, capture, dropout, loss, optimizer, restore
from pbt.store.codec import decode, digest, encode
from pbt.store.files import StateFiles
from tests.pytorch.tasks import Duel

SPACE = {"lr": Float(0.001, 0.1, "log"), "other_lr": Float(0.001, 0.1, "log"), "noise": Float(0, 1)}
HPARAMS = {"lr": 0.01, "other_lr": 0.02, "noise": 0.5}


def worker_of(task):
    return WorkerSpec(task=ModuleTask(task), states=StateFiles(None)).open()


def run_task(worker, member=0, round_=1, start=None, hparams=HPARAMS):
    given = {"start": None}
    if start is not None:
        given = {"start": StateRef(9, 9), "digest": start.digest, "blob": start.blob}
    task = RoundTask(
        member=member, round=round_, **given, hparams=hparams, first_step=4 * (round_ - 1), steps=4, seed=2
    )
    (report,) = worker.run((task,))
    assert isinstance(report, Report), report
    return report


def test_a_fresh_worker_gives_the_bits_of_a_used_one() -> None:
    """Whether the parts were built just now or by another member is not seen in what is trained."""
    first = run_task(worker_of(Duel()))
    fresh = run_task(worker_of(Duel()), round_=2, start=first.stored)
    used_worker = worker_of(Duel())
    run_task(used_worker, member=5, hparams={"lr": 0.1, "other_lr": 0.001, "noise": 0.9})
    used = run_task(used_worker, round_=2, start=first.stored)
    assert used.stored.digest == fresh.stored.digest
    assert used.scores == fresh.scores


def test_rounds_and_members_draw_anew() -> None:
    """The global generators are other ones in every round and for every member, and the same again for the same."""
    worker = worker_of(Duel())
    start = run_task(worker).stored
    digests = [
        run_task(worker, member, round_, start).stored.digest for member, round_ in ((0, 2), (0, 3), (1, 2), (0, 2))
    ]
    assert len(set(digests)) == 3
    assert digests[0] == digests[3]


def test_hand_over_to_all_parts() -> None:
    """Networks, optimizers and the scheduler are handed over; each rate goes to its optimizer and its scheduler."""
    worker = worker_of(Duel())
    before = run_task(worker)
    state = StateFiles(None).get(StateRef(0, 1), before.stored.digest, before.stored.blob)
    assert set(state) == {"first", "second", "first_optimizer", "second_optimizer", "scheduler"}
    after = run_task(worker, 1, 2, before.stored, {"lr": 0.08, "other_lr": 0.04, "noise": 0.5})
    state = StateFiles(None).get(StateRef(1, 2), after.stored.digest, after.stored.blob)
    assert state["scheduler"]["last_epoch"] == 8
    assert after.reported["rates"] == [0.08]
    assert state["first_optimizer"]["param_groups"][0]["initial_lr"] == 0.08
    # The schedule goes on from the rate that was handed over: 0.08, halved eight times.
    assert state["first_optimizer"]["param_groups"][0]["lr"] == 0.08 * 0.5**8
    assert state["second_optimizer"]["param_groups"][0]["lr"] == 0.04
    assert float(state["first_optimizer"]["state"][0]["step"]) == 8


def test_a_whole_run() -> None:
    """A population of them evolves; a resumed worker or another one would start from the same states."""
    plan = Plan(exploit=truncation(0.4), interval=4)
    runs = [pbt.run(Duel(), SPACE, plan=plan, population=5, rounds=3, seed=seed) for seed in (4, 4)]
    assert runs[0].events == runs[1].events
    decisions = [event.decision for event in runs[0].events if isinstance(event, Decided)]
    assert any(decision.kind == "exploit" for decision in decisions)
    for event in runs[0].events:
        if isinstance(event, Reported) and event.round == 3:
            groups = runs[0].load_state(event.state)["second_optimizer"]["param_groups"]
            assert groups[0]["lr"] == runs[0].tree.hparams(event.member, 3)["other_lr"]


def test_unbound_and_without_effect() -> None:
    """An unbound name is refused before the start, and so is `loss()`, which nothing here would read."""
    with pytest.raises(TaskError, match="'decay' has no effect"):
        pbt.run(Duel(), {**SPACE, "decay": Float(0, 1)})

    class WithLoss(Duel):
        bind = {**Duel.bind, "smoothing": loss("label_smoothing")}  # noqa: RUF012

    with pytest.raises(TaskError, match=r"'smoothing' has no effect: loss\(\), .*are for a SupervisedTask"):
        pbt.run(WithLoss(), {**SPACE, "smoothing": Float(0, 1)})


def test_a_binding_that_finds_nothing() -> None:
    """A binding for a layer that the parts do not have stops the run with its message."""

    class WithDropout(Duel):
        bind = {**Duel.bind, "p": dropout()}  # noqa: RUF012

    with pytest.raises(TaskError, match="no dropout layer"):
        pbt.run(WithDropout(), {**SPACE, "p": Float(0, 1)}, population=2, rounds=1)


def test_capture_and_restore() -> None:
    """What was captured, encoded and decoded is restored to the bit, buffers and optimizer moments included."""

    def parts():
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        return {"model": model, "optimizer": torch.optim.AdamW(model.parameters(), lr=0.1), "name": "x"}

    def step(parts):
        parts["optimizer"].zero_grad()
        parts["model"](torch.ones(5, 3) * torch.arange(5.0).unsqueeze(1)).square().sum().backward()
        parts["optimizer"].step()

    old, new = parts(), parts()
    for _ in range(3):
        step(old)
    blob = encode(capture(old))
    assert digest(capture(new)) != digest(capture(old))
    restore(new, decode(blob))
    assert digest(capture(new)) == digest(capture(old))
    step(old)
    step(new)
    assert digest(capture(new)) == digest(capture(old))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"model": {}}, r"expected a state of \['model', 'optimizer'\]"),
        ({"model": {"weight": torch.ones(2, 2)}, "optimizer": {}}, "state of 'model' does not fit"),
        ({"model": {"weight": torch.ones(3, 3)}, "optimizer": {}}, "state of 'model' does not fit"),
    ],
)
def test_states_that_do_not_fit(state, message) -> None:
    """A state of other parts or shapes is refused, naming the part; nothing is silently left as it was built."""
    model = nn.Linear(3, 3, bias=False)
    parts = {"model": model, "optimizer": torch.optim.SGD(model.parameters(), lr=0.1)}
    if "weight" in state["model"] and state["model"]["weight"].shape == (3, 3):
        message = "state of 'optimizer' does not fit"
    with pytest.raises(TaskError, match=message):
        restore(parts, state)


class InFolders:
    """A part whose state is a checkpoint folder, made in the working folder of the round."""

    bind = {"lr": optimizer("lr")}  # noqa: RUF012

    class Checkpoint:
        def __init__(self, folder):
            self.folder, self.count = folder, 0

        def state_dict(self):
            self.folder.mkdir(exist_ok=True)
            (self.folder / "count.txt").write_text(str(self.count))
            return {"folder": pbt.Folder(self.folder)}

        def load_state_dict(self, state):
            self.count = int((state["folder"].path / "count.txt").read_text())

    def build(self, hparams, ctx):
        model = nn.Linear(1, 1)
        checkpoint = self.Checkpoint(ctx.scratch / "checkpoint")
        return {"model": model, "optimizer": torch.optim.SGD(model.parameters(), lr=0.1), "checkpoint": checkpoint}

    def train(self, parts, hparams, steps, ctx):
        parts["checkpoint"].count += steps

    def evaluate(self, parts, ctx):
        return float(parts["checkpoint"].count)


def test_a_part_may_keep_its_state_in_a_folder(tmp_path):
    """Checked before the start, too, where no round is in progress."""
    run = pbt.run(InFolders(), {"lr": pbt.Float(0.1, 1)}, population=3, rounds=3, run_dir=tmp_path / "run")
    assert run.best.score == 3
    assert (run.load_state()["checkpoint"]["folder"].path / "count.txt").read_text() == "3"
