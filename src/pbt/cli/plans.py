"""`--plan` and `--of`: an experiment under another plan than its own."""

from pbt.compare.design import planned
from pbt.errors import UsageError
from pbt.runs.catalog import find_run, opened
from pbt.runs.experiment import Experiment
from pbt.runs.results import Run
from pbt.strategies.registry import NEED_A_RUN


def under(experiment: Experiment, plan: str | None, of: str | None) -> Experiment:
    """The experiment under the plan of this name; itself, if none is asked for.

    Args:
        experiment: As its file says.
        plan: What `--plan` says.
        of: What `--of` says, the run that the plan is made of.

    Raises:
        UsageError: There is no such plan, or the run is missing, not wanted or not finished.
    """
    check_flags(plan, of)
    if plan is None:
        return experiment
    return planned(experiment, plan, None if of is None else finished(of))


def check_flags(plan: str | None, of: str | None) -> None:
    """UsageError where one of the flags lacks the other."""
    if plan is None and of is not None:
        raise UsageError(f"--of: expected --plan {', '.join(NEED_A_RUN)} with it, got none")
    if plan in NEED_A_RUN and of is None:
        raise UsageError(f"--plan {plan}: expected --of RUN, the finished run that it is made of, got none")


def finished(of: str) -> Run:
    """The run that `--of` names.

    Raises:
        UsageError: There is none, or it is not finished.
    """
    path = find_run(of)
    with opened(path) as (run, state):
        if state != "finished":
            raise UsageError(f"--of {of}: expected a finished run, found one that is {state}")
    return run
