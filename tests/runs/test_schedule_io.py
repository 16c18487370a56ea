"""A schedule that is taken away: as text, from a file, and over another number of steps."""

import itertools
import json
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbt import Schedule, read_schedule
from pbt.core.schedule import Segment
from pbt.errors import UsageError
from pbt.runs.schedule_io import FORMATS, schedule_of, schedule_text

floats = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ["", "1", "1.0", "true", "null", "NaN", '"', "a,b", "a\nb", "[1]", " 2", "\x7f", "\r"]
)
names = st.sampled_from(["lr", "start", "stop", "hparams.start", "optimizer.lr", "a name", 'b"', "Ü", "-", ""]) | texts
scalars = floats | st.integers(-(2**63), 2**63 - 1) | st.booleans() | texts
values = scalars | st.lists(scalars, max_size=3).map(tuple)


@st.composite
def schedules(draw, value=values):
    lengths = draw(st.lists(st.integers(1, 1000), min_size=1, max_size=6))
    edges = [sum(lengths[:i]) for i in range(len(lengths) + 1)]
    hparams = st.dictionaries(names, value, max_size=4)
    return Schedule(tuple(Segment(start=a, stop=b, hparams=draw(hparams)) for a, b in itertools.pairwise(edges)))


def same(first, second):
    """Equal, with the same types: 1 is not 1.0, and neither is True; -0.0 is not 0.0."""
    return repr(first) == repr(second)


@given(schedule=schedules(), format_=st.sampled_from(FORMATS))
def test_every_format_gives_back_what_it_was_given(schedule, format_):
    """Whatever the names and values are, every type and bit of a schedule comes back from its text."""
    back = schedule_of(schedule_text(schedule, format_), format_)
    sort = [(s.start, s.stop, sorted(s.hparams.items(), key=repr)) for s in schedule.segments]
    assert same([(s.start, s.stop, sorted(s.hparams.items(), key=repr)) for s in back.segments], sort)


@pytest.mark.parametrize("format_", ["json", "csv"])
def test_none_is_a_value(format_):
    """A choice may be None, which is not the same as a hyperparameter that was not active; TOML cannot say it."""
    schedule = Schedule(
        (Segment(start=0, stop=2, hparams={"rule": None}), Segment(start=2, stop=3, hparams={"rule": "a", "x": 1.5}))
    )
    assert schedule_of(schedule_text(schedule, format_), format_) == schedule
    with pytest.raises(UsageError, match="TOML has no value for the None of 'rule'"):
        schedule_text(schedule, "toml")


def test_the_texts_are_what_other_programs_read():
    """JSON, CSV and TOML of a schedule are plain ones, readable without this package."""
    schedule = Schedule(
        (Segment(start=0, stop=20, hparams={"lr": 0.1}), Segment(start=20, stop=30, hparams={"lr": 0.05}))
    )
    assert json.loads(schedule_text(schedule)) == tomllib.loads(schedule_text(schedule, "toml")) == schedule.to_dict()
    assert schedule_text(schedule, "csv") == "start,stop,lr\n0,20,0.1\n20,30,0.05\n"


@pytest.mark.parametrize("format_", FORMATS)
def test_a_file_is_read_by_its_ending(tmp_path, format_):
    """`read_schedule` reads what was written, also with more beside the segments, as in an application's card."""
    schedule = Schedule((Segment(start=0, stop=20, hparams={"lr": 0.1, "keep_prob": 0.5}),))
    path = tmp_path / f"my schedule.{format_}"
    path.write_text(schedule_text(schedule, format_))
    assert read_schedule(path) == read_schedule(str(path)) == schedule
    card = tmp_path / "card.json"
    card.write_text(json.dumps({"epoch": 3, **schedule.to_dict()}))
    assert read_schedule(card) == schedule


BAD = [
    ("s.json", "[", "expected JSON"),
    ("s.json", "[]", "a list of 'segments'"),
    ("s.json", '{"segments": 3}', "a list of 'segments'"),
    ("s.json", '{"segments": []}', "one or more segments"),
    ("s.json", '{"segments": [3]}', "segment 1: expected start, stop and hparams, found 3"),
    ("s.json", '{"segments": [{"start": 0, "stop": 2}]}', r"segment 1: .* found \['start', 'stop'\]"),
    ("s.json", '{"segments": [{"start": 0, "stop": "2", "hparams": {}}]}', "whole numbers of steps, found 0 and '2'"),
    ("s.json", '{"segments": [{"start": 0, "stop": 2, "hparams": {"lr": [[1]]}}]}', "a value for each hyperparameter"),
    ("s.json", '{"segments": [{"start": 1, "stop": 2, "hparams": {}}]}', "join without gaps"),
    ("s.csv", "", "first columns are start and stop, found an empty text"),
    ("s.csv", "step,lr\n0,1\n", "first columns are start and stop, found step, lr"),
    ("s.csv", "start,stop,lr\n0,10\n", "row 2: expected 3 cells, found 2"),
    ("s.csv", "start,stop,lr\n0,ten,1\n", "whole numbers of steps, found 0 and 'ten'"),
    ("s.csv", 'start,stop,lr\n0,10,"1\n', "expected CSV"),
    ("s.toml", "segments = ", "expected TOML"),
    ("s.yaml", "", r"ends in .json, .csv or .toml"),
    ("s", "", r"ends in .json, .csv or .toml"),
]


@pytest.mark.parametrize(("name", "text", "message"), BAD, ids=[f"{name}: {text:.30}" for name, text, _ in BAD])
def test_a_file_that_holds_none_says_what_is_wrong(tmp_path, name, text, message):
    """The error names the file, what was expected and what was found."""
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        read_schedule(path)
    assert str(path) in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path):
    """A file that is not there, or no text, is an error of its name."""
    with pytest.raises(UsageError, match="cannot be read"):
        read_schedule(tmp_path / "none.json")
    (tmp_path / "odd.json").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="UTF-8"):
        read_schedule(tmp_path / "odd.json")
    with pytest.raises(UsageError, match="did you mean 'json'"):
        schedule_text(Schedule((Segment(start=0, stop=1, hparams={}),)), "jsn")


@given(schedule=schedules(), factor=st.integers(1, 50))
def test_a_stretch_and_back_is_nothing(schedule, factor):
    """Stretched to a multiple of its length every edge is multiplied, and the way back gives the schedule itself."""
    long = schedule.stretched(factor * schedule.steps)
    assert [(s.start, s.stop) for s in long.segments] == [
        (factor * s.start, factor * s.stop) for s in schedule.segments
    ]
    assert long.stretched(schedule.steps) == schedule


@given(schedule=schedules(), steps=st.integers(1, 5000))
def test_a_stretched_schedule_keeps_its_course(schedule, steps):
    """It has the new length and whole steps, and shows each value at its place in proportion, to within a step."""
    found = schedule.stretched(steps)
    assert found.steps == steps
    kept = [s.hparams for s in schedule.segments]
    assert [s.hparams for s in found.segments if s.hparams not in kept] == []
    for segment in schedule.segments:
        ratio = steps / schedule.steps
        if (segment.stop - segment.start) * ratio > 3:
            middle = int((segment.start + segment.stop) / 2 * ratio)
            assert found.at(middle) == segment.hparams


def test_a_stretch_to_nothing_is_refused():
    """Less than one step, and what is no whole number, is refused."""
    schedule = Schedule((Segment(start=0, stop=10, hparams={}),))
    for steps in (0, -3, 2.5, True):
        with pytest.raises(UsageError, match="at least 1, got"):
            schedule.stretched(steps)
