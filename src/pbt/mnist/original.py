"""Read the original's PyTorch checkpoints, weights only: by the names of its layers, else by order and shape.

The original saves `{"iteration", "epoch", "state_dict"}`. The layers of its fully connected network are `model.fc1`,
`model.bn1`, ..., `model.out`, those of its convolutional network `model.conv1`, `model.bn1`, ..., `classifier.0`; the
names begin with `module.` where the state is that of a `DataParallel`.
"""

import math
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pbt.errors import ConfigError, CorruptError
from pbt.mnist.models import Shape, network

MOST_BYTES = 256 << 20
"""Largest file, in bytes, also after unpacking its archive."""
_PARTS = frozenset({"weight", "bias", "running_mean", "running_var"})
_NAMED = re.compile(r"model\.(?:(?P<kind>fc|conv|bn)(?P<index>\d+)|out)|classifier\.0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """A checkpoint of the original."""

    tensors: Mapping[str, Tensor]
    """The parameters and running statistics by name, without `module.`."""
    epoch: int | None
    iteration: int | None


@dataclass(slots=True, kw_only=True)
class _Layer:
    name: str
    weight: Tensor
    bias: Tensor
    norm: "dict[str, Tensor] | None" = None
    norm_name: str = field(default="")


def read_original(path: Path) -> Original:
    """The weights in a PyTorch file; only tensors and plain values are built from it.

    Raises:
        ConfigError: The file does not exist, or is larger than `MOST_BYTES`.
        CorruptError: It is damaged, holds other objects than weights, or announces more numbers than it has.
    """
    room = _size(path)
    if path.suffix == ".safetensors":
        raise ConfigError(f"{path}: expected a PyTorch checkpoint, as model_ckpt.pth.tar, found a safetensors file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about formats of old versions of torch
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # The reader may raise any exception; its advice to read without restrictions is left out.
        why = next(iter(str(error).splitlines()), type(error).__name__)[:200]
        raise CorruptError(
            f"{path}: expected a PyTorch checkpoint with weights alone, cannot read it: {why}"
        ) from error
    state = found.get("state_dict", found) if isinstance(found, dict) else None
    if not isinstance(state, dict) or not state:
        raise CorruptError(f"{path}: expected a checkpoint with a state_dict, found {type(found).__name__}")
    tensors: dict[str, Tensor] = {}
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor) or value.layout != torch.strided:
            raise CorruptError(
                f"{path}: expected tensors by name in state_dict, found {type(value).__name__} at {name!r:.60}"
            )
        tensors[name.removeprefix("module.")] = value.detach()
    # Tensors may be views that repeat a few numbers.
    if sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) > room:
        raise CorruptError(f"{path}: expected no more numbers than the file has bytes for, found more")
    epoch, iteration = (found.get(key) if key in found else None for key in ("epoch", "iteration"))
    return Original(tensors=tensors, epoch=_count(epoch), iteration=_count(iteration))


def mapped(original: Original, image: tuple[int, int, int], where: str) -> tuple[Shape, nn.Sequential]:
    """This package's network with the weights of a checkpoint.

    Args:
        original: The checkpoint.
        image: Channels, height and width of its training images.
        where: Name of the file in errors.

    Raises:
        ConfigError: A tensor fits neither network; the message names it.
    """
    layers = _layers(original.tensors, where)
    shape = _shape(layers, image, where)
    model = network(shape)
    linear = [module for module in model if isinstance(module, nn.Linear | nn.Conv2d)]
    norms = iter([module for module in model if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)])
    with torch.no_grad():
        for module, layer in zip(linear, layers, strict=True):
            module.weight.copy_(layer.weight)
            if module.bias is not None:
                module.bias.copy_(layer.bias)
            if layer.norm is not None:
                next(norms).load_state_dict(layer.norm, strict=False)
    return shape, model.eval()


def _size(path: Path) -> int:
    """Bytes of a file, unpacked if it is an archive."""
    try:
        size = path.stat().st_size if path.is_file() else -1
        if 0 <= size <= MOST_BYTES and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                size = max(size, sum(entry.file_size for entry in archive.infolist()))
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise CorruptError(f"{path}: expected a PyTorch checkpoint, cannot read it: {error}") from error
    if size < 0:
        raise ConfigError(f"{path}: expected a PyTorch checkpoint, found no file")
    if size > MOST_BYTES:
        raise ConfigError(f"{path}: expected at most {MOST_BYTES >> 20} MiB, found {size / (1 << 20):,.0f}")
    return size


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _layers(tensors: Mapping[str, Tensor], where: str) -> list[_Layer]:
    """The layers in order, each with the batch normalization that follows it."""
    groups: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        prefix, _, part = name.rpartition(".")
        if part == "num_batches_tracked":
            continue
        if part not in _PARTS:
            raise ConfigError(f"{where}: expected weight, bias, running_mean and running_var of layers, found '{name}'")
        groups.setdefault(prefix, {})[part] = tensor
    names = list(groups)
    if all(_NAMED.fullmatch(name) for name in names):
        names.sort(key=_rank)
    layers: list[_Layer] = []
    for name in names:
        parts = groups[name]
        missing = {"weight", "bias"} - parts.keys()
        if missing:
            raise ConfigError(f"{where}: expected '{name}.{min(missing)}' beside '{name}.{min(parts)}', found none")
        if parts["weight"].dim() != 1:
            layers.append(_Layer(name=name, weight=parts["weight"], bias=parts["bias"]))
            continue
        if not layers or layers[-1].norm is not None:
            raise ConfigError(f"{where}: expected a layer before the batch normalization '{name}', found none")
        layers[-1].norm, layers[-1].norm_name = parts, name
    return layers


def _rank(name: str) -> tuple[float, bool]:
    match = _NAMED.fullmatch(name)
    index = match["index"] if match else None
    return (math.inf if index is None else int(index), name.startswith("model.bn"))


def _shape(layers: list[_Layer], image: tuple[int, int, int], where: str) -> Shape:
    """The network with these layers; raises ConfigError that names the first tensor that does not fit."""
    if not layers:
        raise ConfigError(f"{where}: expected the layers of a network, found none")
    *hidden, out = layers
    conv = bool(hidden) and hidden[0].weight.dim() == 4
    batch_norm = bool(hidden) and hidden[0].norm is not None
    features = image[0] if conv else math.prod(image)
    for layer in hidden:
        size = len(layer.weight)
        _expect(layer.name, "weight", layer.weight, (size, features, 3, 3) if conv else (size, features), where)
        _expect(layer.name, "bias", layer.bias, (size,), where)
        if (layer.norm is not None) is not batch_norm:
            raise ConfigError(
                f"{where}: expected batch normalization behind all hidden layers or none, see '{layer.name}'"
            )
        for part in sorted(_PARTS) if layer.norm is not None else ():
            _expect(layer.norm_name, part, layer.norm.get(part), (size,), where)  # type: ignore[union-attr]
        features = size
    if conv:
        features *= image[1] * image[2]
    classes = len(out.weight)
    _expect(out.name, "weight", out.weight, (classes, features), where)
    _expect(out.name, "bias", out.bias, (classes,), where)
    if out.norm is not None:
        raise ConfigError(f"{where}: expected nothing behind the last layer, found '{out.norm_name}'")
    if not hidden:
        raise ConfigError(f"{where}: expected hidden layers, found '{out.name}' alone")
    return Shape(
        model="conv" if conv else "fc",
        image=image,
        classes=classes,
        sizes=tuple(len(layer.weight) for layer in hidden),
        batch_norm=batch_norm,
        keep_prob=1.0,
    )


def _expect(name: str, part: str, tensor: Tensor | None, shape: tuple[int, ...], where: str) -> None:
    found = None if tensor is None else tuple(tensor.shape)
    if found == shape:
        return
    said = "none" if found is None else " x ".join(map(str, found))
    remedy = "" if len(shape) == 1 else "; for other images than 1 x 28 x 28 give --num-channels, --height and --width"
    raise ConfigError(f"{where}: expected '{name}.{part}' of {' x '.join(map(str, shape))}, found {said}{remedy}")
