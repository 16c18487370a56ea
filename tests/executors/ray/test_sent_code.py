"""The code of a task travels to the nodes: its folder, or its packages, below a size limit."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest

import pbt
from pbt.executors import transport
from pbt.executors.ray import sent_code
from pbt.executors.ray.sent_code import code_environment, size_of
from tests.executors.ray.ray_tasks import walk

TASK = """
from pathlib import Path

import pbt
from beside import scale  # a module beside this file
from parts.lines import values  # a package beside it


def train(hparams, state, steps, ctx):
    here = Path(scale.__code__.co_filename).resolve()
    assert "_ray_pkg_" in str(here), here
    return hparams["lr"], scale(hparams["lr"]) + sum(values())


experiment = pbt.Experiment(task=train, space={"lr": pbt.Float(0.01, 0.5, "log")}, population=2, rounds=1)
"""


@pytest.fixture
def project(tmp_path):
    """A folder with a task, a module, a package, a data file, results and an environment."""
    folder = tmp_path / "project"
    for name in ("parts", "runs/first", "env/lib", "__pycache__", "ignored"):
        (folder / name).mkdir(parents=True)
    (folder / "task.py").write_text(TASK)
    (folder / "beside.py").write_text("def scale(x):\n    return 2 * x\n")
    (folder / "parts/__init__.py").touch()
    (folder / "parts/lines.py").write_text(
        "from pathlib import Path\n\n\ndef values():\n    return map(float, Path('values.txt').read_text().split())\n"
    )
    (folder / "values.txt").write_text("1 2 3")
    (folder / ".gitignore").write_text("ignored/\n")
    for name in ("runs/first/run.db", "env/pyvenv.cfg", "env/lib/large", "__pycache__/x.pyc", "ignored/large"):
        (folder / name).write_bytes(bytes(1000))
    return folder


@pytest.fixture
def loaded(project):
    """The task of the project, loaded as commands do."""
    sys.path.append(str(project))
    module = transport.load_module("pbt_file_task", project / "task.py")
    yield module.train
    sys.path.remove(str(project))
    for name in ("pbt_file_task", "beside", "parts", "parts.lines"):
        sys.modules.pop(name, None)


def test_the_folder_of_the_file(project, loaded):
    """Without results, environments, caches and what git ignores; an explicit choice wins."""
    environment = code_environment(loaded, {"env_vars": {"A": "1"}})
    assert environment["working_dir"] == str(project)
    assert environment["env_vars"] == {"A": "1"}
    assert {"/runs/first", "/env", ".venv", "__pycache__"} <= set(environment["excludes"])
    files = ("task.py", "beside.py", "parts/__init__.py", "parts/lines.py", "values.txt", ".gitignore")
    assert size_of(project)[0] == sum((project / name).stat().st_size for name in files)
    assert code_environment(loaded, {"working_dir": "/elsewhere"}) == {"working_dir": "/elsewhere"}
    assert code_environment(loaded, {"working_dir": None, "pip": ["x"]}) == {"pip": ["x"]}


def test_another_file_that_was_loaded(project, loaded, tmp_path):
    """A file that the process has loaded for something else does not stand for that of the task."""
    (tmp_path / "other.py").write_text("x = 1\n")
    other = transport.load_module("pbt_file_other", tmp_path / "other.py")
    try:
        assert code_environment(loaded, {})["working_dir"] == str(project)
    finally:
        del sys.modules[other.__name__]


def test_a_large_folder(project, loaded, monkeypatch, caplog):
    """It is not sent, and a message has its size, the limit, its largest part and the remedies."""
    monkeypatch.setattr(sent_code, "LIMIT", 2 * 2**20)
    (project / "images.npy").write_bytes(bytes(3 * 2**20))
    with caplog.at_level(logging.WARNING, logger="pbt"):
        assert code_environment(loaded, {}) == {}
    for fact in (str(project), "3 MiB", "limit is 2 MiB", "images.npy (3 MiB)", "Cluster(data=...)", ".gitignore"):
        assert fact in caplog.text


def test_a_package():
    """A task of an importable package: the package alone; of an installed one: nothing."""
    (package,) = code_environment(walk, {})["py_modules"]
    assert Path(package) == Path(__file__).parents[2]
    assert code_environment(pbt.truncation, {}) == {}


@pytest.mark.slow
def test_a_project_on_a_cluster(project, tmp_path):
    """One command, started elsewhere: the modules and the data file beside the task are found on the node."""
    from tests.executors.ray.test_nodes import make_head

    head = make_head()
    try:
        command = [sys.executable, "-m", "pbt", "run", f"{project / 'task.py'}:experiment", "--quiet"]
        flags = ["--executor", "ray", "--address", head.address, "--out", str(tmp_path / "run")]
        subprocess.run([*command, *flags], timeout=120, check=True, cwd=tmp_path)
    finally:
        head.shutdown()
    assert {
        round(member.score - 2 * member.hparams["lr"], 6) for member in pbt.Run.open(tmp_path / "run").view.members
    } == {6}
