"""PyTorch weights in and out: a state dict becomes a run folder that evaluation can score, and the other way round.

    python -m sem_jax.convert --from=resnet18.pth --workdir=runs/theirs --data=cifar10 --mean .5 .5 .5 --std .5 .5 .5
    python -m sem_jax.convert --workdir=runs/preact_c10 --to=preact18.safetensors [--checkpoint=best_val]

PreActResNet-18/-34 in the naming of mixup-cifar10 (conv1, layer1.0.bn1, layer2.0.shortcut.0, linear; v2 has a bn1 after
the stem, v3 a bn at the end), WideResNets in that of block1.layer.0.convShortcut and fc, ResNet-18/-50 in torchvision's.
Family, depth, width and variant are told from the names and shapes in the file.

Read are .safetensors, and .pt or .pth as PyTorch's restricted loader allows: tensors, never code. What is converted how:
convolutions from [out in h w] to [h w in out], linear layers transposed, everything else as it is, bit for bit.
BatchNorm's epsilon, 1e-5, and the padding, symmetric, are the same on both sides. running_var is copied: PyTorch's was
averaged over unbiased batch variances, ours over biased ones, and only further training would tell. Of
num_batches_tracked, which nothing here reads, 0 is written.
"""

import argparse
import hashlib
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sem_jax.errors import ConfigError, RunError, exit_on_error

Arrays = dict[str, np.ndarray]  # a state dict: PyTorch's names and layouts


class Naming(NamedTuple):
    """How a family's modules are called in PyTorch."""

    source: str  # whose naming it is
    top: dict[str, str]  # outside of the blocks
    block: str  # of a stage, from 1, and a block, from 0
    inner: dict[str, str]  # within a block, where it differs


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
WRAPPERS = ("state_dict", "model_state_dict", "model", "net")  # where training scripts put the state dict


def torch_name(family: str, path: tuple[str, ...]) -> str:
    """ "layer2.0.bn1.running_mean" for ("batch_stats", "stage2_block1", "bn1", "mean")."""
    naming, (_, *modules, leaf) = NAMINGS[family], path
    if found := re.fullmatch(r"stage(\d+)_block(\d+)", modules[0]):
        stage, block = map(int, found.groups())
        inner = [naming.inner.get(name, name) for name in modules[1:]]
        modules = [naming.block.format(stage, block - 1), *inner]
    else:
        modules = [naming.top[modules[0]], *modules[1:]]
    return ".".join([*modules, LEAVES[leaf]])


def _paths(variables: Any) -> list[tuple[tuple[str, ...], Any]]:
    import jax

    leaves, _ = jax.tree_util.tree_flatten_with_path(variables)
    return [(tuple(entry.key for entry in path), leaf) for path, leaf in leaves]


def _turned(array: np.ndarray, to_torch: bool) -> np.ndarray:
    """A weight in the other side's layout; vectors are the same on both."""
    if array.ndim == 4:
        return array.transpose((3, 2, 0, 1) if to_torch else (2, 3, 1, 0))
    return array.T if array.ndim == 2 else array


def to_state_dict(family: str, variables: Any) -> Arrays:
    """{"params", "batch_stats"} as a state dict, num_batches_tracked included."""
    arrays = {}
    for path, leaf in _paths(variables):
        name = torch_name(family, path)
        arrays[name] = np.ascontiguousarray(_turned(np.asarray(leaf), to_torch=True))
        if path[-1] == "var":
            arrays[name.replace("running_var", "num_batches_tracked")] = np.zeros((), np.int64)
    return arrays


