"""The driver's side of states: references for the workers' starts, and durable copies of the states that they made."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from pbt.core.population import StateRef, Stored
from pbt.errors import TaskError
from pbt.executors.base import Report, States, TaskBatch
from pbt.executors.ray.object_cache import ObjectCache
from pbt.executors.ray.slots import MadeState
from pbt.executors.ray.transfer import fetch_files, send_files
from pbt.executors.retry import START_SECONDS
from pbt.store.codec import digest_of
from pbt.store.files import StateFiles, file_name

HELD = 0.3
"""Fraction of the object store for states that wait to be handed over."""


class DamagedError(Exception):
    """A state arrived with another digest than its worker computed."""


class DriverStates:
    """States of the run, handed over through the cluster's memory while it holds them.

    Args:
        ray: The connected module.
        states: The states of the run.
        folder: The states folder as seen by the workers, if they write there themselves.
        memory: Size of the cluster's object stores in bytes.

    Raises:
        TaskError: The run keeps its states in another way.
    """

    def __init__(self, ray: Any, states: States, folder: str | None, memory: float) -> None:
        if not isinstance(states, StateFiles):
            raise TaskError(f"the executor 'ray' keeps states as files or in records, got {type(states).__name__}")
        self._ray, self._states, self._folder = ray, states, folder
        self._held = ObjectCache(HELD * memory)

    def parcels(self, share: TaskBatch) -> tuple[list[StateRef], list[Any]]:
        """The start states that a batch needs, and a reference to each: the copy in the cluster, else a durable one.

        Raises:
            CorruptError: A state of the run is missing or damaged.
        """
        refs = sorted({task.start for task in share if task.start is not None and task.blob is None})
        return refs, [self._parcel(ref) for ref in refs]

    def send_files(self, actor: Any, share: TaskBatch) -> Mapping[StateRef, Mapping[str, int]]:
        """Send an actor the files of its start states that its node lacks; returns the files of each state.

        Raises:
            RayError: The actor does not answer.
            CorruptError: A file of the run is missing.
        """
        needed = self._needed(share)
        send_files(self._ray, actor, self._states, needed)
        return needed

    def forget(self, share: TaskBatch) -> None:
        """Drop the cluster's copies of a batch's start states, which were lost."""
        for task in share:
            if task.start is not None:
                self._held.drop(task.start)

    def durable(self, report: Report, made: MadeState) -> Report:
        """The report with its state made durable.

        Raises:
            RayError: The state was lost with its node.
            DamagedError: It arrived damaged.
            PBTError: It cannot be stored.
        """
        if report.stored.blob is not None and not made.files:
            return report
        ref, digest = StateRef(report.member, report.round), report.stored.digest
        if self._folder is not None:
            self._check_shared(ref, report.stored)
            return report
        if made.files:
            fetch_files(self._ray, made.actor, self._states, ref, made.files)
        if report.stored.blob is not None:
            return report
        blob = self._ray.get(made.parcel, timeout=START_SECONDS).data
        if digest_of(blob) != digest:
            raise DamagedError
        kept = replace(self._states.keep(ref, blob, digest), folders=report.stored.folders)
        self._held.add(ref, made.parcel, len(blob))
        return replace(report, stored=kept)

    def _parcel(self, ref: StateRef) -> Any:
        if self._folder is not None:
            return None
        held = self._held.get(ref)
        if held is None:
            blob = self._states.read(ref)
            held = self._ray.put(np.frombuffer(blob, dtype=np.uint8))
            self._held.add(ref, held, len(blob))
        return held

    def _needed(self, share: TaskBatch) -> dict[StateRef, dict[str, int]]:
        """The files of the start states with folders, unless the workers read them from a shared folder."""
        if self._folder is not None:
            return {}
        files = {task.start: self._states.references(task.start) for task in share if task.start is not None}
        return {ref: needed for ref, needed in files.items() if needed}

    def _check_shared(self, ref: StateRef, stored: Stored) -> None:
        mine = self._states.folder
        file = None if mine is None else mine / file_name(ref)
        if file is None or not file.exists() or file.stat().st_size != stored.size:
            raise TaskError(
                f"states_url: expected the workers' {self._folder} to be the states folder of the run, "
                f"{mine or 'which is in memory'}; found no {file_name(ref)} there"
            )
