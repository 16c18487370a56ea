"""Resuming a run: a check of the experiment, and warnings of changes that may alter the last bits of its results."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pbt.core.describe import Difference
from pbt.errors import RunUnbegunError, UsageError
from pbt.store.base import Store
from pbt.store.layout import DATABASE
from pbt.store.sqlite import RunStore

log = logging.getLogger("pbt")


def existing_run(path: Path) -> Store | None:
    """The run in the directory; None if it has no run, or one whose creation was interrupted."""
    if not (path / DATABASE).exists():
        return None
    try:
        return RunStore.open(path)
    except RunUnbegunError:
        return None


def check_same(store: Store, changes: Mapping[str, Difference], *, changed_plan: bool) -> Difference | None:
    """Check that a recorded run is the same experiment; returns the accepted change of its plan, or None.

    Args:
        store: The recorded run.
        changes: The differing parts (`Experiment.differences`).
        changed_plan: Whether another plan is accepted.

    Raises:
        UsageError: The experiments differ.
    """
    for part, change in changes.items():
        if part == "population":
            raise UsageError(
                f"{_refusal(store.path, change)}, or change it with changed_population=True (pbt resume --population)"
            )
        if part != "plan":
            raise UsageError(_refusal(store.path, change))
    plan = changes.get("plan")
    if plan is not None and not changed_plan:
        raise UsageError(f"{_refusal(store.path, plan)}, or accept the change with changed_plan=True (--changed-plan)")
    return plan


def check_same_data(store: Store, now: Mapping[str, Any]) -> None:
    """Check that a run resumes with data of the same number and form; other examples are warned of.

    Raises:
        UsageError: They differ.
    """
    for split, recorded in store.meta["data"].items():
        found = now.get(split, {"examples": 0})
        for name, before in recorded.items():
            if name != "sample" and found.get(name) != before:
                raise UsageError(_refusal(store.path, Difference(f"data.{split}.{name}", before, found.get(name))))
        if found.get("sample") != recorded.get("sample"):
            log.warning(
                "%s: resumed with other examples in the %s data, of the same number and form: results differ from "
                "those of a run without interruption", store.path, split,
            )  # fmt: skip
            store.note("changed_data", split=split)


def _refusal(path: Path | None, change: Difference) -> str:
    """The error message for resuming another experiment; names the differing field."""
    if change.field.endswith(".code"):
        rule = change.field.removesuffix(".code")
        return f"{path}: this run was started with another {rule}: its code has changed; use the same"
    return (
        f"{path}: this run was started with {change.field} = {change.before!r} and cannot be resumed with "
        f"{change.now!r}; use the same, or start another run"
    )


def record_change(store: Store, change: Difference, plan: Mapping[str, Any]) -> None:
    """Record that the run resumes with another plan."""
    entry = {"field": change.field, "before": change.before, "now": change.now}
    log.warning("%s: resumed with another %s: %r instead of %r", store.path, change.field, change.now, change.before)
    store.update_meta(plan=plan, changed_plan=[*store.meta.get("changed_plan", ()), entry])
    store.note("changed_plan", **entry)


def warn_of_changes(store: Store, now: Mapping[str, Any]) -> None:
    """Warn of changes that can alter the last bits of a resumed run; such changes are allowed.

    Args:
        store: The run.
        now: Its placement from now on, as recorded.
    """
    # Runs of earlier versions have no precision; it was torch's default.
    recorded = {"precision": "float32", **store.meta["place"]}
    changes = [
        f"{name} {recorded.get(name)} -> {value}"
        for name, value in now.items()
        if name not in ("workers", "need") and recorded.get(name) != value
    ]
    store.note("resumed", changes=changes)
    if changes:
        log.warning("resumed with another placement: results may differ in their last bits (%s)", ", ".join(changes))
