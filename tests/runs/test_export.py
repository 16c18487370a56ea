"""A run for other programs: tables, the tree, and what Ray Tune replays."""

import csv
import importlib
import io
import json
import math
import re
import sys

import pytest

import pbt
from pbt import Choice, Float, Plan, keep, never, truncation
from pbt.core.events import Born, Reported
from pbt.core.history import RunHistory
from pbt.core.population import StateRef
from pbt.errors import MissingExtraError
from pbt.runs.export import csv_text, jsonl_text, newick, ray_policies, write_parquet

SPACE = {"lr": Float(0.01, 1.0, "log"), "rule": Choice(("a,b", 'say "c"', None))}


def climb(hparams, state, steps, ctx):
    height = (state or {"height": 0.0})["height"] + steps * hparams["lr"]
    odd = math.nan if ctx.round == 2 else 0.5
    return {"height": height}, {"score": height, "odd": odd, "mixed": ctx.round if ctx.member else 0.5, "word": "ä\n"}


@pytest.fixture(scope="module")
def run():
    return pbt.run(climb, SPACE, plan=Plan(exploit=truncation(0.4), interval=3), population=5, rounds=5, seed=2)


def test_csv_is_the_history(run):
    """A row per member and round with the names of the history, every number as Python reads it back."""
    rows = list(csv.DictReader(io.StringIO(csv_text(run.history()))))
    history = run.history()
    assert len(rows) == 25
    assert list(rows[0]) == list(history)
    assert [float(row["score"]) for row in rows] == history["score"]
    assert [row["rule"] for row in rows] == ["" if rule is None else rule for rule in history["rule"]]
    assert [row["donor"] for row in rows] == ["" if donor is None else str(donor) for donor in history["donor"]]


def test_jsonl_is_the_history(run):
    """One JSON object a row, which equals the history but for NaN, which is null."""
    rows = [json.loads(line) for line in jsonl_text(run.history()).splitlines()]
    history = run.history()
    assert [row["word"] for row in rows] == ["ä\n"] * 25
    assert [row["odd"] for row in rows] == [None if math.isnan(odd) else odd for odd in history["odd"]]
    assert [row["score"] for row in rows] == history["score"]
    assert {tuple(row) for row in rows} == {tuple(history)}


@pytest.mark.parametrize(
    "library", [pytest.param(name, marks=pytest.mark.needs(name)) for name in ("polars", "pyarrow")]
)
def test_parquet_is_the_history(run, tmp_path, monkeypatch, library):
    """Either library writes the same rows; columns of mixed numbers are floats."""
    module = importlib.import_module(library)
    if library == "pyarrow":
        monkeypatch.setitem(sys.modules, "polars", None)
    write_parquet(run.history(), tmp_path / "history.parquet")
    if library == "polars":
        found = module.read_parquet(tmp_path / "history.parquet").to_dict(as_series=False)
    else:
        found = importlib.import_module("pyarrow.parquet").read_table(tmp_path / "history.parquet").to_pydict()
    assert list(found) == list(run.history())
    assert found["score"] == run.history()["score"]
    assert found["rule"] == run.history()["rule"]
    assert found["mixed"] == run.history()["mixed"]
    assert {type(value) for value in found["mixed"]} == {float}


def test_parquet_without_a_library_names_the_extra(run, tmp_path, monkeypatch):
    """Without polars and pyarrow the error names the extra, and nothing is written."""
    for name in ("polars", "pyarrow"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"the extra 'frames'"):
        write_parquet(run.history(), tmp_path / "history.parquet")
    assert not list(tmp_path.iterdir())


TOKEN = re.compile(r"'(?:[^']|'')*'|[^(),:;']+|[(),:;]")


def parse(text):
    """A Newick tree as `(label, length, children)`."""
    tokens = TOKEN.findall(text.strip())
    assert "".join(tokens) == text.strip()

    def node(place):
        children = []
        if tokens[place] == "(":
            place += 1
            while True:
                child, place = node(place)
                children.append(child)
                place += 1
                if tokens[place - 1] == ")":
                    break
                assert tokens[place - 1] == ","
        label = tokens[place]
        place += 1
        length = 0
        if tokens[place] == ":":
            length, place = int(tokens[place + 1]), place + 2
        if label.startswith("'"):
            label = label[1:-1].replace("''", "'")
        return (label, length, children), place

    found, end = node(0)
    assert tokens[end:] == [";"]
    return found


def walk(tree, depth=0):
    label, length, children = tree
    yield label, depth + length, [child[0] for child in children]
    for child in children:
        yield from walk(child, depth + length)


