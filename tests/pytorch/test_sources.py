"""Data that is read batch by batch: the same batches as in memory, wherever rounds are cut, on every executor."""

import pickle
import subprocess
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, Subset, WeightedRandomSampler

import pbt
from pbt import Float, Plan, keep, never
from pbt.core.events import Reported
from pbt.errors import DataError, ExampleError, TaskError, UsageError
from pbt.executors.base import Report, RoundTask
from pbt.pytorch import Data, Examples, Split, Tokens, token_accuracy, token_cross_entropy
from pbt.pytorch.vectorized.executor import VectorizedWorkerSpec
from pbt.runs.results import Run
from pbt.store.codec import digest
from pbt.store.files import StateFiles
from tests.helpers.sampled import sampled
from tests.pytorch import source_tasks
from tests.pytorch.source_tasks import AUGMENTED, FORMS, LANGUAGE, TENSORS, TEXT, Pairs, save, task_in
from tests.pytorch.tasks import BATCH
from tests.pytorch.test_supervised import HPARAMS, train, worker_of

SPACE = {"lr": Float(0.01, 0.5, "log"), "p": Float(0.1, 0.6), "smoothing": Float(0.0, 0.2)}
PLAN = Plan(exploit=never(), explore=keep(), interval=5)
RATE = {"lr": Float(0.001, 0.1, "log")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("arrays")
    save(found)
    return found


def results(task, executor, space=SPACE, plan=PLAN, rounds=2, **settings):
    """The digest of the last state and the reported numbers of each member."""
    workers = {"workers": 1} if executor == "vectorized" else {}
    run = pbt.run(task, space, plan=plan, population=2, rounds=rounds, seed=3, executor=executor, **workers, **settings)
    return [
        (event.member, states_of(run)[event.member], event.reported["val_loss"], event.reported["train_loss"])
        for event in run.events
        if isinstance(event, Reported)
    ]


def states_of(run):
    """The digest of the last state of each member."""
    return {member.id: digest(run.load_state(member)) for member in run.view.members}


# The same batches


@pytest.fixture(scope="module")
def in_memory():
    """Results of the tensors, by executor and order."""
    known = {}

    def of(executor, **changes):
        key = executor, str(changes)
        if key not in known:
            known[key] = results(task_in("tensors", **changes), executor)
        return known[key]

    return of


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("executor", sampled(["inline", "vectorized"], ("inline",)))
def test_all_forms_train_the_same_bits(form, executor, folder, in_memory):
    """Arrays, memory maps and data sets train what tensors in memory train, and have the same scores."""
    assert results(task_in(form, folder), executor) == in_memory(executor)


@pytest.mark.parametrize("changes", [{"order": "member"}, AUGMENTED, {**AUGMENTED, "order": "member"}], ids=" ".join)
@pytest.mark.parametrize("executor", sampled(["inline", "vectorized"], ("inline",)))
def test_orders_and_augmentation(changes, executor, folder, in_memory):
    """So they do with an order of each member, and with augmentation."""
    for form in ("memmap", "dataset"):
        assert results(task_in(form, folder, **changes), executor) == in_memory(executor, **changes)


@pytest.mark.parametrize("executor", ["pool"], indirect=True)
def test_worker_processes_train_the_same_bits(executor, folder, in_memory):
    """Processes read what this process reads."""
    assert results(task_in("memmap", folder), executor) == in_memory("inline")


@pytest.mark.long
@pytest.mark.parametrize("order", sampled(["shared", "member"], ("shared",)))
@pytest.mark.parametrize(
    "executor", ["inline", pytest.param("pool", marks=pytest.mark.slow), "vectorized"], indirect=True
)
def test_random_transforms_depend_on_the_example_alone(order, executor):
    """Random numbers of a data set are keyed: the same on every executor, and with worker processes."""
    found = results(task_in("noise", order=order), executor)
    if executor != "vectorized":
        assert found == results(task_in("noise", order=order), "inline")
    else:
        alone = results(task_in("noise", order=order), "inline")
        assert [row[3] for row in found] == pytest.approx([row[3] for row in alone], abs=1e-5)
    if executor != "inline":
        assert found == results(task_in("noise and workers", order=order), executor)


def test_random_transforms_differ_between_epochs_and_not_between_evaluations():
    """An example has other noise in the next epoch; validation is the same each time."""
    source = Examples(Pairs(TENSORS.train, noise=1.0)).to("cpu")
    batches = task_in("noise").batches(Data(train=source, validation=TENSORS.validation), "cpu")
    epochs = []
    for epoch in (0, 1):
        steps = range(epoch * batches.per_epoch(), (epoch + 1) * batches.per_epoch())
        index = torch.cat([batches.indices(step, 1, [0], BATCH)[0] for step in steps])
        inputs = torch.cat([batches.at(step, 1, 0, 0)[0][0] for step in steps])
        epochs.append(inputs[index.argsort()])
    assert not (epochs[0] == epochs[1]).any()
    assert torch.equal(source.take(slice(0, 5))[0][0], source.take(torch.arange(5))[0][0])


@pytest.mark.parametrize("form", ["memmap", "noise", pytest.param("noise and workers", marks=pytest.mark.slow)])
def test_cuts_change_nothing(form, folder):
    """Rounds of any length train the same bits."""
    task = task_in(form, folder, order="member")
    reports = [train(worker_of(task), rounds) for rounds in ([12], [3, 7, 2], [1] * 12)]
    assert len({report.stored.digest for report in reports}) == 1


def test_reading_draws_nothing_from_the_global_generators():
    """A data set that draws leaves the generators of training as they were."""
    source = Examples(Pairs(TENSORS.train, noise=1.0)).to("cpu")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    source.take(torch.arange(4))
    assert torch.equal(torch.rand(3), expected)


def test_resumed(tmp_path, folder):
    """A run that is extended after a stop has the bits of one without."""
    task = task_in("memmap", folder)
    settings = {"plan": PLAN, "population": 2, "seed": 3}
    pbt.run(task, SPACE, rounds=1, run_dir=tmp_path / "run", **settings)
    resumed = pbt.run(task, SPACE, rounds=3, run_dir=tmp_path / "run", resume=True, **settings)
    assert states_of(resumed) == states_of(pbt.run(task, SPACE, rounds=3, **settings))


def test_a_program_reads_a_shared_batch_once():
    """Members of one program share the reading of a batch, with augmentation, too."""
    for changes in ({}, AUGMENTED):
        Counted.reads = 0
        task = replace(task_in("tensors", **changes), data=counted_data)
        worker = VectorizedWorkerSpec(task=task, states=StateFiles(None)).open()
        first = RoundTask(member=0, round=1, start=None, hparams=HPARAMS, first_step=0, steps=5, seed=3)
        assert all(isinstance(outcome, Report) for outcome in worker.run((first, replace(first, member=1))))
        # Five steps, of which the fourth is half a batch, and the first example, whose form all others must have.
        assert Counted.reads == 4 * BATCH + BATCH // 2 + 1


class Counted(Pairs):
    """Counts its reads."""

    reads = 0

    def __getitem__(self, i):
        Counted.reads += 1
        return super().__getitem__(i)


def counted_data():
    return Data(train=Counted(TENSORS.train), validation=TENSORS.validation)


# Memory maps


def test_views_of_memory_maps_are_sent_by_their_place(folder):
    """A pickle of a mapped split has its path and no example, and opens to the same examples."""
    x, y = (np.load(folder / f"train_{kind}.npy", mmap_mode="r") for kind in "xy")
    split = Split((x[3:50:2], x[3:50:2, 2:4]), y[3:50:2])
    sent = pickle.dumps(split)
    again = pickle.loads(sent)
    assert again.streamed
    assert str(folder / "train_x.npy").encode() in sent
    assert split.targets.numpy().tobytes() not in sent
    for a, b in zip(split.tensors, again.tensors, strict=True):
        assert torch.equal(a, b)
    tokens = pickle.loads(pickle.dumps(Tokens(np.load(folder / "train_y.npy", mmap_mode="r")[2:], 4)))
    assert torch.equal(tokens.take(slice(0, 3))[0][0].flatten(), TENSORS.train.targets[2:14])


def test_a_file_that_is_gone_is_named(folder, tmp_path):
    """A mapped file that is missing where the split is opened is an error with its path."""
    np.save(tmp_path / "x.npy", np.ones((4, 2), np.float32))
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    sent = pickle.dumps(Split(x, np.ones(4)))
    (tmp_path / "x.npy").unlink()
    with pytest.raises(DataError, match=r"x\.npy: expected the array of shape \(4, 2\).*put the file back"):
        pickle.loads(sent)


def test_mapped_tensors_are_streamed(tmp_path):
    """So are tensors that torch has mapped from a file; other tensors are not."""
    (tmp_path / "x").write_bytes(np.arange(12, dtype=np.float32).tobytes())
    mapped = torch.from_file(str(tmp_path / "x"), shared=True, size=12).view(6, 2)
    assert Split(mapped, torch.zeros(6)).streamed
    assert not Split(mapped, torch.zeros(6), stream=False).streamed
    assert not TENSORS.train.streamed


MEMORY = """
import resource, sys
from functools import partial
import numpy as np, torch
import pbt
from pbt.pytorch import Data, Split, SupervisedTask, optimizer

def data():
    x = np.memmap(sys.argv[1], np.float32, "r", shape=(50_000, 1000))
    y = np.arange(50_000) % 2
    return Data(train=Split(x, y), validation=Split(x[:100], y[:100]))

def net():
    return torch.nn.Linear(1000, 2)

def resident():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) // 1024

task = SupervisedTask(
    model=net, data=data, optimizer=partial(torch.optim.SGD, lr=0.1), bind={"lr": optimizer("lr")}, batch_size=500
)


def run(steps):
    plan = pbt.Plan(exploit=pbt.never(), explore=pbt.keep(), interval=steps)
    pbt.run(task, {"lr": pbt.Float(0.01, 0.1)}, plan=plan, population=2, rounds=1, executor=sys.argv[2], workers=1)

run(2)
before = resident()
run(100)
print(resident() - before)
"""


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("executor", ["inline", pytest.param("vectorized", marks=pytest.mark.slow)])
def test_memory_stays_bounded(executor, tmp_path):
    """A whole epoch over a file of 200 MB raises the memory of the process by less than half of it."""
    with (tmp_path / "x").open("wb") as file:
        file.truncate(50_000 * 1000 * 4)
    (tmp_path / "program.py").write_text(MEMORY)
    done = subprocess.run(
        [sys.executable, tmp_path / "program.py", tmp_path / "x", executor], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) < 90


# Tokens


def test_windows():
    """Windows follow each other, and targets are the next tokens; a stride and a number of windows choose others."""
    inputs, targets = Tokens(torch.arange(10), 3).take(slice(0, 9))
    assert inputs[0].tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert targets.tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert [len(Tokens(torch.arange(n), 3)) for n in (0, 4, 6, 7)] == [0, 1, 1, 2]
    assert Tokens(torch.arange(10), 3, stride=2).take(slice(0, 9))[0][0][:, 0].tolist() == [0, 2, 4, 6]
    assert Tokens(torch.arange(100), 3, windows=4).take(slice(0, 9))[0][0][:, 0].tolist() == [0, 24, 48, 72]
    (own,), shifted = Tokens(torch.arange(7), 3).take(torch.tensor([[0, 1], [1, 0]]))
    own.zero_()
    assert shifted.tolist() == [[[1, 2, 3], [4, 5, 6]], [[4, 5, 6], [1, 2, 3]]]


@pytest.mark.parametrize("executor", ["inline", pytest.param("vectorized", marks=pytest.mark.slow)])
def test_a_language_model(executor, tmp_path):
    """Tokens in a file train the bits of tokens in memory, and the model learns."""
    TEXT.numpy().astype(np.uint16).tofile(tmp_path / "tokens.bin")
    mapped = replace(LANGUAGE, data=partial(source_tasks.token_data, str(tmp_path / "tokens.bin")))
    plan = replace(PLAN, interval=60)
    found = results(mapped, executor, RATE, plan, objective="minimize")
    assert found == results(LANGUAGE, executor, RATE, plan, objective="minimize")
    assert found[-1][2] < np.log(source_tasks.VOCABULARY) - 0.1


def test_loss_and_accuracy_of_tokens():
    """They are those of all tokens together, without the ignored ones."""
    logits = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(1))
    targets = torch.arange(15).view(3, 5) % 7
    targets[1, 2:] = -100
    rows, own = logits[targets != -100], targets[targets != -100]
    assert torch.allclose(token_cross_entropy(logits, targets), torch.nn.functional.cross_entropy(rows, own))
    assert float(token_accuracy(logits, targets)) == pytest.approx(float((rows.argmax(1) == own).double().mean()))


