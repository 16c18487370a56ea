"""The networks in `models/`: each is what its card says."""

import os
from pathlib import Path

import pytest

from pbt.mnist.data.find import load_mnist
from pbt.mnist.model_file import load_model
from pbt.mnist.tester import evaluate, images_of

MODELS = sorted((Path(__file__).parents[2] / "models").glob("*.safetensors"))
REAL = os.environ.get("PBT_DATA_DIR", "")  # read before the other tests' fixture takes it away
CARD = Path(__file__).parents[2] / "models" / "README.md"


def test_there_are_models_and_a_card_for_each() -> None:
    """Every model file stands in the card, with the accuracy that the file itself records."""
    text = CARD.read_text(encoding="utf-8")
    assert MODELS
    for path in MODELS:
        state, _ = load_model(path)
        assert f"| `{path.name}` |" in text
        assert f"{100 * state['card']['test_accuracy']:.2f} %" in text


@pytest.mark.skipif(not REAL, reason="PBT_DATA_DIR names no folder with MNIST's four files")
@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=pytest.mark.slow if path.stem.startswith("conv") else ()) for path in MODELS],
    ids=lambda path: path.stem,
)
def test_a_model_reaches_the_accuracy_of_its_card(path: Path) -> None:
    """On the 10,000 test images of MNIST a model has the accuracy and loss that its card says."""
    data = load_mnist(Path(REAL), download=False)
    assert data.note == ""
    state, config = load_model(path)
    scores = evaluate(config, state, images_of(config, data, "test"))
    assert scores["accuracy"] == pytest.approx(state["card"]["test_accuracy"], abs=1e-9)
    assert scores["loss"] == pytest.approx(state["card"]["test_loss"], rel=1e-4)


def test_the_models_are_those_that_the_card_lists() -> None:
    """The card lists no model that is not there."""
    listed = [line.split("`")[1] for line in CARD.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert sorted(listed) == [path.name for path in MODELS]
