"""The layouts of PyTorch's state dicts that are known: how their modules are called, and what the shapes tell.

    naming = NAMINGS["vit"]
    naming.source, naming.block(1, 0), naming.inner["mlp/fc1"]    # "timm's ViT", "blocks.0", "mlp.fc1"

To add one: a row, and a line in the tests that compares it with its source.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Shapes = Mapping[str, tuple[int, ...]]
Normalisation = tuple[tuple[float, ...], tuple[float, ...]]  # mean and std per channel, of pixels in [0, 1]

IMAGENET: Normalisation = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF: Normalisation = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # the inputs of Google's ViT and Mixer: from -1 to 1


class Naming(NamedTuple):
    """PyTorch's names of a family's modules."""

    family: str  # model.name
    source: str  # the code that uses these names
    marker: str  # a name that no other layout has
    top: dict[str, str]  # our name -> PyTorch's, outside the blocks; a path with an array for arrays without module
    block: Callable[[int, int], str]  # the name of a block, given the stage, from 1, and the block, from 0
    inner: dict[str, str]  # the same as `top` within a block
    fields: Callable[[Shapes], dict[str, Any]]  # of the `model` group, from the shapes
    normalisation: Normalisation | None = None  # of the images that published weights were trained on; None: unknown
    scale: tuple[int, ...] = ()  # further axes of a ConvNeXt's layer scale

    def trained_with(self, fields: Mapping[str, Any]) -> Normalisation | None:
        """Mean and std behind published weights of these `model` fields; None: not known.

        A small stem means small images: such a net was not trained on ImageNet.
        """
        return self.normalisation if fields.get("stem") != "3x3" else None

    def knows(self, name: str) -> bool:
        """Whether a name is one of this layout, whatever the depth of the net."""
        names = [re.escape(it) for it in self.top.values()]
        block = re.escape(self.block(1, 0)).replace("0", r"\d+").replace("1", r"\d+")
        names += [rf"{block}\.{re.escape(it)}" for it in self.inner.values()]
        return re.fullmatch(rf"(?:{'|'.join(names)})(?:\.(?:weight|bias|running_mean|running_var))?", name) is not None


def _same(names: str) -> dict[str, str]:
    return {name: name for name in names.split()}


def _blocks(shapes: Shapes, pattern: str) -> tuple[int, ...]:
    """Blocks of each stage; the pattern has groups for the stage, if there are any, and the block."""
    found: dict[str, int] = {}
    for match in filter(None, (re.match(pattern, name) for name in shapes)):
        *stage, block = match.groups()
        place = stage[0] if stage else ""
        found[place] = max(found.get(place, 0), int(block) + 1)
    return tuple(count for _, count in sorted(found.items()))


def _depth(blocks: tuple[int, ...], known: Mapping[tuple[int, ...], int]) -> int:
    if blocks not in known:
        depths = " or ".join("-".join(map(str, stages)) for stages in known)
        raise ValueError(f"it has {'-'.join(map(str, blocks)) or 'no'} blocks, expected {depths}")
    return known[blocks]


def _preact(shapes: Shapes) -> dict[str, Any]:
    depth = _depth(_blocks(shapes, r"layer(\d)\.(\d+)\."), {(2, 2, 2, 2): 18, (3, 4, 6, 3): 34})
    variant = "v2" if "bn1.weight" in shapes else "v3" if "bn.weight" in shapes else "v1"
    return {"depth": depth, "variant": variant} | _stem(shapes)


def _wide(shapes: Shapes) -> dict[str, Any]:
    blocks = _blocks(shapes, r"block(\d)\.layer\.(\d+)\.")
    if len(set(blocks)) != 1:
        raise ValueError(f"its stages have {'-'.join(map(str, blocks))} blocks")
    width = shapes["block1.layer.0.conv1.weight"][0] // 16
    return _stem(shapes) | {"depth": 4 + 6 * blocks[0], "width": width}


def _resnet(shapes: Shapes) -> dict[str, Any]:
    bottleneck = "layer1.0.conv3.weight" in shapes
    known = {(3, 4, 6, 3): 50} if bottleneck else {(2, 2, 2, 2): 18}
    return {"depth": _depth(_blocks(shapes, r"layer(\d)\.(\d+)\."), known)} | _stem(shapes)


def _stem(shapes: Shapes) -> dict[str, Any]:
    stem = shapes["conv1.weight"]
    return {"stem": "7x7s2" if stem[2] == 7 else "3x3", "width": stem[0]}


def _convnext(stem: str, blocks: str) -> Callable[[Shapes], dict[str, Any]]:
    def fields(shapes: Shapes) -> dict[str, Any]:
        depth = _depth(
            _blocks(shapes, blocks), {(3, 3, 9, 3): 18, (3, 3, 27, 3): 36, (1, 1, 3, 1): 6, (2, 2, 6, 2): 12}
        )
        return {"depth": depth, "width": shapes[stem][0], "patch_size": shapes[stem][2]}

    return fields


def _patches(stem: str, blocks: str, **more: str) -> Callable[[Shapes], dict[str, Any]]:
    def fields(shapes: Shapes) -> dict[str, Any]:
        width, _, size, _ = shapes[stem]
        return {"depth": sum(_blocks(shapes, blocks)), "width": width, "patch_size": size, **more}

    return fields


def _attention(fused: dict[str, str], out: str) -> dict[str, str]:
    """Query, key and value, each to the one array that holds them all."""
    parts = ("query", "key", "value")
    arrays = {f"attention/{part}/{leaf}": name for part in parts for leaf, name in fused.items()}
    return arrays | {"attention/out": out}


_TIMM_DOWN = {f"stage{k}_norm": f"stages.{k - 1}.downsample.0" for k in (2, 3, 4)}
_TIMM_DOWN |= {f"stage{k}_down": f"stages.{k - 1}.downsample.1" for k in (2, 3, 4)}
_VISION_DOWN = {f"stage{k}_norm": f"features.{2 * k - 2}.0" for k in (2, 3, 4)}
_VISION_DOWN |= {f"stage{k}_down": f"features.{2 * k - 2}.1" for k in (2, 3, 4)}

NAMINGS = {
    "preact_resnet": Naming(
        "preact_resnet",
        "mixup-cifar10's PreActResNet",
        "layer2.0.shortcut.0.weight",
        {"stem": "conv1", "stem_bn": "bn1", "final_bn": "bn", "classifier": "linear"},
        lambda stage, block: f"layer{stage}.{block}",
        _same("bn1 conv1 bn2 conv2") | {"shortcut": "shortcut.0"},
        _preact,
    ),
    "wide_resnet": Naming(
        "wide_resnet",
        "a WideResNet of block1.layer.0",
        "block1.layer.0.conv1.weight",
        {"stem": "conv1", "final_bn": "bn1", "classifier": "fc"},
        lambda stage, block: f"block{stage}.layer.{block}",
        _same("bn1 conv1 bn2 conv2") | {"shortcut": "convShortcut"},
        _wide,
    ),
    "resnet": Naming(
        "resnet",
        "torchvision's ResNet",
        "layer2.0.downsample.0.weight",
        {"stem": "conv1", "stem_bn": "bn1", "classifier": "fc"},
        lambda stage, block: f"layer{stage}.{block}",
        _same("conv1 bn1 conv2 bn2 conv3 bn3") | {"shortcut": "downsample.0", "shortcut_bn": "downsample.1"},
        _resnet,
        IMAGENET,
    ),
    "convnext": Naming(
        "convnext",
        "timm's ConvNeXt",
        "stages.0.blocks.0.conv_dw.weight",
        {"stage1_down": "stem.0", "stage1_norm": "stem.1", **_TIMM_DOWN}
        | {"final_norm": "head.norm", "classifier": "head.fc"},
        lambda stage, block: f"stages.{stage - 1}.blocks.{block}",
        {"depthwise": "conv_dw", "norm": "norm", "fc1": "mlp.fc1", "fc2": "mlp.fc2", "scale": "gamma"},
        _convnext("stem.0.weight", r"stages\.(\d)\.blocks\.(\d+)\."),
        IMAGENET,
    ),
    "convnext_torchvision": Naming(
        "convnext",
        "torchvision's ConvNeXt",
        "features.1.0.layer_scale",
        {"stage1_down": "features.0.0", "stage1_norm": "features.0.1", **_VISION_DOWN}
        | {"final_norm": "classifier.0", "classifier": "classifier.2"},
        lambda stage, block: f"features.{2 * stage - 1}.{block}",
        {"depthwise": "block.0", "norm": "block.2", "fc1": "block.3", "fc2": "block.5", "scale": "layer_scale"},
        _convnext("features.0.0.weight", r"features\.([1357])\.(\d+)\."),
        IMAGENET,
        scale=(1, 1),
    ),
    "vit": Naming(
        "vit",
        "timm's ViT",
        "blocks.0.attn.qkv.weight",
        {"patch_embedding": "patch_embed.proj", "class_token": "cls_token", "positions": "pos_embed"}
        | {"final_norm": "norm", "classifier": "head"},
        lambda _, block: f"blocks.{block}",
        _same("norm1 norm2")
        | {"mlp/fc1": "mlp.fc1", "mlp/fc2": "mlp.fc2"}
        | _attention({"kernel": "attn.qkv.weight", "bias": "attn.qkv.bias"}, "attn.proj"),
        _patches("patch_embed.proj.weight", r"blocks\.(\d+)\.", pool="token"),
        HALF,
    ),
    "vit_torchvision": Naming(
        "vit",
        "torchvision's ViT",
        "encoder.layers.encoder_layer_0.self_attention.in_proj_weight",
        {"patch_embedding": "conv_proj", "class_token": "class_token", "positions": "encoder.pos_embedding"}
        | {"final_norm": "encoder.ln", "classifier": "heads.head"},
        lambda _, block: f"encoder.layers.encoder_layer_{block}",
        {"norm1": "ln_1", "norm2": "ln_2", "mlp/fc1": "mlp.0", "mlp/fc2": "mlp.3"}
        | _attention(
            {"kernel": "self_attention.in_proj_weight", "bias": "self_attention.in_proj_bias"},
            "self_attention.out_proj",
        ),
        _patches("conv_proj.weight", r"encoder\.layers\.encoder_layer_(\d+)\.", pool="token"),
        IMAGENET,
    ),
    "mlp_mixer": Naming(
        "mlp_mixer",
        "timm's MLP-Mixer",
        "blocks.0.mlp_tokens.fc1.weight",
        {"patch_embedding": "stem.proj", "final_norm": "norm", "classifier": "head"},
        lambda _, block: f"blocks.{block}",
        _same("norm1 norm2")
        | {f"{ours}_mlp/{fc}": f"mlp_{ours}s.{fc}" for ours in ("token", "channel") for fc in ("fc1", "fc2")},
        _patches("stem.proj.weight", r"blocks\.(\d+)\."),
        HALF,
    ),
}
