"""The text of `config/config_params.md`, made from the definitions of the keys."""

from collections.abc import Iterable
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from pbt.mnist.config.sections import SECTIONS, EvaluationSection, Section, expected
from pbt.mnist.config.types import HYPERPARAMETERS, plain

_HEAD = """# Configuration keys

A configuration is a JSON file with the sections `general`, `train`, `test` and, optionally, `val`. `general` may hold
any key and wins over the other sections; options on the command line win over the file. Keys of the first table that
`test` and `val` do not have are taken from `train`. A list is written as text, `"0.1,0.0001"`, or as a JSON list; a
number may be written as text; a switch is 0 or 1. Any other key is an error.

`-m test` and `-m val` take the network, and the images held out from it, from the checkpoint: from its model file, or
from `args_test.json` or `args_test_<w>.json` in its training directory. Of `data_dir`, `metric`, `gpus`, `threads` and
`batch_size` the command line wins, then the configuration file where it differs from the default, then those arguments.
`--set` with another value of a key that the checkpoint fixes is an error. `--device` wins over `gpus`.

The original does not have these keys: `num_val`, `threads`, `pixels`, `label_smoothing`, `beta1`, `beta2`,
`exploit_fraction`, `executor`, `data_order`, `PBT_<name>_bounds` and `PBT_<name>_scale`.
"""

_EVOLVING = """## Evolving values: `PBT_<name>` (in `train`)

With at least one of these keys the file describes a population. `<name>` is one of {names}.

| key | type | default | range | example | meaning |
|---|---|---|---|---|---|
| `PBT_<name>` | list | | 2 or more different numbers, in the range of `<name>` | `"0.1,0.0001"` | two values: \
a range, either way round, from which members start uniformly and in which they stay; more: choices, of which a \
change takes the next larger or smaller |
| `PBT_<name>_bounds` | list | the range | 2 numbers with the range between them | `"1.0,0.00001"` | how far the \
value may go beyond where members start |
| `PBT_<name>_scale` | text | `"linear"` | 'linear' or 'log' | `"log"` | scale on which a range is uniform |
"""


def reference() -> str:
    """All keys as Markdown tables: type, default, range, example and meaning of each."""
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
    written = plain(value)
    return f'`"{written}"`' if isinstance(written, str) else f"`{written:g}`"
