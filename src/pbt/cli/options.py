"""What all commands share: switches and JSON output."""

import json
import sys
from typing import Annotated, Any

from cyclopts import Parameter

from pbt.text import as_ascii

Flag = Annotated[bool, Parameter(negative="", show_default=False)]
"""A switch without a negative form; false by default."""


def print_json(value: Any, indent: int | None = 2) -> None:
    """Write one JSON document to stdout and flush it."""
    sys.stdout.write(as_ascii(json.dumps(value, indent=indent, allow_nan=False)) + "\n")
    sys.stdout.flush()
