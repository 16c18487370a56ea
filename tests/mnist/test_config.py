import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pbt.errors import ConfigError
from pbt.mnist.config.evolving import Evolving
from pbt.mnist.config.record import Config, load_config
from pbt.mnist.config.reference import reference
from pbt.mnist.config.sections import SECTIONS

SHIPPED = Path(__file__).parents[2] / "config"

Load = Callable[..., Config]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Writes a configuration and reads it; keys given by name are those of `train`."""

    def write_and_load(
        sections: dict[str, Any] | None = None, overrides: dict[str, object] | None = None, **train: object
    ) -> Config:
        path = tmp_path / "c.json"
        content = sections if sections is not None else {"train": {"model": "fc", **train}}
        path.write_text(json.dumps(content))
        return load_config(path, overrides=overrides or {})

    return write_and_load


def problems(load: Callable[[], Config]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load()
    return [line.partition("c.json: ")[2] for line in str(caught.value).splitlines()]


# ---------------------------------------------------------------------------------------- the shipped files


@pytest.mark.parametrize("name", ["fc", "conv", "fc_PBT", "conv_PBT"])
def test_shipped_files(name: str) -> None:
    """The four files load as they are and say what the original's said."""
    config = load_config(SHIPPED / f"{name}.json")
    population = name.endswith("_PBT")
    assert config.train.model == name.removesuffix("_PBT")
    assert (config.train.seed, config.train.batch_size, config.train.lr) == (117, 200, 0.01)
    assert (config.train.keep_prob, config.train.weight_decay) == (0.8, 1e-5)
    assert (config.train.data_dir, config.train.train_dir) == (Path("data"), Path("runs"))
    assert config.train.num_epochs == (1 if population else 30)
    assert config.train.num_iters_for_ckpt == (10 if name == "fc_PBT" else 100)
    assert config.train.decreasing_lr_epochs == (() if population else (10, 20))
    assert (config.train.metric, config.test.metric) == ("accuracy", "accuracy_categ")
    assert (config.test.sleep_time_sec, config.test.batch_size) == (20, 1)
    gpus = {"fc": ((0,), (1,)), "conv": ((1,), (0,))}.get(name, ((0, 1), (0, 1)))
    assert (config.train.gpus, config.test.gpus, config.val.gpus) == (*gpus, (0,))
    assert (config.val.version, config.val.val) == ("test_MPL", "_val")
    assert list(config.evolving) == (["lr", "keep_prob"] if population else [])


def test_shipped_population() -> None:
    """The population files hold ten workers, fifty epochs and the two ranges."""
    config = load_config(SHIPPED / "fc_PBT.json")
    train = config.train
    assert (train.num_worker_tot, train.num_workers_paral, train.num_epochs_tot) == (10, 10, 50)
    assert train.mutation == (0.8, 1.2)
    assert config.evolving["lr"] == Evolving(
        name="lr", values=(0.0001, 0.1), kind="range", bounds=(0.0001, 0.1), scale="linear"
    )
    assert config.evolving["keep_prob"].values == (0.5, 0.99)


def test_shipped_files_have_the_four_sections() -> None:
    """Each file has the sections general, train, test and val, in this order."""
    for path in SHIPPED.glob("*.json"):
        assert list(json.loads(path.read_text())) == ["general", "train", "test", "val"]


def test_reference_is_current() -> None:
    """The page of keys is what the keys themselves say."""
    assert (SHIPPED / "config_params.md").read_text() == reference()


def test_reference_has_every_key() -> None:
    """Every key of every section has a row with all its cells."""
    rows = {line.split(" | ")[0][2:]: line for line in reference().splitlines() if line.startswith("| `")}
    for model in SECTIONS.values():
        for name in model.model_fields:
            assert rows[f"`{name}`"].count(" | ") == 5


def test_examples_are_valid(load: Load) -> None:
    """Every example of the page of keys is accepted where it is said to belong."""
    for section, model in SECTIONS.items():
        examples = {name: (info.examples or [None])[0] for name, info in model.model_fields.items()}
        plain = {name: str(e) if isinstance(e, Path) else e for name, e in examples.items()}
        load({"train": {"model": "fc"}, section: {"model": "fc", **plain}})


