"""`pbt mnist`: what can be done with the networks that the MNIST application trained."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from pbt.cli.options import Flag, print_json
from pbt.errors import UsageError
from pbt.runs.catalog import find_run
from pbt.runs.results import Run
from pbt.terminal.console import console_for
from pbt.text import printable

app = App(
    name="mnist",
    help="Use a trained network of the MNIST application.\n\nExample: pbt mnist predict digit.png --model runs/latest",
    help_format="plaintext",
)


@app.command
def predict(
    *images: Annotated[Path, Parameter(name="IMAGE")],
    model: Path,
    json: Annotated[Flag, Parameter(name="--json")] = False,
) -> int:
    """Read the digit in each image file: dark ink on light ground or light on dark, one digit an image.

    Example: pbt mnist predict digit.png --model runs/latest

    Args:
        images: Image files in any common format.
        model: A run, a checkpoint in one, or a model file.
        json: Print one JSON list.
    """
    from pbt.mnist.config.record import Config
    from pbt.mnist.model_file import load_model
    from pbt.mnist.predict import predict as read_digit
    from pbt.mnist.predict import read_image

    if not images:
        raise UsageError("expected one or more image files, got none")
    if model.is_dir():
        run = Run.open(find_run(str(model)))
        if "config" not in run.meta["application"]:
            raise UsageError(f"{model}: expected a run of the MNIST application, found one of {run.meta['task']}")
        state, config = run.load_state(), Config.from_dict(run.meta["application"]["config"])
    else:
        state, config = load_model(model)
    found = []
    for path in images:
        seen = read_digit(state, config, read_image(path, config.train.height, config.train.width))
        found.append({"image": str(path), "digit": seen.digit, "confidence": seen.confidence})
    if json:
        print_json(found)
        return 0
    console = console_for()
    for row in found:
        console.print(f"{printable(row['image'])}: {row['digit']} ({row['confidence']:.1%})", soft_wrap=True)
    return 0


@app.command
def export(run: Annotated[str, Parameter(name="RUN")], path: Annotated[Path, Parameter(name="FILE")], /) -> int:
    """Write the network that validation chose into one file, with its configuration and what the test images say.

    Example: pbt mnist export runs/latest models/fc.safetensors

    Args:
        run: The run directory.
        path: The model file to write, ending in .safetensors.
    """
    from pbt.mnist.model_file import save_model

    if path.suffix != ".safetensors" or path.exists():
        raise UsageError(f"{path}: expected the name of a new .safetensors file")
    path.parent.mkdir(parents=True, exist_ok=True)
    tested = save_model(Run.open(find_run(run)), path)
    console_for().print(
        f"{path}: test accuracy {tested.accuracy:.4f} on {tested.images:,} images of {tested.data}", soft_wrap=True
    )
    return 0
