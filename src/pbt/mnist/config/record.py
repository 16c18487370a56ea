"""The configuration of the MNIST application: from the original's JSON to one checked record.

A file has the sections `general`, `train`, `test` and `val`. `general` wins over the others, and overrides (the command
line, the environment) win over the file. All errors of a file are reported at once, one line each.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal, Self

from pbt.mnist.config.evolving import Evolving
from pbt.mnist.config.file import read_file
from pbt.mnist.config.resolve import build
from pbt.mnist.config.sections import TestSection, TrainSection, ValSection
from pbt.mnist.config.types import plain

_NOTHING: Mapping[str, object] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A checked configuration; every section is complete."""

    train: TrainSection
    test: TestSection
    val: ValSection
    evolving: dict[str, Evolving] = field(default_factory=dict)  # by name; empty: one network, no population

    def to_plain(self, section: Literal["train", "test", "val"], worker: int | None = None) -> dict[str, object]:
        """One section as the original's `args_<section>.json` has it: flat, lists as text, switches as 0 and 1.

        Args:
            section: The section.
            worker: The worker of the file. Default: `worker_num`.
        """
        values = getattr(self, section).model_dump()
        args = {name: plain(value) for name, value in values.items() if value is not None}
        if worker is not None:
            args["worker_num"] = worker
        if section == "train":
            for entry in self.evolving.values():
                args.update(entry.to_plain())
        return args

    def to_dict(self) -> dict[str, dict[str, object]]:
        """The whole configuration as plain JSON values, in the form of a file."""
        return {"train": self.to_plain("train"), "test": self.to_plain("test"), "val": self.to_plain("val")}

    @classmethod
    def from_dict(cls, stored: Mapping[str, object]) -> Self:
        """The configuration from the result of `to_dict`.

        Raises:
            ConfigError: It is no configuration, or one of another version with other keys.
        """
        val = stored.get("val")
        if isinstance(val, Mapping):
            # Model files of earlier versions have this key here, which no evaluation ever used.
            stored = {**stored, "val": {key: value for key, value in val.items() if key != "sleep_time_sec"}}
        return cls(**build(stored, _NOTHING, "the stored configuration"))

    def changed(self, **train: object) -> Self:
        """A copy with other values in `train`, checked like a file.

        Raises:
            ConfigError: A value is wrong.
        """
        stored = self.to_dict()
        return self.from_dict({**stored, "train": {**stored["train"], **train}})

    def fingerprint(self) -> str:
        """SHA-256 of all values, hexadecimal, independent of the form of the file."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def load_config(path: str | Path, *, overrides: Mapping[str, object] = _NOTHING) -> Config:
    """Read and check a configuration file.

    Args:
        path: A JSON file.
        overrides: Keys and values, text as in the file or plain, which win over the file. A key applies to every
            section that has it, `"test.load_ckpt"` to one.

    Raises:
        ConfigError: The file cannot be read, or keys or values are wrong: one line each, the most useful first.
    """
    path = Path(path)
    return Config(**build(read_file(path), overrides, str(path)))
