"""The programs of the hand-over's contract cover what they should."""

from dataclasses import fields

import pytest

from pbt.testing.recipes import FORMS, Recipe, drawn
from pbt.testing.schedulers import SCHEDULERS

OPTIONS = {
    "optimizer": {"sgd", "momentum", "nesterov", "adam", "adamw", "rmsprop", "adagrad", "counting"},
    "groups": {"one", "rates", "no_decay", "own"},
    "buffers": {"none", "persistent", "hidden", "batch_norm"},
    "counter": {"none", "number", "Counter"},
    "unfreeze": {"never", "flag", "group", "default_group"},
    "evaluation": {"pure", "kept", "dropped"},
    "scheduler": {"none", *SCHEDULERS},
}


@pytest.mark.long
@pytest.mark.parametrize("form", FORMS)
def test_the_draws_repeat(form) -> None:
    """Every call draws the same programs, at least thirty, all different."""
    found = drawn(form)
    assert found == drawn(form)
    assert len(set(found)) == len(found) >= 30
    assert found != drawn(form, start=1)


def test_every_option_is_drawn() -> None:
    """In the class form, which can do everything, each option of each field occurs; in all forms, each scheduler."""
    found = drawn("class")
    for field in fields(Recipe):
        drawn_here = {getattr(recipe, field.name) for recipe in found}
        if field.name != "at":
            assert drawn_here == OPTIONS.get(field.name, {True, False}), field.name
    for form in FORMS:
        assert {recipe.scheduler for recipe in drawn(form)} == OPTIONS["scheduler"]
