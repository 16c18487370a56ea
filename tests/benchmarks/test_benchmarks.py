"""The benchmarks' own arithmetic and formats; nothing is timed here."""

import json
import math
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import (
    accelerator,
    chosen,
    conv,
    decision,
    fc,
    frameworks,
    large_states,
    mlp,
    paired,
    ray_side,
    ray_tune_pbt,
    scale,
)
from benchmarks.accelerator_workloads import WORKLOADS, lora, mnist, tiny
from benchmarks.arithmetic import layers_flop, training_flop
from benchmarks.bare_loop import BareLoop
from benchmarks.base import Options, Row, times_faster
from benchmarks.generation import with_turns
from benchmarks.ray_digits import Digits
from benchmarks.ray_toy import STEPS, Toy
from benchmarks.sides import EnoughError, Gate, take_turns
from pbt.core.events import Ended, Reported
from pbt.core.population import StateRef
from pbt.errors import UsageError
from pbt.mnist.config.record import load_config
from pbt.mnist.models import Shape, network
from pbt.mnist.task import find_data
from pbt.testing.problems import noisy_quadratic


def _network(name):
    config = load_config(f"config/{name}_PBT.json")
    return network(Shape.of(config.train))


def test_flop_of_fc_by_hand():
    first, second, last = 784 * 256, 256 * 256, 256 * 10
    model = _network("fc").train()
    assert layers_flop(model, torch.zeros(1, 1, 28, 28)) == [2 * first, 2 * second, 2 * last]
    # Forward and gradients of weights everywhere, gradients of inputs everywhere but at the images.
    assert training_flop(model, torch.zeros(1, 1, 28, 28)) == 2 * (3 * (first + second + last) - first) == 1_211_392
    assert model.training


def test_flop_of_conv_by_hand():
    first, second, last = 28 * 28 * 16 * 9, 28 * 28 * 32 * 9 * 16, 28 * 28 * 32 * 10
    expected = 2 * (3 * (first + second + last) - first)
    assert training_flop(_network("conv"), torch.zeros(1, 1, 28, 28)) == expected == 23_632_896


def test_flop_of_a_generation(monkeypatch):
    found = SimpleNamespace(data=SimpleNamespace(train_y=range(55_000)))
    monkeypatch.setattr(fc, "prepare", lambda config, placement: found)
    assert fc.generation_flop(load_config("config/fc_PBT.json")) == 1_211_392 * 55_000 * 10


@pytest.mark.parametrize(
    ("value", "reached", "wanted"),
    [
        (0.3, True, "at most 0.435, aim 0.333"),
        (0.5, False, "at most 0.435, aim 0.333 (missed)"),
        (math.nan, False, "at most 0.435, aim 0.333 (missed)"),
    ],
)
def test_row(value, reached, wanted):
    limit, aim = times_faster(2.3), times_faster(3)
    row = Row(work="this", measured="1 s", against="that: 2 s", value=value, limit=limit, aim=aim)
    assert row.reached is reached
    assert row.line() == f"| this | 1 s | that: 2 s | {value:.3g} | {wanted} |"


def test_row_that_was_not_measured_has_no_number():
    row = Row.missing("this", "no network", limit=0.5)
    assert not row.reached
    assert row.line() == "| this | not measured: no network |  |  | at most 0.5 (not measured) |"
    assert Row.missing("that", "no accelerator here").reached


def test_row_with_a_unit():
    row = Row(work="w", measured="m", against="a", value=1.25, limit=2.0, aim=0.5, unit=" s")
    assert row.line() == "| w | m | a | 1.25 s | at most 2 s, aim 0.5 s |"


def test_the_accelerator_benchmark_on_the_cpu(monkeypatch):
    """The way of measuring runs anywhere: a tiny population against its members one after another."""
    monkeypatch.setattr(accelerator, "ROUND", 2)
    limits = accelerator.Limits(flop=1e9, bytes=1e9)
    eager, traffic, arithmetic = accelerator.measure_on("cpu", tiny(), limits, repeats=1)
    assert eager.work == "tiny, a step of all"
    assert eager.value > 0
    assert "eager" in eager.against
    assert traffic.value > 0
    assert arithmetic.value > 0


def tiny_fc():
    """A small population with dropout and batch normalization, over a few examples."""
    fc = WORKLOADS["fc x 64"]()
    return replace(fc, task=replace(mnist("fc", batches=2), batch_size=4), members=2)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(accelerator, "ROUND", 2)
    monkeypatch.setattr(accelerator, "SECONDS", 0.0)
    monkeypatch.setattr(accelerator, "precisions", partial(accelerator.precisions, steps=5))
    return accelerator.Limits(flop=1e9, bytes=1e9)


