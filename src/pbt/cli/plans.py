"""`--plan` and `--of`: replace the plan of an experiment."""

from pbt.compare.design import planned
from pbt.errors import UsageError
from pbt.runs.catalog import find_run, opened
from pbt.runs.experiment import Experiment
from pbt.runs.results import Run
from pbt.strategies.registry import NEED_A_RUN


def under(experiment: Experiment, plan: str | None, of: str | None) -> Experiment:
    """The experiment with its plan replaced by a named one, or unchanged without a name.

    Args:
        experiment: The experiment of the file.
        plan: Value of `--plan`.
        of: Value of `--of`, the run that the plan is derived from.

    Raises:
        UsageError: The plan does not exist, or the run is missing, superfluous or not finished.
    """
    check_flags(plan, of)
    if plan is None:
        return experiment
    return planned(experiment, plan, None if of is None else finished(of))


def check_flags(plan: str | None, of: str | None) -> None:
    """UsageError if one of the two options is given without the other."""
    if plan is None and of is not None:
        raise UsageError(f"--of requires --plan with one of {', '.join(NEED_A_RUN)}")
    if plan in NEED_A_RUN and of is None:
        raise UsageError(f"--plan {plan} requires --of RUN, the finished run that it is derived from")


def finished(of: str) -> Run:
    """Open the run given by `--of`.

    Raises:
        UsageError: It does not exist or is not finished.
    """
    path = find_run(of)
    with opened(path) as (run, state):
        if state != "finished":
            raise UsageError(f"--of {of}: expected a finished run, got one that is {state}")
    return run
