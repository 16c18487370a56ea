"""A strategy that continues from the memory in a log, which another program may have changed."""

from collections.abc import Iterator
from contextlib import contextmanager

from pbt.core.strategy import Strategy
from pbt.errors import CorruptError
from pbt.executors.source_lines import users_line
from pbt.store.database import LOOK


@contextmanager
def continuing_from_log(strategy: Strategy) -> Iterator[None]:
    """Name the log as the cause where a strategy of this package fails on its memory.

    Its form is the strategy's own, so that the laws of the log cannot check it. No strategy of this package fails on a
    memory that it made. An error of the user's own strategy or rule is left as it is.

    Raises:
        CorruptError: The strategy cannot continue from the memory in the log.
    """
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if not type(strategy).__module__.startswith("pbt.") or users_line(error.__traceback__) is not None:
            raise
        raise CorruptError(
            f"expected the memory of {type(strategy).__name__} in the log, found another ({error!r:.120}); {LOOK}"
        ) from error
