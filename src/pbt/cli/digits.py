"""`pbt mnist`: use, export and import networks of the MNIST application."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from pbt.cli.options import Flag, print_json
from pbt.errors import UsageError
from pbt.runs.catalog import find_run, opened
from pbt.terminal.console import console_for
from pbt.text import printable

app = App(
    name="mnist",
    help="""Use, export and import networks of the MNIST application.

Example: pbt mnist predict digit.png --model runs/latest""",
    help_format="plaintext",
)


SURE = 0.8
"""Probability below which a guess is marked."""


@app.command
def predict(
    *images: Annotated[Path, Parameter(name="IMAGE")],
    model: Path,
    json: Annotated[Flag, Parameter(name="--json")] = False,
) -> int:
    """Recognize the digit in each image file: one digit per image, dark on light or light on dark.

    Example: pbt mnist predict digit.png --model runs/latest

    Args:
        images: BMP, GIF, JPEG, PNG, TIFF or WebP files.
        model: Run directory, checkpoint or model file.
        json: Print a JSON list.
    """
    from pbt.mnist.config.record import Config
    from pbt.mnist.model_file import load_model
    from pbt.mnist.predict import predict as read_digit
    from pbt.mnist.predict import read_image

    if not images:
        raise UsageError("expected one or more image files, got none")
    if model.is_dir():
        with opened(find_run(str(model))) as (run, _):
            if "config" not in run.meta["application"]:
                task = run.meta.get("task", "an unknown task")
                raise UsageError(f"{model}: expected a run of the MNIST application, found one of {task}")
            state, config = run.load_state(), Config.from_dict(run.meta["application"]["config"])
    else:
        state, config = load_model(model)
    size = config.train.height, config.train.width
    found = [(path, read_digit(state, config, read_image(path, *size))) for path in images]
    if json:
        print_json([{"image": str(path), "digit": seen.digit, "confidence": seen.confidence} for path, seen in found])
        return 0
    console = console_for()
    for path, seen in found:
        doubt = "" if seen.confidence >= SURE else "; not sure: another digit, or none, is well possible"
        console.print(f"{printable(path)}: {seen.digit} ({seen.confidence:.1%}){doubt}", soft_wrap=True)
    return 0


@app.command
def export(run: Annotated[str, Parameter(name="RUN")], path: Annotated[Path, Parameter(name="FILE")], /) -> int:
    """Write the network with the best validation score into a model file, and test it.

    Example: pbt mnist export runs/latest models/fc.safetensors

    Args:
        run: Run directory.
        path: Model file to write, ending in .safetensors.
    """
    from pbt.mnist.model_file import save_model

    if path.suffix != ".safetensors" or path.exists():
        raise UsageError(f"{path}: expected a new file name ending in .safetensors")
    path.parent.mkdir(parents=True, exist_ok=True)
    with opened(find_run(run)) as (found, _):
        tested = save_model(found, path)
    console_for().print(
        f"{path}: test accuracy {tested.accuracy:.4f} on {tested.images:,} images of {tested.data}", soft_wrap=True
    )
    return 0


@app.command(name="import")
def import_(
    path: Annotated[Path, Parameter(name="FILE")],
    target: Annotated[Path | None, Parameter(name="MODEL")] = None,
    /,
    *,
    i_trust_this_file: Flag = False,
    pixels: Literal["original", "standard"] | None = None,
    num_channels: int = 1,
    height: int = 28,
    width: int = 28,
    data_dir: Annotated[Path | None, Parameter(name=["--data-dir", "--data_dir"])] = None,
) -> int:
    """Convert a checkpoint of the original (victoriamazo/pbt) to a model file, and test it.

    Example: pbt mnist import model_ckpt_best.pth.tar fc.safetensors --i-trust-this-file

    Args:
        path: Checkpoint, such as model_ckpt_best.pth.tar; at most 256 MiB.
        target: Model file to write. Default: the same name, ending in .safetensors.
        i_trust_this_file: Required: the file is a pickle. Only weights are read, but that reader has had holes.
        pixels: Pixel scaling in its training (config/config_params.md). Default: the one with the lower loss.
        num_channels: Number of channels of its images.
        height: Height of its images in pixels.
        width: Width of its images in pixels.
        data_dir: Folder of the data set. Default: the usual search (docs/mnist.md).
    """
    from pbt.mnist.model_file import import_model

    if not i_trust_this_file:
        raise UsageError(
            f"{path} is a pickle, which can contain programs; only weights are read, but torch's reader has had "
            "security holes; if you trust its author, add --i-trust-this-file"
        )
    name = path.name
    for end in (".tar", ".pth", ".pt"):
        name = name.removesuffix(end)
    target = target or Path(f"{name}.safetensors")
    if target.suffix != ".safetensors" or target.exists():
        raise UsageError(f"{target}: expected a new file name ending in .safetensors")
    target.parent.mkdir(parents=True, exist_ok=True)
    tested = import_model(path, target, image=(num_channels, height, width), pixels=pixels, data_dir=data_dir)
    lines = [f"network: {tested.network}", f"data: {tested.data}"]
    lines.append(f"{target}: test accuracy {tested.accuracy:.4f} on {tested.images:,} images")
    console_for().print("\n".join(map(printable, lines)), soft_wrap=True)
    return 0
