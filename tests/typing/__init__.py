"""A user's program, checked by mypy (strict) and pyright in `scripts/check`; nothing in it is run."""
