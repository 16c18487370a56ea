"""Importing the original's checkpoints: its layer names, files that are none of it, and files that mean harm."""

import io
import pickle
import shutil
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pbt.cli.app import main
from pbt.errors import ConfigError, CorruptError, PBTError
from pbt.mnist import original as original_module
from pbt.mnist.commands import single
from pbt.mnist.config.record import Config
from pbt.mnist.model_file import import_model, load_model
from pbt.mnist.original import Original, mapped, read_original
from pbt.mnist.training import prepare
from pbt.runs.placement import Placement

Configure = Callable[..., Config]
IMAGE = (1, 28, 28)
ROOT = Path(__file__).parents[2]


class Net(nn.Module):
    """A network with the layer names of the original's."""

    def __init__(self, kind: str, sizes: tuple[int, ...], *, batch_norm: bool = True) -> None:
        super().__init__()
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        features = 784 if kind == "fc" else 1
        for i, size in enumerate(sizes, 1):
            layer = nn.Linear(features, size) if kind == "fc" else nn.Conv2d(features, size, 3, padding=1)
            layers[f"{kind}{i}"] = layer
            if batch_norm:
                layers[f"bn{i}"] = nn.BatchNorm1d(size) if kind == "fc" else nn.BatchNorm2d(size)
            layers[f"relu{i}"], layers[f"drop{i}"] = nn.ReLU(), nn.Dropout(0.2)
            features = size
        if kind == "fc":
            layers["out"] = nn.Linear(features, 10)
        self.model = nn.Sequential(layers)
        if kind == "conv":
            self.classifier = nn.Sequential(nn.Linear(features * 784, 10))
        self._flat = kind == "fc"
        for module in self.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                    nn.init.uniform_(tensor, 0.1, 0.9)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, 10) of images (n, 1, 28, 28)."""
        hidden = self.model(images.flatten(1) if self._flat else images)
        return hidden if self._flat else self.classifier(hidden.flatten(1))


def save(path: Path, model: nn.Module, *, legacy: bool = False, **more: Any) -> Path:
    content = {"iteration": 550, "epoch": 2, "state_dict": model.state_dict(), **more}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize(("kind", "sizes"), [("fc", (8,)), ("fc", (7, 9, 5)), ("conv", (3,)), ("conv", (2, 4))])
def test_a_network_of_the_original_answers_as_before(
    tmp_path: Path, kind: str, sizes: tuple[int, ...], batch_norm: bool, parallel: bool, legacy: bool
) -> None:
    """Kind, sizes and batch normalization are found in the file, and the network's outputs are the same to the bit."""
    model = Net(kind, sizes, batch_norm=batch_norm).eval()
    path = save(tmp_path / "m.pth.tar", nn.DataParallel(model) if parallel else model, legacy=legacy)
    found = read_original(path)
    shape, network = mapped(found, IMAGE, "m")
    assert (found.epoch, found.iteration) == (2, 550)
    assert (shape.model, shape.sizes, shape.batch_norm, shape.classes) == (kind, sizes, batch_norm, 10)
    images = torch.randn(5, *IMAGE)
    with torch.no_grad():
        assert torch.equal(network(images), model(images))


def tensors_of(kind: str = "fc", sizes: tuple[int, ...] = (8, 9)) -> dict[str, Tensor]:
    return dict(Net(kind, sizes).state_dict())


def test_the_order_in_the_file_does_not_matter_where_the_names_are_the_originals() -> None:
    """Sorted by name, as other programs write them, the tensors make the same network."""
    tensors = tensors_of("fc", (8,) * 11)
    there = Original(tensors=tensors, epoch=None, iteration=None)
    by_name = Original(tensors=dict(sorted(tensors.items())), epoch=None, iteration=None)
    images = torch.randn(5, *IMAGE)
    with torch.no_grad():
        assert torch.equal(mapped(there, IMAGE, "m")[1](images), mapped(by_name, IMAGE, "m")[1](images))


def test_other_names_are_mapped_by_order_and_shape() -> None:
    """Layers with names of their own become those of the network in the order of the file."""
    tensors = tensors_of("conv", (3, 4))
    names = {"model.conv1": "a", "model.bn1": "b", "model.conv2": "c", "model.bn2": "d", "classifier.0": "e"}
    renamed = {f"{names[n.rpartition('.')[0]]}.{n.rpartition('.')[2]}": t for n, t in tensors.items()}
    images = torch.randn(5, *IMAGE)
    found = [mapped(Original(tensors=t, epoch=None, iteration=None), IMAGE, "m")[1] for t in (tensors, renamed)]
    with torch.no_grad():
        assert torch.equal(found[0](images), found[1](images))


def without(name: str) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in tensors_of().items() if key != name}


