"""The character model is what its definition says: its text, its splits, its inputs, its decay."""

import json
import math
import sys
from dataclasses import replace

import pytest
import torch

import pbt
from pbt.cli.app import main
from pbt.errors import DataError, UsageError
from pbt.problems import load, text
from pbt.problems.text import CONTEXT, KINDS, SYMBOLS, examples, one_hot, paragraphs, splits, text_data


def decoded(codes):
    """The characters of these codes; unknown ones as NUL."""
    return "".join(SYMBOLS[code] if code < len(SYMBOLS) else "\0" for code in codes)


def test_no_paragraph_is_in_two_splits():
    """Topics quote one another; each paragraph is in one split, once, and every tenth is validated and tested on."""
    parts = splits()
    together = [part for split in parts for part in split]
    assert len(together) == len(set(together)) == len(paragraphs())
    assert [len(split) // 10 for split in parts] == pytest.approx([len(paragraphs()) * 8 // 100] + [20] * 2, abs=2)


def test_an_example_is_five_characters_and_the_next():
    """Each window of six characters stands in the text; known characters keep their place, others share a symbol."""
    split = examples(["abcdef", "\u00df"])
    line = "\n\nabcdef\n\n\0"
    found = [decoded(x) + decoded([y]) for x, y in zip(split.inputs.tolist(), split.targets.tolist(), strict=True)]
    assert found == [line[i : i + CONTEXT + 1] for i in range(len(line) - CONTEXT)]


def test_what_is_held_out_is_bounded_and_spread():
    """Validation and test have 5,000 characters each, from the first paragraph of their split to the last."""
    data = text_data()
    assert len(data.validation) == len(data.test) == text.HELD_OUT
    whole = examples(splits()[2])
    assert torch.equal(data.test.inputs[0], whole.inputs[0])
    assert any(torch.equal(data.test.inputs[-1], row) for row in whole.inputs[-len(whole) // text.HELD_OUT - 1 :])


def test_inputs_are_one_hot():
    """Each of the five characters has one 1 among its 97 places."""
    codes = torch.tensor([[0, 1, 2, KINDS - 1, 5]], dtype=torch.uint8)
    hot = one_hot(codes).reshape(CONTEXT, KINDS)
    assert hot.sum(dim=1).tolist() == [1.0] * CONTEXT
    assert hot.argmax(dim=1).tolist() == codes[0].tolist()


def test_the_decay_is_a_cosine_from_each_members_own_rate():
    """After 150 of 3,000 steps every rate is at cos^2 of its phase, times the value that the member was given."""
    run = replace(load("text-cosine"), population=2, rounds=1).run()
    for member in run.view.population:
        rate = run.load_state(member.state)["optimizer"]["param_groups"][0]["lr"]
        assert float(rate) == pytest.approx(member.hparams["lr"] * math.cos(math.pi * 150 / 6000) ** 2, rel=1e-4)


def test_a_run_records_its_text(tmp_path, monkeypatch):
    """The digest of the text is the run's note, and a run is not resumed on the text of another Python."""
    replace(load("text"), population=2, rounds=1).run(tmp_path / "run")
    note = pbt.Run.open(tmp_path / "run").meta["application"]["note"]
    assert text.digest() in note
    monkeypatch.setattr(text, "digest", lambda: "0" * 12)
    with pytest.raises(UsageError, match=f"{note}.*{'0' * 12}"):
        replace(load("text"), population=2, rounds=2).run(tmp_path / "run", resume=True)


@pytest.mark.usefixtures("warm")
def test_a_comparison_is_by_the_test_loss(tmp_path, monkeypatch, capsys):
    """Plans are compared by the loss on test paragraphs, lower is better, and never on two different texts."""
    words = [
        "compare",
        "text",
        "--plans",
        "pbt",
        "--seeds",
        "1",
        "--rounds",
        "1",
        "--population",
        "2",
        "--workers",
        "1",
        "--quiet",
    ]
    words += ["--out", str(tmp_path / "out")]
    assert main(words) == 0
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())
    best = pbt.Run.open(tmp_path / "out" / "pbt" / "seed-0").best
    assert (found["metric"], found["better"]) == ("test_loss", "lower")
    assert found["plans"]["pbt"]["runs"][0]["values"]["test_loss"] == best.reported["test_loss"] != -best.score
    monkeypatch.setattr(text, "digest", lambda: "0" * 12)
    assert main(words) == 2
    assert "another note" in capsys.readouterr().err


def test_a_python_without_its_documentation_is_refused_before_the_start(monkeypatch):
    """Where the standard library lacks the module the error names it."""
    paragraphs.cache_clear()
    text_data.cache_clear()
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(DataError, match=r"pydoc_data\.topics"):
        load("text")
