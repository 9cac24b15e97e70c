"""Our nets against torchvision's and timm's: same weights, same images, same features and logits."""

import jax
import numpy as np
import pytest

from sem_jax.convert.naming import layout_of, recognise, to_state_dict, to_variables
from sem_jax.models import make_model
from sem_jax.runs.opening import abstract_variables

torch = pytest.importorskip("torch")

from tests.helpers import torch_named as peer  # noqa: E402  torch is needed

FULL = {  # name -> side of the images, what makes the net
    "torchvision resnet18": (64, lambda vision, timm: vision.models.resnet18()),
    "torchvision resnet50": (64, lambda vision, timm: vision.models.resnet50()),
    "torchvision convnext_tiny": (64, lambda vision, timm: vision.models.convnext_tiny()),
    "torchvision vit_b_16": (32, lambda vision, timm: vision.models.vit_b_16(image_size=32)),
    "timm convnext_tiny": (64, lambda vision, timm: timm.create_model("convnext_tiny")),
    "timm vit_small_patch16_224": (32, lambda vision, timm: timm.create_model("vit_small_patch16_224", img_size=32)),
    "timm vit_base_patch16_224": (224, lambda vision, timm: timm.create_model("vit_base_patch16_224")),
    "timm mixer_b16_224": (64, lambda vision, timm: timm.create_model("mixer_b16_224", img_size=64)),
}


def outputs_of(net, images):
    """(features, logits) of a net of torchvision or timm."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2)
    with torch.no_grad():
        logits = net(x).numpy()
        if hasattr(net, "forward_head"):
            return net.forward_head(net.forward_features(x), pre_logits=True).numpy(), logits
        place = next(name for name in ("fc", "heads", "classifier") if hasattr(net, name))
        head = getattr(net, place)
        setattr(net, place, head[:2] if place == "classifier" else torch.nn.Identity())
        features = net(x).numpy()
        setattr(net, place, head)
        return features, logits


def compare(net, images, model=None):
    """Relative difference of features and logits, in units of the largest entry; every name has its place."""
    arrays = {name: x.numpy() for name, x in net.state_dict().items()}
    layout, fields = layout_of(arrays, where="here"), recognise(arrays, where="here")
    model = model or make_model(**fields, dtype="float32")
    variables = to_variables(layout, arrays, abstract_variables(model, images.shape[1:]), where="here")
    back = to_state_dict(layout, variables)
    assert set(back) == set(arrays)
    for name, array in arrays.items():
        if "num_batches" not in name:
            np.testing.assert_array_equal(back[name], array, err_msg=name)
    ours = jax.jit(lambda v: model.apply(v, images, train=False))(variables)
    theirs = outputs_of(net, images)
    found = [float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(ours, theirs, strict=True)]
    assert max(found) < 1e-4, found
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL)
def test_published_nets(name, rng):
    vision, timm = peer.import_torchvision(), pytest.importorskip("timm")
    side, make = FULL[name]
    net = peer.randomise(make(vision, timm))
    for module in net.modules():
        if isinstance(module, torch.nn.Linear) and module.out_features == 1000:
            torch.nn.init.normal_(module.weight, std=0.05)  # zero as some are made: nothing would show
    found = compare(net, rng.normal(size=(2, side, side, 3)).astype(np.float32))
    print(f"{name}, {side} pixels: features {found[0]:.1e}, logits {found[1]:.1e}")


@pytest.fixture
def images(rng):
    return rng.normal(size=(2, 16, 16, 3)).astype(np.float32)


def test_vit(images):
    vision = peer.import_torchvision()
    net = peer.randomise(
        vision.models.VisionTransformer(16, 4, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=64, num_classes=5)
    )
    torch.nn.init.normal_(net.heads.head.weight)  # zero as torchvision makes it: nothing would show
    compare(net, images, make_model(name="vit", num_classes=5, width=16, depth=2, heads=2, dtype="float32"))


def test_convnext(images):
    module = peer.import_torchvision().models.convnext
    stages = [(8, 16, 1), (16, 32, 1), (32, 64, 3), (64, None, 1)]
    net = peer.randomise(module.ConvNeXt([module.CNBlockConfig(*stage) for stage in stages], num_classes=5))
    compare(net, images.repeat(2, 1).repeat(2, 2))  # 32 pixels


def test_mlp_mixer(images):
    peer.import_torchvision()  # timm imports it
    module = pytest.importorskip("timm.models.mlp_mixer")
    net = peer.randomise(module.MlpMixer(num_classes=5, img_size=16, patch_size=4, num_blocks=2, embed_dim=16))
    torch.nn.init.normal_(net.head.weight)
    compare(net, images)
