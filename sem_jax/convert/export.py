"""Exports a checkpoint: its parameters as safetensors, or its predictions as one StableHLO program.

    python -m sem_jax export --workdir=runs/wrn_c10 --out=wrn.safetensors
    python -m sem_jax export --workdir=runs/wrn_c10 --out=wrn.stablehlo --format=stablehlo

    predict = jax.export.deserialize(bytearray(Path("wrn.stablehlo").read_bytes())).call
    features, logits, probabilities = predict(images)       # u8[b h w c], any b; a process with jax and no sem_jax

The safetensors hold the checkpoint's arrays under this package's names ("params/stem/kernel"), with config.json and
data.json as metadata; `python -m sem_jax convert` writes PyTorch's names. The program holds the weights and the
normalisation, computes in float32 and runs on CPU, CUDA and TPU. JAX guarantees that it can be read for six months.
Both formats need `pip install sem-jax[export]`.
"""

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export

from sem_jax.convert.files import write_bytes, write_safetensors
from sem_jax.convert.naming import named_leaves
from sem_jax.errors import ConfigError, RunError, command_parser, exit_on_error, one_line
from sem_jax.models import make_model
from sem_jax.runs.opening import open_run
from sem_jax.runs.predict import make_predict_step
from sem_jax.runs.reading import read_json, without_current_folder

FORMATS = ("safetensors", "stablehlo")
PLATFORMS = ("cpu", "cuda", "tpu")


def flat_arrays(variables: Any) -> dict[str, np.ndarray]:
    """{"params/stem/kernel": array, ...} of nested variables."""
    return {"/".join(path): np.asarray(leaf) for path, leaf in named_leaves(variables)}


def export_program(workdir: str, *, checkpoint: str = "final", trust_model: str = "") -> bytes:
    """The predictions of a checkpoint as serialised StableHLO, for any number of images.

    The program maps images u8[b h w c] to (features f32[b d], logits f32[b k], probabilities f32[b k]).

    Raises:
      SemError: a run that cannot be opened; flatbuffers is not installed.
    """
    if importlib.util.find_spec("flatbuffers") is None:
        raise RunError("flatbuffers is not installed", "pip install sem-jax[export], or pip install flatbuffers")
    run = open_run(workdir, checkpoint, trust_model=trust_model)
    # float32 on every platform: the program must not depend on the machine that exports it.
    model = make_model(**{**run.config.model, "num_classes": len(run.data.class_names), "dtype": "float32"})
    step = make_predict_step(model, mean=run.data.mean, std=run.data.std)

    def predict(images):
        features, logits = step(run.variables, images)
        return features, logits, jax.nn.softmax(logits, axis=-1)

    (batch,) = jax_export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((batch, *run.data.image_shape), jnp.uint8)
    return bytes(jax_export.export(jax.jit(predict), platforms=PLATFORMS)(images).serialize())


def load_program(path: Path) -> Callable[..., Any]:
    """images u8[b h w c] -> (features, logits, probabilities), from a file that `export_program` made.

    Raises:
      RunError: a file that is missing, damaged or of a JAX version too far from this one.
    """
    if not path.is_file():
        raise RunError(f"{path} does not exist")
    try:
        return jax_export.deserialize(bytearray(path.read_bytes())).call
    except Exception as error:  # flatbuffers, MLIR and struct raise errors of their own
        message = f"{path} cannot be read as StableHLO: {one_line(error)}"
        raise RunError(message, "Copy it or export it once more.") from None


def export_run(workdir: str, out: Path, *, kind: str, checkpoint: str = "final", trust_model: str = "") -> None:
    """Writes a checkpoint to the file `out`, in a format `kind` of FORMATS.

    Raises:
      SemError: a run that cannot be opened, or a package that is missing.
    """
    if out.is_dir():
        raise ConfigError(f"--out={out} is a folder; give a file")
    if kind == "stablehlo":
        write_bytes(out, export_program(workdir, checkpoint=checkpoint, trust_model=trust_model))
        return
    run = open_run(workdir, checkpoint, trust_model=trust_model)
    metadata = {name: json.dumps(read_json(run.folder / name)) for name in ("config.json", "data.json")}
    write_safetensors(out, flat_arrays(run.variables), metadata | {"step": str(run.step)})


def main(argv: list[str] | None = None) -> None:
    """Entry point of `python -m sem_jax export`."""
    parser = command_parser("sem_jax export", __doc__)
    parser.add_argument("--workdir", required=True, metavar="DIR", help="run folder")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="file to write")
    parser.add_argument("--format", choices=FORMATS, default="safetensors", help="default: safetensors")
    parser.add_argument("--checkpoint", default="final", help="final, best_val, a step or a folder; default: final")
    parser.add_argument(
        "--trust_model",
        default="",
        metavar="MODULE:FACTORY",
        help="custom model of the run that may be imported and executed",
    )
    args = parser.parse_args(argv)
    with exit_on_error(), without_current_folder():
        out = args.out.expanduser()
        export_run(args.workdir, out, kind=args.format, checkpoint=args.checkpoint, trust_model=args.trust_model)
        print(f"Wrote {out}, {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    sys.exit(main())
