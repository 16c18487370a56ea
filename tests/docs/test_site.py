"""The documentation site is built without a warning, and its pages have what only the site adds."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT


@pytest.mark.slow
@pytest.mark.needs(
    "sphinx", "jax", "keras", "lightgbm", "lightning", "sb3", "sklearn", "skorch", "transformers", "xgboost"
)
def test_the_site_is_built(tmp_path: Path) -> None:
    """As by `scripts/docs`: warnings are errors, broken references and anchors among them."""
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "--quiet", "-c", "docs/site"]
    places = ["-d", str(tmp_path / "doctrees"), ".", str(tmp_path / "site")]
    done = subprocess.run([*command, *places], cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    site = tmp_path / "site"
    assert (site / "index.html").is_file()
    page = (site / "docs" / "api" / "running.html").read_text()
    assert 'id="pbt.run"' in page  # from the docstring
    assert "http" not in "".join(part for part in page.split('"') if part.endswith((".js", ".css")))  # no network
    assert 'href="frameworks/jax.html"' in (site / "docs" / "index.html").read_text()
    assert " -W " in (ROOT / "scripts" / "docs").read_text()
