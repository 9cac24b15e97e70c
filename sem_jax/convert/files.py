"""Reads and writes files of weights, safetensors and PyTorch's; no code of a file is run.

arrays = read_state_dict(Path("resnet18.pth"), limit=1 << 30)           # PyTorch's names and layouts
write_safetensors(Path("net.safetensors"), arrays, {"model": "resnet"})
"""

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sem_jax.errors import ConfigError, RunError, one_line
from sem_jax.runs.records import replacing

MAX_BYTES = 1 << 38  # of a file of weights, and of its tensors in float32
WRAPPERS = ("state_dict", "model_state_dict", "model", "net")  # where training scripts put the state dict


def require_place(option: str, path: Path) -> None:
    """Refuses a file that cannot be written, before anything is opened for it; folders above it are made later.

    Raises:
      ConfigError: names the option; it is a folder, or lies below a file or where nothing may be written.
    """
    if path.is_dir():
        raise ConfigError(f"{option}={path} is a folder; give a file")
    above = next(it for it in path.absolute().parents if it.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        why = "may not be written to" if above.is_dir() else "is no folder"
        raise ConfigError(f"{option}={path} cannot be written: {above} {why}", "Give another file.")


def write_bytes(path: Path, content: bytes) -> None:
    """Replaces a file and makes the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(content)


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError:
        raise RunError("safetensors is not installed", "pip install safetensors") from None
    return safetensors


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a .safetensors file by name; float16 becomes float32.

    Raises:
      RunError: a file that is missing or damaged, or of a type NumPy does not have; safetensors is not installed.
    """
    safetensors = _safetensors()
    try:
        arrays = safetensors.numpy.load_file(path)
    except FileNotFoundError:
        raise RunError(f"{path} does not exist") from None
    except (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        remedy = "Copy or download it once more."
        raise RunError(f"{path} cannot be read as safetensors: {one_line(error)}", remedy) from None
    return {name: x.astype(np.float32) if x.dtype == np.float16 else x for name, x in arrays.items()}


def read_metadata(path: Path) -> dict[str, str]:
    """The texts beside the arrays of a .safetensors file that `read_safetensors` has read."""
    with _safetensors().safe_open(path, framework="numpy") as file:
        return dict(file.metadata() or {})


def write_safetensors(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Replaces a .safetensors file; a RunError where safetensors is not installed."""
    contiguous = {name: np.ascontiguousarray(x) if np.ndim(x) else np.asarray(x) for name, x in arrays.items()}
    write_bytes(path, _safetensors().numpy.save(contiguous, dict(metadata)))


def read_state_dict(path: Path, *, limit: int = MAX_BYTES) -> dict[str, np.ndarray]:
    """The tensors of a .safetensors, .pt or .pth file, without the "module." of a parallel run.

    Args:
      limit: bytes that the file, what is packed in it, and its tensors in float32 may have.

    Raises:
      RunError: a file that is missing, damaged, too large or holds anything but tensors.
    """
    if not path.is_file():
        raise RunError(f"{path} does not exist", "Give a .safetensors, .pt or .pth file.")
    _check_size(path, path.stat().st_size, limit)
    if path.suffix == ".safetensors":
        arrays = read_safetensors(path)
    elif path.suffix in (".pt", ".pth"):
        arrays = _read_torch(path, limit)
    else:
        raise RunError(f"{path} must be a .safetensors, .pt or .pth file")
    if arrays and all(name.startswith("module.") for name in arrays):
        arrays = {name.removeprefix("module."): array for name, array in arrays.items()}
    return arrays


def _check_size(path: Path, size: int, limit: int) -> None:
    if size > limit:
        raise RunError(
            f"{path} holds {size:,} bytes, at most {limit:,} are read", "Is it the file of weights of this model?"
        )


def _read_torch(path: Path, limit: int) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError:
        raise RunError(f"{path} needs PyTorch to be read", "pip install torch, or save it as .safetensors.") from None
    try:
        if zipfile.is_zipfile(path):  # its members may be packed
            with zipfile.ZipFile(path) as archive:
                _check_size(path, sum(member.file_size for member in archive.infolist()), limit)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except RunError:
        raise
    except Exception as error:  # pickle, zip and torch raise errors of their own
        remedy = "It is damaged or holds Python objects; save model.state_dict() where it was made."
        raise RunError(f"{path} cannot be read as tensors alone: {one_line(error)}", remedy) from None
    for name in WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(name), Mapping):
            loaded = loaded[name]
    if not isinstance(loaded, Mapping) or not all(isinstance(x, torch.Tensor) for x in loaded.values()):
        raise RunError(f"{path} holds no state dict, but a {type(loaded).__name__}")
    if odd := [name for name, x in loaded.items() if not isinstance(name, str) or x.layout is not torch.strided]:
        raise RunError(f"{path} holds {odd[0]!r:.80}, which is no dense tensor with a name")
    _check_size(path, sum(4 * x.numel() for x in loaded.values()), limit)  # views may be larger than the file

    def to_numpy(tensor: torch.Tensor) -> np.ndarray:
        at_least_f32 = torch.promote_types(tensor.dtype, torch.float32)
        return tensor.detach().to(at_least_f32).numpy() if tensor.is_floating_point() else tensor.numpy()

    return {name: to_numpy(tensor) for name, tensor in loaded.items()}
