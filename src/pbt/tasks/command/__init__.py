"""A program as a member: `pbt.Command`."""

from pbt.tasks.command.task import Command

__all__ = ["Command"]
