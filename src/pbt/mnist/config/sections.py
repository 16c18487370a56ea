"""The sections of a configuration: every key with its type, range, default and meaning.

These models are the one place that knows a key. Errors, `config/config_params.md` and the typed values that the
application reads all come from here.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from pbt.mnist.config.values import (
    FILE,
    FLAG,
    FOLDER,
    HYPERPARAMETERS,
    Bounds,
    Kind,
    many,
    one_of,
    optional,
    real,
    suffix,
    whole,
)

Model = Literal["fc", "conv"]
Metric = Literal["accuracy_categ", "accuracy_onehot", "accuracy", "error", "loss"]
Executor = Literal["auto", "inline", "processes", "vectorized", "ray"]
DataOrder = Literal["shared", "member"]
Pixels = Literal["standard", "original"]
TestVersion = Literal["test_MPL", "test_none"]

_SUFFIX = suffix(40)
_SIZES = many(whole(1, 65_536), "layer sizes", 1, 64)
_SECONDS = real(Bounds(low=0, high=86_400))
_LARGEST_SEED = 2**63 - 1  # what the event log can hold


def _key(default: object, meaning: str, *, example: object = None) -> Any:
    """A key; its default is its example unless another says more."""
    return Field(default, description=meaning, examples=[default if example is None else example])


def _derived(default: Callable[[dict[str, Any]], object], text: str, meaning: str, *, example: object) -> Any:
    """A key whose default follows from keys above it, described by `text`."""
    return Field(default_factory=default, description=meaning, examples=[example], json_schema_extra={"default": text})


class Section(BaseModel):
    """What the sections have in common; `test` and `val` take from `train` what they do not say themselves."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", protected_namespaces=())

    data_dir: Annotated[Path, BeforeValidator(FOLDER)] = _key(
        Path("data"), "folder with the data set; only the default falls back to other places"
    )
    train_dir: Annotated[Path, BeforeValidator(FOLDER)] = _key(
        Path("runs"), "folder in which a dated training directory is made"
    )
    data_loader: Annotated[Literal["mnist_loader"], BeforeValidator(one_of(("mnist_loader",)))] = _key(
        "mnist_loader", "name of the loader"
    )
    model: Annotated[Model, BeforeValidator(one_of(get_args(Model)))] = Field(
        description="network: fully connected or convolutional", examples=["fc"]
    )
    height: Annotated[int, BeforeValidator(whole(1, 1024))] = _key(28, "height of an image, pixels")
    width: Annotated[int, BeforeValidator(whole(1, 1024))] = _key(28, "width of an image, pixels")
    num_channels: Annotated[int, BeforeValidator(whole(1, 16))] = _key(
        1, "channels of an image; 3 reads PNG files as RGB"
    )
    num_classes: Annotated[int, BeforeValidator(whole(2, 1000))] = _key(10, "classes, the network's outputs")
    n_filters: Annotated[tuple[int, ...], BeforeValidator(_SIZES)] = _key(
        (16, 32), "conv: filters of each layer, from the first"
    )
    n_hiddens: Annotated[tuple[int, ...], BeforeValidator(_SIZES)] = _key(
        (256, 256), "fc: size of each hidden layer, from the first"
    )
    batch_norm: Annotated[bool, BeforeValidator(FLAG)] = _key(True, "batch normalization after each hidden layer")
    pixels: Annotated[Pixels, BeforeValidator(one_of(get_args(Pixels)))] = _key(
        "standard",
        "how a pixel p becomes an input: standard: (p / 255 - 0.1307) / 0.3081; original: (p - 0.1307) / 0.3081 / 255, "
        "as the original computes it, for networks imported from there",
    )
    seed: Annotated[int, BeforeValidator(whole(0, _LARGEST_SEED))] = _key(117, "seed of every draw of a run")
    worker_num: Annotated[int, BeforeValidator(whole(0, 9999))] = _key(
        0, "population: the worker that an `args_*_<w>.json` belongs to; a configuration file keeps 0"
    )
    gpus: Annotated[tuple[int, ...], BeforeValidator(many(whole(0, 1023), "device numbers", 0, 64, distinct=True))] = (
        _key(
            (),
            "GPUs, dealt to the workers of a population round robin; a single network, a test and an evaluation use "
            "the first, because copying so small a network between GPUs in every step takes longer than the step; "
            "empty: the CPU; where the named GPUs are missing, other GPUs or the CPU, with a notice",
            example=(0, 1),
        )
    )
    num_val: Annotated[int, BeforeValidator(whole(0, 59_999))] = _key(
        5000,
        "training images held out for selection, the same for everybody; with 0 the best is the last; the default is "
        "lowered to a sixth of the training images where it is more than a fifth",
    )
    threads: Annotated[int | None, BeforeValidator(optional(whole(1, 1024)))] = _key(
        None, "CPU threads of one worker; nothing: as many as its share of the cores", example=1
    )


