"""How this package is installed, for messages that name the right command."""

import sys
from pathlib import Path

DISTRIBUTION = "population-based-training"
"""The name of this package on PyPI, which has an unrelated distribution `pbt`."""


def install_command(extra: str = "") -> str:
    """The command that installs this package with an extra, from the place that it was installed from.

    In an environment that `scripts/setup` made, that is this script, because it installs all extras.

    Args:
        extra: Name of the extra; empty: the package alone.
    """
    folder, editable = _folder()
    if folder and editable and (folder / "scripts/setup").is_file() and Path(sys.prefix) == folder / ".venv":
        return str(folder / "scripts/setup")
    return f"pip install {requirement(extra)}"


def requirement(extra: str = "") -> str:
    """This package as an argument of `pip install`: its folder if it was installed from one, else its name."""
    import shlex

    folder, editable = _folder()
    place = shlex.quote(f"{folder or DISTRIBUTION}{f'[{extra}]' if extra else ''}")
    return f"-e {place}" if editable else place


def _folder() -> tuple[Path | None, bool]:
    """The folder from which this package was installed, if it still exists, and whether its files are used there."""
    import json  # only a message needs these
    from importlib import metadata
    from urllib.parse import unquote, urlsplit

    try:
        recorded = json.loads(metadata.distribution(DISTRIBUTION).read_text("direct_url.json") or "{}")
    except (metadata.PackageNotFoundError, OSError, ValueError):
        recorded = {}
    found = urlsplit(str(recorded.get("url", "")))
    folder = Path(unquote(found.path))
    if found.scheme != "file" or "dir_info" not in recorded or not (folder / "pyproject.toml").is_file():
        return None, False
    return folder, bool(recorded["dir_info"].get("editable"))
