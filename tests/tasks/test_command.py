"""Programs as members: what reaches the program, and what comes back."""

import json
import re

import pytest

import pbt
from pbt.errors import PopulationLostError, RunFormatError, TaskError
from pbt.tasks.command.template import PLACEHOLDERS, Template
from tests.tasks.programs import ARGUMENTS, PYTHON, SPACE, TRAIN, command, written


def run(task, space=SPACE, **options):
    """A small run."""
    options = {"population": 2, "rounds": 2, "plan": pbt.Plan(interval=3), **options}
    return pbt.run(task, space, **options)


def files_of(run, state):
    """The text of the files in a state, by name."""
    folder = run.load_state(state)
    return {path.name: path.read_text() for path in folder.path.iterdir()}


def test_lines_are_points_of_curves(tmp_path) -> None:
    """A line with a step is a point; one that is no point of a curve, whatever it holds, costs nothing."""
    lines = [
        '{"step": 1, "loss": 0.5, "no name": 1}',
        '{"step": 2, "loss": 0.25, "self": 3}',
        '{"step": -1, "loss": 7}',
        '{"step": 3, "no name": 1}',
        '{"step": 10000000000000000000, "loss": 7}',
        '{"score": 1}',
    ]
    text = SAVE + "".join(f"print({line!r});" for line in lines)
    found = run(command(tmp_path, text, **FREE), population=1, rounds=1)
    points = [(*row[2:4], str(row[4])) for row in zip(*found.curves().values(), strict=True)]
    assert points == [(1, "loss", "0.5"), (2, "loss", "0.25"), (2, "self", "3.0")]
    assert found.best.score == 1


@pytest.mark.parametrize("executor", ["inline", pytest.param("processes", marks=pytest.mark.slow)])
def test_a_program_trains(tmp_path, executor) -> None:
    """It trains from its own checkpoints with the values of the log, and all of them are read back."""
    plan = pbt.Plan(interval=3, exploit=pbt.truncation(0.5), explore=pbt.perturb((0.5, 2.0)))
    found = run(command(tmp_path), plan=plan, population=4, rounds=3, placement=executor, run_dir=tmp_path / "run")
    state = json.loads(files_of(found, found.best)["state.json"])
    assert found.best.reported == {"depth": 9}
    assert found.best.score == state["x"]
    # The value of each round, for each of its steps.
    trained = [(segment.hparams["lr"], segment.step) for segment in found.lineage()]
    assert state["seen"] == [lr for lr, _ in trained for _ in range(3)]
    assert len({lr for lr, _ in trained}) > 1
    logs = sorted(path.name for path in (tmp_path / "run" / "logs").iterdir())
    assert logs == [f"{member:06d}-{round_:06d}.log" for member in range(4) for round_ in (1, 2, 3)]


def test_a_program_that_fails(tmp_path) -> None:
    """The exit code, the last line and the name of the log are in the message, the whole tail in the traceback."""
    task = command(tmp_path, "import sys\nprint('a first line')\nsys.exit('no such data set')")
    with pytest.raises(PopulationLostError, match=r"exit code 1 .*no such data set.*logs/000000-000001.log") as error:
        run(task, run_dir=tmp_path / "run")
    assert "a first line" in str(error.value.__cause__)


def one(task, space=SPACE, **options):
    """The message of the only failure of a run of one member, or its best."""
    options = {"population": 1, "rounds": 1, **options}
    try:
        return run(task, space, **options).best
    except PopulationLostError as error:
        return str(error)


