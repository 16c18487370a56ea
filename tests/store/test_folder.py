"""Folders and files as states: `pbt.Folder`."""

import errno
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pbt
from pbt.core.population import StateRef
from pbt.errors import CorruptError, StateError
from pbt.store.codec import decode, digest, encode_whole, folders_of
from pbt.store.encoded_bytes import InMemory
from pbt.store.files import StateFiles
from pbt.store.folder import Workspace
from pbt.store.manifest import FileContent, Manifest
from pbt.store.objects import FileObjects
from pbt.store.repair import repair_run
from pbt.store.sqlite import RunStore
from pbt.store.verify import verify_run

REF, OTHER = StateRef(0, 1), StateRef(1, 1)
SHA = "a" * 64


@pytest.fixture
def states(tmp_path: Path) -> StateFiles:
    (tmp_path / "run" / "states").mkdir(parents=True)
    return StateFiles(tmp_path / "run" / "states")


def checkpoint(path: Path, **files: str) -> Path:
    """A folder with two levels, an empty folder and a large file."""
    (path / "inner" / "nothing").mkdir(parents=True)
    (path / "weights.bin").write_bytes(b"w" * 3_000_000)
    (path / "inner" / "step.txt").write_text("7")
    for name, text in files.items():
        (path / f"{name}.txt").write_text(text)
    return path


def tree(path: Path) -> dict[str, bytes | None]:
    """Everything in a folder."""
    return {str(p.relative_to(path)): p.read_bytes() if p.is_file() else None for p in sorted(path.rglob("*"))}


def objects(states: StateFiles) -> list[str]:
    assert states.objects is not None
    return states.objects.names()


def test_a_folder_comes_back_as_a_private_copy(states: StateFiles, tmp_path: Path) -> None:
    """Equal content, subfolders and empty folders included; changes to the copy and the original reach nobody."""
    path = checkpoint(tmp_path / "out")
    before = tree(path)
    stored = states.put(REF, {"at": [pbt.Folder(path)], "step": 3})
    shutil.rmtree(path)
    for _ in range(2):
        state = states.get(REF, stored.digest, stored.blob)
        assert state["step"] == 3
        (folder,) = state["at"]
        assert tree(folder.path) == before
        (folder.path / "weights.bin").write_bytes(b"overwritten")
        with (folder.path / "inner" / "step.txt").open("a") as file:
            file.write("appended in place")
    assert states.check(REF, stored.digest, stored.blob, set()) == stored.size


def test_a_file_keeps_its_name(states: StateFiles, tmp_path: Path) -> None:
    (tmp_path / "model.zip").write_bytes(b"zip")
    stored = states.put(REF, {"model": pbt.Folder(str(tmp_path / "model.zip"))})
    path = states.get(REF, stored.digest, stored.blob)["model"].path
    assert (path.name, path.read_bytes()) == ("model.zip", b"zip")


def test_each_file_is_stored_once(states: StateFiles, tmp_path: Path) -> None:
    """By content, whatever its name, state or folder; the digest depends on names and content only."""
    digests = [
        states.put(StateRef(0, i + 1), {"at": pbt.Folder(checkpoint(tmp_path / f"out-{i}"))}).digest for i in range(3)
    ]
    assert len(set(digests)) == 1
    assert objects(states) == sorted(hashlib.sha256(text).hexdigest() for text in (b"w" * 3_000_000, b"7"))
    moved = checkpoint(tmp_path / "moved")
    (moved / "weights.bin").rename(moved / "other.bin")
    assert states.put(StateRef(0, 9), {"at": pbt.Folder(moved)}).digest != digests[0]
    assert len(objects(states)) == 2


def test_a_private_file_is_stored_by_a_link_and_any_other_by_a_copy(states: StateFiles, tmp_path: Path) -> None:
    with Workspace(states.workspaces) as workspace:
        private = checkpoint(workspace.path / "out")
        states.put(REF, {"at": pbt.Folder(private)})
        name = hashlib.sha256(b"w" * 3_000_000).hexdigest()
        assert states.objects is not None
        assert (private / "weights.bin").samefile(states.objects.root / name)
    assert not workspace.path.exists()
    foreign = checkpoint(tmp_path / "foreign", more="x")
    states.put(OTHER, {"at": pbt.Folder(foreign)})
    assert all(path.stat().st_nlink == 1 for path in foreign.rglob("*.txt"))


