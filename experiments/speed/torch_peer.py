"""PreActResNet and WideResNet once more, in PyTorch, written from the papers for `peers`.

    net = preact_resnet18(width=8, variant="v1", num_classes=10)
    copy_weights(net, variables)         # Flax -> PyTorch, by structure

Nothing here shares code with sem_jax; only the names of the Flax modules are known to `copy_weights`.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


def conv(i, o, k, stride=1):
    return nn.Conv2d(i, o, k, stride=stride, padding=k // 2, bias=False)


class Block(nn.Module):
    def __init__(self, i, o, stride, shortcut_from):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(i), conv(i, o, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(o), conv(o, o, 3)
        self.shortcut = conv(i, o, 1, stride) if stride != 1 or i != o else None
        self.shortcut_from = shortcut_from

    def forward(self, x):
        h = F.relu(self.bn1(x))
        if self.shortcut is not None:
            residual = self.shortcut(h)
        else:
            residual = h if self.shortcut_from == "activation" else x
        return self.conv2(F.relu(self.bn2(self.conv1(h)))) + residual


class Net(nn.Module):
    """stem conv, optional BN + ReLU, stages of blocks, optional BN + ReLU, global mean, linear."""

    def __init__(self, channels, stem, stages, num_classes, *, stem_bn=False, final_bn=False, shortcut_from="input"):
        super().__init__()
        self.stem = conv(channels, stem, 3)
        self.stem_bn = nn.BatchNorm2d(stem) if stem_bn else None
        self.blocks, self.names, i = nn.ModuleList(), [], stem
        for s, (features, count) in enumerate(stages):
            for b in range(count):
                self.blocks.append(Block(i, features, 2 if s > 0 and b == 0 else 1, shortcut_from))
                self.names.append(f"stage{s + 1}_block{b + 1}")
                i = features
        self.final_bn = nn.BatchNorm2d(i) if final_bn else None
        self.classifier = nn.Linear(i, num_classes)

    def forward(self, x):
        x = self.stem(x)
        if self.stem_bn is not None:
            x = F.relu(self.stem_bn(x))
        for block in self.blocks:
            x = block(x)
        if self.final_bn is not None:
            x = F.relu(self.final_bn(x))
        features = x.mean(dim=(2, 3))
        return features, self.classifier(features)


def preact_resnet18(width, variant, num_classes, channels=3):
    return Net(
        channels,
        width,
        [(width * 2**s, 2) for s in range(4)],
        num_classes,
        stem_bn=variant == "v2",
        final_bn=variant == "v3",
        shortcut_from="activation" if variant == "v2" else "input",
    )


def wide_resnet(depth, width, num_classes, channels=3):
    stages = [(16 * width * 2**s, (depth - 4) // 6) for s in range(3)]
    return Net(channels, 16, stages, num_classes, final_bn=True)


def copy_weights(net, variables):
    """Copies a Flax model's variables into a Net; every PyTorch parameter must be set exactly once."""
    params, stats, seen = variables["params"], variables["batch_stats"], set()

    def put(target, value):
        value = torch.from_numpy(np.array(value))
        assert target.shape == value.shape, (target.shape, value.shape)
        assert id(target) not in seen
        seen.add(id(target))
        with torch.no_grad():
            target.copy_(value)

    def put_conv(module, tree):
        put(module.weight, np.transpose(tree["kernel"], (3, 2, 0, 1)))

    def put_bn(module, tree, stat):
        put(module.weight, tree["scale"])
        put(module.bias, tree["bias"])
        put(module.running_mean, stat["mean"])
        put(module.running_var, stat["var"])

    put_conv(net.stem, params["stem"])
    for name in ("stem_bn", "final_bn"):
        if getattr(net, name) is not None:
            put_bn(getattr(net, name), params[name], stats[name])
    for name, block in zip(net.names, net.blocks, strict=True):
        put_conv(block.conv1, params[name]["conv1"])
        put_conv(block.conv2, params[name]["conv2"])
        put_bn(block.bn1, params[name]["bn1"], stats[name]["bn1"])
        put_bn(block.bn2, params[name]["bn2"], stats[name]["bn2"])
        if block.shortcut is not None:
            put_conv(block.shortcut, params[name]["shortcut"])
    put(net.classifier.weight, np.transpose(params["classifier"]["kernel"]))
    put(net.classifier.bias, params["classifier"]["bias"])
    assert all(id(p) in seen for p in net.parameters())
    return net
