"""The same pictures as plotly and as matplotlib figures."""

import json
from pathlib import Path
from typing import Any

import pytest

import pbt
from pbt.errors import UsageError
from pbt.report import figures, matplotlib_figures, plotly_figures, write_pictures
from pbt.report import plots as public
from pbt.report.content import content
from pbt.report.data.figures import NAMES, pictures
from pbt.report.data.importance import importance
from pbt.report.data.parallel import parallel
from pbt.report.plotly_figures.common import short, text
from pbt.report.read import read_snapshot
from pbt.report.sentences import TITLES
from pbt.runs.results import Run
from tests.helpers.sampled import sampled
from tests.report.histories import CLIMB, history, rising, told


def test_both_libraries_draw_every_picture() -> None:
    """`plot_<name>` is there for every picture: as plotly, as matplotlib, and for a whole run."""
    for module in (plotly_figures, matplotlib_figures, public):
        for name in NAMES:
            assert getattr(module, f"plot_{name}").__doc__


@pytest.mark.parametrize("kind", ["climbed", "apart"])
def test_plotly_takes_every_figure(kind: str, request: pytest.FixtureRequest) -> None:
    """Every property of every figure is one that plotly knows, with a value that it allows."""
    from plotly.graph_objects import Figure

    for figure in figures(request.getfixturevalue(kind)).values():
        Figure(figure)


def test_figures_are_plain_values(climbed: Run) -> None:
    """Figures go through JSON unchanged: no NaN, no arrays, no keys that are no text."""
    made = figures(climbed)
    assert list(made) == list(NAMES)
    assert json.loads(json.dumps(made, allow_nan=False)) == made


def test_nothing_draws_with_webgl(climbed: Run) -> None:
    """No trace needs WebGL, which the page's security policy would not let run."""
    kinds = {trace["type"] for figure in figures(climbed).values() for trace in figure["data"]}
    assert kinds <= {"scatter", "bar", "heatmap"}


def test_axes_say_what_they_count(climbed: Run) -> None:
    """Every picture over time says whether it counts lineage steps or rounds of a member."""
    made = figures(climbed)
    for name in ("fitness", "schedules", "tree", "founders"):
        assert "lineage steps" in made[name]["layout"]["xaxis"]["title"]["text"]
    assert "round" in made["health"]["layout"]["xaxis"]["title"]["text"]


def test_the_plane_has_a_frame_for_every_round(climbed: Run) -> None:
    """The slider's steps name the frames, one for each round, and it begins at the last one."""
    plane = figures(climbed)["plane"]
    (slider,) = plane["layout"]["sliders"]
    assert [step["args"][0][0] for step in slider["steps"]] == [frame["name"] for frame in plane["frames"]]
    assert slider["active"] == len(plane["frames"]) - 1
    assert plane["frames"][-1]["data"][0]["x"] == plane["data"][0]["x"]


def test_strangers_words_are_no_tags(climbed: Run) -> None:
    """An option or a score name with a tag in it is text in the figure."""
    assert text("<b>\x1b") == "&lt;b&gt;?"
    assert "<i>" not in json.dumps(figures(climbed))
    hostile = history(rising(3, 3), application={"score": "<img src=x>"})
    assert "<img" not in json.dumps(figures(hostile))


def test_numbers_are_short() -> None:
    """Eight significant digits of a real number, whole numbers as they are, nothing for what is no number."""
    assert [short(v) for v in (1 / 3, 12345678901, float("nan"), None)] == [0.33333333, 12345678901, None, None]


@pytest.mark.long
@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_pictures_for_print(climbed: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, whole: bool) -> None:
    """One file per picture and format under the picture's name, the same bytes each time."""
    formats = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
    first = write_pictures(climbed, formats, tmp_path / "first")
    assert [path.name for path in first] == [f"{name}.{suffix}" for name in NAMES for suffix in formats]
    assert all(path.read_bytes().startswith(formats[path.suffix[1:]]) for path in first)
    again = write_pictures(climbed, formats if whole else ["png", "svg"], tmp_path / "again")
    if not whole:
        # PDF is most of the work: one picture of it is drawn again.
        monkeypatch.setattr("pbt.report.write.NAMES", NAMES[:1])
        again += write_pictures(climbed, formats, tmp_path / "one")
    assert len(again) == (len(first) if whole else 2 * len(NAMES) + 3)
    assert {path.name: path.read_bytes() for path in again}.items() <= {p.name: p.read_bytes() for p in first}.items()