# --------------------------------------------------------------------------------------------- who wins


def test_general_wins(load: Load) -> None:
    """A key of general holds in every section that knows it, whatever the section says."""
    config = load({"general": {"model": "fc", "batch_size": 7}, "train": {"batch_size": 8}, "test": {}})
    assert (config.train.batch_size, config.test.batch_size, config.val.batch_size) == (7, 7, 7)


def test_empty_load_ckpt_of_general_hides_nothing(load: Load) -> None:
    """An empty load_ckpt in general, as the original's files have it, leaves the sections their own."""
    general = {"model": "fc", "load_ckpt": ""}
    assert load({"general": general, "train": {}, "test": {"load_ckpt": "x"}}).test.load_ckpt == "x"


def test_a_file_of_the_original_form(load: Load) -> None:
    """Where the original's own files put their keys, its `val` section included, is understood."""
    shared = {"model": "conv", "metric": "accuracy_categ", "n_filters": "16,32", "load_ckpt": "", "worker_num": 0}
    train = {"metric": "accuracy", "gpus": "1", "PBT_lr": "0.1,0.0001", "num_iters_for_ckpt": 10}
    val = {"version": "test_MPL", "load_ckpt": "", "val": "_val", "batch_size": 1, "gpus": "0"}
    config = load({"general": shared, "train": train, "test": {"gpus": "0"}, "val": val})
    assert (config.train.metric, config.val.metric) == ("accuracy_categ", "accuracy_categ")
    assert (config.train.gpus, config.test.gpus, config.val.gpus) == ((1,), (0,), (0,))


def test_test_and_val_take_from_train(load: Load) -> None:
    """The network and the data that only train describes hold for test and val, too."""
    config = load(model="conv", n_filters="4,5", num_val=100, load_ckpt="x", metric="loss")
    assert config.test.model == config.val.model == "conv"
    assert config.test.n_filters == (4, 5)
    assert config.val.num_val == 100
    assert config.test.load_ckpt == ""
    assert config.test.metric == "accuracy_categ"


def test_overrides_win(load: Load) -> None:
    """An override wins over the file and general, in every section that knows the key."""
    sections = {"general": {"model": "fc", "seed": 1}, "train": {"num_epochs": 2}, "test": {"seed": 3}}
    config = load(sections, {"seed": "5", "num_epochs": 7, "gpus": "", "PBT_lr": "0.1,0.01"})
    assert (config.train.seed, config.test.seed, config.val.seed) == (5, 5, 5)
    assert config.train.num_epochs == 7
    assert list(config.evolving) == ["lr"]


def test_override_of_one_section(load: Load) -> None:
    """A dotted override reaches only the section it names."""
    config = load({"general": {"model": "fc", "load_ckpt": "a"}, "train": {}}, {"test.load_ckpt": "b"})
    assert (config.train.load_ckpt, config.test.load_ckpt, config.val.load_ckpt) == ("a", "b", "a")


def test_wrong_overrides(load: Load) -> None:
    """What is wrong with an override is said of the override."""
    overrides: dict[str, object] = {"num_epochs_tot": "many", "train.lrr": 1, "tests.lr": 1}
    found = problems(lambda: load(overrides=overrides))
    assert found == [
        "override train.lrr: unknown key; did you mean 'lr'?",
        "override tests.lr: unknown section 'tests'; did you mean 'test'?",
        "override num_epochs_tot: expected a whole number from 1 to 1000000, found 'many'",
    ]


# ----------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("value", ["16, 32", [16, 32], ["16", "32"]])
def test_lists(load: Load, value: object) -> None:
    """A list may be text or JSON, its numbers too."""
    assert load(n_hiddens=value).train.n_hiddens == (16, 32)


@pytest.mark.parametrize(("value", "gpus"), [("", ()), ("0,1", (0, 1)), ([0, 1], (0, 1)), (3, (3,)), ([], ())])
def test_gpus(load: Load, value: object, gpus: tuple[int, ...]) -> None:
    """Devices are any number of numbers, none being the CPU."""
    assert load(gpus=value).train.gpus == gpus


