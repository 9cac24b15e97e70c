"""Translates names and layouts between PyTorch's state dicts and this package's variables.

    fields = recognise(arrays, where="resnet18.pth")             # {"name": "resnet", "depth": 18, ...}
    variables = to_variables("resnet", arrays, like, where="resnet18.pth")
    arrays = to_state_dict("resnet", variables)

`arrays` is a state dict: PyTorch's names and layouts, NumPy arrays.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from sem_jax.errors import RunError


class Naming(NamedTuple):
    """PyTorch's names of a family's modules."""

    source: str  # the code that uses these names
    top: dict[str, str]  # our name -> PyTorch's, for modules outside the blocks
    block: str  # format of a block's name, given the stage, from 1, and the block, from 0
    inner: dict[str, str]  # our name -> PyTorch's within a block, where they differ


NAMINGS = {
    "preact_resnet": Naming(
        "mixup-cifar10's PreActResNet",
        {"stem": "conv1", "stem_bn": "bn1", "final_bn": "bn", "classifier": "linear"},
        "layer{}.{}",
        {"shortcut": "shortcut.0"},
    ),
    "wide_resnet": Naming(
        "a WideResNet of block1.layer.0",
        {"stem": "conv1", "final_bn": "bn1", "classifier": "fc"},
        "block{}.layer.{}",
        {"shortcut": "convShortcut"},
    ),
    "resnet": Naming(
        "torchvision's ResNet",
        {"stem": "conv1", "stem_bn": "bn1", "classifier": "fc"},
        "layer{}.{}",
        {"shortcut": "downsample.0", "shortcut_bn": "downsample.1"},
    ),
}
LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def torch_name(family: str, path: tuple[str, ...]) -> str:
    """PyTorch's name of an array.

    >>> torch_name("resnet", ("batch_stats", "stage2_block1", "bn1", "mean"))
    'layer2.0.bn1.running_mean'
    """
    naming, (_, *modules, leaf) = NAMINGS[family], path
    if found := re.fullmatch(r"stage(\d+)_block(\d+)", modules[0]):
        stage, block = map(int, found.groups())
        inner = [naming.inner.get(name, name) for name in modules[1:]]
        modules = [naming.block.format(stage, block - 1), *inner]
    else:
        modules = [naming.top[modules[0]], *modules[1:]]
    return ".".join([*modules, LEAVES[leaf]])


def named_leaves(variables: Any) -> list[tuple[tuple[str, ...], Any]]:
    """[(("params", "stem", "kernel"), leaf), ...] of nested variables."""
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    return [(tuple(jax.tree_util.keystr((key,), simple=True) for key in path), leaf) for path, leaf in leaves]


def _turned(array: np.ndarray, to_torch: bool) -> np.ndarray:
    """A weight in the other side's layout; vectors stay."""
    if array.ndim == 4:
        return array.transpose((3, 2, 0, 1) if to_torch else (2, 3, 1, 0))
    return array.T if array.ndim == 2 else array


def to_state_dict(family: str, variables: Any) -> dict[str, np.ndarray]:
    """The variables {"params", "batch_stats"} as a state dict, with num_batches_tracked."""
    arrays = {}
    for path, leaf in named_leaves(variables):
        name = torch_name(family, path)
        arrays[name] = np.ascontiguousarray(_turned(np.asarray(leaf), to_torch=True))
        if path[-1] == "var":
            arrays[name.replace("running_var", "num_batches_tracked")] = np.zeros((), np.int64)
    return arrays


def to_variables(family: str, arrays: Mapping[str, np.ndarray], like: Any, *, where: str) -> Any:
    """A state dict as {"params", "batch_stats"} in float32, of the shapes of `like`.

    Raises:
      RunError: arrays are missing, unknown or of another shape; the message names the file `where`.
    """
    expected = {torch_name(family, path): leaf.shape for path, leaf in named_leaves(like)}
    given = {name: _turned(array, to_torch=False) for name, array in arrays.items() if "num_batches" not in name}
    reshaped = [name for name in expected if name in given and given[name].shape != expected[name]]
    problems = {
        "missing": [name for name in expected if name not in given],
        "unknown": [name for name in given if name not in expected],
        "of another shape": [f"{name} {list(arrays[name].shape)}" for name in reshaped],
    }
    found = [
        f"{len(names)} {what}: {', '.join(names[:2])}" + (", ..." if len(names) > 2 else "")
        for what, names in problems.items()
        if names
    ]
    if found:
        remedy = f"Expected the names of {NAMINGS[family].source}."
        raise RunError(f"{where} does not fit {family}: {'; '.join(found)}", remedy)
    leaves = [np.asarray(given[name], np.float32) for name in expected]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def recognise(arrays: Mapping[str, np.ndarray], *, where: str) -> dict[str, Any]:
    """Finds the fields of the `model` group, with num_classes, from the names and shapes of a state dict.

    Raises:
      RunError: the names are none of NAMINGS; the message names the file `where`.
    """
    blocks: dict[str, list[int]] = {}
    for name in arrays:
        if found := re.match(r"(?:layer|block)(\d)\.(?:layer\.)?(\d+)\.", name):
            blocks.setdefault(found[1], []).append(int(found[2]))
    stages = tuple(max(numbers) + 1 for _, numbers in sorted(blocks.items()))
    shapes = {name: array.shape for name, array in arrays.items()}
    stem, head = shapes.get("conv1.weight", ()), shapes.get("fc.weight", shapes.get("linear.weight", ()))
    if len(stem) == 4 and len(head) == 2:
        fields = {"num_classes": head[0], "stem": "7x7s2" if stem[2] == 7 else "3x3"}
        if "block1.layer.0.conv1.weight" in shapes and len(set(stages)) == 1:
            width = shapes["block1.layer.0.conv1.weight"][0] // 16
            return fields | {"name": "wide_resnet", "depth": 4 + 6 * stages[0], "width": width}
        bottleneck = "layer1.0.conv3.weight" in shapes
        if "fc.weight" in shapes and (stages, bottleneck) in (((2, 2, 2, 2), False), ((3, 4, 6, 3), True)):
            return fields | {"name": "resnet", "depth": 50 if bottleneck else 18, "width": stem[0]}
        if "linear.weight" in shapes and stages in ((2, 2, 2, 2), (3, 4, 6, 3)) and not bottleneck:
            variant = "v2" if "bn1.weight" in shapes else "v3" if "bn.weight" in shapes else "v1"
            depth = 18 if stages[0] == 2 else 34
            return fields | {"name": "preact_resnet", "depth": depth, "width": stem[0], "variant": variant}
    known = ", ".join(naming.source for naming in NAMINGS.values())
    first = ", ".join(list(arrays)[:3]) or "nothing"
    raise RunError(f"{where} is none of {known}: it holds {first}, ...")