def test_placeholders_and_variables(tmp_path) -> None:
    """Every placeholder has its value, the same as its variable; values of hyperparameters are exact."""
    text = """
import json, os, sys
out = os.environ["PBT_OUT"]
values = dict(word.split("=", 1) for word in sys.argv[1:])
same = {name: os.environ[f"PBT_{name.upper()}"] == value for name, value in values.items()}
found = {"score": 1, "values": values, "same": same, "file": json.load(open(os.environ["PBT_HPARAMS"]))}
found["variables"] = {name: value for name, value in os.environ.items() if name.startswith("PBT_HPARAM_")}
open(out + "/metrics.json", "w").write(json.dumps(found))
"""
    names = [name for name in PLACEHOLDERS if name != "start"]
    arguments = " ".join([*(f"{name}={{{name}}}" for name in names), "[start={start}]"])
    space = {
        "opt.lr": pbt.Float(1e-9, 2e-9),
        "act": pbt.Choice(("re lu",)),
        "flag": pbt.Choice((True,)),
        "no": pbt.Choice((None,)),
        "pair": pbt.Choice([(1, 0.5, "a b")]),
    }
    best = one(command(tmp_path, text, arguments), space, seed=5)
    found = best.reported
    lr = best.hparams["opt.lr"]
    assert all(found["same"].values())
    assert found["file"] == {**best.hparams, "pair": [1, 0.5, "a b"]}
    assert found["variables"] == {
        "PBT_HPARAM_OPT_LR": repr(lr),
        "PBT_HPARAM_ACT": "re lu",
        "PBT_HPARAM_FLAG": "true",
        "PBT_HPARAM_NO": "null",
        "PBT_HPARAM_PAIR": '[1, 0.5, "a b"]',
    }
    expected = {"steps": 3, "first_step": 0, "last_step": 3, "seed": 5, "member": 0, "round": 1}
    expected |= {"device": "cpu", "devices": "cpu"}
    assert {name: found["values"][name] for name in expected} == {name: str(value) for name, value in expected.items()}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a 'b c' \"d e\" f\\ g", ["a", "b c", "d e", "f g"]),
        ("a [--x {x}] [--y {y}] z", ["a", "--x", "1", "z"]),
        ("a [--xy {x} {y}] z[{x}]", ["a", "z[1]"]),
        ("a '[{x}]' \\[{x}] \"[{x}\" {{x}}", ["a", "[1]", "[1]", "[1", "{x}"]),
        ("a --b={x}/{x}", ["a", "--b=1/1"]),
        (["a b", ["--x", "{x}"], ["{y}"], "[{x}]"], ["a b", "--x", "1", "[1]"]),
        ("a $HOME `b` ; *", ["a", "$HOME", "`b`", ";", "*"]),
    ],
)
def test_commands_are_split_as_by_a_shell(text, expected) -> None:
    """Words, quotes, braces and optional parts; a list of words is taken as it is. No shell expands anything."""
    assert Template.of(text).fill({"x": 1}) == expected


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("", "got none"),
        ("[{x}]", "got none"),
        ("a 'b", "No closing quotation"),
        ("a [--x {x}", r"expected \] after"),
        ("a [--x [{x}]]", "no optional part inside another"),
        ("a [64]", r"placeholder in the optional part \[64\]"),
        ("a {x", "pairs of braces in '{x'"),
        (["a", 3], "got 3"),
    ],
)
def test_malformed_commands(text, facts) -> None:
    """A mistake in the form of a command is found when the task is made."""
    with pytest.raises(TaskError, match=facts):
        pbt.Command(text)


CONDITIONAL = {"opt": pbt.Choice(("sgd", "adam")), "momentum": pbt.Float(0, 1, when=("opt", "sgd"))}


@pytest.mark.parametrize(
    ("arguments", "space", "options", "facts"),
    [
        ("{lr} {out} [{start}] {lrr}", SPACE, {}, "unknown placeholder {lrr}; did you mean 'lr'"),
        ("{out} [{start}]", SPACE, {}, "'lr' appears nowhere .*{lr}.*PBT_HPARAM_LR"),
        ("{lr} [{start}]", SPACE, {}, "{out} appears nowhere .*one place"),
        ("{lr} {out}", SPACE, {}, "{start} appears nowhere .*begin anew"),
        ("{lr} {out} {start}", SPACE, {}, r"{start} has no value in the first round; .*\[--resume {start}\]"),
        ("{lr} {out} [{start}]", SPACE, {"in_place": True}, "in_place=True .*leave out {start}"),
        ("{opt} {momentum} {out} [{start}]", CONDITIONAL, {}, "{momentum} has no value unless 'opt' is 'sgd'"),
        ("{seed} {out} [{start}]", {"seed": pbt.Int(1, 2)}, {}, "'seed' has the name of a placeholder"),
        (
            "{a-b} {a.b} {out} [{start}]",
            {"a-b": pbt.Int(1, 2), "a.b": pbt.Int(1, 2)},
            {},
            "'a-b' and 'a.b' have the same variable PBT_HPARAM_A_B",
        ),
        ("{lr} {out} [{start}]", SPACE, {"in_effect": {"lrr": "(.)"}}, "in_effect names 'lrr'"),
        ("{lr} {out} [{start}]", SPACE, {"cwd": "/nowhere"}, "working directory /nowhere does not exist"),
    ],
)
def test_found_before_the_start(tmp_path, arguments, space, options, facts) -> None:
    """What a command lacks is named before anything runs or is written."""
    task = command(tmp_path, "", arguments, **options)
    with pytest.raises(TaskError, match=facts):
        run(task, space, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("program", "facts"),
    [
        ("absent", "'absent' does not exist or is not executable .searched in PATH"),
        ("./absent", "'./absent' does not exist"),
        ("./train.py", "'./train.py' .*make it executable"),
        (f"{PYTHON} absent.py", "expected the file absent.py"),
    ],
)
def test_a_missing_program(tmp_path, program, facts) -> None:
    """A program or script that is not there is named before the start."""
    written(tmp_path)
    with pytest.raises(TaskError, match=facts):
        run(pbt.Command(f"{program} {ARGUMENTS}", cwd=tmp_path))


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        ({"timeout": 0}, "timeout above 0"),
        ({"keep_logs": 0}, "keep_logs of at least 1"),
        ({"metrics": "../x.json"}, "name of a file in {out}"),
        ({"patterns": {"score": "("}}, "regular expression for 'score'"),
        ({"patterns": {"score": "x"}}, "a group around the number"),
    ],
)
def test_invalid_options(options, facts) -> None:
    """An invalid option is refused when the task is made."""
    with pytest.raises(TaskError, match=facts):
        pbt.Command("x", **options)