@pytest.mark.parametrize("value", [0.01, "0.01", "1e-2", " .01 "])
def test_numbers(load: Load, value: object) -> None:
    """A number may be written as text."""
    assert load(lr=value).train.lr == 0.01


@pytest.mark.parametrize(("value", "flag"), [(1, True), (0, False), ("1", True), (True, True), ("false", False)])
def test_flags(load: Load, value: object, flag: bool) -> None:
    """A switch may be a number, its text, or a truth value."""
    assert load(batch_norm=value).train.batch_norm is flag


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("lr", 0),
        ("lr", "fast"),
        ("lr", True),
        ("lr", [0.1]),
        ("lr", "1_0"),
        ("lr", None),
        pytest.param("lr", 10**400, id="lr-huge"),
        ("keep_prob", 0),
        ("keep_prob", 1.01),
        ("weight_decay", -1e-9),
        ("label_smoothing", 1),
        ("beta2", 1.0),
        ("batch_size", 0),
        ("batch_size", 1.5),
        ("batch_size", "1e2"),
        ("num_epochs", 0),
        ("num_worker_tot", 0),
        ("num_workers_paral", 0),
        ("num_iters_for_ckpt", 0),
        ("num_val", -1),
        ("num_val", 60_000),
        ("model", "rnn"),
        ("metric", "accurcy"),
        ("version", "test_MPL"),
        ("data_loader", "cifar_loader"),
        ("data_dir", ""),
        ("data_dir", 3),
        ("n_filters", ""),
        ("n_filters", "16,x"),
        ("n_hiddens", [[16]]),
        ("gpus", "0,0"),
        ("gpus", "-1"),
        ("gpus", "cuda"),
        ("mutation", ""),
        ("mutation", "0.8,0"),
        ("decreasing_lr_epochs", "0"),
        ("decreasing_lr_epochs", "5,5"),
        ("batch_norm", 2),
        ("executor", "cluster"),
        ("data_order", "random"),
        ("threads", 0),
        ("exploit_fraction", 0.6),
        ("load_ckpt", 5),
        ("seed", -1),
    ],
)
def test_bad_values(load: Load, key: str, value: object) -> None:
    """A value out of range or of the wrong kind is one line: section, key, what was expected, what was found."""
    (line,) = problems(lambda: load(**{"model": "fc", key: value}))
    assert line.startswith(f"train.{key}: expected ")
    assert line.endswith(f"found {value!r}") or len(repr(value)) > 60


def test_defaults(load: Load) -> None:
    """What a file does not say is the documented default; a session of a population is one epoch."""
    config = load()
    assert (config.train.num_epochs, config.train.num_val, config.train.exploit_fraction) == (30, 5000, 0.2)
    assert (config.train.executor, config.train.data_order, config.train.threads) == ("auto", "shared", None)
    assert load(PBT_lr="0.1,0.01").train.num_epochs == 1
    assert load(num_worker_tot=4).train.num_workers_paral == 4


# ------------------------------------------------------------------------------------------- what is wrong


