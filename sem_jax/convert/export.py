"""A checkpoint for use elsewhere: its parameters as safetensors, or its predictions as one StableHLO program.

    python -m sem_jax export --workdir=runs/wrn_c10 --out=wrn.safetensors
    python -m sem_jax export --workdir=runs/wrn_c10 --out=wrn.stablehlo --format=stablehlo

    predict = jax.export.deserialize(bytearray(Path("wrn.stablehlo").read_bytes())).call
    features, logits, probabilities = predict(images)       # u8[b h w c], any b; a process with jax and no sem_jax

The safetensors hold what the checkpoint does, under our names ("params/stem/kernel"), for PyTorch's see
`sem_jax.convert`; its metadata are config.json and data.json. The program holds the weights and the normalisation by
the training data's mean and std, and computes in float32; it runs on CPU, CUDA and TPU. It is guaranteed to be readable
for six months. Both need `pip install sem-jax[export]`.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sem_jax.errors import ConfigError, RunError, exit_on_error

FORMATS = ("safetensors", "stablehlo")
PLATFORMS = ("cpu", "cuda", "tpu")


def _safetensors():
    try:
        import safetensors.numpy
    except ImportError:
        raise RunError(
            "safetensors is not installed", "pip install sem-jax[export], or pip install safetensors"
        ) from None
    return safetensors


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a .safetensors file by name; float16 becomes float32.

    Raises:
      RunError: a file that is missing or damaged, or of a type NumPy does not have.
    """
    safetensors = _safetensors()
    try:
        arrays = safetensors.numpy.load_file(path)
    except FileNotFoundError:
        raise RunError(f"{path} does not exist") from None
    except (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:120]
        raise RunError(f"{path} cannot be read as safetensors: {reason}", "Copy or download it once more.") from None
    return {name: x.astype(np.float32) if x.dtype == np.float16 else x for name, x in arrays.items()}


def write_safetensors(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Writes arrays by name, through a temporary file."""
    contiguous = {name: np.ascontiguousarray(x) if np.ndim(x) else np.asarray(x) for name, x in arrays.items()}
    _write(path, _safetensors().numpy.save(contiguous, dict(metadata)))


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(content)
    temporary.replace(path)


def flat_arrays(variables: Mapping) -> dict[str, np.ndarray]:
    """{"params/stem/kernel": array, ...} of nested variables."""
    import jax

    leaves, _ = jax.tree_util.tree_flatten_with_path(variables)
    return {"/".join(str(entry.key) for entry in path): np.asarray(leaf) for path, leaf in leaves}


def make_predict(model, variables, *, mean: tuple[float, ...], std: tuple[float, ...]):
    """predict(images u8[b h w c]) -> (features f32[b d], logits f32[b k], probabilities f32[b k])."""
    import jax

    from sem_jax.runs.predict import make_predict_step

    step = make_predict_step(model, mean=mean, std=std)

    def predict(images):
        features, logits = step(variables, images)
        return features, logits, jax.nn.softmax(logits, axis=-1)

    return predict


def export_program(workdir: str, *, checkpoint: str = "final") -> bytes:
    """The predictions of a checkpoint as serialised StableHLO, for any number of images.

    Raises:
      SemError: a run that cannot be opened; flatbuffers is not installed.
    """
    import importlib.util

    import jax
    import jax.numpy as jnp
    from jax import export as jax_export

    from sem_jax.models import make_model
    from sem_jax.runs.opening import open_run

    if importlib.util.find_spec("flatbuffers") is None:
        raise RunError("flatbuffers is not installed", "pip install sem-jax[export], or pip install flatbuffers")
    run = open_run(workdir, checkpoint)
    # float32 on every platform: what is exported here must not depend on where that is.
    fields = {**run.config.model, "num_classes": len(run.data.class_names), "dtype": "float32"}
    predict = make_predict(make_model(**fields), run.variables, mean=run.data.mean, std=run.data.std)
    (batch,) = jax_export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((batch, *run.data.image_shape), jnp.uint8)
    return bytes(jax_export.export(jax.jit(predict), platforms=PLATFORMS)(images).serialize())


def load_program(path: Path):
    """images u8[b h w c] -> (features, logits, probabilities), of a file that `export_program` made.

    Raises:
      RunError: a file that is missing, damaged, or made by a version too far from this one.
    """
    from jax import export as jax_export

    if not path.is_file():
        raise RunError(f"{path} does not exist")
    try:
        return jax_export.deserialize(bytearray(path.read_bytes())).call
    except Exception as error:  # flatbuffers, MLIR and struct each have their own
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:120]
        raise RunError(f"{path} cannot be read as StableHLO: {reason}", "Copy it or export it once more.") from None


def export_run(workdir: str, out: Path, *, kind: str, checkpoint: str = "final") -> None:
    """Writes one checkpoint of a run to one file.

    Args:
      workdir: the run folder.
      out: replaced if it is there.
      kind: one of FORMATS.
      checkpoint: final, best_val, a step, or a folder.

    Raises:
      SemError: a run that cannot be opened, or a package that is missing.
    """
    from sem_jax.runs.opening import open_run
    from sem_jax.runs.records import read_json

    if out.is_dir():
        raise ConfigError(f"--out={out} is a folder; give a file")
    if kind == "stablehlo":
        _write(out, export_program(workdir, checkpoint=checkpoint))
        return
    _safetensors()
    run = open_run(workdir, checkpoint)
    metadata = {name: json.dumps(read_json(run.folder / name)) for name in ("config.json", "data.json")}
    write_safetensors(out, flat_arrays(run.variables), metadata | {"step": str(run.step)})


def main(argv: list[str] | None = None) -> None:
    """Entry point of `python -m sem_jax export`."""
    summary, _, more = __doc__.partition("\n")
    parser = argparse.ArgumentParser(
        prog="python -m sem_jax export",
        description=summary,
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--workdir", required=True, metavar="DIR", help="run folder")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="file to write")
    parser.add_argument("--format", choices=FORMATS, default="safetensors", help="default: safetensors")
    parser.add_argument("--checkpoint", default="final", help="final, best_val, a step or a folder; default: final")
    args = parser.parse_args(argv)
    with exit_on_error():
        out = args.out.expanduser()
        export_run(args.workdir, out, kind=args.format, checkpoint=args.checkpoint)
        print(f"Wrote {out}, {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    sys.exit(main())