@pytest.mark.long
def test_a_dry_run_of_the_accelerator_benchmark(quick, monkeypatch):
    """All its rows on the CPU: speed, then float64 within its limit, then each precision that the CPU has."""
    monkeypatch.delenv("PBT_BENCH_WORKLOADS", raising=False)
    rows = list(accelerator.measure_all("cpu", quick, 1, {"tiny": tiny, "tiny fc": tiny_fc}))
    assert not [row.measured for row in rows if row.value is None and "tf32" not in row.work]
    exact = [row for row in rows if "float64" in row.against]
    assert [row.work.partition(",")[0] for row in exact] == ["tiny", "fc x 64"]
    assert all(row.reached and row.value < 1e-4 for row in exact)
    precise = [row for row in rows if "precision" in row.work]
    assert [row.work.rpartition(" ")[2] for row in precise] == ["float32", "tf32", "bf16"] * 2
    assert [row.value is None for row in precise] == [False, True, False] * 2
    assert all("loss" in row.measured for row in precise if row.value is not None)


def test_rows_without_time_are_named(quick, monkeypatch):
    """A row that does not fit into the time is said, with the command that measures it."""
    monkeypatch.setenv("PBT_BENCH_SECONDS", "-1")
    monkeypatch.setenv("PBT_BENCH_WORKLOADS", "tiny")
    rows = list(accelerator.measure_all("cpu", quick, 1, {"tiny": tiny}))
    assert [row.work for row in rows] == ["tiny, a step of all", "tiny, against float64", "tiny, precisions"]
    assert all("PBT_BENCH_WORKLOADS='tiny'" in row.measured for row in rows)


@pytest.mark.slow
def test_an_error_costs_its_own_rows(quick, monkeypatch):
    """The other workloads are measured all the same."""

    def fail():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")

    monkeypatch.delenv("PBT_BENCH_WORKLOADS", raising=False)
    rows = list(accelerator.measure_all("cpu", quick, 1, {"large": fail, "tiny": tiny}))
    assert [row.value is None for row in rows if "large" in row.work] == [True] * 3
    assert any(row.work == "tiny, a step of all" and row.value > 0 for row in rows)


def test_operations_of_a_step():
    """Torch's counter sees the products of the forward pass and of both gradients."""
    loop = BareLoop(replace(WORKLOADS["fc x 64"](), members=1), "cpu")
    batch = loop._data.inputs[:200]
    assert accelerator.flop_of(loop) == training_flop(loop._model, torch.zeros(1, *batch.shape[1:])) * 200


@pytest.mark.long
def test_adapters_on_a_shared_base_on_the_cpu(monkeypatch):
    """A tiny base is there once: four members take far less than four times the memory of one."""
    monkeypatch.setattr(accelerator, "ROUND", 2)
    limits = accelerator.Limits(flop=1e9, bytes=1e9)
    workload = lora(2e5, members=4, batch=2)
    assert workload.name == "LoRA x 4 on a shared base (0.2 M, 2 rows of 64 tokens)"
    eager, *_, memory = accelerator.measure_on("cpu", workload, limits, repeats=1)
    assert eager.limit == 0.333
    assert memory.work == "the same, memory"
    assert 1 < memory.value < 2