def test_all_problems_at_once(load: Load) -> None:
    """Everything wrong is said at once, unknown names first, each in a line and only once."""
    sections = {"general": {"seed": "x", "heigth": 28}, "train": {"keepprob": 1, "lr": -1}, "test": {"lr": 1}}
    assert problems(lambda: load(sections)) == [
        "general.heigth: unknown key; did you mean 'height'?",
        "train.keepprob: unknown key; did you mean 'keep_prob'?",
        "test.lr: expected in train, found in test",
        "train.model: expected 'fc' or 'conv', found none",
        "general.seed: expected a whole number from 0 to 9223372036854775807, found 'x'",
        "train.lr: expected a number above 0 up to 10, found -1",
    ]


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({}, "expected a section 'train', found none"),
        ({"test": {}}, "expected a section 'train', found test"),
        ({"train": {}, "tets": {}}, "unknown section 'tets'; did you mean 'test'?"),
        ({"train": []}, "train: expected an object with keys, found []"),
    ],
)
def test_wrong_sections(load: Load, sections: dict[str, Any], message: str) -> None:
    """A section that is absent, unknown or no object is an error."""
    assert problems(lambda: load(sections)) == [message]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"train": {"lr": 0.1,}}', "line 1, column 2"),
        ('{\n  "train": {"lr" 0.1}\n}', "line 2, column 18"),
        ("", "line 1, column 1"),
        ("[]", "expected an object with sections, found list"),
        ('{"train": {"lr": NaN}}', "expected plain JSON, found NaN"),
        ("[" * 100_000, "expected"),
        ('{"train": {"lr": 1, "model": "fc", "lr": 2}}', "train.lr: expected once, found more than once"),
        ('{"train": {}, "train": {}}', "section 'train': expected once, found more than once"),
    ],
)
def test_bad_json(tmp_path: Path, text: str, message: str) -> None:
    """What is no JSON is an error with line and column, and a key written twice is an error, too."""
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def test_unreadable_files(tmp_path: Path) -> None:
    """An absent file, a folder, bytes that are no text and a huge file are errors that name the path."""
    (tmp_path / "bytes").write_bytes(b"\xff\xfe{}")
    (tmp_path / "huge").write_bytes(b" " * (2 << 20))
    for name in ("absent", ".", "bytes", "huge"):
        with pytest.raises(ConfigError, match=r"expected .*, found"):
            load_config(tmp_path / name)


def test_byte_order_mark(tmp_path: Path) -> None:
    """A file that an editor began with a byte order mark is read like any other."""
    path = tmp_path / "c.json"
    path.write_text('{"train": {"model": "fc"}}', encoding="utf-8-sig")
    assert load_config(path).train.model == "fc"


def test_more_at_once_than_there_are(load: Load) -> None:
    """More parallel workers than the population has are refused."""
    message = "train.num_workers_paral: expected at most num_worker_tot = 4, found 5"
    assert problems(lambda: load(num_worker_tot=4, num_workers_paral=5)) == [message]


def test_population_limits(load: Load) -> None:
    """A session longer than the whole training and a worker outside the population are refused."""
    assert problems(lambda: load(PBT_lr="0.1,0.01", num_epochs=51, worker_num=10)) == [
        "train.num_epochs: expected at most num_epochs_tot = 50, found 51",
        "train.worker_num: expected below num_worker_tot = 10, found 10",
    ]


def test_halving_needs_a_rate_that_does_not_evolve(load: Load) -> None:
    """`decreasing_lr_epochs` is refused beside `PBT_lr`, and accepted beside other evolving values."""
    (line,) = problems(lambda: load(PBT_lr="0.1,0.01", decreasing_lr_epochs="3,1"))
    assert line.startswith("train.decreasing_lr_epochs: expected none where the learning rate evolves (PBT_lr)")
    assert load(PBT_keep_prob="0.5,0.9", decreasing_lr_epochs="3,1").train.decreasing_lr_epochs == (3, 1)


@pytest.mark.parametrize("value", ["", "a/b", "..\\x", "x" * 41, "a b", 3])
def test_the_suffix_of_val_is_part_of_a_file_name(load: Load, value: object) -> None:
    """`val.val` is refused where no file of the training directory could end in it."""
    (line,) = problems(lambda: load({"train": {"model": "fc"}, "val": {"val": value}}))
    assert line.startswith("val.val: expected 1 to 40 letters, digits")


def test_a_pause_between_evaluations_does_not_exist(load: Load) -> None:
    """`val.sleep_time_sec` is refused, and left out of configurations that an earlier version stored."""
    (line,) = problems(lambda: load({"train": {"model": "fc"}, "val": {"sleep_time_sec": 3}}))
    assert line == "val.sleep_time_sec: expected in test, found in val"
    assert Config.from_dict({"train": {"model": "fc"}, "val": {"sleep_time_sec": 20.0}}) == load()


