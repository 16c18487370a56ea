"""What a round does not train is there once: in the states, in the run directory, and in a program's memory."""

import gc
import logging
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

import pbt
from pbt.core.population import StateRef
from pbt.errors import CorruptError
from pbt.executors.base import Report, RoundTask
from pbt.executors.worker import WorkerSpec
from pbt.pytorch.vectorized import VectorizedExecutor
from pbt.pytorch.vectorized.program import Program
from pbt.store.files import StateFiles
from pbt.store.memory import MemoryStore
from pbt.store.reader import RunReader
from pbt.store.repair import repair_run
from pbt.store.verify import verify_run
from tests.helpers.sampled import sampled
from tests.pytorch import adapters

SPACE = {"lr": pbt.Float(1e-3, 1e-1, "log")}
ADAPTERS = sum(p.nbytes for p in adapters.adapted().parameters() if p.requires_grad)
BASE = sum(p.nbytes for p in adapters.adapted().parameters() if not p.requires_grad)


def run(task, path=None, executor="inline", rounds=2, population=4, **settings):
    plan = pbt.Plan(exploit=pbt.truncation(0.25), explore=pbt.perturb((0.8, 1.2)), interval=4)
    return pbt.run(
        task, SPACE, plan=plan, population=population, rounds=rounds, executor=executor, run_dir=path, workers=1,
        **settings,
    )  # fmt: skip


def records(path):
    with RunReader(path) as reader:
        return {ref: reader.stored(ref) for ref in reader.refs()}


def digests(path):
    return {ref: record.digest for ref, record in records(path).items()}


def objects(path):
    return sorted(file for file in (path / "states").glob("objects/*") if file.name != ".lock")


def sizes(path):
    return sorted(file.stat().st_size for file in objects(path))


def states(path):
    with RunReader(path) as reader:
        return {ref: reader.load_state(ref) for ref in reader.refs()}


def assert_close(one, other):
    """Two runs have the same members, with weights that agree to rounding."""
    assert one.keys() == other.keys()
    for ref in one:
        for part in one[ref].keys() & {"model", "ema"}:
            assert list(one[ref][part]) == list(other[ref][part])
            for name, tensor in one[ref][part].items():
                torch.testing.assert_close(tensor, other[ref][part][name], rtol=2e-4, atol=2e-5, msg=f"{ref} {name}")


@pytest.mark.parametrize("executor", ["inline", "vectorized", pytest.param("processes", marks=pytest.mark.slow)])
def test_states_have_the_size_of_the_adapters_and_the_base_is_there_once(tmp_path, executor):
    """The run directory has one file of the base; a state alone gives the whole network."""
    found = run(adapters.TASK, tmp_path / "run", executor)
    assert sizes(tmp_path / "run") == [BASE]
    kept = records(tmp_path / "run")
    assert len(kept) >= 4
    # Three numbers for each that is trained, and a description of every tensor.
    assert max(record.size for record in kept.values()) < 3 * ADAPTERS + 16_000 < BASE / 4
    state = found.load_state()
    fresh = adapters.adapted()
    fresh.load_state_dict(state["model"])
    for name, parameter in adapters.adapted().named_parameters():
        assert parameter.requires_grad != torch.equal(state["model"][name], parameter)
    state["model"]["0.base.weight"].zero_()
    assert found.load_state()["model"]["0.base.weight"].any()
    assert verify_run(tmp_path / "run") == []


@pytest.mark.slow
def test_states_do_not_depend_on_the_executor(tmp_path):
    """Which tensors are frozen is a property of a state: the same digests from a process, the same base from all."""
    for executor in ("inline", "processes", "vectorized"):
        run(adapters.TASK, tmp_path / executor, executor)
    assert digests(tmp_path / "inline") == digests(tmp_path / "processes")
    names = {tuple(file.name for file in objects(tmp_path / executor)) for executor in ("inline", "vectorized")}
    assert len(names) == 1


@pytest.mark.slow
@pytest.mark.needs("ray")
@pytest.mark.xdist_group("ray")
def test_on_ray(tmp_path):
    """The base is sent once, and is once in the run directory."""
    run(adapters.TASK, tmp_path / "inline")
    run(adapters.TASK, tmp_path / "ray", "ray")
    assert digests(tmp_path / "inline") == digests(tmp_path / "ray")
    assert sizes(tmp_path / "ray") == [BASE]


NETWORKS = {
    "adapters": adapters.TASK,
    "given to the optimizer": adapters.task(optimizer_of=adapters.ALL_GIVEN),
    "momentum": adapters.task(optimizer_of=partial(torch.optim.SGD, lr=1e-2, momentum=0.9)),
    "separate steps": adapters.task(optimizer_of=partial(torch.optim.NAdam, lr=1e-2)),
    "average": adapters.task(ema=0.9),
    "head of a chain": adapters.task(adapters.headed),
    "convolutions": adapters.task(adapters.Image),
    "a copy that follows": adapters.task(adapters.Teacher),
    "buffers": adapters.task(adapters.Memory),
    "tied": adapters.task(adapters.Tied),
    "drawn by each member": adapters.task(partial(adapters.adapted, adapters.drawn)),
}


