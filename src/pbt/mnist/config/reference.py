"""The text of `config/config_params.md`, generated from the definitions of the keys."""

from collections.abc import Iterable
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from pbt.mnist.config.sections import SECTIONS, EvaluationSection, Section, expected
from pbt.mnist.config.types import HYPERPARAMETERS, plain

_HEAD = """# Configuration keys

A configuration is a JSON file with the sections `general`, `train` and `test`, and an optional section `val`.
`general` may hold any key and overrides the other sections; options on the command line override the file. If `test` or
`val` lacks a key of the first table, its value comes from `train`. A list is text, `"0.1,0.0001"`, or a JSON list; a
number may be text; a switch is 0 or 1. An unknown key is an error.

`-m test` and `-m val` read the network and its held-out images from the checkpoint: from its model file, or from
`args_test.json` or `args_test_<w>.json` in its training directory. The values of `data_dir`, `metric`, `gpus`,
`threads` and `batch_size` come from the command line, else from the configuration file if it differs from the default,
else from the checkpoint. `--set` with another value of a key that the checkpoint fixes is an error. `--device`
overrides `gpus`.

These keys are additions to the original: `num_val`, `threads`, `pixels`, `label_smoothing`, `beta1`, `beta2`,
`exploit_fraction`, `executor`, `data_order`, `PBT_<name>_bounds` and `PBT_<name>_scale`.
"""

_EVOLVING = """## Evolving values: `PBT_<name>` (in `train`)

A file with at least one of these keys describes a population. `<name>` is one of {names}.

| key | type | default | range | example | meaning |
|---|---|---|---|---|---|
| `PBT_<name>` | list | | 2 or more different numbers, in the range of `<name>` | `"0.1,0.0001"` | two values: a \
range, in either order; initial values are uniform in it, and later values stay in it; more values: choices, and a \
change moves to the next larger or smaller one |
| `PBT_<name>_bounds` | list | the range | 2 numbers with the range between them | `"1.0,0.00001"` | bounds of later \
values, at least as wide as the initial range |
| `PBT_<name>_scale` | text | `"linear"` | 'linear' or 'log' | `"log"` | scale on which initial values are uniform |
"""


def reference() -> str:
    """Markdown tables of all keys: type, default, range, example and meaning."""
    shared = list(Section.model_fields)
    parts = [_HEAD, _table("All sections", "train", shared)]
    both = [name for name in EvaluationSection.model_fields if name not in shared]
    parts.append(_table("`train`", "train", [name for name in SECTIONS["train"].model_fields if name not in shared]))
    parts.append(_table("`test` and `val`", "test", both))
    for section in ("test", "val"):
        own = [name for name in SECTIONS[section].model_fields if name not in {*shared, *both}]
        parts.append(_table(f"`{section}` only", section, own))
    names = ", ".join(f"`{name}`" for name in HYPERPARAMETERS)
    return "\n".join([*parts, _EVOLVING.format(names=names)])


def _table(title: str, section: str, names: Iterable[str]) -> str:
    lines = [f"## {title}", "", "| key | type | default | range | example | meaning |", "|---|---|---|---|---|---|"]
    for name in names:
        info = SECTIONS[section].model_fields[name]
        cells = (
            f"`{name}`",
            _type(info.annotation),
            _default(info),
            expected(section, name),
            _code((info.examples or [""])[0]),
            str(info.description),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _type(annotation: Any) -> str:
    if get_origin(annotation) in (UnionType, Union):
        annotation = get_args(annotation)[0]
    if get_origin(annotation) is tuple:
        return "list"
    return {int: "integer", float: "number", bool: "switch"}.get(annotation, "text")


def _default(info: FieldInfo) -> str:
    if isinstance(info.json_schema_extra, dict):
        return f"`{info.json_schema_extra['default']}`"
    if info.is_required():
        return "required"
    return "" if info.default is None else _code(info.default)


def _code(value: object) -> str:
    shown = plain(value)
    return f'`"{shown}"`' if isinstance(shown, str) else f"`{shown:g}`"