@pytest.mark.parametrize(("key", "value"), [("model", "conv"), ("n_hiddens", "9"), ("num_val", 1)])
def test_sections_must_agree(load: Load, key: str, value: object) -> None:
    """A test section that describes another network, or another held-out set, than train is refused."""
    (line,) = problems(lambda: load({"train": {"model": "fc"}, "test": {key: value}}))
    assert line.startswith(f"test.{key}: expected the value of train, ")


# --------------------------------------------------------------------------------------------- evolving


@pytest.mark.parametrize("value", ["0.1,0.0001", "0.0001,0.1", [0.1, 0.0001], ["0.1", 1e-4]])
def test_two_values_are_a_range(load: Load, value: object) -> None:
    """Two values are a range, either way round, from where it starts to where it may go."""
    (lr,) = load(PBT_lr=value).evolving.values()
    assert lr == Evolving(name="lr", values=(0.0001, 0.1), kind="range", bounds=(0.0001, 0.1))


def test_more_values_are_choices(load: Load) -> None:
    """More than two values are choices in ascending order, so that a neighbor is the next larger or smaller."""
    (lr,) = load(PBT_lr="0.1,0.001,0.01").evolving.values()
    assert lr == Evolving(name="lr", values=(0.001, 0.01, 0.1), kind="choice", bounds=(0.001, 0.1))


def test_bounds_and_scale(load: Load) -> None:
    """Optional keys widen the bounds and choose a log scale."""
    (lr,) = load(PBT_lr="0.1,0.001", PBT_lr_bounds=[1, 1e-5], PBT_lr_scale="log").evolving.values()
    assert (lr.values, lr.bounds, lr.scale) == ((0.001, 0.1), (1e-5, 1.0), "log")


@pytest.mark.parametrize("name", ["lr", "keep_prob", "weight_decay", "label_smoothing", "beta1", "beta2"])
def test_what_may_evolve(load: Load, name: str) -> None:
    """Each of the six values that training takes may evolve."""
    assert list(load(**{f"PBT_{name}": "0.5,0.9"}).evolving) == [name]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"PBT_lr": "0.1"}, "PBT_lr: expected two different numbers (a range) or more (choices), found '0.1'"),
        ({"PBT_lr": 0.1}, "PBT_lr: expected two different numbers (a range) or more (choices), found 0.1"),
        ({"PBT_lr": ""}, "PBT_lr: expected two different numbers (a range) or more (choices), found ''"),
        ({"PBT_lr": "0.1,0.1"}, "PBT_lr: expected two different numbers (a range) or more (choices), found '0.1,0.1'"),
        ({"PBT_lr": "a,b"}, "PBT_lr: expected numbers, found 'a,b'"),
        ({"PBT_lr": "0,0.1"}, "PBT_lr: expected numbers above 0 up to 10, found 0"),
        ({"PBT_keep_prob": "0.5,1.5"}, "PBT_keep_prob: expected numbers above 0 up to 1, found 1.5"),
        ({"PBT_lrr": "1,2"}, "PBT_lrr: 'lrr' cannot evolve; did you mean 'lr'?"),
        ({"PBT_batch_size": "1,2"}, "PBT_batch_size: 'batch_size' cannot evolve; known: beta1, beta2, "),
        ({"PBT_": "1,2"}, "PBT_: '' cannot evolve; known: beta1, beta2, "),
        ({"PBT_lr_scale": "log"}, "PBT_lr_scale: expected PBT_lr beside it, found none"),
        (
            {"PBT_lr": "0.1,0.01", "PBT_lr_bounds": "0.05,1"},
            "PBT_lr_bounds: expected two numbers with 0.01 to 0.1 between them, found '0.05,1'",
        ),
        ({"PBT_lr": "0.1,0.01", "PBT_lr_bounds": "0,1"}, "PBT_lr_bounds: expected numbers above 0 up to 10, found 0"),
        ({"PBT_lr": "1,2,3", "PBT_lr_scale": "log"}, "PBT_lr_scale: expected PBT_lr to be a range, found choices"),
        ({"PBT_lr": "1,2", "PBT_lr_scale": "exp"}, "PBT_lr_scale: expected 'linear' or 'log', found 'exp'"),
        ({"PBT_weight_decay": "0,1", "PBT_weight_decay_scale": "log"}, "PBT_weight_decay_scale: expected 'linear', "),
    ],
)
def test_bad_evolving(load: Load, keys: dict[str, object], message: str) -> None:
    """What cannot be a range or choices of that value is an error that names the key."""
    (line,) = problems(lambda: load(**keys))
    assert line.startswith(f"train.{message}")