SAVE = "import os, sys\nout = os.environ['PBT_OUT']\nopen(out + '/state', 'w').write('x')\n"
FREE = {"arguments": "", "reads_env": True}
"""A program that reads the environment."""


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ('print(\'{"score": 1}\\nnoise\\n{"score": 2, "n": 3}\\nlast\')', {}, (2, {"n": 3})),
        ("print('{\"score\": 1}'); open(out + '/metrics.json', 'w').write('{\"score\": 4}')", {}, (4, {})),
        ("open(out + '/e.json', 'w').write('{\"acc\": 5}')", {"metrics": "e.json", "score": "acc"}, (5, {})),
        ("print('epoch 1 acc=0.5\\nepoch 2 acc=0.75')", {"patterns": {"score": r"acc=(\S+)"}}, (0.75, {})),
        ("sys.stderr.write('acc=7')", {"patterns": {"score": r"acc=(\S+)"}}, (7, {})),
        ("sys.stderr.write('{\"score\": 8}'); print('{\"score\": 9}')", {}, (9, {})),
        ('print(\'{"loss": 3, "score": 1}\')', {"score": "loss"}, (3, {})),
    ],
)
def test_where_the_score_is(tmp_path, text, options, expected) -> None:
    """From the last JSON line with it, a JSON file, or the last match of a pattern; a file wins over a line."""
    best = one(command(tmp_path, SAVE + text, **FREE, **options))
    assert (best.score, best.reported) == expected


@pytest.mark.parametrize(
    ("text", "options", "facts"),
    [
        ("print('done')", {}, "score 'score' in metrics.json in {out}, a JSON line of the output, found none.*: done"),
        ("print('{\"acc\": 1}')", {"metrics": "e.json"}, "write e.json into {out}, found no such file"),
        ("open(out + '/metrics.json', 'w').write('[1]')", {}, r"metrics.json: expected a JSON object .*'\[1\]'"),
        ("print('{\"score\": NaN}')", {}, "not a finite number"),
        ('print(\'{"score": "high"}\')', {}, "'score' must be a number"),
        ("print('acc=high')", {"patterns": {"score": r"acc=(\S+)"}}, "number for 'score', matched 'high'"),
        ("os.remove(out + '/state'); print('{\"score\": 1}')", {}, "left {out} empty"),
        ("import shutil; shutil.rmtree(out); print('{\"score\": 1}')", {}, "left {out} empty"),
        ("os.symlink('x', out + '/latest'); print('{\"score\": 1}')", {}, "found a link"),
        ("os.kill(os.getpid(), 11)", {}, "ended with SIGSEGV"),
        ("import time; time.sleep(1000)", {"timeout": 0.5}, "timeout of 0.5 s and was ended"),
        (
            "print('{\"hparams\": {\"lr\": 7}}', flush=True); __import__('time').sleep(1000)",
            {},
            "'lr' should be .*it is 7",
        ),
        ('print(\'{"score": 1, "hparams": {"lrr": 7}}\')', {}, "'lrr'; did you mean 'lr'"),
        ("print('lr is 7')", {"in_effect": {"lr": r"lr is (\S+)"}}, "'lr' should be .*it is 7"),
    ],
)
def test_a_failed_member(tmp_path, text, options, facts) -> None:
    """A member whose program fails, never ends, or trains with another value has failed, with the reason."""
    assert re.search(facts, one(command(tmp_path, SAVE + text, **FREE, **options)))


def test_values_are_read_back(tmp_path, caplog) -> None:
    """A value that the program reports is checked, in the digits that it prints; otherwise the run says so once."""
    caplog.set_level("INFO", "pbt")
    score = "print('{\"score\": 1}')\n"
    patterns = {"in_effect": {"lr": r"rate (\S+)"}}
    printed = "print('rate %.3g' % float(os.environ['PBT_HPARAM_LR']))\n"
    for text, options, unread in (
        (score, {}, True),
        (score + printed, patterns, False),
        (score, patterns, True),
        (score + "print('{\"hparams\": {\"lr\": %s}}' % os.environ['PBT_HPARAM_LR'])", {}, False),
    ):
        caplog.clear()
        one(command(tmp_path, SAVE + text, **FREE, **options))
        assert caplog.text.count("not read back after a hand-over: lr;") == int(unread)


