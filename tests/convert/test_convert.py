"""PyTorch weights in and out: bit for bit, with equal logits; what is refused and how it is said."""

import json
import pickle
import re
import sys

import jax
import numpy as np
import pytest

from sem_jax.convert import NAMINGS, read_state_dict, recognise, to_state_dict, to_variables
from sem_jax.convert.__main__ import main
from sem_jax.convert.files import write_safetensors
from sem_jax.errors import RunError
from sem_jax.models import MODELS, make_model
from sem_jax.models.resnet import ResNet
from sem_jax.runs.checkpoint import steps
from sem_jax.runs.opening import abstract_variables, open_run

torch = pytest.importorskip("torch")

from tests.helpers import torch_named as peer  # noqa: E402  torch is needed

FAMILIES = {
    "v1": lambda: peer.PreActResNet18("v1", 4, 10, 1),
    "v2": lambda: peer.PreActResNet18("v2", 4, 10, 1),
    "v3": lambda: peer.PreActResNet18("v3", 4, 10, 1),
    "wrn": lambda: peer.WideResNet(10, 1, 10, 1),
}
FIELDS = {
    "v1": {"name": "preact_resnet", "depth": 18, "width": 4, "variant": "v1", "stem": "3x3", "num_classes": 10},
    "v2": {"name": "preact_resnet", "depth": 18, "width": 4, "variant": "v2", "stem": "3x3", "num_classes": 10},
    "v3": {"name": "preact_resnet", "depth": 18, "width": 4, "variant": "v3", "stem": "3x3", "num_classes": 10},
    "wrn": {"name": "wide_resnet", "depth": 10, "width": 1, "stem": "3x3", "num_classes": 10},
}


def arrays_of(net):
    return {name: tensor.numpy() for name, tensor in net.state_dict().items()}


def same(a, b):
    """Equal in names, dtypes and bits; num_batches_tracked is 0 in ours."""
    assert set(a) == set(b)
    for name in a:
        assert a[name].dtype == b[name].dtype and a[name].shape == b[name].shape, name
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_state_dict_becomes_a_run_with_equal_logits_and_comes_back(family, tmp_path, rng, capsys):
    net = peer.randomise(FAMILIES[family]())
    torch.save({"state_dict": {f"module.{k}": v for k, v in net.state_dict().items()}}, tmp_path / "theirs.pth")
    main(
        [f"--from={tmp_path / 'theirs.pth'}", f"--workdir={tmp_path / 'run'}", "--data=digits", "--mean=.5", "--std=2"]
    )
    run = open_run(tmp_path / "run")
    given = {name: run.config.model[name] for name in FIELDS[family] if name != "num_classes"}
    assert given == {k: v for k, v in FIELDS[family].items() if k != "num_classes"}
    assert run.data.mean == (0.5,) and run.data.std == (2.0,) and run.data.name == "digits"
    record = json.loads((tmp_path / "run" / "converted.json").read_text())
    assert record["file"] == "theirs.pth" and len(record["sha256"]) == 64
    images = rng.normal(size=(4, 8, 8, 1)).astype(np.float32)
    ours = jax.jit(lambda v: run.model.apply(v, images, train=False).logits)(run.variables)
    with torch.no_grad():
        theirs = net(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=1e-4)
    safetensors = pytest.importorskip("safetensors.torch")  # the parity above needs PyTorch alone
    main([f"--workdir={tmp_path / 'run'}", f"--to={tmp_path / 'back.safetensors'}"])
    back = safetensors.load_file(tmp_path / "back.safetensors")
    same({k: v.numpy() for k, v in back.items()}, arrays_of(net))
    FAMILIES[family]().load_state_dict(back, strict=True)
    main([f"--from={tmp_path / 'back.safetensors'}", f"--workdir={tmp_path / 'again'}", "--data=digits"])
    jax.tree.map(np.testing.assert_array_equal, open_run(tmp_path / "again").variables, run.variables)


