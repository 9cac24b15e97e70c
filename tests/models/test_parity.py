"""ViT and ConvNeXt against torchvision's, MLP-Mixer against timm's: same weights, same images, same logits."""

import jax
import numpy as np
import pytest

from sem_jax.models import MODELS, make_model
from sem_jax.runs.opening import abstract_variables

torch = pytest.importorskip("torch")

from tests.helpers import torch_named as peer  # noqa: E402  torch is needed


def dense(state, name):
    return {"kernel": state[f"{name}.weight"].T, "bias": state[f"{name}.bias"]}


def norm(state, name):
    return {"scale": state[f"{name}.weight"], "bias": state[f"{name}.bias"]}


def conv(state, name):
    return {"kernel": state[f"{name}.weight"].transpose(2, 3, 1, 0), "bias": state[f"{name}.bias"]}


def attention(state, name, heads):
    """PyTorch keeps q, k and v in one matrix; Flax one kernel each, [in heads entries]."""
    width = state[f"{name}.out_proj.bias"].shape[0]
    parts = {}
    for i, part in enumerate(("query", "key", "value")):
        rows = slice(i * width, (i + 1) * width)
        kernel = state[f"{name}.in_proj_weight"][rows].T.reshape(width, heads, -1)
        parts[part] = {"kernel": kernel, "bias": state[f"{name}.in_proj_bias"][rows].reshape(heads, -1)}
    out = dense(state, f"{name}.out_proj")
    return {**parts, "out": {"kernel": out["kernel"].reshape(heads, -1, width), "bias": out["bias"]}}


def compare(model, params, net, images):
    params = jax.tree.map(lambda x: np.ascontiguousarray(x, np.float32), params)
    like = abstract_variables(model, images.shape[1:])["params"]
    assert jax.tree.structure(like) == jax.tree.structure(params)
    jax.tree.map(lambda a, b: np.testing.assert_equal(a.shape, b.shape), like, params)
    ours = jax.jit(lambda p: model.apply({"params": p}, images, train=False).logits)(params)
    with torch.no_grad():
        theirs = net(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(ours, theirs, atol=2e-5 * np.abs(theirs).max(), rtol=2e-4)


@pytest.fixture
def images(rng):
    return rng.normal(size=(2, 16, 16, 3)).astype(np.float32)


def test_vit(images):
    vision = peer.import_torchvision()
    net = peer.randomise(
        vision.models.VisionTransformer(16, 4, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=64, num_classes=5)
    )
    torch.nn.init.normal_(net.heads.head.weight)  # zero as torchvision makes it: nothing would show
    s = {name: x.numpy() for name, x in net.state_dict().items()}
    params = {
        "patch_embedding": conv(s, "conv_proj"),
        "class_token": s["class_token"],
        "positions": s["encoder.pos_embedding"],
        "final_norm": norm(s, "encoder.ln"),
        "classifier": dense(s, "heads.head"),
    }
    for i in range(2):
        at = f"encoder.layers.encoder_layer_{i}"
        params[f"block{i + 1}"] = {
            "norm1": norm(s, f"{at}.ln_1"),
            "attention": attention(s, f"{at}.self_attention", 2),
            "norm2": norm(s, f"{at}.ln_2"),
            "mlp": {"fc1": dense(s, f"{at}.mlp.0"), "fc2": dense(s, f"{at}.mlp.3")},
        }
    compare(MODELS["vit"](num_classes=5, width=16, depth=2, heads=2), params, net, images)


def test_convnext(images):
    module = peer.import_torchvision().models.convnext
    stages = [(8, 16, 1), (16, 32, 1), (32, 64, 3), (64, None, 1)]
    net = peer.randomise(module.ConvNeXt([module.CNBlockConfig(*stage) for stage in stages], num_classes=5))
    s = {name: x.numpy() for name, x in net.state_dict().items()}
    images = images.repeat(2, 1).repeat(2, 2)  # 32 pixels
    params = {"final_norm": norm(s, "classifier.0"), "classifier": dense(s, "classifier.2")}
    for k, (_, _, blocks) in enumerate(stages, start=1):
        down, first = (
            ("features.0.0", "features.0.1") if k == 1 else (f"features.{2 * k - 2}.1", f"features.{2 * k - 2}.0")
        )
        params |= {f"stage{k}_down": conv(s, down), f"stage{k}_norm": norm(s, first)}
        for b in range(blocks):
            at = f"features.{2 * k - 1}.{b}"
            params[f"stage{k}_block{b + 1}"] = {
                "depthwise": conv(s, f"{at}.block.0"),
                "norm": norm(s, f"{at}.block.2"),
                "fc1": dense(s, f"{at}.block.3"),
                "fc2": dense(s, f"{at}.block.5"),
                "scale": s[f"{at}.layer_scale"].reshape(1, 1, 1, -1),
            }
    compare(make_model(name="convnext", num_classes=5, width=8, depth=6, dtype="float32"), params, net, images)


def test_mlp_mixer(images):
    peer.import_torchvision()  # timm imports it
    module = pytest.importorskip("timm.models.mlp_mixer")
    net = peer.randomise(module.MlpMixer(num_classes=5, img_size=16, patch_size=4, num_blocks=2, embed_dim=16))
    torch.nn.init.normal_(net.head.weight)
    s = {name: x.numpy() for name, x in net.state_dict().items()}
    params = {"patch_embedding": conv(s, "stem.proj"), "final_norm": norm(s, "norm"), "classifier": dense(s, "head")}
    for i in range(2):
        at = f"blocks.{i}"
        params[f"block{i + 1}"] = {
            "norm1": norm(s, f"{at}.norm1"),
            "norm2": norm(s, f"{at}.norm2"),
            "token_mlp": {f: dense(s, f"{at}.mlp_tokens.{f}") for f in ("fc1", "fc2")},
            "channel_mlp": {f: dense(s, f"{at}.mlp_channels.{f}") for f in ("fc1", "fc2")},
        }
    compare(MODELS["mlp_mixer"](num_classes=5, width=16, depth=2), params, net, images)
