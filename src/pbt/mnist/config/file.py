"""Read a configuration file: JSON with each key once."""

import json
from pathlib import Path

from pbt.errors import ConfigError

_MOST_BYTES = 1 << 20


class Table(dict[str, object]):
    """A JSON object, with the keys that occur twice."""

    def __init__(self, pairs: list[tuple[str, object]]) -> None:
        super().__init__(pairs)
        names = [name for name, _ in pairs]
        self.twice = sorted({name for name in names if names.count(name) > 1}) if len(self) < len(names) else []


def read_file(path: Path) -> Table:
    """The content of a JSON file, an object at the top.

    Raises:
        ConfigError: It cannot be read, or is not such a file.
    """
    try:
        with path.open("rb") as file:
            blob = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: expected a JSON file, found none ({error.strerror or error})") from error
    if len(blob) > _MOST_BYTES:
        raise ConfigError(f"{path}: expected at most {_MOST_BYTES:,} bytes, found more; is this the file you mean?")
    try:
        content = json.loads(blob.decode("utf-8-sig"), object_pairs_hook=Table, parse_constant=_refuse)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: expected UTF-8 text, found byte {error.object[error.start]:#x}") from error
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise ConfigError(f"{path}: {place}: expected JSON, found a mistake: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: expected plain JSON, found {error}") from error
    if not isinstance(content, Table):
        raise ConfigError(f"{path}: expected an object with sections, found {type(content).__name__}")
    return content


def _refuse(word: str) -> object:
    raise ValueError(f"{word}, which JSON does not have")