# ------------------------------------------------------------------------------------------- round trips


FULL = {
    "train_dir": "somewhere",
    "n_hiddens": "5,6,7",
    "gpus": "1",
    "threads": 2,
    "crop": 1,
    "crop_shift": 2,
    "weight_decay": 1e-7,
    "num_worker_tot": 3,
    "PBT_lr": "0.1,0.001",
    "PBT_lr_bounds": "1,0.0001",
    "PBT_lr_scale": "log",
    "PBT_beta1": "0.5,0.7,0.9",
}


def test_stored_and_rebuilt(load: Load) -> None:
    """What is stored as JSON is rebuilt equal, with the same fingerprint."""
    config = load(**FULL)
    again = Config.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert again.fingerprint() == config.fingerprint()


def test_fingerprint(load: Load) -> None:
    """The fingerprint is of the values, however they are written, and changes with any of them."""
    assert load(lr="0.010", gpus=[0, 1]).fingerprint() == load(gpus="0,1").fingerprint()
    assert load(lr=0.011).fingerprint() != load().fingerprint()
    assert load(PBT_lr="1,2").fingerprint() != load(PBT_lr="1,2", PBT_lr_bounds="1,3").fingerprint()


def test_stored_nonsense() -> None:
    """A stored configuration that is none is an error, not a crash."""
    for stored in ({}, {"train": 3}, {"train": {"model": "fc", "futrue": 1}}, {"train": {"model": None}}):
        with pytest.raises(ConfigError, match="the stored configuration: "):
            Config.from_dict(stored)


def test_plain(load: Load) -> None:
    """The flat dictionary is of the original's form: lists as text, switches as 0 and 1, the worker's number."""
    args = load(**FULL).to_plain("train", worker=2)
    said = {key: args[key] for key in ("worker_num", "n_hiddens", "gpus", "batch_norm", "crop", "train_dir")}
    assert said == {
        "worker_num": 2,
        "n_hiddens": "5,6,7",
        "gpus": "1",
        "batch_norm": 1,
        "crop": 1,
        "train_dir": "somewhere",
    }
    assert (args["PBT_lr"], args["PBT_lr_bounds"], args["PBT_lr_scale"]) == ("0.001,0.1", "0.0001,1.0", "log")
    assert all(isinstance(value, str | int | float) for value in args.values())


def test_plain_test_section(load: Load) -> None:
    """The arguments of a test hold nothing of training."""
    args = load(**FULL).to_plain("test")
    assert args["sleep_time_sec"] == 20
    assert not {"lr", "PBT_lr", "num_epochs"} & args.keys()


def test_frozen(load: Load) -> None:
    """A configuration cannot be changed."""
    config = load()
    with pytest.raises(FrozenInstanceError):
        config.train = config.train  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        config.train.lr = 1.0


_SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
_KEYS = st.sampled_from(["model", "lr", "gpus", "PBT_lr", "PBT_lr_bounds", "PBT_x", "seed", "data_dir", "nope"])
_VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner), max_leaves=4
)
_TABLES = st.dictionaries(st.sampled_from(["general", "train", "test", "val", "x"]), st.dictionaries(_KEYS, _VALUES))


@settings(max_examples=150, deadline=None)
@given(_TABLES | st.dictionaries(st.text(max_size=5), _VALUES, max_size=3))
def test_fuzz(stored: dict[str, Any]) -> None:
    """Whatever the values, the answer is a configuration that can be stored and rebuilt, or a ConfigError."""
    try:
        config = Config.from_dict(stored)
    except ConfigError:
        return
    assert Config.from_dict(config.to_dict()) == config


def test_no_torch() -> None:
    """Reading a configuration does not import torch."""
    code = "import sys, pbt.mnist.config.record; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