def test_newick_is_the_development_tree(run):
    """Read back, every branching and every end is a state at its steps from the root, and who descends from whom is
    what the log says."""
    found = {label: (depth, below) for label, depth, below in walk(parse(newick(run.tree, "root")))}
    states = {f"m{ref.member}.r{ref.round}": ref for ref in run.tree.reports}
    started = [run.tree.start(*ref) for ref in run.tree.reports]
    nodes = {name for name, ref in states.items() if started.count(ref) != 1}
    assert found.keys() - {"root"} == nodes
    for name in nodes:
        depth, below = found[name]
        assert depth == run.tree.reports[states[name]].step
        assert len(below) == started.count(states[name])
        for child in below:
            assert states[name] in [StateRef(x.member, x.round) for x in run.tree.ancestry(states[child])]
    assert any(len(below) > 1 for name, (_, below) in found.items() if name != "root")
    assert len(found["root"][1]) == started.count(None)


def test_newick_of_odd_names_and_of_deep_trees():
    """A name with signs of the format is quoted, with quotes doubled; a chain of ten thousand hand-overs is no
    recursion."""
    log = [
        Born(member=0, hparams={}),
        Reported(member=0, round=1, step=7, scores=(1.0,), state=StateRef(0, 1), digest=""),
    ]
    assert newick(RunHistory(log), "it's (a) run: 1\x1b") == "(m0.r1:7)'it''s (a) run: 1?';\n"
    assert parse(newick(RunHistory(log), "it's (a) run")) == ("it's (a) run", 0, [("m0.r1", 7, [])])
    deep = list(log)
    for i in range(1, 10_000):
        deep.append(Born(member=i, hparams={}, start=StateRef(i - 1, 1)))
        deep.append(Reported(member=i, round=1, step=7 * (i + 1), scores=(1.0,), state=StateRef(i, 1), digest=""))
        deep.append(Born(member=-i, hparams={}, start=StateRef(i - 1, 1)))
        deep.append(Reported(member=-i, round=1, step=7 * (i + 1), scores=(1.0,), state=StateRef(-i, 1), digest=""))
    text = newick(RunHistory(deep))
    assert text.count("(") == text.count(")") == 10_000


def replayed(text):
    """What Ray's PopulationBasedTrainingReplay makes of a policy file (ray/tune/schedulers/pbt.py, `_load_policy`)."""
    policy, last_new_tag, first = [], None, None
    for old_tag, new_tag, _, new_step, old_conf, new_conf in reversed([json.loads(line) for line in text.splitlines()]):
        if last_new_tag and old_tag != last_new_tag:
            break
        last_new_tag, first = new_tag, old_conf
        policy.append((new_step, new_conf))
    return first, policy[::-1]


def values_by_round(first, policy, rounds):
    """The values of each training iteration: a change at iteration n holds for those after it."""
    return [dict(policy)[max(at)] if (at := [n for n, _ in policy if n < i]) else first for i in range(1, rounds + 1)]


def test_ray_replays_the_ancestry(run):
    """Read as Ray reads it, each file gives every round of the ancestry its values: of the best and of each member."""
    texts = ray_policies(run)
    assert list(texts) == ["pbt_policy_best.txt", *(f"pbt_policy_member_{i}.txt" for i in range(5))]
    lineages = [run.lineage(), *(run.lineage(i) for i in range(5))]
    assert any(len({link.member for link in links}) > 2 for links in lineages)
    for text, links in zip(texts.values(), lineages, strict=True):
        assert values_by_round(*replayed(text), len(links)) == [link.hparams for link in links]


@pytest.mark.needs("ray", "pyarrow")
def test_ray_reads_the_files_itself(run, tmp_path):
    """Where Ray Tune is installed, its own replay takes the files, and means what we mean."""
    schedulers = importlib.import_module("ray.tune.schedulers")
    for name, text in ray_policies(run).items():
        (tmp_path / name).write_text(text)
        found = schedulers.PopulationBasedTrainingReplay(str(tmp_path / name))
        assert (found.config, [(at, values) for at, values in found._policy]) == replayed(text)


def test_ray_needs_a_first_line():
    """A schedule without a change is a file with one change to the same values: Ray takes its values from there."""
    run = pbt.run(climb, SPACE, plan=Plan(exploit=never(), explore=keep()), population=1, rounds=3)
    (line,) = ray_policies(run)["pbt_policy_best.txt"].splitlines()
    values = dict(run.best.hparams)
    assert json.loads(line) == ["member_0", "member_0", 0, 0, values, values]
    assert values_by_round(*replayed(line), 3) == [values] * 3
