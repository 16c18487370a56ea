"""Rows: every member's tensors as views into one tensor per dtype."""

import pytest
import torch

from pbt.pytorch.vectorized.stacked_tensors import Rows

LIKE = {
    "w": torch.zeros(3, 5),
    "count": torch.zeros((), dtype=torch.int64),
    "b": torch.zeros(3),
    "half": torch.zeros(2, dtype=torch.float16),
    "none": torch.zeros(0, 4),
    "flag": torch.zeros(2, dtype=torch.bool),
}


def filled(members=4):
    rows = Rows(LIKE, members, "cpu")
    for i in range(members):
        rows.load(i, {name: torch.full_like(tensor, i) for name, tensor in LIKE.items()})
    return rows


def firsts(rows):
    """What every member's tensors are filled with."""
    found = []
    for i in range(rows.members):
        (value,) = {float(x) for tensor in rows.row(i).values() for x in tensor.flatten() if tensor.dtype != torch.bool}
        assert rows.row(i)["flag"].tolist() == [value != 0] * 2
        found.append(value)
    return found


def test_names_shapes_and_types() -> None:
    """Each member has tensors of the names, shapes and types that were asked for, zero at first."""
    rows = Rows(LIKE, 4, "cpu")
    assert list(rows.views) == list(LIKE)
    for name, tensor in LIKE.items():
        assert rows.views[name].shape == (4, *tensor.shape)
        assert rows.views[name].dtype == tensor.dtype
        assert not rows.views[name].any()
        assert rows.row(2)[name].shape == tensor.shape


def test_rows_share_memory() -> None:
    """What is written to a row or a view is seen in the other, and in no other row."""
    rows = filled()
    rows.row(1)["w"][2, 3] = 77.0
    assert rows.views["w"][1, 2, 3] == 77.0
    rows.views["b"][3] = 5.0
    assert rows.row(3)["b"].tolist() == [5.0] * 3
    assert [rows.row(i)["w"].sum().item() for i in (0, 2, 3)] == [0.0, 30.0, 45.0]


def test_alignment() -> None:
    """Every tensor begins at a multiple of sixteen numbers; the gaps stay zero."""
    rows = Rows({"a": torch.zeros(17), "b": torch.zeros(1), "c": torch.zeros(16), "d": torch.zeros(2, 2)}, 3, "cpu")
    assert rows.flat.shape == (3, 32 + 16 + 16 + 16)
    for view in rows.views.values():
        view.fill_(1.0)
        assert view.storage_offset() % 16 == 0
        assert view.stride(0) % 16 == 0
    assert rows.flat.sum() == 3 * (17 + 1 + 16 + 4)
    assert rows.nbytes == 3 * 80 * 4


def test_flat() -> None:
    """There is one tensor of all numbers only where all are of one type."""
    assert Rows({"a": torch.zeros(3)}, 2, "cpu").flat.shape == (2, 16)
    assert Rows(LIKE, 2, "cpu").flat is None
    assert Rows({}, 2, "cpu").flat is None


@pytest.mark.parametrize("sources", [[0, 1, 2, 3], [1, 2, 3, 0], [3, 3, 0, 0], [2, 2, 2, 2], [1, 0, 1, 2]])
def test_gather(sources) -> None:
    """Every row becomes what its source was before, also where sources are overwritten themselves."""
    rows = filled()
    views = dict(rows.views)
    rows.gather(sources)
    assert firsts(rows) == sources
    assert all(rows.views[name] is view for name, view in views.items())


def test_load() -> None:
    """A row is set alone, converted to the type of the rows; what has another shape is refused by name."""
    rows = filled()
    rows.load(1, {name: torch.full(tensor.shape, 9.0, dtype=torch.float64) for name, tensor in LIKE.items()})
    assert firsts(rows) == [0.0, 9.0, 2.0, 3.0]
    with pytest.raises(RuntimeError, match=r"'b' has shape \(1,\), not \(3,\)"):
        rows.load(0, {**LIKE, "b": torch.zeros(1)})
    with pytest.raises(KeyError, match="w"):
        rows.load(0, {"b": LIKE["b"]})