def test_printed_words_are_no_formulas(tmp_path: Path) -> None:
    """A dollar in a name is drawn as a dollar."""
    hostile = history(rising(3, 3), application={"score": "$\\frac$ cost"})
    written = write_pictures(hostile, ["svg"], tmp_path)
    assert len(written) == len(NAMES) - 3


def test_drawing_changes_no_settings(climbed: Run, tmp_path: Path) -> None:
    """matplotlib's settings are afterwards what the user had made them."""
    import matplotlib as mpl

    with mpl.rc_context({"font.size": 31.0}):
        public.plot_tree(climbed)
        assert mpl.rcParams["font.size"] == 31.0
        assert not mpl.rcParams["svg.hashsalt"]


def counted_axes(made: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The plotly axes of whole numbers: steps, rounds, and the counts of the health figure."""
    steps = {name: made[name]["layout"]["xaxis"] for name in ("fitness", "schedules", "tree", "founders")}
    health = {name: made["health"]["layout"][name] for name in ("xaxis", "yaxis")}
    return steps | {f"health {name}": axis for name, axis in health.items()}


@pytest.mark.parametrize("rounds", [1, 2, 5, 40])
def test_ticks_of_counts_are_whole_numbers(rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps, rounds, founders and failures have ticks at whole numbers, and no label twice, in both libraries."""
    monkeypatch.setattr("tests.report.histories.INTERVAL", 1)
    scores: list[list[float | None]] = [[*row] for row in rising(rounds, 4)]
    scores[-1][0] = None  # one failure: an axis from 0 to 1
    run = history(scores, copies={(2, 1): 3} if rounds > 1 else {})
    for name, axis in counted_axes(figures(run)).items():
        assert axis["tickformat"] == ",~f", name  # which does not round
        # plotly.js chooses ticks closer than 1 for a range of at most 5.
        assert ("dtick" in axis) == (rounds < 40 or name == "health yaxis"), name
        assert axis.get("dtick", 1) == 1, name
    for name in ("fitness", "schedules", "tree", "founders", "health"):
        figure = getattr(public, f"plot_{name}")(run)
        figure.canvas.draw()
        counted = [axes.xaxis for axes in figure.axes]
        if name == "health":
            titles = [axes.get_title(loc="left") for axes in figure.axes]
            counted += [figure.axes[titles.index(one)].yaxis for one in ("founders with descendants", "failed rounds")]
        for axis in counted:
            low, high = sorted(axis.get_view_interval())
            ticks = [tick for tick in axis.get_majorticklocs() if low <= tick <= high]
            assert ticks == [round(tick) for tick in ticks], (name, ticks)
            labels = [axis.get_major_formatter()(tick) for tick in ticks]
            assert len(set(labels)) == len(labels) >= 1, (name, labels)


def test_one_picture_of_a_run(climbed: Run) -> None:
    """`plot_fitness(run)` gives a figure that can be changed and saved."""
    figure = public.plot_fitness(climbed)
    (axes,) = figure.axes
    assert "lineage steps" in axes.get_xlabel()
    assert axes.get_yscale() == "log"


def test_a_picture_that_cannot_be_is_an_error() -> None:
    """Where there is nothing to draw the error says why."""
    with pytest.raises(UsageError, match=r"'exploits' cannot be drawn\. No member copied another"):
        public.plot_exploits(history(rising(3, 3)))


EXTREMES: dict[str, Any] = {
    "one round": history([[1.0, 2.0, 3.0]]),
    "one member, one round": history([[1.0]]),
    "equal scores": history([[1.0] * 4] * 3, copies={(2, 0): 1}),
    "no hyperparameters": history(rising(3, 3), values={(1, m): {} for m in range(3)}, space={}),
    "all but one failed": history([[1.0, None, None], [2.0, None, None]]),
    "long names": history(
        rising(2, 3), values={(1, m): {"x" * 80: 0.5} for m in range(3)}, space={"x" * 80: pbt.Float(0, 1)}
    ),
    "huge scores": history([[1e100, -1e100], [1e101, -1e-100]]),
}


@pytest.mark.parametrize("kind", sampled(EXTREMES, ("all but one failed", "huge scores")))
def test_odd_runs_are_drawn(kind: str, tmp_path: Path) -> None:
    """Very short, uniform, failing and extreme runs give figures too, in both libraries."""
    run = EXTREMES[kind]
    shown = pictures(read_snapshot(run))
    expected = [name for name in NAMES if getattr(shown, name) is not None]
    assert json.dumps(figures(run), allow_nan=False)
    assert [path.stem for path in write_pictures(run, ["png"], tmp_path)] == expected


class TestAPictureStandsAlone:
    """Out of its page, a picture says which run it shows, names what it shows, and hides nothing without saying so."""

    def test_it_names_its_run(self) -> None:
        """Title, run, members, seed and the score's direction are in every figure of both libraries."""
        run = history([[3.0, 2.0], [1.0, 2.5]], copies={(2, 1): 0}, objective="minimize", application={"score": "loss"})
        line = "a run in memory · 2 members · seed 1 · loss: lower is better"
        for name, figure in figures(run).items():
            assert figure["layout"]["title"]["text"] == f"<b>{TITLES[name]}</b>"
            assert figure["layout"]["title"]["subtitle"]["text"] == line
            drawn = getattr(public, f"plot_{name}")(run)
            assert line in drawn.get_suptitle()
            titles = [axes.get_title(loc="left") for axes in drawn.axes]
            assert any(TITLES[name] in text for text in (drawn.get_suptitle(), *titles))
        assert figures(run)["fitness"]["layout"]["yaxis"]["title"]["text"] == "loss"

    def test_health_has_no_empty_panels(self) -> None:
        """What never happened, or was not recorded, has no panel; the sentence says so."""
        quiet = history(rising(3, 3))
        assert [axes.get_title(loc="left") for axes in public.plot_health(quiet).axes] == ["founders with descendants"]
        assert [trace["name"] for trace in figures(quiet)["health"]["data"]] == ["founders"]
        eventful = history([[1.0, 2.0, None], [1.0, 2.0, 3.0]], copies={(2, 2): 1})
        assert [trace["name"] for trace in figures(eventful)["health"]["data"]] == ["founders", "copied, %", "failed"]

    def test_few_counts_have_few_colors(self) -> None:
        """A matrix of ones and twos has two colors; of ones alone no scale; cells without copies say `never`."""
        twice = history(rising(3, 3), copies={(2, 0): 2, (3, 0): 2, (3, 1): 2})
        (trace,) = figures(twice)["exploits"]["data"]
        assert len({color for _, color in trace["colorscale"]}) == 2
        assert trace["colorbar"]["tickvals"] == [1, 2]
        assert trace["text"][2] == ["twice (round 2, 3)", "once (round 3)", "never"]
        once = history(rising(2, 3), copies={(2, 0): 2})
        assert figures(once)["exploits"]["data"][0]["showscale"] is False
        assert len(public.plot_exploits(once).axes) == 1
        assert len(public.plot_exploits(twice).axes) == 2

    def test_founders_are_named(self) -> None:
        """Each founder with a visible area has its number at it, even if extinct, and at its birth in the tree."""
        run = history(rising(4, 3), copies={(2, 0): 2, (3, 1): 2})
        notes = figures(run)["founders"]["layout"]["annotations"]
        assert sorted(note["text"] for note in notes) == ["0", "1", "member 2"]
        (births,) = [trace for trace in figures(run)["tree"]["data"] if trace["name"] == "initial members"]
        assert births["text"] == ["0", "1", "2"]
        labels = [text.get_text() for text in public.plot_founders(run).axes[0].texts]
        assert sorted(labels) == ["0", "1", "member 2"]

    def test_clipped_colors_are_said(self) -> None:
        """Where bad scores share the last color, its label says so, and the caption counts them."""
        run = history([[-50.0, 0.0, 0.1, 0.2], *[[0.0, 0.1, 0.2, 0.3]] * 20], values=VARIED)
        bar = figures(run)["plane"]["data"][0]["marker"]["colorbar"]
        assert bar["ticktext"][0] == "≤ 0"
        snapshot = read_snapshot(run)
        (section,) = [one for one in content(snapshot, pictures(snapshot)).sections if one.name == "plane"]
        assert "1 score below the end of the color scale share" in section.how
        whole = figures(history([[0.0, 0.1, 0.2, 0.3]] * 4, values=VARIED))["plane"]
        assert not any(label.startswith("≤") for label in whole["data"][0]["marker"]["colorbar"]["ticktext"])

    def test_equal_choices_are_drawn_apart(self) -> None:
        """Members with the same option have lines of their own around it; the label has the option itself."""
        space = {"rule": pbt.Choice(("x", "y"))}
        values = {(1, m): {"rule": "xxy"[m]} for m in range(3)}
        made = figures(history(rising(2, 3), values=values, space=space))["schedules"]["data"]
        (members,) = [trace for trace in made if trace["name"] == "members"]
        heights = [y for y, ref in zip(members["y"], members["customdata"], strict=True) if ref and ref[1] == 1]
        assert heights == [-0.2, 0.0, 1.2]

    def test_ties_are_counted(self) -> None:
        """Members with the same values are one dot with their number above it."""
        space = {"a": pbt.Int(1, 4), "b": pbt.Int(1, 4)}
        values = {(1, m): {"a": 1 + m // 3, "b": 2} for m in range(4)}
        values[1, 3] = {"a": 2, "b": 3}
        drawn = public.plot_plane(history(rising(1, 4), values=values, space=space))
        assert [text.get_text() for text in drawn.axes[0].texts] == ["×3"]  # noqa: RUF001


VARIED = {(1, m): {"lr": 0.1 + m / 10} for m in range(4)}


def test_importance_finds_what_matters() -> None:
    """The hyperparameter that the score follows is first, with its direction; one that is noise stays within chance."""
    space = {"good": pbt.Float(0, 1), "bad": pbt.Float(0, 1), "rule": pbt.Choice(("x", "y"))}
    noise = [3, 8, 1, 6, 0, 9, 4, 7, 2, 5]
    values = {(1, m): {"good": m / 10, "bad": noise[m] / 10, "rule": "xy"[m % 2]} for m in range(10)}
    record = importance(told([[float(m) for m in range(10)]] * 3, values=values, space=space))
    assert record is not None
    first = record.rows[0]
    assert (first.axis.name, first.score, first.rounds) == ("good", pytest.approx(1), 3)
    assert all(row.score is not None and abs(row.score) < row.chance for row in record.rows[1:])
    lower = importance(told([[float(m) for m in range(10)]] * 3, values=values, space=space, objective="minimize"))
    assert lower is not None
    assert lower.rows[0].score == pytest.approx(-1)
    assert importance(told(rising(3, 4))) is None


def test_parallel_lines_are_values_and_lineage_means() -> None:
    """A line of the last round has its values; a mean is weighted by the steps trained with each value."""
    space = {"a": pbt.Float(0.0, 1.0)}
    values = {(1, 0): {"a": 0.0}, (1, 1): {"a": 1.0}, (3, 0): {"a": 0.9}}
    record = parallel(told([[1.0, 2.0]] * 3, values=values, space=space))
    assert record is not None
    assert [line.ref for line in record.newest] == [(0, 3), (1, 3)]
    newest = {line.ref.member: line.heights[0] for line in record.newest}
    means = {line.ref.member: line.heights[0] for line in record.means}
    assert newest[1] == means[1]
    low, high = means[0], newest[0]
    assert low is not None
    assert high is not None
    assert newest[1] is not None
    # Drawn on one scale: 0.3 = (0 + 0 + 0.9) / 3 lies a third of the way from 0 to 0.9.
    scale = (newest[1] - high) / 0.1
    assert high - low == pytest.approx(0.6 * scale)


def test_the_toy_problems_are_drawn() -> None:
    """A run in memory is drawn like one on disk."""
    run = pbt.run(**CLIMB | {"rounds": 2})
    assert list(figures(run)) == list(NAMES)