@pytest.mark.parametrize("bottleneck", [False, True], ids=["basic", "bottleneck"])
def test_torchvision_resnets(bottleneck, rng):
    """The 224-pixel stem included; one block a stage, so that it compiles in a moment."""
    vision = peer.import_torchvision().models.resnet
    block = vision.Bottleneck if bottleneck else vision.BasicBlock
    net = peer.randomise(vision.ResNet(block, [1, 1, 1, 1], num_classes=5))
    model = ResNet(num_classes=5, stages=(1, 1, 1, 1), bottleneck=bottleneck, stem="7x7s2")
    images = rng.normal(size=(2, 64, 64, 3)).astype(np.float32)
    arrays = arrays_of(net)
    variables = to_variables("resnet", arrays, abstract_variables(model, (64, 64, 3)), where="here")
    ours = jax.jit(lambda v: model.apply(v, images, train=False).logits)(variables)
    with torch.no_grad():
        theirs = net(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(ours, theirs, atol=2e-4 * np.abs(theirs).max(), rtol=2e-4)
    same(to_state_dict("resnet", variables), arrays)


def every_name_has_its_place(net, fields, image_shape):
    """Every name and shape of a net on the meta device; nothing is computed."""
    arrays = {name: np.broadcast_to(np.float32(0), tuple(x.shape)) for name, x in net.state_dict().items()}
    assert recognise(arrays, where="here") == fields
    to_variables(fields["name"], arrays, abstract_variables(make_model(**fields), image_shape), where="here")


@pytest.mark.parametrize("depth", [18, 50])
def test_the_names_of_whole_torchvision_resnets(depth):
    vision = peer.import_torchvision()
    with torch.device("meta"):
        net = vision.models.resnet18() if depth == 18 else vision.models.resnet50()
    fields = {"name": "resnet", "depth": depth, "width": 64, "stem": "7x7s2", "num_classes": 1000}
    every_name_has_its_place(net, fields, (224, 224, 3))


def test_wrn_28_10_is_recognised():
    with torch.device("meta"):
        net = peer.WideResNet(28, 10, 100, 3)
    fields = {"name": "wide_resnet", "depth": 28, "width": 10, "stem": "3x3", "num_classes": 100}
    every_name_has_its_place(net, fields, (32, 32, 3))


class Payload:
    def __reduce__(self):
        return (open, ("/dev/null",))


def wrong_files(folder):
    """name -> (path, what the message says)"""
    good = arrays_of(peer.PreActResNet18("v1", 4, 10, 1))
    missing = {k: v for k, v in good.items() if not k.startswith("layer3.1.bn2")}
    extra = good | {"layer1.0.se.weight": np.zeros(3, np.float32)}
    shaped = good | {"layer2.0.conv1.weight": np.zeros((8, 5, 3, 3), np.float32)}
    classes = good | {"linear.weight": np.zeros((7, 32), np.float32), "linear.bias": np.zeros(7, np.float32)}
    cases = {
        "missing": (missing, "4 missing: layer3.1.bn2"),
        "extra": (extra, "1 unknown: layer1.0.se.weight"),
        "shaped": (shaped, r"1 of another shape: layer2.0.conv1.weight \[8, 5, 3, 3\]"),
        "classes": (classes, "has 7 classes, digits has 10"),
        "other": ({"encoder.weight": np.zeros((2, 2), np.float32)}, "is none of mixup-cifar10's"),
    }
    out = {}
    for name, (arrays, message) in cases.items():
        write_safetensors(folder / f"{name}.safetensors", arrays, {})
        out[name] = (folder / f"{name}.safetensors", message)
    whole = (folder / "extra.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.safetensors").write_bytes(b"")
    (folder / "noise.pth").write_bytes(bytes(range(256)))
    (folder / "code.pth").write_bytes(pickle.dumps({"conv1.weight": Payload()}))
    torch.save(peer.PreActResNet18("v1", 4, 10, 1), folder / "whole.pt")
    torch.save([torch.zeros(2)], folder / "list.pt")
    (folder / "weights.bin").write_bytes(whole)
    return out | {
        "cut": (folder / "cut.safetensors", "cannot be read as safetensors"),
        "empty": (folder / "empty.safetensors", "cannot be read as safetensors"),
        "noise": (folder / "noise.pth", "cannot be read as tensors alone"),
        "code": (folder / "code.pth", "cannot be read as tensors alone"),
        "whole": (folder / "whole.pt", "cannot be read as tensors alone"),
        "list": (folder / "list.pt", "holds no state dict, but a list"),
        "suffix": (folder / "weights.bin", "must be a .safetensors, .pt or .pth file"),
        "absent": (folder / "absent.pth", "does not exist"),
    }


def test_wrong_files_are_refused_in_three_lines_and_leave_no_run(tmp_path, capsys):
    pytest.importorskip("safetensors")
    for name, (path, message) in wrong_files(tmp_path).items():
        with pytest.raises(SystemExit) as caught:
            main([f"--from={path}", f"--workdir={tmp_path / 'run'}", "--data=digits"])
        said = capsys.readouterr().err
        assert caught.value.code == 2 and re.search(message, said) and str(path) in said, (name, said)
        assert len(said.strip().splitlines()) <= 3 and not (tmp_path / "run").exists(), (name, said)


def test_a_folder_with_a_run_and_a_wrong_normalisation_are_refused(tmp_path, capsys):
    pytest.importorskip("safetensors")
    write_safetensors(tmp_path / "w.safetensors", arrays_of(peer.WideResNet(10, 1, 10, 1)), {})
    command = [f"--from={tmp_path / 'w.safetensors'}", f"--workdir={tmp_path / 'run'}", "--data=digits"]
    for more, message in ((["--mean", "0", "0", "0"], "must have 1 numbers"), (["--std", "0"], "std > 0")):
        with pytest.raises(SystemExit):
            main([*command, *more])
        assert message in capsys.readouterr().err
    main(command)
    with pytest.raises(SystemExit):
        main(command)
    assert "holds a run already" in capsys.readouterr().err
    (tmp_path / "run/config.json").unlink()
    (tmp_path / "run/checkpoints/1").rename(tmp_path / "run/checkpoints/390")
    with pytest.raises(SystemExit):
        main(command)
    assert "has checkpoints but no config.json" in capsys.readouterr().err
    assert steps(tmp_path / "run/checkpoints") == [390]


def test_what_has_no_pytorch_naming_is_not_exported(tmp_path):
    with pytest.raises(RunError, match="fit resnet: .* missing"):
        to_variables("resnet", {}, abstract_variables(make_model(name="resnet", num_classes=2), (8, 8, 3)), where="x")
    assert {naming.family for naming in NAMINGS.values()} == set(MODELS)


def test_torch_is_imported_for_its_own_files_alone(tmp_path, monkeypatch):
    pytest.importorskip("safetensors")
    write_safetensors(tmp_path / "w.safetensors", {"w": np.ones(2, np.float16)}, {})
    torch.save({"w": torch.ones(2)}, tmp_path / "w.pt")
    monkeypatch.setitem(sys.modules, "torch", None)  # an import of it fails
    assert read_state_dict(tmp_path / "w.safetensors")["w"].dtype == np.float32
    with pytest.raises(RunError, match="needs PyTorch to be read"):
        read_state_dict(tmp_path / "w.pt")