def test_in_place(tmp_path) -> None:
    """A program that resumes from the folder in which it saves gets a copy of the state as {out}."""
    text = """
import os, sys
file = sys.argv[2] + "/state"
seen = open(file).read() if os.path.exists(file) else ""
open(file, "w").write(seen + sys.argv[1] + "\\n")
print('{"score": %d}' % len(seen))
"""
    plan = pbt.Plan(exploit=pbt.truncation(0.5))
    task = command(tmp_path, text, "{lr} {out}", in_place=True)
    found = run(task, plan=plan, population=2, rounds=3, run_dir=tmp_path / "run")
    seen = files_of(found, found.best)["state"].split()
    assert seen == [repr(segment.hparams["lr"]) for segment in found.lineage()]


def test_old_logs_go(tmp_path) -> None:
    """Of each member the newest logs are kept."""
    run(command(tmp_path, keep_logs=2), rounds=4, run_dir=tmp_path / "run")
    logs = sorted(path.name for path in (tmp_path / "run" / "logs").iterdir())
    assert logs == [f"{member:06d}-{round_:06d}.log" for member in (0, 1) for round_ in (3, 4)]
    assert '"step": 12' in (tmp_path / "run" / "logs" / logs[-1]).read_text()


def test_rounds_do_not_matter(tmp_path) -> None:
    """Four rounds of three steps leave the files of one round of twelve."""
    found = [
        run(
            command(tmp_path),
            plan=pbt.Plan(exploit=pbt.never(), explore=pbt.keep(), interval=12 // rounds),
            rounds=rounds,
        )
        for rounds in (4, 1)
    ]
    states = [[files_of(each, member.state) for member in each.view.members] for each in found]
    assert states[0] == states[1]


def test_a_killed_program_runs_again(tmp_path) -> None:
    """A program that is killed from outside costs its member nothing: its round runs again, with the same result."""
    calm = run(command(tmp_path)).best
    marks = tmp_path / "marks"
    marks.mkdir()
    killed = f"""
import os, signal, sys
mark = {str(marks)!r} + "/" + os.environ["PBT_MEMBER"] + "-" + os.environ["PBT_ROUND"]
if not os.path.exists(mark):
    open(mark, "w").close()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert run(command(tmp_path, killed + TRAIN)).best == calm
    assert len(list(marks.iterdir())) == 4


def test_a_program_that_is_always_killed(tmp_path) -> None:
    """After three attempts the member has failed."""
    message = one(command(tmp_path, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"))
    assert re.search("the program was killed from outside .*, 3 times", message)


@pytest.mark.parametrize("executor", ["inline", pytest.param("processes", marks=pytest.mark.slow)])
def test_several_devices(tmp_path, executor) -> None:
    """A member of two devices has both, by the names that the program knows; the run records and resumes that."""
    text = (
        SAVE + "print('{\"score\": 1, \"devices\": \"%s %s\"}' % (os.environ['PBT_DEVICE'], os.environ['PBT_DEVICES']))"
    )
    placement = pbt.Placement(executor=executor, devices_per_member=2, device="cpu", threads=1)
    task = command(tmp_path, text, **FREE)
    found = run(task, placement=placement, population=3, rounds=1, run_dir=tmp_path / "run")
    assert {report.reported["devices"] for report in found.tree.reports.values()} == {"cpu cpu,cpu"}
    assert found.meta["place"]["devices_per_member"] == 2
    again = run(task, placement=executor, population=3, rounds=2, run_dir=tmp_path / "run", resume=True)
    last = {report.reported["devices"] for state, report in again.tree.reports.items() if state.round == 2}
    assert last == {"cpu cpu,cpu"}


def test_logs_are_not_written_through_links(tmp_path) -> None:
    """In a run of an unknown author a log that is a link is replaced, and a folder that is a link is refused."""
    task = command(tmp_path)
    run(task, rounds=1, run_dir=tmp_path / "run")
    other = tmp_path / "other"
    other.write_text("mine")
    (tmp_path / "run" / "logs" / "000000-000002.log").symlink_to(other)
    run(task, rounds=2, run_dir=tmp_path / "run", resume=True)
    assert other.read_text() == "mine"
    (tmp_path / "run" / "logs").rename(tmp_path / "elsewhere")
    (tmp_path / "run" / "logs").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunFormatError, match=r"logs: .*found a link"):
        run(task, rounds=3, run_dir=tmp_path / "run", resume=True)