def test_no_number_without_an_accelerator(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (row,) = accelerator.measure(Options(1))
    assert row.reached
    assert row.line().split("|")[2].strip() == "not measured: no accelerator here"
    assert row.value is None


def test_command_line():
    asked = command.parse(["--only", "fc", "--only", "toy", "--repeats", "3", "--full"])
    assert (asked.only, asked.repeats, asked.full) == (["fc", "toy"], 3, True)
    assert command.parse([]).repeats == 5
    for wrong in (["--only", "nothing"], ["--repeats", "0"]):
        with pytest.raises(SystemExit):
            command.parse(wrong)


def test_exit_code_says_what_was_missed(monkeypatch, capsys):
    rows = {
        "good": [Row(work="good", measured="", against="", value=0.1, limit=0.2)],
        "absent": [Row.missing("absent", "no accelerator here")],
        "bad": [Row.missing("bad", "Ray cannot be installed", limit=0.2)],
    }
    monkeypatch.setattr(command, "BENCHMARKS", {name: lambda asked, own=own: own for name, own in rows.items()})
    for arguments, code in (([], 1), (["--only", "good", "--only", "absent"], 0), (["--only", "bad"], 1)):
        monkeypatch.setattr("sys.argv", ["bench", *arguments])
        assert command.main() == code
    assert "not measured: Ray cannot be installed" in capsys.readouterr().out


def test_arguments_of_the_ray_script(tmp_path):
    asked = ray_tune_pbt.parse(["toy", "--trials", "20", "--rounds", "3"])
    assert (asked.work, asked.trials, asked.rounds, asked.cpus) == ("toy", 20, 3, 2)
    assert ray_tune_pbt.parse(["mnist", "--config", str(tmp_path)]).config == tmp_path
    for wrong in ([], ["mnist"], ["toy", "--config", "x"]):
        with pytest.raises(SystemExit):
            ray_tune_pbt.parse(wrong)


def test_space_of_the_ray_script():
    tune = SimpleNamespace(loguniform=lambda *a: ("log", *a), uniform=lambda *a: ("linear", *a))
    space, clipped = ray_tune_pbt._space(load_config("config/fc_PBT.json"), tune)
    assert space == {"lr": ("linear", 0.0001, 0.1), "keep_prob": ("linear", 0.5, 0.99)}
    assert clipped({"lr": 1.0, "keep_prob": 0.1}) == {"lr": 0.1, "keep_prob": 0.5}
    assert ray_tune_pbt._space(None, tune)[0] == {"lr": ("log", 1e-4, 1.9)}


def test_ray_that_cannot_be_installed_says_why(monkeypatch, tmp_path):
    monkeypatch.setattr(ray_side, "FOLDER", tmp_path / "venv")
    monkeypatch.setattr(ray_side.venv, "create", lambda folder, **options: (folder / "bin").mkdir(parents=True))
    failed = SimpleNamespace(returncode=1, stdout="", stderr="Looking\nERROR: no network\n")
    monkeypatch.setattr(ray_side.subprocess, "run", lambda *args, **options: failed)
    monkeypatch.setattr(ray_side.Path, "write_text", lambda *args, **options: 0)
    with pytest.raises(ray_side.UnavailableError, match="cannot be installed: ERROR: no network"):
        ray_side.installed.__wrapped__()


def test_turns_are_taken_in_order():
    order = []

    def side(name):
        return SimpleNamespace(turn=lambda: order.append(name) or len(order))

    assert take_turns([side("a"), side("b")], 2) == [[1, 3], [2, 4]]
    assert order == ["a", "b", "a", "b"]


def test_gate_answers_once_per_turn():
    class Asker:
        def __init__(self):
            self.answers, self.turns = [], 2

        def send(self, answer):
            self.answers.append(answer)

        def recv(self):
            if not self.turns:
                raise EOFError
            self.turns -= 1
            return "go"

    asker = Asker()
    gate = Gate(asker, rounds=3)
    engine = SimpleNamespace(store=SimpleNamespace(meta={"place": {"executor": "inline"}}))
    reported = [Reported(member=0, round=1, step=1, scores=(0.0,), state=StateRef(0, 1), digest="")]
    gate.on_commit(engine, [Ended(round=1, why="")])
    assert asker.answers == []
    for _ in range(1 + 3 + 2):
        gate.on_commit(engine, reported)
    assert asker.answers[0] == "inline"
    assert len(asker.answers) == 2
    with pytest.raises(EnoughError):
        gate.on_commit(engine, reported)
    assert all(isinstance(seconds, float) for seconds in asker.answers[1:])


def test_every_turn_has_an_epoch_of_its_own():
    assert with_turns(load_config("config/fc_PBT.json"), 5).train.num_epochs_tot == 7


def test_toy_of_ray_goes_on_from_what_was_saved(tmp_path):
    toy = Toy()
    toy.begin({"lr": 0.5})
    toy.train()
    toy.save(tmp_path)
    toy.begin({"lr": 1.0})
    toy.load(tmp_path)
    state, _ = noisy_quadratic({"lr": 0.5}, None, STEPS, None)
    assert toy.train()["score"] == noisy_quadratic({"lr": 1.0}, state, STEPS, None)[1]


def test_digits_of_ray_keep_the_network_and_take_new_values(tmp_path):
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.randn(20, 1, 28, 28, generator=generator), torch.arange(20) % 10
    threads = torch.get_num_threads()
    digits = Digits(
        load_config("config/fc_PBT.json", overrides={"batch_size": 10}),
        {name: (images.numpy(), labels.numpy()) for name in ("train", "val", "test")},
    )
    try:
        digits.begin({"lr": 0.01, "keep_prob": 0.9})
        found = digits.train()
        assert set(found) == {"score", "val_accuracy", "val_loss", "test_accuracy", "test_loss"}
        assert found["score"] == found["val_accuracy"]
        digits.save(tmp_path)
        digits.begin({"lr": 0.02, "keep_prob": 0.6})
        digits.load(tmp_path)
    finally:
        torch.set_num_threads(threads)
    digits._model.eval()
    assert digits._measure(images, labels) == (found["val_accuracy"], pytest.approx(found["val_loss"]))
    assert digits._optimizer.param_groups[0]["lr"] == 0.02
    assert [m.p for m in digits._model.modules() if isinstance(m, torch.nn.Dropout)] == pytest.approx([0.4, 0.4])


def test_slice_is_read_as_it_was_cut():
    config = load_config(conv.CONFIG)
    with conv.sliced(conv.CONFIG, steps=2) as cut:
        whole, found = find_data(config.train), find_data(cut.train)
        share = 400 / len(whole.train_y)
        assert len(found.train_y) == 400
        assert len(found.val_y) == round(share * len(whole.val_y))
        assert torch.equal(found.test_x, whole.test_x[: round(share * len(whole.test_y))])
        json.dumps(cut.to_dict())


def test_decision_decides_on_every_member():
    view, reports = decision.beginning(20)
    assert len(view.members) == len(reports) == 20
    assert decision.seconds(view, reports) > 0


def test_mlp_has_nothing_held_out():
    data = mlp.examples()
    assert (len(data.train), len(data.validation), data.test) == (mlp.EXAMPLES, 0, None)


def test_comparisons_are_paired_by_seed():
    """Seeds that only one has are left out of the difference, and a higher loss is the worse one."""

    def comparison(task, plan, losses, metric="test_loss"):
        runs = [{"seed": seed, "values": {metric: loss}} for seed, loss in losses.items()]
        return {"task": task, "metric": metric, "better": "lower", "plans": {plan: {"runs": runs}}}

    one = comparison("text", "pbt", {1: 2.0, 2: 3.0, 3: 4.0})
    other = comparison("text-cosine", "no-evolution", {2: 3.5, 3: 5.0, 4: 9.0})
    rows = paired.table([one, other])
    assert rows[2] == "| text, pbt | 3.0000 \u00b1 0.5774 | | | |"
    assert "| +0.7500 \u00b1 0.2500 |" in rows[3]
    assert rows[3].endswith("| 2 of 2 |")
    with pytest.raises(UsageError, match="common seeds"):
        paired.table([one, comparison("text", "own", {9: 1.0})])
    with pytest.raises(UsageError, match="one metric"):
        paired.table([one, comparison("nqm", "pbt", {1: 1.0}, "score")])


def test_a_framework_that_is_missing_is_a_missed_row():
    def missing():
        raise ImportError("no such framework")

    row = frameworks._row(frameworks.Case("Other", missing, 1), 1)
    assert not row.reached
    assert "not measured: no such framework" in row.line()


def test_a_further_round_of_a_program_is_measured():
    """Several rounds against one of as many steps; the state is the array that the program saves."""
    (case,) = (case for case in frameworks.CASES if "Command" in case.name)
    seconds, size = frameworks._seconds(case.task(), 1, 2)
    assert seconds > 0
    assert size == pytest.approx(10_000_000, rel=0.01)


@pytest.mark.slow
def test_the_rows_of_a_long_run(tmp_path, monkeypatch):
    """Each measured in a process of its own; a copy without checkpoint is read from its whole log."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(scale, "MEMBERS", 4)
    monkeypatch.setattr(large_states, "MEGABYTES", 32)
    rows = list(scale.measure(Options(repeats=1)))
    assert [row.unit for row in rows] == [" s", " MB", "", " s", " s", " s", " MiB", " MiB", ""]
    assert all(row.value > 0 for row in rows if row.unit != " MiB")
    assert "4 members x 20 rounds" in rows[0].work


def test_rules_for_the_chosen_member_read_accuracy_and_validation_loss():
    """Also where a test loss is reported beside the accuracy."""
    columns = {"round": [1, 2, 2], "score": [0.9, 0.7, 0.8], "val_loss": [0.3, 0.1, 0.2]}
    history = columns | {"test_loss": [9.0, 9.0, 9.0], "test_accuracy": [0.5, 0.6, 0.7]}
    states = chosen.choosable(SimpleNamespace(history=lambda: history), 1)
    found = {name: [state.test for state in rule(states)] for name, rule in chosen.RULES.items()}
    assert list(found.values()) == [[0.5], [0.7], [0.7], [0.6], [0.6, 0.7]]
