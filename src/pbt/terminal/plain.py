"""A run as plain values, for JSON."""

from typing import Any

from pbt.runs.results import Run
from pbt.terminal.tables import MemberRow, rows_of
from pbt.text import finite, scalars


def as_json(run: Run, state: str) -> dict[str, Any]:
    """A run as plain values for JSON; scores are as returned by the task."""
    meta, scored_once = run.meta, run.view.best is not None
    plain: dict[str, Any] = finite(
        {
            "run": None if run.path is None else str(run.path),
            "state": state,
            "objective": meta.get("objective", "maximize"),
            "seed": meta.get("seed"),
            "population": meta.get("population"),
            "rounds": meta.get("rounds"),
            "rounds_done": run.view.rounds_done,
            "best": _best(run) if scored_once else None,
            "schedule": run.best_schedule.to_dict()["segments"] if scored_once else None,
            "members": [_member(row) for row in rows_of(run)],
        }
    )
    return plain


def _best(run: Run) -> dict[str, Any]:
    best = run.best
    return {
        "member": best.member,
        "round": best.round,
        "step": best.step,
        "score": best.score,
        "hparams": dict(best.hparams),
        "reported": scalars(best.reported),
    }


def _member(row: MemberRow) -> dict[str, Any]:
    return {
        "member": row.member,
        "status": row.status or "live",
        "round": row.round,
        "step": row.step,
        "score": row.score,
        "best": row.best,
        "hparams": dict(row.hparams),
        "kind": row.kind,
        "donor": row.donor,
        "founder": row.founder,
        "reported": dict(row.reported),
    }