@pytest.mark.parametrize("executor", ["inline", "vectorized"])
def test_ignored_targets_count_alike(executor):
    """Targets of -100 are left out of the mean over a split that is read, as over one in memory."""
    tasks = [replace(LANGUAGE, data=partial(source_tasks.masked_data, of), evaluation_batch=7) for of in (True, False)]
    read, held = (results(task, executor, RATE, objective="minimize") for task in tasks)
    assert [row[1] for row in read] == [row[1] for row in held]
    assert [row[2] for row in read] == pytest.approx([row[2] for row in held], rel=1e-5)


def test_other_metrics_of_a_read_split():
    """A metric over a whole split gets all targets, in order."""
    changes = {"metrics": {"last": last_targets}, "score": "last", "evaluation_batch": 7}
    found, held = (
        pbt.run(task_in(form, **changes), SPACE, plan=PLAN, population=2, rounds=1, seed=3).history()["score"]
        for form in ("dataset", "tensors")
    )
    assert found == held


def last_targets(outputs, targets):
    return (outputs[:, 0] * torch.arange(len(targets)) * targets).sum()


# Refusals


class Endless(IterableDataset):
    def __iter__(self):
        return iter([])


def loader(**settings):
    return DataLoader(Pairs(TENSORS.train), **{"batch_size": BATCH, "shuffle": True, **settings})