def test_an_untouched_folder_is_handed_on_without_a_look_at_its_files(states: StateFiles, tmp_path: Path) -> None:
    """The frozen base: neither copied out nor read again; even its files may be away."""
    stored = states.put(REF, {"base": pbt.Folder(checkpoint(tmp_path / "base"))})
    state = states.get(REF, stored.digest, stored.blob)
    again = states.put(OTHER, state)
    assert again.digest == stored.digest
    assert states.references(OTHER) == states.references(REF)
    assert not (tmp_path / "run" / "scratch").exists()


def test_a_folder_of_another_run_comes_along(states: StateFiles, tmp_path: Path) -> None:
    stored = states.put(REF, {"base": pbt.Folder(checkpoint(tmp_path / "base"))})
    (tmp_path / "second" / "states").mkdir(parents=True)
    second = StateFiles(tmp_path / "second" / "states")
    copied = second.put(REF, states.get(REF, stored.digest, stored.blob))
    assert copied.digest == stored.digest
    assert second.check(REF, copied.digest, copied.blob, set()) == copied.size


def test_the_digest_needs_no_store(tmp_path: Path, states: StateFiles) -> None:
    state = {"at": pbt.Folder(checkpoint(tmp_path / "out"))}
    assert digest(state) == states.put(REF, state).digest


@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "socket", "outside"])
def test_what_is_no_file_is_refused_by_name(states: StateFiles, tmp_path: Path, kind: str) -> None:
    path = checkpoint(tmp_path / "out")
    odd = path / "inner" / "odd"
    if kind == "link":
        odd.symlink_to(path / "weights.bin")
    elif kind == "dangling":
        odd.symlink_to("/nowhere")
    elif kind == "outside":
        odd.symlink_to("..", target_is_directory=True)
    elif kind == "pipe":
        os.mkfifo(odd)
    else:
        import socket

        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(odd))
    with pytest.raises(StateError, match=r"state\['at'\]: .*inner/odd.*(link|pipe|socket)"):
        states.put(REF, {"at": pbt.Folder(path)})
    assert objects(states) == []
    assert states.references(REF) == {}


def test_nothing_and_an_empty_folder_are_refused(states: StateFiles, tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"missing.*found nothing"):
        states.put(REF, {"at": pbt.Folder(tmp_path / "missing")})
    (tmp_path / "empty" / "inner").mkdir(parents=True)
    with pytest.raises(StateError, match=r"empty.*at least one file"):
        states.put(REF, {"at": pbt.Folder(tmp_path / "empty")})


