"""Import of optional frameworks."""

import importlib
from typing import Any

from pbt.errors import MissingExtraError


def framework(module: str, feature: str, extra: str) -> Any:
    """Import a framework.

    Args:
        module: Its name, as `"xgboost"`.
        feature: The public name that needs it, for the message.
        extra: The extra that installs it.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(feature, extra) from error
