"""The `ctx` of the user's code: member, step, seed and device of a round, and its hyperparameters."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pbt.core.rng import Key, Rng, seed_of
from pbt.errors import PBTError, TaskError, nearest
from pbt.executors.base_values import chosen_groups, is_number, plain, rebase, same
from pbt.executors.recorder import PointRecorder
from pbt.space import HParams
from pbt.store.folder import Workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The circumstances of a round, for the user's code; all randomness can be keyed from here."""

    seed: int
    """The seed of the run."""
    member: int
    round: int
    first_step: int
    """Training steps before this round."""
    device: str = "cpu"
    devices: tuple[str, ...] = ("cpu",)
    """All devices of this round; `device` is the first."""
    threads: int = 1
    """CPU threads available to this round."""
    logs: Path | None = None
    """The folder for logs of programs; None: the run has no directory."""
    founder: int | None = None
    """The founder of the state's lineage; None: this member."""
    hparams: HParams = field(default_factory=dict)
    """The hyperparameters of the round."""
    copied: bool = False
    """Whether the round starts from the state of another member."""
    changed: frozenset[str] = frozenset()
    """Names of the hyperparameters whose value differs from this member's last round; empty in the first."""
    workspace: Workspace | None = field(default=None, repr=False, compare=False)
    checked: set[str] = field(default_factory=set, repr=False, compare=False)
    """Names of the hyperparameters confirmed by `apply` and `in_effect`."""
    recorder: PointRecorder = field(default_factory=PointRecorder, repr=False, compare=False)
    """The recorder of `report`."""

    def key(self, *parts: Key) -> int:
        """A seed for any generator; equal for all members and rounds unless the parts differ."""
        return seed_of(self.seed, "task", *parts)

    @property
    def init_key(self) -> int:
        """The seed for building a member's parts, one per lineage.

        For example, a random projection outside the state stays the one that the weights were trained with.
        """
        return self.key("init", self.member if self.founder is None else self.founder)

    def rng(self, *parts: Key) -> Rng:
        """A generator with that key, without numpy or torch."""
        return Rng(self.seed, "task", *parts)

    @property
    def scratch(self) -> Path:
        """A private folder of this round, empty at first, made on first access and removed after the round.

        It is on the disk of the run directory: `pbt.Folder(ctx.scratch / "out")` in the returned state is stored by a
        link, without a copy.

        Raises:
            TaskError: No round is in progress.
            DiskError: The folder cannot be made.
        """
        if self.workspace is None:
            raise TaskError("ctx.scratch: expected a round in progress, got none; use it inside `train` or `evaluate`")
        return self.workspace.path

    def report(self, /, step: int, **numbers: Any) -> None:
        """Report numbers while the round runs: points of the curves in the terminal, the dashboard and the report.

        Of each name at most 100 points of a round are kept, the first and the last among them; `run.curves()` returns
        them. No decision reads them. A call takes microseconds, from any thread, and writes a file at most twice per
        second.

        ```python
        ctx.report(ctx.first_step + i + 1, loss=float(loss))
        ```

        Args:
            step: Training steps contained in the state at this point, counted from the start of the run.
            **numbers: Numbers by name; NaN and infinities are allowed. A name has up to 64 letters, digits and
                `_ . / -`; a round has at most 64 names.

        Raises:
            TaskError: The step is not a whole number from 0, a name is not allowed, or a value is not a number.
        """
        self.recorder.add(step, numbers)

    def apply(self, optimizer: Any, *, schedulers: Any = (), group: int | str | None = None, **settings: Any) -> None:
        """Apply values to an optimizer after loading its state, and read them back.

        Each value is the base value of a setting: the one that the optimizer would be built with, before a scheduler
        changes it. Parameter groups keep their ratios, a group at 0 stays at 0, and schedulers keep their phase. If the
        loaded state was trained with the same value, nothing is touched.

        ```python
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 100)
        if state is not None:
            optimizer.load_state_dict(state["optimizer"])
            scheduler.load_state_dict(state["scheduler"])
        ctx.apply(optimizer, schedulers=scheduler, lr=hparams["lr"])
        ```

        Args:
            optimizer: Any `torch.optim.Optimizer`.
            schedulers: The learning-rate scheduler of this optimizer, or a sequence of them.
            group: One parameter group, by index or by its `name` entry; None: all.
            **settings: Values by the name of the setting: `lr=0.1`, `betas=(0.9, 0.99)`.

        Raises:
            TaskError: The optimizer has no such setting; a scheduler was not passed; a value differs from the
                hyperparameter of the same name; or a value is not in effect after it was set.
        """
        given = list(schedulers) if isinstance(schedulers, (list, tuple)) else [schedulers]
        chosen = chosen_groups(optimizer, group, "ctx.apply")
        if not given and "lr" in settings and any("initial_lr" in optimizer.param_groups[i] for i in chosen):
            raise TaskError(
                "ctx.apply(lr=...): the optimizer has a learning-rate scheduler, which would undo the value; pass "
                "it, as in ctx.apply(optimizer, schedulers=scheduler, lr=...)"
            )
        for setting, value in settings.items():
            if setting in self.hparams and not same(self.hparams[setting], value):
                raise _not_in_effect(setting, self.hparams[setting], value, "ctx.apply sets it to")
            parts = enumerate(value) if isinstance(value, (list, tuple)) else [(None, value)]
            for index, part in parts:
                what = f"ctx.apply({setting}=...)"
                written = rebase(optimizer, setting, part, index=index, groups=chosen, schedulers=given, what=what)
                for number in written:
                    if not same(part, found := number.in_effect()):
                        raise _not_in_effect(setting, part, found, "it is")
                self._found(setting, part)

    def _found(self, setting: str, value: Any) -> None:
        """Record the hyperparameters confirmed by this value."""
        if setting in self.hparams:
            self.checked.add(setting)
        elif is_number(value):
            self.checked.update(name for name, own in self.hparams.items() if is_number(own) and own == value)

    def in_effect(self, values: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        """Report the hyperparameters in effect; each value is compared with the decided one.

        For settings that `apply` cannot reach, from any framework: `ctx.in_effect(lr=trainer.learning_rate)`.

        Args:
            values: Values by hyperparameter name, for names that are not Python identifiers.
            **more: Further values by name.

        Raises:
            TaskError: A name is not a hyperparameter of this round, or its value differs.
        """
        for name, value in {**(values or {}), **more}.items():
            if name not in self.hparams:
                raise TaskError(f"ctx.in_effect: expected hyperparameters, got '{name}'{nearest(name, self.hparams)}")
            found = plain(value)
            if not same(self.hparams[name], found):
                raise _not_in_effect(name, self.hparams[name], found, "it is")
            self.checked.add(name)


_LONG = 500
"""Characters of a library's message."""


@contextmanager
def trial_round(hparams: HParams, what: str) -> Iterator[Context]:
    """The context of a round outside a run: to check a task before the start, or to rebuild objects from a state.

    Args:
        hparams: The hyperparameters.
        what: The start of the message if the user's code or a library fails.

    Raises:
        TaskError: The body raised another exception than those of this package.
    """
    with Workspace(None) as workspace:
        try:
            yield Context(seed=0, member=0, round=1, first_step=0, hparams=hparams, workspace=workspace)
        except PBTError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())
            if len(reason) > _LONG:
                # Lists of allowed values are cut, not the value that a library names behind them.
                reason = f"{reason[: _LONG // 2]} ... {reason[-_LONG // 2 :]}"
            raise TaskError(f"{what}: {type(error).__name__}: {reason}") from error


def _not_in_effect(name: str, expected: Any, actual: Any, how: str) -> TaskError:
    return TaskError(f"the hyperparameter '{name}' should be {expected!r} after a hand-over, but {how} {actual!r}")
