"""The placement of a configuration, from its `gpus`, `executor`, `threads` and `num_workers_paral`."""

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from pbt.errors import ConfigError
from pbt.executors.ray.cluster import Cluster
from pbt.mnist.config.record import Config
from pbt.runs.placement import ExecutorName, Placement

log = logging.getLogger("pbt")


def placement_of(
    config: Config, *, device: str | None = None, executor: str | None = None, address: str | None = None
) -> Placement:
    """The placement of a configuration; a notice is logged where it differs from the configured one.

    Args:
        config: Its `gpus` and `num_workers_paral` are upper bounds: absent devices are not used.
        device: `--device` of the command line, which must exist.
        executor: `--executor` of the command line. Default: the configuration's.
        address: Address of the Ray cluster, from the command line.

    Raises:
        ConfigError: The configured executor trains only populations.
        DeviceError: The device of the command line does not exist.
    """
    executor = executor or config.train.executor
    if not config.evolving:
        return _single_placement(config, device, executor, address)
    if executor == "ray":
        return _on_ray(config, address, device, config.train.num_workers_paral)
    return _population_placement(config, device, cast("ExecutorName", executor))


def _single_placement(config: Config, device: str | None, executor: str, address: str | None) -> Placement:
    """The first of the configured devices, or one worker on a cluster."""
    train = config.train
    if executor not in ("auto", "inline", "ray"):
        raise ConfigError(f"executor: expected auto, inline or ray for a single network, got {executor}")
    if executor == "ray":
        placement = _on_ray(config, address, device, workers=1)
    else:
        placement = Placement(executor="inline", threads=train.threads, device=device or gpu_of(train.gpus))
    placement.resolve(1)  # an absent device is an error before the data is searched
    return placement


def _population_placement(config: Config, device: str | None, executor: ExecutorName) -> Placement:
    train = config.train
    placement = Placement(threads=train.threads, device=device if device is not None else gpus_of(train.gpus))
    resolved = replace(placement, executor="processes").resolve(train.num_worker_tot)
    slots = min(train.num_workers_paral, len(resolved.devices))
    if executor == "processes" and slots < train.num_workers_paral:
        log.info(
            "num_workers_paral is %d: %d of them train at a time, on %s",
            train.num_workers_paral,
            slots,
            ", ".join(dict.fromkeys(resolved.devices)),
        )
    if train.num_workers_paral < train.num_worker_tot:
        members = max(1, train.num_workers_paral // slots)
        return replace(placement, executor=executor, workers=slots, members_per_program=members)
    return replace(placement, executor=executor, workers=slots if executor == "processes" else None)


def _on_ray(config: Config, address: str | None, device: str | None, workers: int) -> Placement:
    """At most `workers` actors, which share the GPUs that `gpus` names, on whichever machines these are."""
    train, cluster = config.train, Cluster(address=address)
    if cluster.where is None and device is None:
        device = gpus_of(train.gpus)  # Ray runs on this machine: absent GPUs are a notice
    count = 0 if device == "cpu" else len(device.split(",")) if device else len(train.gpus)
    share = min(1.0, math.floor(10_000 * count / workers) / 10_000)  # Ray rounds to four decimals
    return Placement(
        executor="ray",
        workers=workers,
        threads=train.threads,
        cluster=replace(cluster, cpus=max(1.0, float(train.threads or 1)), gpus=share),
    )


def gpus_of(gpus: Sequence[int]) -> str:
    """The devices of this machine that a `gpus` key stands for, joined by commas; logs a notice where they differ.

    The named GPUs that exist; where none of them exists, as many others as were named; without any GPU, and for an
    empty key, the CPU.
    """
    import torch

    if not gpus:
        return "cpu"
    there = torch.cuda.device_count()
    found = [gpu for gpu in gpus if gpu < there] or list(range(there))[: len(gpus)]
    devices = ",".join(f"cuda:{gpu}" for gpu in found)
    if found != list(gpus):
        log.info(
            "gpus is %s: %s",
            ",".join(map(str, gpus)),
            f"using {devices}" if devices else "none exists, using the CPU",
        )
    return devices or "cpu"


def gpu_of(gpus: Sequence[int]) -> str:
    """The one device of a `gpus` key that a single network or an evaluation uses; logs a notice where it names several.

    The original's DataParallel splits each batch of 200 small images over the devices and copies the weights to all of
    them in every step, which takes longer than the step itself.
    """
    device, *others = gpus_of(gpus).split(",")
    if others:
        log.info("gpus: one network of this size is faster on one device than on several; using %s", device)
    return device
