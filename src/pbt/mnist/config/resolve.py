"""From the tables of a file to checked sections: precedence, inheritance and errors."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError

from pbt.errors import ConfigError, nearest
from pbt.mnist.config.evolving import is_evolving_key, parse_evolving, short
from pbt.mnist.config.file import Table
from pbt.mnist.config.sections import FIXED, INHERITED, SECTIONS, Section, TrainSection, expected, owners
from pbt.mnist.config.types import absolute

_NAMES = ("general", *SECTIONS)


class _Entry(NamedTuple):
    value: object
    where: str  # "train.lr", "general.lr" or "override lr", for errors


_Values = dict[str, _Entry]


def build(tables: Mapping[str, object], overrides: Mapping[str, object], name: str) -> dict[str, Any]:
    """Check a configuration and build the fields of a `Config`.

    Args:
        tables: The keys of each section, as in a file.
        overrides: Values by `key` or `section.key`, which win over the file.
        name: Name of the file in errors.

    Raises:
        ConfigError: Keys or values are wrong; one line each.
    """
    problems = _check_tables(tables)
    _stop(problems, name)
    values = {section: _merge(section, tables, overrides) for section in SECTIONS}
    _inherit(values)
    problems += _check_keys(tables, overrides)
    evolving_keys = {key: entry for key, entry in values["train"].items() if is_evolving_key(key)}
    evolving, errors = parse_evolving({key: entry.value for key, entry in evolving_keys.items()})
    problems += [f"{evolving_keys[error.key].where}: {error}" for error in errors]
    if evolving_keys:
        # A session of a population has one epoch by default.
        values["train"].setdefault("num_epochs", _Entry(1, "train.num_epochs"))
    fields: dict[str, Any] = {"evolving": evolving}
    for section, model in SECTIONS.items():
        fields[section] = _validate(section, model, values[section], problems)
    _stop(problems, name)
    _stop(_check_together(fields, values), name)
    return fields


def _stop(problems: list[str], name: str) -> None:
    if problems:
        # A wrong key of `general` is wrong in three sections, but reported once.
        raise ConfigError("\n".join(f"{name}: {problem}" for problem in dict.fromkeys(problems)))


def _check_tables(tables: Mapping[str, object]) -> list[str]:
    problems = []
    for section, table in tables.items():
        if section not in _NAMES:
            problems.append(f"unknown section {section!r}{nearest(section, _NAMES)}")
        elif not isinstance(table, Mapping):
            problems.append(f"{section}: expected an object with keys, found {short(table)}")
        else:
            twice = table.twice if isinstance(table, Table) else []
            problems += [f"{section}.{key}: expected once, found more than once" for key in twice]
    twice = tables.twice if isinstance(tables, Table) else []
    problems += [f"section {section!r}: expected once, found more than once" for section in twice]
    if "train" not in tables:
        problems.append(f"expected a section 'train', found {', '.join(tables) or 'none'}")
    return problems


def _table(tables: Mapping[str, object], section: str) -> Mapping[str, object]:
    table = tables.get(section)
    return table if isinstance(table, Mapping) else {}


def _known(section: str, key: str) -> bool:
    if section == "general":
        return bool(owners(key)) or is_evolving_key(key)
    return section in owners(key) or (section == "train" and is_evolving_key(key))


def _merge(section: str, tables: Mapping[str, object], overrides: Mapping[str, object]) -> _Values:
    """The values of a section: its own keys, overridden by `general`, overridden by the overrides."""
    values: _Values = {}
    for source in (section, "general"):
        for key, value in _table(tables, source).items():
            # The empty load_ckpt in `general` of the original's files hides no other.
            if _known(section, key) and not (source == "general" and key == "load_ckpt" and value == ""):
                values[key] = _Entry(value, f"{source}.{key}")
    for name, value in overrides.items():
        target, _, key = name.rpartition(".")
        if target in ("", section, "general") and _known(section, key):
            values[key] = _Entry(absolute(value) if key == "data_dir" else value, f"override {name}")
    return values


def _inherit(values: dict[str, _Values]) -> None:
    for section in ("test", "val"):
        for key in INHERITED & values["train"].keys():
            values[section].setdefault(key, values["train"][key])


def _check_keys(tables: Mapping[str, object], overrides: Mapping[str, object]) -> list[str]:
    names = [(section, key, f"{section}.{key}") for section in _NAMES for key in _table(tables, section)]
    for name in overrides:
        target, _, key = name.rpartition(".")
        names.append((target or "general", key, f"override {name}"))
    return [f"{where}: {_stranger(section, key)}" for section, key, where in names if not _known(section, key)]


def _stranger(section: str, key: str) -> str:
    homes = owners(key) or (["train"] if is_evolving_key(key) else [])
    if section not in _NAMES:
        return f"unknown section {section!r}{nearest(section, _NAMES)}"
    if homes:
        return f"expected in {' or '.join(homes)}, found in {section}"
    models = SECTIONS.values() if section == "general" else [SECTIONS[section]]
    return f"unknown key{nearest(key, {name for model in models for name in model.model_fields})}"


def _validate(section: str, model: type[Section], values: _Values, problems: list[str]) -> Section | None:
    plain = {key: entry.value for key, entry in values.items() if not is_evolving_key(key)}
    try:
        return model.model_validate(plain)
    except ValidationError as error:
        for item in error.errors(include_url=False, include_context=False, include_input=False):
            if item["type"] == "default_factory_not_called":
                continue  # a default that follows from another key, which is wrong itself
            key = str(item["loc"][0])
            entry = values.get(key)
            found = f"found {short(entry.value)}" if entry else "found none"
            # A key that is missing in `train`, and therefore in `test`, is reported once.
            where = entry.where if entry else f"train.{key}"
            problems.append(f"{where}: expected {expected(section, key)}, {found}")
        return None


def _check_together(fields: Mapping[str, Any], values: Mapping[str, _Values]) -> list[str]:
    train: TrainSection = fields["train"]
    problems = []

    def refuse(key: str, message: str) -> None:
        entry = values["train"].get(key)
        problems.append(f"{entry.where if entry else f'train.{key}'}: {message}")

    if train.num_workers_paral > train.num_worker_tot:
        limit = f"at most num_worker_tot = {train.num_worker_tot}"
        refuse("num_workers_paral", f"expected {limit}, found {train.num_workers_paral}")
    if train.crop and not train.crop_shift:
        refuse("crop", "expected crop_shift of at least 1 pixel with it, found 0, which crops nothing")
    if "lr" in fields["evolving"] and train.decreasing_lr_epochs:
        found = ",".join(map(str, train.decreasing_lr_epochs))
        refuse("decreasing_lr_epochs", f"expected none where the learning rate evolves (PBT_lr), found {found}")
    if fields["evolving"]:
        if train.num_epochs > train.num_epochs_tot:
            limit = f"at most num_epochs_tot = {train.num_epochs_tot}"
            refuse("num_epochs", f"expected {limit}, found {train.num_epochs}")
        if train.worker_num >= train.num_worker_tot:
            limit = f"below num_worker_tot = {train.num_worker_tot}"
            refuse("worker_num", f"expected {limit}, found {train.worker_num}")
    return problems + _check_sections(fields, values)


def _check_sections(fields: Mapping[str, Any], values: Mapping[str, _Values]) -> list[str]:
    """Differences of `test` and `val` from `train` in the network or the held-out images."""
    train, problems = fields["train"], []
    for section in ("test", "val"):
        for key in sorted(FIXED):
            mine, other = getattr(train, key), getattr(fields[section], key)
            if mine != other:
                where = values[section][key].where if key in values[section] else f"{section}.{key}"
                problems.append(f"{where}: expected the value of train, {short(mine)}, found {short(other)}")
    return problems
