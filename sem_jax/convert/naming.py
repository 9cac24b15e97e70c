"""Translates names and layouts between PyTorch's state dicts and this package's variables.

    layout = layout_of(arrays, where="resnet18.pth")             # "resnet"
    fields = recognise(arrays, where="resnet18.pth")             # {"name": "resnet", "depth": 18, ...}
    variables = to_variables(layout, arrays, like, where="resnet18.pth")
    arrays = to_state_dict(layout, variables)

`arrays` is a state dict: PyTorch's names and layouts, NumPy arrays. The known layouts are the rows of NAMINGS in
`layouts`.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from sem_jax.convert.layouts import NAMINGS, Naming
from sem_jax.errors import RunError
from sem_jax.interfaces import HEADS

LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
FUSED = ("query", "key", "value")  # PyTorch keeps them in one array, one above the other
IGNORED = ("num_batches_tracked",)
Path = tuple[str, ...]  # ("params", "stage1_block1", "conv1", "kernel")


class Fit(NamedTuple):
    """What of a source has a place in a model."""

    arrays: dict[Path, np.ndarray]  # those that fit, in our layout, float32
    missing: dict[Path, str]  # the source's names of what the model needs and the source lacks
    reshaped: dict[Path, tuple[str, np.ndarray]]  # name and array, in the source's layout, of another shape
    unknown: list[str]  # the source's names that the model has no place for

    def problems(self) -> str:
        """ "4 missing: layer3.1.bn2.weight, ...; 1 unknown: ..."; "" where all fits."""
        shapes = [f"{name} {list(array.shape)}" for name, array in self.reshaped.values()]
        missing = list(dict.fromkeys(self.missing.values()))
        found = {"missing": missing, "unknown": self.unknown, "of another shape": list(dict.fromkeys(shapes))}
        return "; ".join(
            f"{len(names)} {what}: {', '.join(names[:2])}" + (", ..." if len(names) > 2 else "")
            for what, names in found.items()
            if names
        )


def torch_name(layout: str, path: Path) -> str:
    """PyTorch's name of an array.

    >>> torch_name("resnet", ("batch_stats", "stage2_block1", "bn1", "mean"))
    'layer2.0.bn1.running_mean'
    >>> torch_name("vit", ("params", "block3", "attention", "key", "bias"))
    'blocks.2.attn.qkv.bias'
    """
    naming, (_, first, *inner) = NAMINGS[layout], path
    if found := re.fullmatch(r"(?:stage(\d+)_)?block(\d+)", first):
        before = naming.block(int(found[1] or 1), int(found[2]) - 1) + "."
        table, place = naming.inner, inner
    else:
        before, table, place = "", naming.top, [first, *inner]
    if (whole := "/".join(place)) in table:  # an array without a module of its own
        return before + table[whole]
    *modules, leaf = place
    return f"{before}{table['/'.join(modules)]}.{LEAVES[leaf]}"


def named_leaves(variables: Any) -> list[tuple[Path, Any]]:
    """[(("params", "stem", "kernel"), leaf), ...] of nested variables."""
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    return [(tuple(jax.tree_util.keystr((key,), simple=True) for key in path), leaf) for path, leaf in leaves]


def _part(path: Path) -> int | None:
    """Which third of PyTorch's array an array is; None = it is all of it."""
    return FUSED.index(path[-2]) if path[-2] in FUSED else None


def _to_torch(naming: Naming, path: Path, array: np.ndarray) -> np.ndarray:
    """An array of ours in PyTorch's layout; of a fused one its part."""
    if path[-1] == "kernel" and array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    if path[-2] in FUSED:
        return array.reshape(-1) if path[-1] == "bias" else array.reshape(len(array), -1).T
    if path[-1] == "kernel":
        return array.reshape(-1, array.shape[-1]).T
    return array.reshape(-1, *naming.scale) if array.ndim == 4 else array  # a ConvNeXt's scale of channels


