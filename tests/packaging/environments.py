"""An environment with only this package's core dependencies, made of the packages that are installed here."""

import re
import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement


def closure(requirements: list[str]) -> set[str]:
    """The names of the distributions that these requirements need here, directly or not, extras aside."""
    names, open_ = set(), [Requirement(text) for text in requirements]
    while open_:
        need = open_.pop()
        environment = {**default_environment(), "extra": ""}
        name = re.sub(r"[-_.]+", "-", need.name).lower()
        if name in names or (need.marker and not need.marker.evaluate(environment)):
            continue
        names.add(name)
        open_ += [Requirement(text) for text in metadata.requires(name) or []]
    return names


def link(name: str, target: Path) -> None:
    """Link the files of an installed distribution into a folder of packages."""
    found = metadata.distribution(name)
    for top in {file.parts[0] for file in found.files or [] if file.parts[0] not in {"..", "__pycache__"}}:
        here = Path(str(found.locate_file(top)))
        if here.exists() and not (target / top).exists():
            (target / top).symlink_to(here)


def core_environment(folder: Path, wheel: Path, requirements: list[str]) -> Path:
    """An environment with the wheel and its core dependencies and nothing else; returns its folder of programs.

    Args:
        folder: The new environment.
        wheel: The wheel of this package.
        requirements: Its requirements without extras.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    for name in sorted(closure(requirements)):
        link(name, packages)
    install = ["install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check", str(wheel)]
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), *install], check=True, timeout=120
    )
    return folder / "bin"