@pytest.mark.parametrize(
    ("given", "facts"),
    [
        (Endless, r"map-style.*got Endless.*no index.*__getitem__.*Split.*Tokens"),
        (lambda: DataLoader(Endless(), batch_size=4), r"got Endless.*no index"),
        (lambda: loader(batch_size=None, shuffle=False), r"train data.*batch_sampler.*order="),
        (lambda: loader(shuffle=False, sampler=WeightedRandomSampler([1.0] * 56, 56)), "sampler=WeightedRandomSampler"),
        (lambda: loader(worker_init_fn=print), r"worker_init_fn.*leave it out"),
        (lambda: Examples(Pairs(TENSORS.train), num_workers=-1), r"num_workers.*-1"),
        (lambda: Split(np.array(["a"]), np.zeros(1)), r"inputs of a Split.*astype"),
        (lambda: Tokens(torch.zeros(9), 3), r"integers.*float32 of shape \(9,\)"),
        (lambda: Tokens(torch.zeros(9, 2).long(), 3), r"one dimension.*\(9, 2\)"),
        (lambda: Tokens(torch.arange(9), 9), r"at least 1 windows of 9 tokens.*got 0 in 9 tokens"),
        (lambda: Tokens(torch.arange(9), 0), r"length to be at least 1, got 0"),
    ],
)  # fmt: skip
def test_refused(given, facts):
    """Each is a line that names the object and the remedy."""
    with pytest.raises(TaskError, match=facts) as caught:
        Data(train=given(), validation=TENSORS.validation)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "changes", "facts"),
    [
        ({"batch_size": 4}, {}, "batch_size=4.*batch_size=16"),
        ({"drop_last": True}, {}, "drop_last=True.*drop_last=False"),
        ({"shuffle": False}, {}, r"shuffle=False.*order='shared'"),
        ({}, {"order": "stored"}, r"shuffle=True.*order='stored'"),
    ],
)
def test_loaders_that_contradict_the_task(settings, changes, facts, monkeypatch):
    """A loader whose batches would be others than the task's is refused before the start, with both values."""
    task = replace(task_in("tensors", **changes), data=partial(loader_data, settings))
    with pytest.raises(TaskError, match=facts):
        pbt.run(task, SPACE, plan=PLAN, population=2, rounds=1)