@pytest.mark.parametrize("name", sampled(NETWORKS, ("adapters", "momentum", "tied")))
def test_members_of_a_program_train_as_each_alone(tmp_path, name):
    """The same weights to rounding, and the same tensors stored apart, whatever is frozen."""
    for executor in ("inline", "vectorized"):
        run(NETWORKS[name], tmp_path / executor, executor)
    assert_close(states(tmp_path / "inline"), states(tmp_path / "vectorized"))
    both = [tmp_path / executor for executor in ("inline", "vectorized")]
    of_states = [sorted(record.size for record in records(path).values()) for path in both]
    assert of_states[0] == pytest.approx(of_states[1], abs=400)
    assert sizes(both[0]) == sizes(both[1])
    assert verify_run(both[1]) == []


@pytest.mark.long
@pytest.mark.needs("transformers")
@pytest.mark.needs("peft")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_adapters_of_peft(tmp_path):
    """A transformer of `transformers` with LoRA of `peft`: the same members in a program, and one base."""
    for executor in ("inline", "vectorized"):
        run(adapters.task(adapters.Bert), tmp_path / executor, executor, population=2)
    assert_close(states(tmp_path / "inline"), states(tmp_path / "vectorized"))
    assert sizes(tmp_path / "inline") == sizes(tmp_path / "vectorized")
    whole = sum(p.nbytes for p in adapters.Bert().parameters() if not p.requires_grad)
    assert whole <= sum(sizes(tmp_path / "inline")) < whole + 1000
    assert max(record.size for record in records(tmp_path / "inline").values()) < whole / 3


def test_running_statistics_under_a_frozen_network_are_each_members_own(tmp_path):
    """They change with training, so no member has those of another."""
    run(NETWORKS["convolutions"], tmp_path / "run", "vectorized")
    means = {ref: state["model"]["norm.running_mean"] for ref, state in states(tmp_path / "run").items()}
    assert all(mean.any() for mean in means.values())
    assert sizes(tmp_path / "run") == [4 * (16 * 9 + 16 + 16 + 16 + 64 * 16 * 9 + 64)]


@pytest.mark.parametrize("executor", sampled(["inline", "vectorized"], ("inline",)))
def test_a_base_that_differs_between_members_is_named(tmp_path, caplog, executor):
    """Before the start, once, with the remedy; every member then has its own."""
    with caplog.at_level(logging.WARNING, "pbt"):
        run(NETWORKS["drawn by each member"], tmp_path / "run", executor)
    (said,) = [record.getMessage() for record in caplog.records if "not trained" in record.getMessage()]
    for fact in ("'model.0.base.weight'", "6 more", "member's seed", "load them from a file"):
        assert fact in said
    assert len(objects(tmp_path / "run")) == 4


def test_a_shared_base_is_not_warned_about(caplog):
    """A base of a seed of its own, or one that is small, is no reason for a word."""
    with caplog.at_level(logging.INFO, "pbt"):
        run(adapters.TASK, executor="vectorized")
    assert not [record for record in caplog.records if "not trained" in record.getMessage()]


def held_bytes():
    """Bytes of all tensors that are alive."""
    gc.collect()
    found = {}
    for thing in gc.get_objects():
        if (
            issubclass(type(thing), torch.Tensor)
            and not torch._C._functorch.is_functorch_wrapped_tensor(thing)
            and thing.layout is torch.strided
        ):
            storage = thing.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
    return sum(found.values())


def wave(members, first_step, ends=()):
    """Rounds of two steps: new members, or those of earlier reports."""
    starts = [
        {"start": StateRef(end.member, end.round), "digest": end.stored.digest, "blob": end.stored.blob} for end in ends
    ] or [{"start": None}] * members
    return [
        RoundTask(
            member=i, round=1 + len(ends[:1]), hparams={"lr": 0.01 * (1 + i)}, first_step=first_step, steps=2, seed=0,
            **starts[i],
        )
        for i in range(members)
    ]  # fmt: skip


def memory_of(members, monkeypatch):
    """The most bytes of tensors in a program that has its gradients, and the sizes of the states."""
    held, advance, before = [], Program._advance, held_bytes()

    def noting(program):
        held.append(held_bytes())
        advance(program)

    monkeypatch.setattr(Program, "_advance", noting)
    store = MemoryStore({"seed": 0})
    task = replace(adapters.task(partial(adapters.adapted, width=512, deep=6)), batch_size=1)
    with VectorizedExecutor(WorkerSpec(task=task, states=store.states)) as executor:
        executor.submit(wave(members, 0))
        ends = executor.wait()
        assert all(isinstance(end, Report) for end in ends), ends[0]
        executor.submit(wave(members, 2, ends))
        assert all(isinstance(outcome, Report) for outcome in executor.wait())
    return max(held) - before, [end.stored.size for end in ends]