_Metric = Annotated[Metric, BeforeValidator(one_of(get_args(Metric)))]
_LoadCkpt = Annotated[str, BeforeValidator(FILE)]
_BatchSize = Annotated[int, BeforeValidator(whole(1, 60_000))]
_Hyperparameter = {name: BeforeValidator(real(limits)) for name, limits in HYPERPARAMETERS.items()}


class TrainSection(Section):
    """How a network, or a population of them, is trained."""

    version: Annotated[Literal["train_MPL"], BeforeValidator(one_of(("train_MPL",)))] = _key(
        "train_MPL", "name of the training script"
    )
    metric: _Metric = _key(
        "accuracy", "metric of the held-out images, reported beside loss and accuracy as `val_<metric>`"
    )
    batch_size: _BatchSize = _key(
        200, "images of a training step; those that fill none at the end of an epoch are left out"
    )
    load_ckpt: _LoadCkpt = _key(
        "",
        "single network: a checkpoint of a training directory continues from there (`latest` in the same directory, an "
        "earlier one in a new directory); a model file is fine-tuned; empty: start anew",
        example="ckpts/latest.safetensors",
    )
    lr: Annotated[float, _Hyperparameter["lr"]] = _key(0.01, "learning rate")
    keep_prob: Annotated[float, _Hyperparameter["keep_prob"]] = _key(0.8, "1 - dropout probability")
    weight_decay: Annotated[float, _Hyperparameter["weight_decay"]] = _key(1e-5, "weight decay of Adam")
    label_smoothing: Annotated[float, _Hyperparameter["label_smoothing"]] = _key(0.0, "of the cross-entropy")
    beta1: Annotated[float, _Hyperparameter["beta1"]] = _key(0.9, "Adam's decay of the gradient's mean")
    beta2: Annotated[float, _Hyperparameter["beta2"]] = _key(0.999, "Adam's decay of the squared gradient's mean")
    decreasing_lr_epochs: Annotated[
        tuple[int, ...], BeforeValidator(many(whole(1, 1_000_000), "epochs", 0, 1000, distinct=True))
    ] = _key(
        (),
        "epochs after which the learning rate is halved; not together with `PBT_lr`, which evolves it",
        example=(10, 20),
    )
    num_epochs: Annotated[int, BeforeValidator(whole(1, 1_000_000))] = _key(
        30, "epochs of training; population: of one session, by default 1"
    )
    num_iters_for_ckpt: Annotated[int, BeforeValidator(whole(1, 1_000_000_000))] = _key(
        100, "steps between checkpoints; population: between training losses in TensorBoard"
    )
    shuffle: Annotated[bool, BeforeValidator(FLAG)] = _key(True, "a new order of the images in each epoch")
    crop: Annotated[bool, BeforeValidator(FLAG)] = _key(
        False, "random crops of the padded image; with `crop_shift` above 0"
    )
    hflip: Annotated[bool, BeforeValidator(FLAG)] = _key(False, "random mirror images, left to right")
    vflip: Annotated[bool, BeforeValidator(FLAG)] = _key(False, "random mirror images, top to bottom")
    crop_shift: Annotated[int, BeforeValidator(whole(0, 1023))] = _key(0, "largest shift of a crop, pixels")
    mutation: Annotated[
        tuple[float, ...],
        BeforeValidator(many(real(Bounds(low=0, high=1000, open_low=True)), "factors", 1, 100)),
    ] = _key((0.8, 1.2), "factors, one drawn for each evolving value that is explored")
    num_epochs_tot: Annotated[int, BeforeValidator(whole(1, 1_000_000))] = _key(50, "population: epochs in all")
    num_worker_tot: Annotated[int, BeforeValidator(whole(1, 10_000))] = _key(10, "size of the population")
    num_workers_paral: Annotated[int, BeforeValidator(whole(1, 10_000))] = _derived(
        lambda data: data.get("num_worker_tot", 1),
        "num_worker_tot",
        "how many train at once at most; not more than `num_worker_tot`",
        example=10,
    )
    exploit_fraction: Annotated[float, BeforeValidator(real(Bounds(low=0, high=0.5)))] = _key(
        0.2,
        "share of the population that is replaced by copies of the best share: the number of workers is rounded up, as "
        "in the original (of 7 workers 2, of 12 workers 3), and at most half",
    )
    executor: Annotated[Executor, BeforeValidator(one_of(get_args(Executor)))] = _key(
        "auto",
        "how members are run; auto tries what is faster here; a single network takes auto, inline or ray",
    )
    data_order: Annotated[DataOrder, BeforeValidator(one_of(get_args(DataOrder)))] = _key(
        "shared", "order of the images: the same for all members, or each its own"
    )


