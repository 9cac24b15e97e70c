"""The functions that users call: train a configuration, open a run, predict, score and draw it."""

import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from sem_jax.config import apply_method, get_default, override, validate
from sem_jax.errors import ConfigError, DataError
from sem_jax.registry import nearest
from sem_jax.runs import opening, records

# configs/ in the working directory, then in the checkout that the package is imported from.
_CONFIGS = (Path("configs"), Path(__file__).resolve().parent.parent / "configs")


def get_config(name: str = "", *, method: str = "", **fields: Any) -> ConfigDict:
    """A validated configuration.

    Args:
      name: a file in configs/ ("preact_c10"), or the path of one, which is Python and is executed; "" = the
        defaults, PreActResNet18 on CIFAR-10.
      method: one of the paper's nine, such as "cutmix+es+sem"; "" = the file's own, mixup + SEM.
      **fields: settings by their full name: `**{"train.epochs": 2}`; docs/settings.md lists them.

    Raises:
      ConfigError: no such file, method or field, or a value that cannot work.

    >>> cfg = get_config(method="cutmix+es", **{"train.epochs": 20, "mixer.alpha": 0.5})
    >>> cfg.mixer.name, cfg.objective.gamma, cfg.mixer.stop_epoch
    ('cutmix', 0.0, 15)
    """
    cfg = runpy.run_path(str(_find_config(name)))["get_config"]() if name else get_default()
    apply_method(cfg, method)
    override(cfg, fields)
    validate(cfg)
    return cfg


def _find_config(name: str) -> Path:
    for path in [Path(name).expanduser()] if name.endswith(".py") else [folder / f"{name}.py" for folder in _CONFIGS]:
        if path.is_file():
            return path
    known = sorted({path.stem for folder in _CONFIGS for path in folder.glob("*.py")})
    raise ConfigError(f"There is no configuration {name!r}.{nearest(name, known)}", f"Known ones: {', '.join(known)}.")


def train(cfg: ConfigDict, workdir: str | Path, *, profile: bool = False, trust_model: str = "") -> "Run":
    """Trains a configuration, or continues its run, exactly as `python -m sem_jax.main` does.

    Args:
      cfg: from `get_config`.
      workdir: the run folder; made if it is not there, refused if it holds another run.
      profile: capture a profiler trace of a few steps in the folder's profile/.
      trust_model: the custom model that the frozen net of `mixer.scorer` may be: see `load`.

    Returns:
      The run, opened at its last checkpoint.

    Raises:
      SemError: a configuration, data or folder that cannot be used, or numbers that are not finite.
      Interrupted: after Ctrl-C or SIGTERM, when the state is saved; a SystemExit.

    >>> import tempfile
    >>> small = {"model.name": "mlp_mixer", "model.depth": 1, "model.width": 16, "model.patch_size": 4}
    >>> fields = {"data.name": "digits", "train.epochs": 1, "train.batch_size": 512, "runtime.progress": False}
    >>> run = train(get_config(method="erm", **small, **fields), tempfile.mkdtemp())  # doctest: +ELLIPSIS
    erm | digits: 1,437 train, 360 test, 10 classes
    ...
    >>> run, len(run.metrics())  # doctest: +ELLIPSIS
    (Run('...', step 2), 1)
    """
    from sem_jax.system.compile_cache import use_cache
    from sem_jax.training.loop import train_and_evaluate

    use_cache(cfg.runtime.cache_dir)
    train_and_evaluate(cfg, str(workdir), profile=profile, trust_model=trust_model)
    return load(workdir, trust_model=cfg.model.name)


def load(workdir: str | Path, checkpoint: str | int = "final", *, trust_model: str = "") -> "Run":
    """Opens a run folder; nothing of it is executed.

    Args:
      workdir: the run folder, or one of its checkpoints/STEP.
      checkpoint: "final", "best_val" (the highest val_accuracy among the kept ones) or a step.
      trust_model: the custom model of the run, "my_nets:Net", which is imported and so executed; a run that names
        another one in its config.json is refused.

    Raises:
      SemError: no such run or checkpoint, one that is damaged, or a model that is not trusted.

    >>> load("runs/nothing")
    Traceback (most recent call last):
    ...
    sem_jax.errors.RunError: runs/nothing does not exist
    Give the folder of a run: --workdir=runs/NAME.
    """
    return Run(opening.open_run(workdir, checkpoint, trust_model=trust_model))


