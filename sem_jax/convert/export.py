"""Exports a checkpoint: its parameters as safetensors, or its predictions as one StableHLO program.

    python -m sem_jax export --workdir=runs/wrn_c10 --out=wrn.safetensors
    python -m sem_jax export --workdir=runs/wrn_c10 --out=wrn.stablehlo --format=stablehlo

    predict = jax.export.deserialize(bytearray(Path("wrn.stablehlo").read_bytes())).call
    features, logits, probabilities = predict(images)       # u8[b h w c], any b; a process with jax and no sem_jax
    names = json.loads(Path("wrn.stablehlo.json").read_text())["class_names"]

The safetensors hold the checkpoint's arrays under this package's names ("params/stem/kernel"); `python -m sem_jax
convert` writes PyTorch's names. The program holds the weights and the normalisation, computes in float32 and runs on
CPU, CUDA and TPU. JAX guarantees that it can be read for six months. Both formats carry class names, mean, std and size
of the images, step and configuration: safetensors as metadata, each a JSON text, the program in a JSON file beside it.
They need the packages safetensors and flatbuffers (`pip install -e .[export]`).
"""

import hashlib
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sem_jax.config import without_places
from sem_jax.convert.files import require_place, write_bytes, write_safetensors
from sem_jax.errors import RunError, command_parser, exit_on_error, one_line
from sem_jax.runs.reading import require_run, without_current_folder
from sem_jax.system.urls import require_local

if TYPE_CHECKING:  # jax takes seconds to start: the functions that need it import it, after the options are checked
    import numpy as np

    from sem_jax.runs import opening  # with its module: the site has another Run, of the face

FORMATS = ("safetensors", "stablehlo")
PLATFORMS = ("cpu", "cuda", "tpu")


def flat_arrays(variables: Any) -> dict[str, "np.ndarray"]:
    """{"params/stem/kernel": array, ...} of nested variables."""
    import numpy as np

    from sem_jax.convert.naming import named_leaves

    return {"/".join(path): np.asarray(leaf) for path, leaf in named_leaves(variables)}


def about_model(run: "opening.Run") -> dict[str, str]:
    """What is needed beside a model's arrays, by name, each a JSON text.

    class_names (in the order of the logits), image_shape [h, w, c], mean and std (per channel, of pixels in [0, 1]),
    step, fingerprint, and the run's config.json and data.json without paths of this machine.
    """
    facts = run.data.to_json()
    found = {name: facts[name] for name in ("class_names", "image_shape", "mean", "std")}
    found |= {"step": run.step, "fingerprint": run.fingerprint}
    found |= {"config.json": without_places(run.config), "data.json": facts}
    return {name: json.dumps(value) for name, value in found.items()}


def export_program(run: "opening.Run") -> bytes:
    """The predictions of a checkpoint as serialised StableHLO, for any number of images.

    The program maps images u8[b h w c] to (features f32[b d], logits f32[b k], probabilities f32[b k]).

    Raises:
      RunError: flatbuffers is not installed.
    """
    _require("flatbuffers")
    import jax
    import jax.numpy as jnp
    from jax import export as jax_export

    from sem_jax.models import make_model
    from sem_jax.runs.predict import make_predict_step

    # float32 on every platform: the program must not depend on the machine that exports it.
    model = make_model(**{**run.config.model, "num_classes": len(run.data.class_names), "dtype": "float32"})
    step = make_predict_step(model, mean=run.data.mean, std=run.data.std)

    def predict(images):
        features, logits = step(run.variables, images)
        return features, logits, jax.nn.softmax(logits, axis=-1)

    (batch,) = jax_export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((batch, *run.data.image_shape), jnp.uint8)
    return bytes(jax_export.export(jax.jit(predict), platforms=PLATFORMS)(images).serialize())


def _require(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise RunError(f"{package} is not installed", f"pip install {package}")


def load_program(path: Path) -> Callable[..., Any]:
    """images u8[b h w c] -> (features, logits, probabilities), from a file that `export_program` made.

    Raises:
      RunError: a file that is missing, damaged or of a JAX version too far from this one.
    """
    if not path.is_file():
        raise RunError(f"{path} does not exist")
    from jax import export as jax_export

    try:
        return jax_export.deserialize(bytearray(path.read_bytes())).call
    except Exception as error:  # flatbuffers, MLIR and struct raise errors of their own
        message = f"{path} cannot be read as StableHLO: {one_line(error)}"
        raise RunError(message, "Copy it or export it once more.") from None


def export_run(workdir: str, out: Path, *, kind: str, checkpoint: str = "final", trust_model: str = "") -> None:
    """Writes a checkpoint to the file `out`, in a format `kind` of FORMATS; for a program, `out`.json too.

    Raises:
      SemError: a run that cannot be opened, a package that is missing, or a file that cannot be written.
    """
    _require({"stablehlo": "flatbuffers", "safetensors": "safetensors"}[kind])
    require_place("--out", out)
    require_run(workdir, checkpoint)
    from sem_jax.runs.opening import open_run

    run = open_run(workdir, checkpoint, trust_model=trust_model)
    about = about_model(run)
    if kind == "safetensors":
        write_safetensors(out, flat_arrays(run.variables), about)
        return
    import jax

    from sem_jax.runs.records import write_json

    program = export_program(run)
    write_bytes(out, program)
    facts = {name: json.loads(text) for name, text in about.items()}
    facts |= {"sha256": hashlib.sha256(program).hexdigest(), "outputs": ["features", "logits", "probabilities"]}
    write_json(out.with_name(f"{out.name}.json"), facts | {"jax": jax.__version__})


def main(argv: list[str] | None = None) -> None:
    """Entry point of `python -m sem_jax export`."""
    parser = command_parser("sem_jax export", __doc__)
    parser.add_argument("--workdir", required=True, metavar="DIR", help="run folder, gs:// or hf://")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="file to write")
    parser.add_argument("--format", choices=FORMATS, default="safetensors", help="default: safetensors")
    parser.add_argument(
        "--checkpoint", default="final", help="final, best_val, ema, a step or a folder; default: final"
    )
    parser.add_argument(
        "--trust_model",
        default="",
        metavar="MODULE:FACTORY",
        help="custom model of the run that may be imported and executed",
    )
    args = parser.parse_args(argv)
    with exit_on_error(), without_current_folder():
        require_local("--out", args.out, out=True)
        out = args.out.expanduser()
        export_run(args.workdir, out, kind=args.format, checkpoint=args.checkpoint, trust_model=args.trust_model)
        print(f"Wrote {out}, {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    sys.exit(main())