def loader_data(settings):
    return Data(train=loader(**settings), validation=TENSORS.validation)


@pytest.mark.parametrize(
    ("how", "facts"),
    [
        ("missing file", r"Broken\[17\] of 56 examples cannot be read.*FileNotFoundError.*images/17\.png.*repair"),
        ("length", r"Broken\[17\] of 56 examples cannot be read.*IndexError"),
        ("shape", r"Broken\[17\]: expected \(float32 \(6,\), int64 \(\)\) as \[0\], got \(float32 \(5,\)"),
        ("type", r"Broken\[17\]: expected \(float32 .* got \(float64"),
    ],
)
@pytest.mark.parametrize("executor", sampled(["inline", "vectorized"], ("inline",)))
@pytest.mark.parametrize("num_workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_an_unreadable_example_stops_the_run(how, facts, executor, num_workers, tmp_path):
    """It is no member's fault: the run stops with a line that names it, and continues when it is repaired."""
    plan, where = replace(PLAN, interval=2), tmp_path / "run"
    task = task_in("tensors")
    (place,) = (int((order == 17).nonzero()) for order in [order_of_first_epoch(task)])
    rounds = place // BATCH // 2  # whole rounds of two steps before it
    broken = replace(task, data=partial(source_tasks.broken_data, 17, how, num_workers))
    with pytest.raises(ExampleError, match=facts) as caught:
        pbt.run(broken, SPACE, plan=plan, population=2, rounds=4, seed=3, executor=executor, workers=1, run_dir=where)
    assert "\n" not in str(caught.value)
    if rounds:
        assert max(Run.open(where).history()["round"]) == rounds
    settings = {"plan": plan, "population": 2, "rounds": 4, "seed": 3, "executor": executor, "workers": 1}
    again = pbt.run(task, SPACE, run_dir=where, resume=True, **settings)
    assert states_of(again) == states_of(pbt.run(task, SPACE, **settings))


def order_of_first_epoch(task):
    batches = task.batches(TENSORS, "cpu")
    return torch.cat([batches.indices(step, 3, [0], BATCH)[0] for step in range(batches.per_epoch())])


def test_another_length_is_another_experiment(tmp_path):
    """A run is not resumed with another number of examples, and the line names the field and both numbers."""
    save(tmp_path)
    task = replace(task_in("tensors"), data=partial(source_tasks.shorter_data, str(tmp_path)))
    settings = {"plan": PLAN, "population": 2, "run_dir": tmp_path / "run"}
    pbt.run(task, SPACE, rounds=1, **settings)
    np.save(tmp_path / "train_x.npy", TENSORS.train.inputs.numpy()[:40])
    with pytest.raises(UsageError, match=r"data\.train\.examples = 56 .*40"):
        pbt.run(task, SPACE, rounds=2, resume=True, **settings)


def test_other_examples_of_the_same_form_are_warned_of(tmp_path, caplog):
    """Equal lengths with other examples resume with a warning."""
    save(tmp_path)
    task = replace(task_in("tensors"), data=partial(source_tasks.shorter_data, str(tmp_path)))
    settings = {"plan": PLAN, "population": 2, "run_dir": tmp_path / "run"}
    pbt.run(task, SPACE, rounds=1, **settings)
    pbt.run(task, SPACE, rounds=2, resume=True, **settings)
    assert "examples" not in caplog.text
    np.save(tmp_path / "train_x.npy", TENSORS.train.inputs.numpy() + 1)
    pbt.run(task, SPACE, rounds=3, resume=True, **settings)
    assert "train" in caplog.text
    assert "other examples" in caplog.text


def test_a_data_set_that_cannot_be_sent(tmp_path):
    """Worker processes of a data set that need a pickle name the data set and the remedy."""
    held = Pairs(TENSORS.train)
    held.file = (tmp_path / "open").open("w")
    source = Examples(held, num_workers=1, multiprocessing_context="spawn")
    with held.file, pytest.raises(TaskError, match=r"Pairs cannot be sent to its num_workers=1 processes.*__getitem__"):
        next(source.to("cpu").each(2))


def test_subsets_and_collate_functions():
    """A subset is a data set, and a collate function may return several inputs of any shape."""
    source = Examples(Subset(Pairs(TENSORS.train), range(10)), collate=padded)
    (first, lengths), targets = source.take(torch.tensor([3, 4]))
    assert len(source) == 10
    assert torch.equal(first, TENSORS.train.inputs[3:5])
    assert lengths.tolist() == [6, 6]
    assert torch.equal(targets, TENSORS.train.targets[3:5])
    with pytest.raises(
        ExampleError, match=r"examples \[3, 4\] cannot be joined.*expected \(inputs, targets\), got list"
    ):
        Examples(Pairs(TENSORS.train), collate=just_a_list).take(torch.tensor([3, 4]))


def padded(items):
    inputs, targets = zip(*items, strict=True)
    return (torch.stack(inputs), torch.tensor([len(x) for x in inputs])), torch.stack(targets)


def just_a_list(items):
    return [*items, None]