def to_variables(family: str, arrays: Mapping[str, np.ndarray], like: Any, *, where: str) -> Any:
    """A state dict as {"params", "batch_stats"} in float32, of the shapes of `like`.

    Raises:
      RunError: names missing, unknown or of another shape; `where` is the file the message names.
    """
    import jax

    paths = _paths(like)
    expected = {torch_name(family, path): leaf.shape for path, leaf in paths}
    given = {name: _turned(array, to_torch=False) for name, array in arrays.items() if "num_batches" not in name}
    problems = [
        ("missing", [name for name in expected if name not in given]),
        ("unknown", [name for name in given if name not in expected]),
        (
            "of another shape",
            [
                f"{name} {list(arrays[name].shape)}"
                for name in expected
                if name in given and given[name].shape != expected[name]
            ],
        ),
    ]
    if any(names for _, names in problems):
        text = "; ".join(
            f"{len(names)} {what}: {', '.join(names[:2])}" + (", ..." if len(names) > 2 else "")
            for what, names in problems
            if names
        )
        raise RunError(f"{where} does not fit {family}: {text}", f"Expected the names of {NAMINGS[family].source}.")
    leaves = [np.asarray(given[torch_name(family, path)], np.float32) for path, _ in paths]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def recognise(arrays: Mapping[str, np.ndarray], *, where: str) -> dict[str, Any]:
    """The fields of the `model` group, and num_classes, that a state dict's names and shapes tell.

    Raises:
      RunError: for another naming.
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


def read_state_dict(path: Path) -> Arrays:
    """The tensors of a .safetensors, .pt or .pth file, "module." of a parallel run taken off; runs no code from it.

    Raises:
      RunError: a file that is missing, damaged or holds anything but tensors.
    """
    if not path.is_file():
        raise RunError(f"{path} does not exist", "Give a .safetensors, .pt or .pth file: --from=FILE.")
    if path.suffix == ".safetensors":
        from sem_jax.export import read_safetensors

        arrays = read_safetensors(path)
    elif path.suffix in (".pt", ".pth"):
        arrays = _read_torch(path)
    else:
        raise RunError(f"{path} must be a .safetensors, .pt or .pth file")
    if arrays and all(name.startswith("module.") for name in arrays):
        arrays = {name.removeprefix("module."): array for name, array in arrays.items()}
    return arrays


def _read_torch(path: Path) -> Arrays:
    try:
        import torch
    except ImportError:
        raise RunError(f"{path} needs PyTorch to be read", "pip install torch, or save it as .safetensors.") from None
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and torch each have their own
        reason = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        raise RunError(
            f"{path} cannot be read as tensors alone: {reason}",
            "Damaged, or it holds Python objects; save model.state_dict() where it was made.",
        ) from None
    for name in WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(name), Mapping):
            loaded = loaded[name]
    if not isinstance(loaded, Mapping) or not all(isinstance(x, torch.Tensor) for x in loaded.values()):
        raise RunError(f"{path} holds no state dict, but a {type(loaded).__name__}")
    return {name: tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32)).numpy()
            if tensor.is_floating_point() else tensor.numpy() for name, tensor in loaded.items()}  # fmt: skip


def import_weights(source: Path, workdir: Path, *, data: Mapping[str, Any], mean=None, std=None, **model: Any) -> None:
    """Makes a run folder of a state dict: config.json, data.json, checkpoints/1 and converted.json.

    Args:
      source: .safetensors, .pt or .pth.
      workdir: must not hold a run.
      data: fields of the `data` group: what the model is scored on; the class names are taken in its order.
      mean, std: what the images were normalised with in training; None = those of the data set here.
      **model: fields of the `model` group instead of what the file tells (stem, variant).

    Raises:
      SemError: nothing is written then.
    """
    import jax

    from sem_jax import config as config_lib
    from sem_jax import data as data_lib
    from sem_jax.checkpoint import Checkpoints
    from sem_jax.evaluation.loading import DataFacts, abstract_variables
    from sem_jax.models import make_model
    from sem_jax.records import environment, write_json
    from sem_jax.state import TrainState

    if (workdir / "config.json").exists():
        raise RunError(f"{workdir} holds a run already", "Give another --workdir.")
    arrays = read_state_dict(source)
    fields = recognise(arrays, where=str(source)) | {name: value for name, value in model.items() if value}
    cfg = config_lib.get_default()
    cfg.data.update(data)
    cfg.mixer.name, cfg.objective.gamma = "none", 0.0  # how it was trained is not known
    num_classes = fields.pop("num_classes")
    cfg.model.update(fields)
    config_lib.validate(cfg)
    dataset = data_lib.load(cfg.data.name, data_dir=cfg.data.dir, image_size=cfg.data.image_size)
    if len(dataset.class_names) != num_classes:
        raise RunError(f"{source} has {num_classes} classes, {cfg.data.name} has {len(dataset.class_names)}")
    shape = dataset.splits["train"].images.shape[1:]
    mean, std = (tuple(given or own) for given, own in ((mean, dataset.mean), (std, dataset.std)))
    if not len(mean) == len(std) == shape[2] or min(std) <= 0:
        raise ConfigError(f"--mean and --std must have {shape[2]} numbers, std > 0; got {list(mean)}, {list(std)}")
    net = make_model(**{**cfg.model, "num_classes": num_classes})
    variables = to_variables(cfg.model.name, arrays, abstract_variables(net, shape), where=str(source))
    sizes = {name: len(split.labels) for name, split in dataset.splits.items()}
    facts = DataFacts(dataset.name, dataset.fingerprint, dataset.class_names, shape, mean, std, sizes)
    workdir.mkdir(parents=True, exist_ok=True)
    with Checkpoints(workdir / "checkpoints", keep=1, best=None) as checkpoints:
        variables = jax.device_put(variables)
        state = TrainState(np.int32(1), variables["params"], variables["batch_stats"], {})
        checkpoints.save(1, state, {})
    write_json(workdir / "data.json", {k: list(v) if isinstance(v, tuple) else v for k, v in facts._asdict().items()})
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    naming = NAMINGS[cfg.model.name].source
    write_json(workdir / "converted.json", {"file": source.name, "sha256": digest, "naming": naming, **environment()})
    write_json(workdir / "config.json", config_lib.to_dict(cfg))  # last: a folder without it is no run


def export_weights(workdir: str, target: Path, *, checkpoint: str = "final") -> None:
    """Writes a checkpoint as .safetensors with PyTorch's names.

    Raises:
      SemError: a run that cannot be opened, or a model without a PyTorch naming.
    """
    from sem_jax.evaluation.loading import open_run
    from sem_jax.export import write_safetensors

    if target.suffix != ".safetensors":
        raise ConfigError(f"--to={target} must end in .safetensors")
    run = open_run(workdir, checkpoint)
    model = run.config.model
    if model.name not in NAMINGS or model.norm not in ("", "batch"):
        norm = f" with model.norm={model.norm}" if model.norm not in ("", "batch") else ""
        raise RunError(f"{run.folder} is a {model.name}{norm}, which has no PyTorch naming here")
    write_safetensors(target, to_state_dict(model.name, run.variables), {"model": model.name, "source": "sem_jax"})


def main(argv: list[str] | None = None) -> None:
    """Entry point of `python -m sem_jax.convert`."""
    summary, _, more = __doc__.partition("\n")
    parser = argparse.ArgumentParser(
        prog="python -m sem_jax.convert",
        description=summary,
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--workdir", required=True, metavar="DIR", help="run folder: made by --from, read by --to")
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--from", dest="source", type=Path, metavar="FILE", help=".safetensors, .pt or .pth")
    way.add_argument("--to", dest="target", type=Path, metavar="FILE", help=".safetensors")
    add("--checkpoint", default="final", help="with --to: final, best_val or a step")
    add("--data", default="cifar10", metavar="NAME", help="with --from: data set the model is scored on")
    add("--data-dir", default="", metavar="DIR", help="with --from: where that is")
    add("--image-size", type=int, default=0, metavar="N", help="with --from: of an image folder")
    add("--mean", type=float, nargs="+", help="with --from: normalisation in training; default: the data set's own")
    add("--std", type=float, nargs="+", help="with --from: likewise")
    add("--stem", default="", help="with --from: 3x3s2, whose weights look like those of 3x3")
    add("--variant", default="", help="with --from: of a PreActResNet, if the names mislead")
    args = parser.parse_args(argv)
    with exit_on_error():
        if args.target:
            target = args.target.expanduser()
            export_weights(args.workdir, target, checkpoint=args.checkpoint)
            print(f"Wrote {target}")
            return
        workdir = Path(args.workdir).expanduser()
        data = {"name": args.data, "dir": args.data_dir, "image_size": args.image_size}
        options = {"mean": args.mean, "std": args.std, "stem": args.stem, "variant": args.variant}
        import_weights(args.source.expanduser(), workdir, data=data, **options)
        print(f"Wrote {workdir}; score it with: python -m sem_jax.evaluation --workdir={workdir}")


if __name__ == "__main__":
    sys.exit(main())
