"""The base class of objects that must be closed."""

from types import TracebackType
from typing import Self


class Closing:
    """A context manager that closes itself at the end of its block."""

    __slots__ = ()

    def close(self) -> None:
        """Release its resources; a second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
