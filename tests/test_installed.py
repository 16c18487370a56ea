"""Messages about missing packages name the command that installs them here."""

import json
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from pbt.errors import MissingExtraError
from pbt.installed import DISTRIBUTION


def installed(monkeypatch: pytest.MonkeyPatch, url: str, editable: bool | None) -> None:
    """As if pip had installed the package from this address (PEP 610)."""
    info = {} if editable is None else {"dir_info": {"editable": editable}}
    record = SimpleNamespace(read_text=lambda name: json.dumps({"url": url, **info}))
    monkeypatch.setattr(metadata, "distribution", lambda name: record)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone in a folder with a blank in its name."""
    folder = tmp_path / "my clone"
    (folder / "scripts").mkdir(parents=True)
    (folder / "scripts" / "setup").touch()
    (folder / "pyproject.toml").touch()
    return folder


def hint() -> str:
    """The command of the message."""
    message = str(MissingExtraError("the report", "report"))
    assert "'report'" in message
    assert "\n" not in message
    return message.rpartition("install them with: ")[2]


def test_an_installation_names_the_distribution(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither a wheel nor a folder that is gone, nor sources that were never installed, name a folder."""
    expected = f"pip install '{DISTRIBUTION}[report]'"
    installed(monkeypatch, "https://example.org/p.whl", None)
    assert hint() == expected
    installed(monkeypatch, (tmp_path / "gone").as_uri(), False)
    assert hint() == expected

    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    assert hint() == expected


def test_a_clone_names_its_folder(monkeypatch: pytest.MonkeyPatch, clone: Path) -> None:
    """As it was installed; in the environment of `scripts/setup` that is the command."""
    installed(monkeypatch, clone.as_uri(), False)
    assert hint() == f"pip install '{clone}[report]'"
    installed(monkeypatch, clone.as_uri(), True)
    assert hint() == f"pip install -e '{clone}[report]'"
    monkeypatch.setattr(sys, "prefix", str(clone / ".venv"))
    assert hint() == str(clone / "scripts" / "setup")
