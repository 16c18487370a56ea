"""A population of programs without a line of Python: `pbt.toml`, `--command`, and how they are resumed."""

import json
import re
import shlex

import pytest

import pbt
from pbt.errors import ConfigError, SpaceError
from pbt.initial import sobol
from pbt.runs.results import Run
from pbt.tasks.command.config import EXAMPLE, read_config
from pbt.tasks.command.domains import domain_of, pairs, space_of
from tests.helpers.command import pbt as call
from tests.tasks.programs import ARGUMENTS, PYTHON, TRAIN, written

COMMAND = f"{PYTHON} train.py {ARGUMENTS}"
SMALL = f"""
command = "{COMMAND}"
population = 2
rounds = 2
steps = 3
space = {{ lr = "log:1e-3..1e-1" }}
placement = {{ executor = "inline" }}
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("log:1e-5..1e-1", pbt.Float(1e-5, 1e-1, "log")),
        ("0..0.5", pbt.Float(0, 0.5)),
        ("linear:-1..1", pbt.Float(-1, 1)),
        ("one_minus_log:0.9..0.999", pbt.Float(0.9, 0.999, "one_minus_log")),
        ("int:1..8", pbt.Int(1, 8)),
        ("int-log:16..512", pbt.Int(16, 512, "log")),
        ("choice:relu, tanh", pbt.Choice(("relu", "tanh"))),
        ("ordered:[64,64],[128],null", pbt.Choice(((64, 64), (128,), None), ordered=True)),
        ("ordered:16,32.5,true,null", pbt.Choice((16, 32.5, True, None), ordered=True)),
    ],
)
def test_domains_as_text(text, expected) -> None:
    """Each scale and kind of domain has a form as text."""
    assert domain_of("x", text) == expected


def test_domains_in_toml() -> None:
    """A domain is a text, a list of options, or a table; tables of domains give dotted names."""
    given = {"a": ["x", 1, [2, 2]], "b": {"kind": "int", "low": 1, "high": 9, "prior": [2, 3]}, "opt": {"lr": "0..1"}}
    expected = {"a": pbt.Choice(("x", 1, (2, 2))), "b": pbt.Int(1, 9, prior=(2, 3)), "opt.lr": pbt.Float(0, 1)}
    assert dict(space_of(given)) == expected


@pytest.mark.parametrize(
    ("space", "facts"),
    [
        ({}, "space: .*at least one"),
        ({"lr": "1e-5"}, "'lr': .*log:1e-5..1e-1.*got '1e-5'"),
        ({"lr": "lgo:1..2"}, "'lr': .*got 'lgo:1..2'"),
        ({"lr": "log:0..1"}, "'lr': .*scale 'log'"),
        ({"lr": "int:0.5..1"}, "'lr': .*got 'int:0.5..1'"),
        ({"lr": {"kind": "float", "low": 0, "hihg": 1}}, "'lr': unknown field 'hihg'; did you mean 'high'"),
        ({"lr": {"kind": "float", "low": 0}}, "'lr': expected low, high"),
        ({"lr": 0.1}, "'lr': .*got 0.1"),
    ],
)
def test_wrong_domains(space, facts) -> None:
    """The name, the expected forms and the given value are in the message."""
    with pytest.raises(SpaceError, match=facts):
        space_of(space)


@pytest.mark.parametrize(("words", "facts"), [(["lr"], "got 'lr'"), (["a=0..1", "a=0..2"], "'a' is given twice")])
def test_wrong_space_options(words, facts) -> None:
    """An option without a domain, or a name given twice, is refused."""
    with pytest.raises(SpaceError, match=facts):
        pairs(words)


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("command = ", "expected TOML"),
        ('space = { lr = "0..1" }', "expected 'command'"),
        ('command = "a {lr}"', "expected 'space'"),
        (SMALL + "popluation = 3", "unknown key 'popluation'; did you mean 'population'"),
        (SMALL + "note = 3", "note: expected text, got 3"),
        (SMALL + "seed = true", "seed: expected a whole number, got True"),
        (SMALL + "plan = { interval = 3 }", "unknown key 'plan.interval'"),
        (SMALL + 'plan = { name = "replay" }', "--plan replay --of RUN"),
        (SMALL + 'plan = { name = "pbtt" }', "name of a plan, got 'pbtt'; did you mean 'pbt'"),
        (SMALL + "initial = 'sobl'", "initial: expected 'sobol', 'latin-hypercube' or tables, got 'sobl'"),
        (SMALL + "initial = [1]", "initial: expected tables of hyperparameters, .*got 1"),
        (SMALL + 'plan = { perturb = ["a"] }', r"plan.perturb: expected numbers, got \['a'\]"),
        ("a = " + "[" * 5000, "expected TOML"),
        ("#" * (1 << 20) + "#", "at most 1 MiB"),
        (SMALL + "env = { A = 1 }", "env.A: expected text, got 1"),
        (SMALL + 'cwd = "nowhere"\nobjective = "best"', "objective"),
        (SMALL.replace("{start}]", "{start}"), "expected \\] after"),
    ],
)
def test_wrong_files(tmp_path, text, facts) -> None:
    """A mistake in the file is named with the file, the key and the remedy."""
    file = tmp_path / "pbt.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=f"pbt.toml: .*{facts}"):
        read_config(file)


def test_a_named_plan_gets_the_rounds_of_the_file(tmp_path) -> None:
    """A plan with a horizon has that of the file's rounds and steps."""
    (tmp_path / "pbt.toml").write_text(SMALL + 'plan = { name = "ipbt" }')
    plan = read_config(tmp_path / "pbt.toml").plan
    assert (plan.interval, plan.horizon) == (3, 2)