@pytest.mark.long
def test_memory_grows_by_adapters_not_by_bases(monkeypatch):
    """The law: above that of one member at most three numbers per adapter number of each member, and a tenth."""
    network = adapters.adapted(width=512, deep=6)
    trained = sum(p.nbytes for p in network.parameters() if p.requires_grad)
    whole = sum(p.nbytes for p in network.parameters())
    assert trained < whole / 50
    (one, _), (many, of_states) = memory_of(1, monkeypatch), memory_of(16, monkeypatch)
    assert one > whole
    assert many - one <= 16 * 3 * trained + 0.1 * one
    assert max(of_states) < 3 * trained + 25_000


class Thawing:
    """The class form: the base is trained from the second round on, and frozen again in the fourth."""

    bind = {"lr": pbt.pytorch.optimizer("lr")}  # noqa: RUF012

    def build(self, hparams, ctx):
        model = adapters.headed()
        return {"model": model, "optimizer": torch.optim.SGD(model.parameters(), lr=0.01)}

    def train(self, parts, hparams, steps, ctx):
        model = parts["model"]
        if ctx.round == 2:
            model[0][2].requires_grad_(True)
        if ctx.round == 4:
            model[0][2].requires_grad_(False)
        split = adapters.data().train
        for _ in range(steps):
            parts["optimizer"].zero_grad()
            nn.functional.cross_entropy(model(split.inputs), split.targets).backward()
            parts["optimizer"].step()

    def evaluate(self, parts, ctx):
        split = adapters.data().validation
        with torch.no_grad():
            return -float(nn.functional.cross_entropy(parts["model"].eval()(split.inputs), split.targets))


@pytest.mark.parametrize("rounds", [1, 2, 4])
def test_parameters_that_are_unfrozen_return_to_the_states(tmp_path, rounds):
    """The class form profits too, and what thaws belongs to each member from that round on."""
    run(Thawing(), tmp_path / "run", rounds=rounds)
    newest = {ref: state for ref, state in states(tmp_path / "run").items() if ref.round == rounds}
    layers = {tuple(state["model"]["0.2.weight"].flatten()[:4].tolist()) for state in newest.values()}
    of_states = {record.size for ref, record in records(tmp_path / "run").items() if ref.round == rounds}
    layer, base = 4 * 128 * 129, 4 * (8 * 128 + 128 + 3 * 128 * 129)
    stored = sizes(tmp_path / "run")
    if rounds == 1:
        assert len(layers) == 1
        assert (stored, max(of_states) < layer / 4) == ([base], True)
    else:
        # In the fourth round the layer was trained for a moment less: it stands still, but each has its own.
        assert len(layers) > 1
        assert base - layer in stored
        assert min(of_states) > layer
    assert verify_run(tmp_path / "run") == []


@pytest.mark.parametrize("executor", sampled(["inline", "vectorized"], ("inline",)))
def test_resumed_runs_and_longer_ones_are_equal(tmp_path, executor):
    """A run that is extended loads the base from its file."""
    run(adapters.TASK, tmp_path / "whole", executor, rounds=3)
    run(adapters.TASK, tmp_path / "parts", executor, rounds=1)
    run(adapters.TASK, tmp_path / "parts", executor, rounds=3, resume=True)
    assert digests(tmp_path / "whole") == digests(tmp_path / "parts")


def test_runs_in_memory_share_it_too():
    """Without a run directory the states are as small, and load whole."""
    found = run(adapters.TASK, executor="vectorized")
    state = found.load_state()
    assert torch.equal(state["model"]["2.base.weight"], adapters.adapted()[2].base.weight)


def test_damage_to_the_base_is_found(tmp_path):
    """By `verify`, which names its file; a state is not loaded with it; `repair` says what is lost."""
    found = run(adapters.TASK, tmp_path / "run")
    (file,) = objects(tmp_path / "run")
    content = bytearray(file.read_bytes())
    content[1000] ^= 1
    file.chmod(0o600)
    file.write_bytes(content)
    problems = verify_run(tmp_path / "run")
    assert problems
    assert all(file.name in problem.message for problem in problems)
    with pytest.raises(CorruptError, match=file.name):
        found.load_state()
    file.unlink()
    with pytest.raises(CorruptError, match=file.name):
        found.load_state()
    with pytest.raises(CorruptError):
        repair_run(tmp_path / "run")


def test_a_base_that_no_state_needs_is_swept(tmp_path):
    """The files of a base that every member has left behind."""
    run(Thawing(), tmp_path / "run", rounds=8)
    files = StateFiles(tmp_path / "run" / "states")
    needed = {sha256 for ref in records(tmp_path / "run") for sha256 in files.references(ref)}
    assert {file.name for file in objects(tmp_path / "run")} == needed


def test_a_small_frozen_part_stays_in_the_state(tmp_path):
    """Below 32 KiB a file of its own would cost more than it saves."""
    run(adapters.task(partial(adapters.adapted, width=8)), tmp_path / "run")
    assert not (tmp_path / "run" / "states" / "objects").exists()


def test_captured_parts_are_plain_unless_a_round_is_compared():
    """`capture` alone gives tensors, as before."""
    model = adapters.adapted()
    assert all(isinstance(value, torch.Tensor) for value in pbt.pytorch.capture({"model": model})["model"].values())
