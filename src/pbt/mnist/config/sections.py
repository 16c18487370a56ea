"""The sections of a configuration: every key with its type, range, default and meaning.

Errors, `config/config_params.md` and the typed values of the application are all made from these models.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from pbt.mnist.config.types import (
    HYPERPARAMETERS,
    Distinct,
    Entries,
    File,
    Folder,
    Integer,
    Number,
    OptionalInteger,
    Suffix,
    Switch,
    describe,
)

Model = Literal["fc", "conv"]
Metric = Literal["accuracy_categ", "accuracy_onehot", "accuracy", "error", "loss"]
Executor = Literal["auto", "inline", "processes", "vectorized", "ray"]
DataOrder = Literal["shared", "member"]
Pixels = Literal["standard", "original"]
TestVersion = Literal["test_MPL", "test_none"]

_Sizes = Annotated[tuple[Annotated[Integer, Field(ge=1, le=65_536)], ...], Entries, "layer sizes"]
_Devices = Annotated[tuple[Annotated[Integer, Field(ge=0, le=1023)], ...], Entries, Distinct, "device numbers"]
_Epochs = Annotated[tuple[Annotated[Integer, Field(ge=1, le=1_000_000)], ...], Entries, Distinct, "epochs"]
_Factors = Annotated[tuple[Annotated[Number, Field(gt=0, le=1000)], ...], Entries, "factors"]
_LARGEST_SEED = 2**63 - 1  # the largest integer of the event log


def _key(default: object, meaning: str, *, example: object = None, **limits: Any) -> Any:
    """A key with its limits; its example is its default unless another one is given."""
    return Field(default, description=meaning, examples=[default if example is None else example], **limits)


def _derived(
    default: Callable[[dict[str, Any]], object], text: str, meaning: str, *, example: object, **limits: Any
) -> Any:
    """A key whose default follows from earlier keys, as described by `text`."""
    return Field(
        default_factory=default,
        description=meaning,
        examples=[example],
        json_schema_extra={"default": text},
        **limits,
    )


class Section(BaseModel):
    """The keys of all sections; `test` and `val` take from `train` the keys that they do not have."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", protected_namespaces=())

    data_dir: Folder = _key(Path("data"), "folder with the data set; only the default falls back to other places")
    train_dir: Folder = _key(Path("runs"), "folder in which a dated training directory is made")
    data_loader: Literal["mnist_loader"] = _key("mnist_loader", "name of the loader")
    model: Model = Field(description="network: fully connected or convolutional", examples=["fc"])
    height: Integer = _key(28, "height of an image, pixels", ge=1, le=1024)
    width: Integer = _key(28, "width of an image, pixels", ge=1, le=1024)
    num_channels: Integer = _key(1, "channels of an image; 3 reads PNG files as RGB", ge=1, le=16)
    num_classes: Integer = _key(10, "classes, the network's outputs", ge=2, le=1000)
    n_filters: _Sizes = _key(
        (16, 32),
        "conv: filters of each layer, from the first",
        min_length=1,
        max_length=64,
    )
    n_hiddens: _Sizes = _key(
        (256, 256),
        "fc: size of each hidden layer, from the first",
        min_length=1,
        max_length=64,
    )
    batch_norm: Switch = _key(True, "batch normalization after each hidden layer")
    pixels: Pixels = _key(
        "standard",
        "how a pixel p becomes an input: standard: (p / 255 - 0.1307) / 0.3081; original: (p - 0.1307) / 0.3081 / 255, "
        "as the original computes it, for networks imported from there",
    )
    seed: Integer = _key(117, "seed of every draw of a run", ge=0, le=_LARGEST_SEED)
    worker_num: Integer = _key(
        0, "population: the worker that an `args_*_<w>.json` belongs to; a configuration file keeps 0", ge=0, le=9999
    )
    gpus: _Devices = _key(
        (),
        "GPUs, dealt to the workers of a population round robin; a single network, a test and an evaluation use "
        "the first, because copying so small a network between GPUs in every step takes longer than the step; "
        "empty: the CPU; where the named GPUs are missing, other GPUs or the CPU, with a notice",
        example=(0, 1),
        max_length=64,
    )
    num_val: Integer = _key(
        5000,
        "training images held out for selection, always the same; with 0 the best is the last; the default is "
        "lowered to a sixth of the training images where it is more than a fifth",
        ge=0,
        le=59_999,
    )
    threads: OptionalInteger = _key(
        None, "CPU threads of one worker; nothing: as many as its share of the cores", example=1, ge=1, le=1024
    )


_BatchSize = Annotated[Integer, Field(ge=1, le=60_000)]