class Prediction(NamedTuple):
    """The predictions of n images, NumPy arrays with one row an image; from `Run.predict`.

    >>> Prediction._fields
    ('labels', 'names', 'probabilities', 'features', 'logits')
    """

    labels: np.ndarray  # i[n], the most probable class
    names: list[str]  # of these classes
    probabilities: np.ndarray  # f32[n k]
    features: np.ndarray  # f32[n d], g(x)
    logits: np.ndarray  # f32[n k], f(x)


class Run:
    """One checkpoint of a run, from `train` or `load`.

    >>> run = load("runs/digits")  # doctest: +SKIP
    >>> run.predict("photos/").names  # doctest: +SKIP
    ['3', '8']

    Attributes:
      opened: `runs.opening.Run`: model, variables, configuration and facts of the data.
      folder: the run folder.
      step: optimizer updates of the checkpoint; None where its folder was renamed.
      config: the run's configuration.
      class_names: in label order.
    """

    def __init__(self, opened: opening.Run):
        self.opened = opened
        self.folder, self.step, self.config = opened.folder, opened.step, opened.config
        self.class_names = opened.data.class_names
        self._predictor = None

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, step {self.step})"

    def predict(self, images: np.ndarray | str | Path | Sequence[str | Path]) -> Prediction:
        """Classes, probabilities and features of images, in evaluation mode.

        Args:
          images: u8[n h w c] of the size that the model was trained on; or a picture file, a folder of them or a list
            of them, which are resized.

        Raises:
          DataError: another size or dtype, or a picture that cannot be read.
        """
        from sem_jax.runs.predict import make_predictor

        if not isinstance(images, np.ndarray):
            images = _read_pictures(images, self.opened.data.image_shape)
        if images.dtype != np.uint8 or images.shape[1:] != self.opened.data.image_shape or not len(images):
            expected = list(self.opened.data.image_shape)
            raise DataError(f"images are {images.dtype}{list(images.shape)}, expected uint8 [n, *{expected}], n >= 1")
        if self._predictor is None:
            self._predictor = make_predictor(self.opened)
        features, logits = self._predictor.outputs(images)
        labels = logits.argmax(axis=1)
        names = [self.class_names[label] for label in labels]
        likely = np.exp(logits - logits.max(axis=1, keepdims=True))
        return Prediction(labels, names, likely / likely.sum(axis=1, keepdims=True), features, logits)

    def metrics(self) -> list[dict[str, Any]]:
        """The records of metrics.jsonl, one an epoch, as `pandas.DataFrame` takes them."""
        return records.read_metrics(self.folder)

    def evaluate(self, **options: Any) -> dict[str, Any]:
        """Scores the checkpoint, writes the report and returns the record of eval.json.

        Args:
          **options: those of `sem_jax.evaluation.Options`: suites=("clean", "ood"), data_dir=..., out=...
        """
        from sem_jax.evaluation import Options, evaluate

        return evaluate(self.opened, Options(**options))

    def plot(self) -> Path | None:
        """Draws the learning curves and returns the path of curves.png; None without records."""
        from sem_jax.runs.curves import draw_curves

        return draw_curves(self.folder)


def _read_pictures(paths: str | Path | Sequence[str | Path], shape: tuple[int, int, int]) -> np.ndarray:
    """u8[n h w c] of picture files; for a square `shape` the shorter side is resized and the centre cropped."""
    from sem_jax.data.images import decode_all, is_image

    files = [Path(path).expanduser() for path in ([paths] if isinstance(paths, str | Path) else paths)]
    where = files[0] if files else "an empty list"
    if len(files) == 1 and files[0].is_dir():
        files = sorted(path for path in files[0].rglob("*") if is_image(path.name) and not path.is_dir())
    if not files:
        raise DataError(f"{where} holds no pictures")
    if missing := [path for path in files if not path.is_file()]:
        raise DataError(f"{missing[0]} does not exist")
    size = shape[0] if shape[0] == shape[1] else 0
    images = decode_all(len(files), lambda i: files[i].read_bytes(), lambda i: str(files[i]), image_size=size)
    return images if shape[2] == 3 else images.mean(axis=-1, keepdims=True).round().astype(np.uint8)
