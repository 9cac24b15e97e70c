"""PyTorch models under the names their published weights have, for the tests of conversion and parity.

    net = preact_resnet18(variant="v1", width=4, num_classes=5, channels=1)       # conv1, layer1.0.bn1, ..., linear
    net = wide_resnet(depth=10, width=1, num_classes=5, channels=1)               # conv1, block1.layer.0.bn1, ..., fc
    torchvision = import_torchvision()

Written from the papers; nothing is shared with sem_jax.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn


def conv(i, o, k, stride=1):
    return nn.Conv2d(i, o, k, stride=stride, padding=k // 2, bias=False)


class PreActBlock(nn.Module):
    def __init__(self, i, o, stride, *, raw_identity):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(i), conv(i, o, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(o), conv(o, o, 3)
        self.shortcut = nn.Sequential(conv(i, o, 1, stride)) if stride > 1 or i != o else nn.Sequential()
        self.raw_identity = raw_identity

    def forward(self, x):
        y = F.relu(self.bn1(x))
        side = x if self.raw_identity and not len(self.shortcut) else self.shortcut(y)
        return self.conv2(F.relu(self.bn2(self.conv1(y)))) + side


class PreActResNet18(nn.Module):
    def __init__(self, variant, width, num_classes, channels):
        super().__init__()
        self.conv1, self.variant = conv(channels, width, 3), variant
        if variant == "v2":
            self.bn1 = nn.BatchNorm2d(width)
        i = width
        for stage in range(1, 5):
            blocks = []
            for block in range(2):
                o = width * 2 ** (stage - 1)
                stride = 2 if stage > 1 and block == 0 else 1
                blocks.append(PreActBlock(i, o, stride, raw_identity=variant != "v2"))
                i = o
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        if variant == "v3":
            self.bn = nn.BatchNorm2d(i)
        self.linear = nn.Linear(i, num_classes)

    def forward(self, x):
        x = self.conv1(x)
        if self.variant == "v2":
            x = F.relu(self.bn1(x))
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        if self.variant == "v3":
            x = F.relu(self.bn(x))
        return self.linear(x.mean((2, 3)))


class WideBlock(nn.Module):
    def __init__(self, i, o, stride):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(i), conv(i, o, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(o), conv(o, o, 3)
        self.convShortcut = conv(i, o, 1, stride) if i != o else None

    def forward(self, x):
        y = F.relu(self.bn1(x))
        side = x if self.convShortcut is None else self.convShortcut(y)
        return self.conv2(F.relu(self.bn2(self.conv1(y)))) + side


class Stage(nn.Module):
    def __init__(self, blocks):
        super().__init__()
        self.layer = nn.Sequential(*blocks)

    def forward(self, x):
        return self.layer(x)


class WideResNet(nn.Module):
    def __init__(self, depth, width, num_classes, channels):
        super().__init__()
        sizes = [16, 16 * width, 32 * width, 64 * width]
        self.conv1 = conv(channels, 16, 3)
        for s in (1, 2, 3):
            first = WideBlock(sizes[s - 1], sizes[s], 1 if s == 1 else 2)
            rest = [WideBlock(sizes[s], sizes[s], 1) for _ in range((depth - 4) // 6 - 1)]
            setattr(self, f"block{s}", Stage([first, *rest]))
        self.bn1, self.fc = nn.BatchNorm2d(sizes[3]), nn.Linear(sizes[3], num_classes)

    def forward(self, x):
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        return self.fc(F.relu(self.bn1(x)).mean((2, 3)))


def import_torchvision():
    """torchvision, or a skip. Its models need none of its compiled operators, which a build for CUDA cannot load."""
    try:
        import torchvision
    except ImportError:
        pytest.skip("torchvision is not installed")
    except RuntimeError:
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision
    return torchvision


def randomise(net, seed=0):
    """Scales, biases and statistics away from 1 and 0, or a mistake in them would not show; in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if tensor.ndim == 1:
                noise = torch.rand(tensor.shape, generator=generator)
                tensor.copy_(0.5 + noise if name.endswith(("var", "weight", "gamma")) else 0.2 * noise - 0.1)
            elif tensor.ndim == 0:
                tensor.fill_(7)  # num_batches_tracked
            elif tensor.ndim == 3 and tensor.shape[-1] > 1:  # class token, positions
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.1)
            elif tensor.ndim == 3:  # layer scale of a ConvNeXt
                tensor.copy_(torch.rand(tensor.shape, generator=generator))
    return net.eval()