class TrainSection(Section):
    """The training of a network or a population."""

    version: Literal["train_MPL"] = _key("train_MPL", "name of the training script")
    metric: Metric = _key(
        "accuracy", "metric of the held-out images, reported beside loss and accuracy as `val_<metric>`"
    )
    batch_size: _BatchSize = _key(
        200, "images of a training step; those that fill none at the end of an epoch are left out"
    )
    load_ckpt: File = _key(
        "",
        "single network: a checkpoint of a training directory continues from there (`latest` in the same directory, an "
        "earlier one in a new directory); a model file is fine-tuned; empty: start with a new network",
        example="ckpts/latest.safetensors",
    )
    lr: Annotated[Number, HYPERPARAMETERS["lr"]] = _key(0.01, "learning rate")
    keep_prob: Annotated[Number, HYPERPARAMETERS["keep_prob"]] = _key(0.8, "1 - dropout probability")
    weight_decay: Annotated[Number, HYPERPARAMETERS["weight_decay"]] = _key(1e-5, "weight decay of Adam")
    label_smoothing: Annotated[Number, HYPERPARAMETERS["label_smoothing"]] = _key(0.0, "of the cross-entropy")
    beta1: Annotated[Number, HYPERPARAMETERS["beta1"]] = _key(0.9, "Adam's decay of the gradient's mean")
    beta2: Annotated[Number, HYPERPARAMETERS["beta2"]] = _key(0.999, "Adam's decay of the squared gradient's mean")
    decreasing_lr_epochs: _Epochs = _key(
        (),
        "epochs after which the learning rate is halved; not together with `PBT_lr`, which evolves it",
        example=(10, 20),
        max_length=1000,
    )
    num_epochs: Integer = _key(30, "epochs of training; population: of one session, by default 1", ge=1, le=1_000_000)
    num_iters_for_ckpt: Integer = _key(
        100, "steps between checkpoints; population: between training losses in TensorBoard", ge=1, le=1_000_000_000
    )
    shuffle: Switch = _key(True, "a new order of the images in each epoch")
    crop: Switch = _key(False, "random crops of the padded image; with `crop_shift` above 0")
    hflip: Switch = _key(False, "random mirror images, left to right")
    vflip: Switch = _key(False, "random mirror images, top to bottom")
    crop_shift: Integer = _key(0, "largest shift of a crop, pixels", ge=0, le=1023)
    mutation: _Factors = _key(
        (0.8, 1.2), "factors, one drawn for each evolving value that is explored", min_length=1, max_length=100
    )
    num_epochs_tot: Integer = _key(50, "population: epochs in all", ge=1, le=1_000_000)
    num_worker_tot: Integer = _key(10, "size of the population", ge=1, le=10_000)
    num_workers_paral: Integer = _derived(
        lambda data: data.get("num_worker_tot", 1),
        "num_worker_tot",
        "how many train at once at most; not more than `num_worker_tot`",
        example=10,
        ge=1,
        le=10_000,
    )
    exploit_fraction: Number = _key(
        0.2,
        "share of the population that is replaced by copies of the best share: the number of workers is rounded up, as "
        "in the original (of 7 workers 2, of 12 workers 3), and at most half",
        ge=0,
        le=0.5,
    )
    executor: Executor = _key(
        "auto",
        "how members are run; auto measures which one is faster; a single network takes auto, inline or ray",
    )
    data_order: DataOrder = _key("shared", "order of the images: the same for all members, or each its own")


class EvaluationSection(Section):
    """The evaluation of a checkpoint."""

    version: TestVersion = _key(
        "test_MPL", "name of the test script; test_none: no test, and -1 where tables have its results"
    )
    metric: Metric = _key("accuracy_categ", "metric that is reported beside loss and accuracy")
    batch_size: _BatchSize = _key(
        1, "images evaluated at once, which changes no result; 1, as in the original's files: as many as are fast"
    )
    load_ckpt: File = _key(
        "",
        "checkpoint or model file to evaluate; empty: the best of the newest run",
        example="ckpts/best_0.safetensors",
    )


class TestSection(EvaluationSection):
    """The evaluation of a checkpoint on the test images."""

    __test__ = False  # pytest would collect it by its name

    sleep_time_sec: Number = _key(
        20.0, "single network: pause between tests while training runs, seconds", ge=0, le=86_400
    )


class ValSection(EvaluationSection):
    """The evaluation of a checkpoint on the held-out images."""

    val: Suffix = _key("_val", "suffix of the table that this evaluation adds to: `results<val>.csv`")


SECTIONS: dict[str, type[Section]] = {"train": TrainSection, "test": TestSection, "val": ValSection}

INHERITED = frozenset(Section.model_fields)
"""Keys that `test` and `val` take from `train` if neither they nor `general` have them."""

FIXED = INHERITED - {"data_dir", "train_dir", "data_loader", "seed", "worker_num", "gpus", "threads"}
"""Keys that must be equal in all sections, because they describe the network and its held-out images."""


def expected(section: str, name: str) -> str:
    """The values that a key accepts, in words."""
    info = SECTIONS[section].model_fields[name]
    return describe(info.annotation, info.metadata)


def owners(name: str) -> list[str]:
    """The sections that have a key."""
    return [section for section, model in SECTIONS.items() if name in model.model_fields]
