"""The archives of a release: what a package index shows, what they contain, and that both work by themselves."""

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import numpy as np
import pytest
from markdown_it import MarkdownIt

from pbt import __version__
from tests.helpers.command import environment
from tests.helpers.paths import ROOT
from tests.packaging.environments import core_environment

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
VERSION = PROJECT["project"]["version"]
SUBSET = ["tests/test_space.py", "tests/core/test_fold.py", "tests/store/test_codec.py", "tests/docs/test_links.py",
          "tests/docs/test_readme.py", "tests/cli/test_help.py", "tests/mnist/test_models.py"]  # fmt: skip


def test_one_version() -> None:
    """The version of the project is that of the package, of the citation and of the changelog."""
    assert __version__ == VERSION
    assert re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)[1] == VERSION
    sections = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert VERSION in " ".join(sections[:2])


def test_the_readme_of_a_package_index() -> None:
    """With the substitutions of the build, README.md has neither pictures nor links that lead nowhere there."""
    text = (ROOT / "README.md").read_text()
    for change in PROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        text, count = re.subn(change["pattern"], change["replacement"], text)
        assert count, change
    parts = [part for token in MarkdownIt().enable("table").parse(text) for part in token.children or []]
    assert not [part for part in parts if part.type == "image"]
    links = [str(part.attrGet("href")) for part in parts if part.type == "link_open"]
    assert links
    assert [link for link in links if not link.startswith("https://")] == []
    assert "Family tree" not in text
    assert text.startswith("# Population Based Training")


def built(kind: str, source: Path, target: Path) -> Path:
    """An archive of the folder, without a network."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(target)]
    subprocess.run(command, cwd=source, check=True, capture_output=True, timeout=120)
    (archive,) = target.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return archive


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked sdist."""
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(built("sdist", ROOT, folder / "dist")) as archive:
        archive.extractall(folder, filter="data")
    (source,) = folder.glob("population_based_training-*")
    return source


@pytest.mark.slow
@pytest.mark.needs("hatchling")
class TestArchives:
    def test_the_sdist_has_what_it_needs(self, unpacked: Path) -> None:
        """It has every file of the repository but those of its host and its CI."""
        if not (ROOT / ".git").exists() or shutil.which("git") is None:
            pytest.skip("needs a clone")
        tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        missing = {name for name in tracked.split("\0") if name and not (unpacked / name).exists()}
        assert {name.split("/")[0] for name in missing} <= {".ci", ".github"}

    def test_its_own_tests_pass(self, unpacked: Path) -> None:
        """A fast part of them, in the unpacked folder, with its own sources."""
        variables = environment() | {"PYTHONPATH": str(unpacked / "src")}
        command = [sys.executable, "-m", "pytest", "-n0", "-x", "-m", "not slow", *SUBSET]
        done = subprocess.run(
            command, cwd=unpacked, env=variables, capture_output=True, text=True, timeout=280, check=False
        )
        assert done.returncode == 0, done.stdout[-4000:]

    def test_the_wheel_with_its_core_dependencies(self, unpacked: Path, tmp_path: Path) -> None:
        """In an environment without any extra a population is trained, the demo too; what is missing is named."""
        wheel = built("wheel", unpacked, tmp_path / "dist")
        programs = core_environment(tmp_path / "env", wheel, PROJECT["project"]["dependencies"])
        data = tmp_path / "digits"
        data.mkdir()
        for split, count in (("train", 2400), ("t10k", 200)):
            labels = np.arange(count) % 10
            images = np.zeros((count, 28, 28))
            images[np.arange(count), 2 * labels + 2, :] = 255
            write_idx(data / f"{split}-images-idx3-ubyte", images)
            write_idx(data / f"{split}-labels-idx1-ubyte", labels)

        def pbt(*words: str, code: int = 0) -> str:
            variables = environment(PBT_DATA_DIR=str(data), PBT_OFFLINE="1", HOME=str(tmp_path))
            variables.pop("PYTHONPATH")
            done = subprocess.run(
                [str(programs / "pbt"), *words],
                cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=200, check=False,
            )  # fmt: skip
            assert done.returncode == code, done.stdout + done.stderr
            assert "Traceback" not in done.stderr
            return done.stdout + done.stderr

        assert pbt("--version") == f"pbt {VERSION}\n"
        pbt("run", "nqm", "--population", "4", "--rounds", "2", "--out", "run", "-q")
        assert "Best: member" in pbt("status", "run")
        assert "Best of the last round" in pbt("demo", "--rounds", "1", "--executor", "inline", "--no-progress")
        hint = pbt("report", "run", code=2)
        assert "pip install 'population-based-training[report]'" in hint


def write_idx(path: Path, values: np.ndarray) -> None:
    """Write an array as an IDX file."""
    header = bytes([0, 0, 8, values.ndim]) + np.asarray(values.shape, ">u4").tobytes()
    path.write_bytes(header + values.astype(np.uint8).tobytes())