class EvaluationSection(Section):
    """How a checkpoint is evaluated, on whichever images."""

    version: Annotated[TestVersion, BeforeValidator(one_of(get_args(TestVersion)))] = _key(
        "test_MPL", "name of the test script; test_none: no test, and -1 where tables have its results"
    )
    metric: _Metric = _key("accuracy_categ", "metric that is reported beside loss and accuracy")
    batch_size: _BatchSize = _key(
        1, "images evaluated at once, which changes no result; 1, as in the original's files: as many as are fast"
    )
    load_ckpt: _LoadCkpt = _key(
        "",
        "checkpoint or model file to evaluate; empty: the best of the newest run",
        example="ckpts/best_0.safetensors",
    )


class TestSection(EvaluationSection):
    """How a checkpoint is tested."""

    __test__ = False  # by its name a test runner would take it for tests

    sleep_time_sec: Annotated[float, BeforeValidator(_SECONDS)] = _key(
        20.0, "single network: pause between tests while training runs, seconds"
    )


class ValSection(EvaluationSection):
    """How a checkpoint is evaluated on the held-out images."""

    val: Annotated[str, BeforeValidator(_SUFFIX)] = _key(
        "_val", "suffix of the table that this evaluation adds to: `results<val>.csv`"
    )


SECTIONS: dict[str, type[Section]] = {"train": TrainSection, "test": TestSection, "val": ValSection}

INHERITED = frozenset(Section.model_fields)
"""Keys that `test` and `val` take from `train` where neither they nor `general` say them."""

FIXED = INHERITED - {"data_dir", "train_dir", "data_loader", "seed", "worker_num", "gpus", "threads"}
"""Keys in which the sections must agree: one network, and the same images held out from it."""


def expected(section: str, name: str) -> str:
    """What the value of a key must look like, in words."""
    for item in SECTIONS[section].model_fields[name].metadata:
        if isinstance(item, BeforeValidator) and isinstance(item.func, Kind):
            return item.func.expected
    raise KeyError(name)


def owners(name: str) -> list[str]:
    """The sections that know a key."""
    return [section for section, model in SECTIONS.items() if name in model.model_fields]
