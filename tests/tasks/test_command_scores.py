"""Numbers in the lines of a program: points of a curve, scores, values in effect."""

import math
import os

import pytest

from pbt.executors.metrics import MetricsError
from pbt.tasks.command.scores import Found, compiled, in_digits, metrics_in, number_of, scored


def found_in(text, score="score", patterns=()):
    """What a stream contains: metrics, matches, points of curves, and values in effect."""
    points, values = [], []
    found = Found(
        score,
        compiled(dict(patterns), "patterns"),
        lambda *point: points.append(point),
        lambda v: values.append(dict(v)),
    )
    found.lines.feed(text.encode())
    found.lines.end()
    return found.metrics, found.matches, points, values


def test_points_of_a_curve() -> None:
    """A JSON object with a whole step and numbers, NaN too, is a point; other lines are none."""
    text = """
{"step": 1, "loss": 0.5, "name": "a", "done": true, "list": [1]}
{"step": 2, "loss": NaN}
{"step": 2.5, "loss": 1}
{"step": 3}
{"loss": 1}
not {"step": 4, "loss": 1}
{"step": 5, "loss": 2, "n": 7}"""
    _, _, points, _ = found_in(text)
    assert str(points) == str([(1, {"loss": 0.5}), (2, {"loss": math.nan}), (5, {"loss": 2.0, "n": 7.0})])


def test_the_last_line_with_the_score_counts() -> None:
    """Its step and its values in effect are no metrics."""
    text = '{"acc": 1}\n{"acc": 2, "step": 3, "hparams": {"lr": 4}, "x": "y"}\n{"other": 5}'
    metrics, _, points, values = found_in(text, "acc")
    assert metrics == {"acc": 2, "x": "y"}
    assert values == [{"lr": 4}]
    assert points == [(3, {"acc": 2.0})]


@pytest.mark.parametrize("line", ["{" * 5000 + "}", '{"score": 1', "{}", '["score"]', '{"score": }', '"score"'])
def test_lines_that_are_no_objects(line) -> None:
    """Whatever a program prints, a line that is no JSON object is only a line."""
    assert found_in(line) == ({}, {}, [], [])


def test_patterns_match_in_each_line() -> None:
    """The last match counts, several in a line included."""
    assert found_in("a=1 a=2\na=3 b=4", patterns=[("a", "a=(.)"), ("b", "b=(.)")])[1] == {"a": "3", "b": "4"}


@pytest.mark.parametrize(
    ("text", "value", "same"),
    [
        ("0.1", 0.1, True),
        ("0.0100", 0.01, True),
        ("1.23e-3", 0.0012345, True),
        ("1.24e-3", 0.0012345, False),
        ("0.00123", 0.0012345, True),
        ("1.0e-05", 1e-5, True),
        ("-0.5", -0.5, True),
        ("0.5", -0.5, False),
        ("64", 64, True),
        ("32", 64, False),
        ("0", 0.3, False),
        ("adam", "adam", True),
        ("sgd", "adam", False),
        ("True", True, True),
        ("true", True, True),
        ("high", 0.1, False),
    ],
)
def test_values_are_compared_in_the_digits_that_were_printed(text, value, same) -> None:
    """A rounded value equals the decided one if it rounds to the same digits."""
    assert (in_digits(text, value) == value) is same


def test_the_score_has_the_name_of_the_form() -> None:
    """The named number becomes the score; several scores need no name."""
    assert scored({"acc": 1, "x": 2}, "acc", "here") == {"score": 1, "x": 2}
    assert scored({"scores": [1, 2]}, "acc", "here") == {"scores": [1, 2]}
    with pytest.raises(MetricsError, match="score 'acc' in here, found none; did you mean 'accu'"):
        scored({"accu": 1}, "acc", "here")


def test_numbers_of_patterns() -> None:
    """Python's own notation of numbers is not taken for a number that a program printed."""
    assert number_of("-1e3", "a") == -1000
    with pytest.raises(MetricsError, match="number for 'a', matched '1_000'"):
        number_of("1_000", "a")


def test_a_file_that_is_no_file(tmp_path) -> None:
    """A folder, a pipe, or a file that is far too large, is an error and not an absent file."""
    assert metrics_in(tmp_path / "absent.json", "absent.json") is None
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(MetricsError, match=r"m.json: expected a JSON file, found something else"):
            metrics_in(path, "m.json")
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(17 << 20)
    with pytest.raises(MetricsError, match="at most 16 MiB of JSON"):
        metrics_in(tmp_path / "large.json", "large.json")