def test_a_folder_that_is_still_written_is_refused(
    states: StateFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that grows, appears or disappears between the first look and the last."""
    from pbt.store import objects as module

    path = checkpoint(tmp_path / "out")
    plain = module.hash_file

    def changes(act):
        def hashed(*args):
            found = plain(*args)
            act()
            return found

        monkeypatch.setattr(module, "hash_file", hashed)
        with pytest.raises(StateError, match="still being written"):
            states.put(REF, {"at": pbt.Folder(path)})

    changes(lambda: (path / "weights.bin").write_bytes(b"others"))
    changes(lambda: (path / "new.txt").write_text("new"))
    changes(lambda: (path / "weights.bin").unlink(missing_ok=True))
    assert states.references(REF) == {}


@pytest.mark.parametrize("name", ["/etc/passwd", "../up", "a/../../up", "a//b", "./a", "", "a\\b", "a\0b"])
def test_a_name_that_leaves_the_folder_is_corrupt(name: str) -> None:
    """Made by hand: no folder can hold such a name, so that a state with it is another's work."""
    inside = Manifest(files={"inside": FileContent(1, SHA)})
    blob = encode_whole({"at": pbt.Folder.stored(inside, None)}).blob()
    assert folders_of(InMemory(blob)) == [inside]
    outside = encode_whole({"at": pbt.Folder.stored(Manifest(files={name: FileContent(1, SHA)}), None)}).blob()
    with pytest.raises(CorruptError, match="structure"):
        decode(outside)
    with pytest.raises(CorruptError, match="structure"):
        folders_of(InMemory(outside))


def test_a_name_that_is_file_and_folder_is_corrupt() -> None:
    both = Manifest(files={"a": FileContent(1, SHA), "a/b": FileContent(1, SHA)})
    with pytest.raises(CorruptError, match="structure"):
        decode(encode_whole({"at": pbt.Folder.stored(both, None)}).blob())


@pytest.mark.parametrize("damage", ["gone", "changed", "longer", "link"])
def test_damage_is_found_where_it_is_used_and_by_verify(states: StateFiles, tmp_path: Path, damage: str) -> None:
    stored = states.put(REF, {"at": pbt.Folder(checkpoint(tmp_path / "out"))})
    assert states.objects is not None
    path = states.objects.root / hashlib.sha256(b"7").hexdigest()
    path.chmod(0o644)
    if damage == "gone":
        path.unlink()
    elif damage == "link":
        path.unlink()
        path.symlink_to("/etc/passwd")
    else:
        path.write_text("8" if damage == "changed" else "77")
    with pytest.raises((CorruptError, pbt.PBTError), match=path.name):
        _ = states.get(REF, stored.digest, stored.blob)["at"].path
    with pytest.raises((CorruptError, pbt.PBTError), match=path.name):
        states.check(REF, stored.digest, stored.blob, set())


def count(hparams, state, steps, ctx):
    """A counter in a checkpoint folder, with a base that never changes; where it ran is left in the reports."""
    out = ctx.scratch / "out"
    out.mkdir()
    number = 0
    if state is not None:
        assert tree(state["base"].path) == {"frozen.bin": b"f" * 100_000}
        number = int((state["at"].path / "number.txt").read_text())
        base = state["base"]
    else:
        (ctx.scratch / "base").mkdir()
        (ctx.scratch / "base" / "frozen.bin").write_bytes(b"f" * 100_000)
        base = pbt.Folder(ctx.scratch / "base")
    (out / "number.txt").write_text(str(number + steps))
    (out / "owner.txt").write_text(f"{ctx.member} {ctx.round}")
    metrics = {"score": number + hparams["lr"], "copied": ctx.copied, "changed": len(ctx.changed)}
    return {"at": pbt.Folder(out), "base": base}, metrics


SPACE = {"lr": pbt.Float(0.01, 1.0)}


@pytest.mark.parametrize("executor", ["inline", pytest.param("processes", marks=pytest.mark.slow)])
def test_a_run_hands_folders_over(tmp_path: Path, executor: str) -> None:
    """Equal bits on every executor; working folders and unneeded files are gone at the end; a base is there once."""
    run = pbt.run(count, SPACE, population=4, rounds=5, run_dir=tmp_path / "run", placement=executor, seed=3)
    memory = pbt.run(count, SPACE, population=4, rounds=5, seed=3)
    assert [e.digest for e in run.events if hasattr(e, "digest")] == [
        e.digest for e in memory.events if hasattr(e, "digest")
    ]
    assert (run.load_state(run.best)["at"].path / "number.txt").read_text() == "5"
    assert (memory.load_state(memory.best)["at"].path / "number.txt").read_text() == "5"
    history = run.history()
    assert list(history["copied"]) == [donor is not None for donor in history["donor"]]
    lr = dict(zip(zip(history["member"], history["round"], strict=True), history["lr"], strict=True))
    assert [bool(n) for n in history["changed"]] == [r > 1 and lr[m, r] != lr[m, r - 1] for m, r in lr]
    assert any(history["copied"])
    assert verify_run(tmp_path / "run") == []
    assert not (tmp_path / "run" / "scratch").exists()
    frozen = hashlib.sha256(b"f" * 100_000).hexdigest()
    assert (tmp_path / "run" / "states" / "objects" / frozen).stat().st_size == 100_000
    with RunStore.open(tmp_path / "run") as store:
        needed = {sha for ref in store._stored for sha in store.states.references(ref)}
        assert set(objects(store.states)) == needed
        store.sweep([])
        assert objects(store.states) == []
        assert [p.name for p in (tmp_path / "run" / "states").iterdir()] == ["objects"]


def test_a_run_in_memory_leaves_nothing(tmp_path: Path) -> None:
    code = (
        "import pbt, tests.store.test_folder as t\n"
        "run = pbt.run(t.count, t.SPACE, population=2, rounds=2)\n"
        "assert run.load_state(run.best)['at'].path.is_dir()\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert list(tmp_path.iterdir()) == []


def test_a_resumed_run_clears_up_and_repairs(tmp_path: Path) -> None:
    """Left-overs of killed workers go; a damaged file costs the rounds that need it."""
    path = tmp_path / "run"
    pbt.run(count, SPACE, population=3, rounds=3, run_dir=path, seed=3)
    pictures = verify_run(path), sorted(p.name for p in (path / "states").iterdir())
    (path / "scratch" / "round-1").mkdir(parents=True)
    (path / "states" / "000001-000009.files").write_text("{}")
    (path / "states" / "objects" / SHA).write_text("unneeded")
    (path / "states" / "objects" / f"{SHA}.0.tmp").write_text("unfinished")
    assert [problem.harmless for problem in verify_run(path)] == [True] * 3
    RunStore.open(path).close()
    assert (verify_run(path), sorted(p.name for p in (path / "states").iterdir())) == pictures
    assert not (path / "scratch").exists()
    number = path / "states" / "objects" / hashlib.sha256(b"3").hexdigest()
    number.unlink()
    assert any(number.name in problem.message for problem in verify_run(path) if not problem.harmless)
    repaired = repair_run(path)
    assert repaired is not None
    assert repaired.round == 2
    run = pbt.run(count, SPACE, population=3, rounds=3, run_dir=path, seed=3, resume=True)
    assert verify_run(path) == []
    assert (run.load_state(run.best)["at"].path / "number.txt").read_text() == "3"


def test_repair_writes_lost_lists_again(tmp_path: Path) -> None:
    path = tmp_path / "run"
    pbt.run(count, SPACE, population=2, rounds=2, run_dir=path, seed=3)
    (path / "states" / "000000-000002.files").unlink()
    (path / "states" / "000001-000002.files").write_text("not JSON")
    assert sum(not problem.harmless for problem in verify_run(path)) == 2
    repaired = repair_run(path)
    assert repaired is not None
    assert (repaired.round, repaired.dropped) == (2, ())
    assert verify_run(path) == []


def test_a_sweep_waits_for_a_worker_that_writes(tmp_path: Path) -> None:
    """A worker that has found a file to be there already relies on it before its state is named anywhere."""
    objects = FileObjects(tmp_path / "objects")
    with objects.writing():
        (objects.root / SHA).write_text("x")
        assert not objects.sweep(set)
        assert objects.names() == [SHA]
    assert objects.sweep(set)
    assert objects.names() == []


def large(hparams, state, steps, ctx):
    with (ctx.scratch / "weights.bin").open("wb") as file:
        for piece in range(96):
            file.write(bytes([piece]) * (1 << 20))
    if state is not None:
        assert state["at"].path.stat().st_size == 96 << 20
    return {"at": pbt.Folder(ctx.scratch / "weights.bin")}, 1.0


def test_memory_does_not_grow_with_the_folder(tmp_path: Path) -> None:
    """A file of 96 MiB is stored, handed out and stored again in a few MiB."""
    code = (
        "import resource, sys, pbt, tests.store.test_folder as t\n"
        "pbt.run(t.count, t.SPACE, population=2, rounds=2, run_dir=sys.argv[1] + '/small')\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "pbt.run(t.large, t.SPACE, population=2, rounds=2, run_dir=sys.argv[1] + '/large')\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env=environment, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 32 << 10  # KiB


def test_a_file_with_another_name_elsewhere_is_copied(states: StateFiles, tmp_path: Path) -> None:
    """A program may link files of its own into its output: their content and their rights stay its own."""
    outside = tmp_path / "base.bin"
    outside.write_bytes(b"base")
    outside.chmod(0o644)
    with Workspace(states.workspaces) as workspace:
        (workspace.path / "out").mkdir()
        (workspace.path / "out" / "base.bin").hardlink_to(outside)
        stored = states.put(REF, {"at": pbt.Folder(workspace.path / "out")})
    assert (outside.stat().st_mode & 0o777, outside.stat().st_nlink) == (0o644, 1)
    outside.write_bytes(b"else")
    assert (states.get(REF, stored.digest, stored.blob)["at"].path / "base.bin").read_bytes() == b"base"


def test_a_file_that_cannot_be_read_is_the_members_mistake(
    states: StateFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No failure of the disk, which would end the run for all. Rights do not bind root, so the call is made to fail."""
    path, opened = checkpoint(tmp_path / "out"), os.open

    def deny(file, *rest, **more):
        if str(file).endswith("step.txt"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))
        return opened(file, *rest, **more)

    monkeypatch.setattr(os, "open", deny)
    with pytest.raises(StateError, match=r"state\['at'\]: .*step\.txt.*Permission denied"):
        states.put(REF, {"at": pbt.Folder(path)})