def test_a_design_in_the_file(tmp_path) -> None:
    """The initial values of all members are the points of a design of this seed."""
    (tmp_path / "pbt.toml").write_text("initial = 'sobol'\nseed = 4\n" + SMALL)
    experiment = read_config(tmp_path / "pbt.toml")
    assert experiment.initial == sobol(experiment.space, 2, seed=4)


def test_init_writes_what_run_reads(tmp_path) -> None:
    """Every key that the example shows, also commented out, is one that a file may have."""
    call(tmp_path, "init")
    assert (tmp_path / "pbt.toml").read_text() == EXAMPLE
    assert "already exists" in call(tmp_path, "init", code=2).stderr
    experiment = read_config(tmp_path / "pbt.toml")
    assert (experiment.population, experiment.plan.interval, experiment.task.score) == (8, 1000, "accuracy")
    full = re.sub(r"^# (?=[a-z_]+ = |\[)", "", EXAMPLE, flags=re.MULTILINE)
    assert full.count("\n# ") < 5
    (tmp_path / "full.toml").write_text(full)
    assert read_config(tmp_path / "full.toml").placement.devices_per_member == 2


def test_a_file_runs_and_resumes(tmp_path) -> None:
    """A run of a file is resumed with the file; without it nothing is executed, and the line to type is printed."""
    folder = tmp_path / "of the program"
    folder.mkdir()
    written(folder)
    (folder / "pbt.toml").write_text(SMALL)
    named = "of the program/pbt.toml"
    shown = call(tmp_path, "run", named, "--out", "run", "--no-progress").stdout
    assert "the output of the newest programs" in shown
    assert Run.open(tmp_path / "run").meta["application"]["object"] == named
    refused = call(tmp_path, "resume", "run", "--rounds", "3", code=2)
    assert f"resume run '{named}'" in refused.stderr
    call(tmp_path, "resume", "run", named, "--rounds", "3", "--quiet")
    assert Run.open(tmp_path / "run").best.step == 9
    replayed = call(tmp_path, "replay", "run", named, "--out", "again", "--no-progress").stdout
    assert "The weights are identical, bit by bit, after each of 3 rounds." in " ".join(replayed.split())


@pytest.mark.long
def test_a_command_runs_and_resumes(tmp_path) -> None:
    """`--command` needs no file; to resume, the command is given again and all else is as recorded."""
    written(tmp_path, TRAIN.replace('"score": state["x"]', '"loss": 1 - state["x"]'))
    options = ["--score", "loss", "--minimize", "--steps", "4", "--population", "2", "--rounds", "2"]
    call(tmp_path, "run", "--command", COMMAND, "--space", "lr=log:1e-3..1e-1", *options, "--out", "run", "--quiet")
    line = call(tmp_path, "resume", "run", "--rounds", "3", code=2).stderr
    assert f"resume run --command {shlex.quote(COMMAND)}" in line
    call(tmp_path, "resume", "run", "--rounds", "3", "--command", COMMAND, "--quiet")
    found = Run.open(tmp_path / "run")
    assert (found.best.step, found.meta["objective"], set(found.best.hparams)) == (12, "minimize", {"lr"})


@pytest.mark.long
def test_a_command_of_a_stranger_is_not_executed(tmp_path) -> None:
    """A run directory names a command; `pbt resume` prints it and runs nothing."""
    written(tmp_path)
    call(tmp_path, "run", "--command", COMMAND, "--space", "lr=0.1..0.2", "--out", "run", "--quiet", "--rounds", "1")
    proof = tmp_path / "executed"
    written(tmp_path, f"open({str(proof)!r}, 'w')", "evil1.py")
    database = tmp_path / "run" / "run.db"
    content = database.read_bytes()
    assert COMMAND.encode() in content
    database.write_bytes(content.replace(b"train.py", b"evil1.py"))  # as many bytes
    for words in (["resume", "run"], ["status", "run"], ["replay", "run"]):
        call(tmp_path, *words, code=None)
    assert not proof.exists()


@pytest.mark.parametrize(
    ("words", "facts"),
    [
        ([], "--command with --space, got none"),
        (["a.toml", "--command", "x", "--space", "a=0..1"], "got both"),
        (["a.toml", "--score", "x"], "--score requires --command"),
        (["--command", "x {a}"], "--command requires --space NAME=DOMAIN"),
        (["a.toml"], "a.toml: does not exist; .*pbt init a.toml"),
        (["--command", "absent {a} {out} [{start}]", "--space", "a=0..1"], "program 'absent' does not exist"),
    ],
)
def test_wrong_words(tmp_path, words, facts) -> None:
    """A mistake on the command line is found before anything is written."""
    done = call(tmp_path, "run", *words, code=2)
    assert re.search(facts, " ".join(done.stderr.split()))
    assert not list(tmp_path.iterdir())


def test_a_file_is_data(tmp_path) -> None:
    """Reading a file executes nothing: text that other tools would expand stays text."""
    text = SMALL.replace("--seed {seed}", "--seed {seed} $(touch x) `touch y` ${HOME} ; touch z")
    (tmp_path / "pbt.toml").write_text(text)
    task = read_config(tmp_path / "pbt.toml").task
    assert "$(touch" in json.dumps(task.command)
    assert [path.name for path in tmp_path.iterdir()] == ["pbt.toml"]