MISFITS: dict[str, tuple[dict[str, Tensor], str]] = {
    "no bias": (without("model.fc2.bias"), "model.fc2.bias"),
    "no running mean": (without("model.bn1.running_mean"), "model.bn1.running_mean"),
    "other images": ({**tensors_of(), "model.fc1.weight": torch.zeros(8, 3072)}, "model.fc1.weight"),
    "gap": ({**tensors_of(), "model.fc2.weight": torch.zeros(9, 7)}, "model.fc2.weight"),
    "kernel": ({**tensors_of("conv"), "model.conv1.weight": torch.zeros(8, 1, 5, 5)}, "model.conv1.weight"),
    "unknown part": ({**tensors_of(), "model.fc1.scale": torch.zeros(8)}, "model.fc1.scale"),
    "half a norm": ({k: t for k, t in tensors_of().items() if "bn2" not in k}, "model.fc2"),
    "norm first": ({"norm.weight": torch.ones(3), "norm.bias": torch.ones(3), **tensors_of()}, "norm"),
    "norm last": ({**tensors_of(), "n.weight": torch.ones(10), "n.bias": torch.ones(10)}, "'n'"),
    "one layer": ({"a.weight": torch.zeros(10, 784), "a.bias": torch.zeros(10)}, "'a'"),
    "a number": ({**tensors_of(), "model.fc1.bias": torch.tensor(1.0)}, "model.fc1.bias"),
    "nothing": ({}, "layers of a network"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_what_is_no_network_of_the_original_is_refused_by_name(name: str) -> None:
    """A tensor that does not fit is named in one line; nothing is loaded in part."""
    tensors, said = MISFITS[name]
    with pytest.raises(ConfigError) as raised:
        mapped(Original(tensors=tensors, epoch=None, iteration=None), IMAGE, "m.pth.tar")
    assert said in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


class Trap:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("legacy", [False, True])
def test_nothing_in_a_file_is_executed(tmp_path: Path, legacy: bool) -> None:
    """A checkpoint with something else than weights in it is refused, and what it would do is not done."""
    sprung, path = tmp_path / "sprung", tmp_path / "m.pth.tar"
    save(path, Net("fc", (8,)), legacy=legacy, extra=Trap(sprung))
    with pytest.raises(CorruptError, match="weights alone"):
        read_original(path)
    path.write_bytes(pickle.dumps(Trap(sprung)))
    with pytest.raises(CorruptError):
        read_original(path)
    assert not sprung.exists()


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, legacy: bool, share: float) -> None:
    """A file that was cut anywhere is one error that names it."""
    path = save(tmp_path / "m.pth.tar", Net("fc", (8,)), legacy=legacy)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(PBTError, match=r"m\.pth\.tar") as raised:
        read_original(path)
    assert len(str(raised.value).splitlines()) == 1


def test_a_file_takes_no_more_memory_than_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large files, archives that unpack to large ones, and tensors that repeat few numbers without end are refused."""
    path = tmp_path / "m.pth.tar"
    torch.save({"state_dict": {"a.weight": torch.zeros(1).expand(1 << 20, 1 << 10)}}, path)
    with pytest.raises(CorruptError, match="no more numbers than the file has bytes"):
        read_original(path)
    save(path, Net("fc", (64,)))
    monkeypatch.setattr(original_module, "MOST_BYTES", 100_000)
    with pytest.raises(ConfigError, match="at most"):
        read_original(path)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 20))
    assert len(packed.getvalue()) < 100_000
    path.write_bytes(packed.getvalue())
    with pytest.raises(ConfigError, match="at most"):
        read_original(path)


@pytest.mark.parametrize(
    "content", [{}, [1], {"state_dict": {}}, {"state_dict": [1]}, {"state_dict": {"a.weight": 3}}, {"epoch": 1}, 7]
)
def test_a_file_without_weights_is_refused(tmp_path: Path, content: Any) -> None:
    """A PyTorch file that holds something else is an error of ours."""
    torch.save(content, tmp_path / "m.pth.tar")
    with pytest.raises(CorruptError, match="expected"):
        read_original(tmp_path / "m.pth.tar")


def renamed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of this package's fc network of one hidden layer, with the original's names."""
    names = {"1": "module.model.fc1", "2": "module.model.bn1", "5": "module.model.out"}
    return {f"{names[n.partition('.')[0]]}.{n.partition('.')[2]}": tensor for n, tensor in weights.items()}


@pytest.mark.parametrize("pixels", ["original", "standard"])
def test_an_imported_network_is_worth_what_it_was(
    configured: Configure, digits: Path, tmp_path: Path, pixels: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """However its pixels were scaled, an imported network has the accuracy that it had, and every command takes it."""
    config = configured(PBT_lr=None, PBT_keep_prob=None, num_epochs=10, pixels=pixels)
    run = prepare(config, Placement(executor="inline", threads=1, device="cpu")).train(tmp_path / "run", resume=False)
    torch.save({"iteration": 1, "epoch": 0, "state_dict": renamed(run.load_state()["model"])}, tmp_path / "m.pth.tar")
    target = tmp_path / "m.safetensors"
    words = [str(tmp_path / "m.pth.tar"), str(target), "--data-dir", str(digits)]
    assert main(["mnist", "import", *words]) == 2
    assert "--i-trust-this-file" in capsys.readouterr().err
    assert not target.exists()
    assert main(["mnist", "import", *words, "--i-trust-this-file"]) == 0
    state, found = load_model(target)
    assert (found.train.pixels, found.train.n_hiddens) == (pixels, (16,))
    tested = ["-m", "test", "--data-dir", str(digits), "--set", "gpus="]
    assert single([str(ROOT / "config/conv.json"), *tested, "--set", f"test.load_ckpt={target}"]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    best = tmp_path / "run" / "ckpts" / "best.safetensors"
    assert single([str(ROOT / "config/conv.json"), *tested, "--set", f"test.load_ckpt={best}"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == line
    assert f"accuracy {state['card']['test_accuracy']:.4f}" in line
    assert main(["mnist", "import", *words, "--i-trust-this-file"]) == 2
    assert "expected a new file name ending in .safetensors" in capsys.readouterr().err


def test_a_model_file_is_not_imported(tmp_path: Path) -> None:
    """What is a safetensors file already is refused, and not read as a pickle."""
    shutil.copy(ROOT / "models" / "fc.safetensors", tmp_path)
    with pytest.raises(ConfigError, match="found a safetensors file"):
        import_model(tmp_path / "fc.safetensors", tmp_path / "x.safetensors")
