"""The tests that `pbt doctor` makes, on this machine and on ones that are broken on purpose."""

import io
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pbt.cli import doctor
from pbt.terminal.console import QuietConsole
from tests.helpers.paths import SOURCE


def by_name(found: Any) -> dict[str, doctor.Check]:
    return {check.name: check for check in found}


def test_this_machine_can_train(tmp_path: Path) -> None:
    """Nothing fails here, everything is tested, and nothing is left behind."""
    found = by_name(doctor.checks(tmp_path))
    assert not [check for check in found.values() if check.status == "fail" and check.name != "command"]
    assert found.keys() >= {"python", "pbt", "numpy", "sqlite", "torch", "cores", "disk", "storage", "log", "spawn"}
    assert "durable" in found["storage"].found
    assert "second writer is refused" in found["log"].found
    assert list(tmp_path.iterdir()) == []


def test_every_row_that_is_not_well_says_what_to_do(tmp_path: Path) -> None:
    """A warning or a failure comes with a remedy."""
    for check in doctor.checks(tmp_path):
        assert check.status == "ok" or check.remedy


def test_the_command(tmp_path: Path) -> None:
    """`pbt doctor` prints a line per check and exits with 0 where nothing failed."""
    source = str(SOURCE)
    done = subprocess.run(
        [sys.executable, "-m", "pbt", "doctor"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": source},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode == int("fail" in done.stdout)
    assert "ok    storage" in done.stdout


def test_a_failure_gives_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """One failed check makes the exit code 1; the remedy is printed below it."""
    bad = doctor.Check(name="storage", status="fail", found="broken", remedy="mend it")
    monkeypatch.setattr(doctor, "checks", lambda folder: [doctor.Check(name="python", found="fine"), bad])
    console = QuietConsole(file=io.StringIO(), width=60)
    assert doctor.show(console) == 1
    assert [line.split() for line in console.file.getvalue().splitlines()] == [  # type: ignore[attr-defined]
        ["ok", "python", "fine"],
        ["fail", "storage", "broken"],
        ["→", "mend", "it"],
    ]


def test_what_cannot_be_tested_is_a_finding(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A check that raises is a failed row, and the others are made all the same."""

    def explode() -> Any:
        raise RuntimeError("no cores at all")

    monkeypatch.setattr(doctor, "_cores", explode)
    found = by_name(doctor.checks(tmp_path))
    assert found["cores"] == doctor.Check(
        name="cores",
        status="fail",
        found="RuntimeError: no cores at all",
        remedy="this is a bug of `pbt doctor`; please report it",
    )
    assert "storage" in found


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """A read-only folder fails with what to do."""
    tmp_path.chmod(0o500)
    found = by_name(doctor._storage(tmp_path))
    assert found["storage"].status == "fail"
    assert "--out" in found["storage"].remedy


def test_slow_and_full_disks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Little room and slow writes are warnings."""
    monkeypatch.setattr(doctor, "LITTLE_SPACE", 2**80)
    monkeypatch.setattr(doctor, "SLOW_FSYNC", 0.0)
    found = by_name(doctor._storage(tmp_path))
    assert (found["disk"].status, found["storage"].status) == ("warn", "warn")


def test_a_file_system_without_locks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Storage on which a second writer is not refused fails."""
    monkeypatch.setattr("pbt.store.lock.lock", lambda *_, **__: None)
    found = doctor._log(tmp_path / "run")
    assert found.status == "fail"
    assert "second writer was not refused" in found.found


def test_a_process_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A spawned process that stays silent fails within the time limit."""
    monkeypatch.setattr(doctor, "PATIENCE", 0.0)
    (found,) = doctor._spawn()
    assert found.status == "fail"
    assert "inline" in found.remedy


@pytest.mark.parametrize(("release", "status"), [("2.9.1+cpu", "warn"), ("2.10.0", "ok"), ("3.0.0a0+git", "ok")])
def test_versions_of_torch(monkeypatch: pytest.MonkeyPatch, release: str, status: str) -> None:
    """Releases of torch before 2.10 are warned of."""
    cuda = SimpleNamespace(device_count=lambda: 1, get_device_name=lambda index: "Big GPU")
    fake = SimpleNamespace(__version__=release, get_num_threads=lambda: 2, cuda=cuda)
    monkeypatch.setattr(doctor.importlib, "import_module", lambda name: fake)
    found = by_name(doctor._torch())
    assert found["torch"].status == status
    assert "cuda:0 (Big GPU)" in found["devices"].found
    for on, how in ((True, "at the same time"), (False, "take turns")):
        monkeypatch.setattr(doctor, "mps_is_on", lambda on=on: on)
        assert how in by_name(doctor._torch())["mps"].found


def test_missing_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages that are not installed are named with the line that installs them."""
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    (torch,) = doctor._torch()
    (extras,) = doctor._extras()
    assert (torch.status, extras.status) == ("warn", "warn")
    assert "the extra 'mnist'" in extras.remedy


def test_the_unrelated_build_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where PyPI's `pbt` is installed too, the conflict is a failure with the lines that end it."""
    monkeypatch.setattr(doctor, "version_of", lambda name: "1.5.1" if name == "pbt" else "0.1.0")
    (found,) = doctor._command()
    assert found.status == "fail"
    assert "pip uninstall pbt" in found.remedy


def test_whose_command_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The command on the PATH is looked into: ours, another program's, or none."""
    monkeypatch.setattr(doctor, "version_of", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert next(iter(doctor._command())).status == "warn"
    script = tmp_path / "pbt"
    script.write_text("#!/bin/sh\necho build tool\n")
    script.chmod(0o755)
    assert "another program" in next(iter(doctor._command())).found
    script.write_text("#!/usr/bin/python\nfrom pbt.cli.app import main\n")
    assert next(iter(doctor._command())).status == "ok"