def _from_torch(path: Path, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The inverse of `_to_torch`."""
    if path[-1] == "kernel":
        array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
    return np.asarray(array, np.float32).reshape(shape)


def to_state_dict(layout: str, variables: Any) -> dict[str, np.ndarray]:
    """The variables {"params", "batch_stats"} as a state dict, with num_batches_tracked."""
    parts: dict[str, dict[int, np.ndarray]] = {}
    for path, leaf in named_leaves(variables):
        array = _to_torch(NAMINGS[layout], path, np.asarray(leaf))
        parts.setdefault(torch_name(layout, path), {})[_part(path) or 0] = array
    arrays = {}
    for name, found in parts.items():
        whole = np.concatenate([found[i] for i in sorted(found)]) if len(found) > 1 else found[0]
        arrays[name] = np.ascontiguousarray(whole)
        if name.endswith("running_var"):
            arrays[name.replace("running_var", "num_batches_tracked")] = np.zeros((), np.int64)
    return arrays


def fit(layout: str, arrays: Mapping[str, np.ndarray], like: Any) -> Fit:
    """Puts the arrays of a state dict where they belong in a model whose variables have the shapes of `like`."""
    found, missing, reshaped, known = {}, {}, {}, set()
    for path, leaf in named_leaves(like):
        name, part = torch_name(layout, path), _part(path)
        known.add(name)
        if name not in arrays:
            missing[path] = name
            continue
        expected = _to_torch(NAMINGS[layout], path, np.broadcast_to(np.float32(0), leaf.shape)).shape
        array = arrays[name]
        if part is not None and array.ndim and array.shape[0] == 3 * expected[0]:
            array = array[part * expected[0] : (part + 1) * expected[0]]
        if array.shape == expected:
            found[path] = _from_torch(path, array, leaf.shape)
        else:
            reshaped[path] = name, arrays[name]
    unknown = [name for name in arrays if name not in known and not name.endswith(IGNORED)]
    return Fit(found, missing, reshaped, unknown)


def to_variables(layout: str, arrays: Mapping[str, np.ndarray], like: Any, *, where: str) -> Any:
    """A state dict as {"params", "batch_stats"} in float32, of the shapes of `like`.

    Raises:
      RunError: arrays are missing, unknown or of another shape; the message names the file `where`.
    """
    result = fit(layout, arrays, like)
    if problems := result.problems():
        naming = NAMINGS[layout]
        raise RunError(f"{where} does not fit {naming.family}: {problems}", f"Expected the names of {naming.source}.")
    return jax.tree.unflatten(jax.tree.structure(like), [result.arrays[path] for path, _ in named_leaves(like)])


def layout_of(arrays: Mapping[str, np.ndarray], *, where: str) -> str:
    """The key of NAMINGS whose names a state dict has.

    Raises:
      RunError: it is none of them; names the nearest and the first names that are not of it.
    """
    for layout, naming in NAMINGS.items():
        if naming.marker in arrays:
            return layout
    strange = {
        layout: [name for name in arrays if not naming.knows(name) and not name.endswith(IGNORED)]
        for layout, naming in NAMINGS.items()
    }
    nearest = min(strange, key=lambda layout: len(strange[layout]))
    sources = ", ".join(dict.fromkeys(naming.source for naming in NAMINGS.values()))
    if len(strange[nearest]) == len(arrays):
        first = ", ".join(list(arrays)[:3]) or "nothing"
        raise RunError(f"{where} is none of {sources}: it holds {first}, ...")
    unlike = strange[nearest]
    why = f"it lacks {NAMINGS[nearest].marker}"
    if unlike:
        why = f"these names of it are not: {', '.join(unlike[:3])}" + (", ..." if len(unlike) > 3 else "")
    raise RunError(f"{where} is nearest to {NAMINGS[nearest].source}, but {why}", f"Known are {sources}.")


def recognise(arrays: Mapping[str, np.ndarray], *, where: str) -> dict[str, Any]:
    """Finds the fields of the `model` group, with num_classes, from the names and shapes of a state dict.

    Raises:
      RunError: the names are none of NAMINGS, or no model of that family has these blocks; names the file `where`.
    """
    naming = NAMINGS[layout_of(arrays, where=where)]
    shapes = {name: array.shape for name, array in arrays.items()}
    try:
        fields = naming.fields(shapes)
    except (KeyError, IndexError, ValueError) as error:
        raise RunError(f"{where} has names of {naming.source}, but not its shapes: {error}") from None
    heads = [naming.top[head] for head in HEADS if head in naming.top]
    classes = [shapes[f"{head}.weight"][0] for head in heads if len(shapes.get(f"{head}.weight", ())) == 2]
    return {"name": naming.family} | fields | ({"num_classes": classes[0]} if classes else {})
