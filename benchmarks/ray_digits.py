"""Training of the MNIST networks in Ray Tune's workers: plain PyTorch, one member at a time, without Ray."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pbt.mnist.config.record import Config
from pbt.mnist.models import Shape, network
from pbt.mnist.task import load_data, normalize

EVALUATED = 1000
"""Examples per evaluation batch, as in `SupervisedTask`."""
Arrays = dict[str, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]


def load_arrays(config: Config) -> Arrays:
    """Images, normalized once, and labels of the splits `train`, `val` and `test`."""
    train = config.train
    data = load_data(train.data_dir, train.num_val, (train.num_channels, train.height, train.width), train.num_classes)
    splits = {"train": data.train, "val": data.validation, "test": data.test}
    arrays = {}
    for name, split in splits.items():
        assert split is not None
        assert isinstance(split.inputs, Tensor)
        arrays[name] = normalize(split.inputs).numpy(), split.targets.numpy()
    return arrays


class Digits:
    """The data and the current member of a worker.

    Args:
        config: The configuration.
        arrays: Result of `load_arrays`; read-only, may be shared between workers.
    """

    def __init__(self, config: Config, arrays: Arrays) -> None:
        torch.set_num_threads(1)
        self._config = config.train
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            splits = {name: (torch.from_numpy(x), torch.from_numpy(y)) for name, (x, y) in arrays.items()}
        self._images, self._labels = splits.pop("train")
        self._held_out = splits

    def begin(self, hparams: Mapping[str, float]) -> None:
        """Start a new member, which may then be loaded."""
        train = self._config
        self._hparams = dict(hparams)
        self._model = network(Shape.of(train, hparams.get("keep_prob", train.keep_prob)))
        self._optimizer = torch.optim.Adam(
            self._model.parameters(), lr=train.lr, weight_decay=train.weight_decay, fused=True
        )
        self._bind()

    def train(self) -> dict[str, float]:
        """Train one epoch, then evaluate validation and test images."""
        self._model.train()
        for batch in torch.split(torch.randperm(len(self._labels)), self._config.batch_size):
            loss = F.cross_entropy(self._model(self._images[batch]), self._labels[batch])
            self._optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()
        self._model.eval()
        found = {name: self._measure(images, labels) for name, (images, labels) in self._held_out.items()}
        return {
            "score": found["val"][0],
            **{f"{name}_accuracy": accuracy for name, (accuracy, _) in found.items()},
            **{f"{name}_loss": loss for name, (_, loss) in found.items()},
        }

    @torch.inference_mode()
    def _measure(self, images: Tensor, labels: Tensor) -> tuple[float, float]:
        right, loss = 0, 0.0
        for start in range(0, len(labels), EVALUATED):
            outputs, targets = self._model(images[start : start + EVALUATED]), labels[start : start + EVALUATED]
            right += int((outputs.argmax(dim=1) == targets).sum())
            loss += float(F.cross_entropy(outputs, targets, reduction="sum"))
        return right / len(labels), loss / len(labels)

    def save(self, folder: Path) -> None:
        """Write the member to a folder."""
        torch.save({"model": self._model.state_dict(), "optimizer": self._optimizer.state_dict()}, folder / "state.pt")

    def load(self, folder: Path) -> None:
        """Restore the member from a folder, with its current hyperparameters."""
        state = torch.load(folder / "state.pt", weights_only=True)
        self._model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._bind()

    def _bind(self) -> None:
        for group in self._optimizer.param_groups:
            group.update({name: self._hparams[name] for name in ("lr", "weight_decay") if name in self._hparams})
        for layer in self._model.modules():
            if isinstance(layer, nn.Dropout) and "keep_prob" in self._hparams:
                layer.p = 1 - self._hparams["keep_prob"]
