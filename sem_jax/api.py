"""The functions that users call: train a configuration, open a run, predict, score and draw it."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from sem_jax.config import apply_method, get_default, override, validate
from sem_jax.config.finding import choices, load_config, switch
from sem_jax.runs import opening, records
from sem_jax.runs.inputs import Inputs, from_array, is_picture, list_inputs
from sem_jax.runs.results import Evaluation, Prediction, Records


def get_config(name: str = "", *, method: str = "", **fields: Any) -> ConfigDict:
    """A validated configuration.

    Args:
      name: one that comes with the package ("preact_c10", "preact_c10:cutmix+sem"), or the path of a file, which is
        Python and is executed; "" = the defaults, PreActResNet18 on CIFAR-10.
      method: one of the paper's nine, such as "cutmix+es+sem"; "" = the file's own, mixup + SEM.
      **fields: settings by their full name: `**{"train.epochs": 2}`; docs/settings.md lists them. With
        another "model.name", the file's other fields of `model` are left out, which belong to its own; with another
        "data.name", its data.mean and data.std.

    Raises:
      ConfigError: no such file, method or field, or a value that cannot work.

    >>> cfg = get_config(method="cutmix+es", **{"train.epochs": 20, "mixer.alpha": 0.5})
    >>> cfg.mixer.name, cfg.objective.gamma, cfg.mixer.stop_epoch
    ('cutmix', 0.0, 15)
    >>> get_config("vit_c10", **{"model.name": "resnet", "model.depth": 50}).model.width  # 0: the model's own default
    0
    """
    if name:
        cfg = load_config(f"{name.partition(':')[0]}:{method}" if method else name)
    else:
        cfg = apply_method(get_default(), method)
    before = choices(cfg)
    override(cfg, fields)
    switch(cfg, before, fields)
    validate(cfg)
    return cfg


def train(
    cfg: ConfigDict,
    workdir: str | Path,
    *,
    profile: bool = False,
    trust_model: str = "",
    extend: bool = False,
    max_minutes: float = 0.0,
) -> "Run":
    """Trains a configuration, or continues its run, exactly as `python -m sem_jax.main` does.

    Args:
      cfg: from `get_config`.
      workdir: the run folder, or gs://BUCKET/FOLDER; made if it is not there, refused if it holds another run.
      profile: capture a profiler trace of a few steps in the folder's profile/.
      trust_model: the custom model that the frozen net of `mixer.scorer` may be: see `load`.
      extend: train the folder's run on to a larger train.epochs.
      max_minutes: the run is saved and ended so long after this call began; 0 = no limit.

    Returns:
      The run, opened at its last checkpoint.

    Raises:
      SemError: a configuration, data or folder that cannot be used, or numbers that are not finite.
      Interrupted: after Ctrl-C, SIGTERM or max_minutes, when the state is saved; a SystemExit.

    >>> small = {"model.name": "mlp_mixer", "model.depth": 1, "model.width": 16, "model.patch_size": 4}
    >>> fields = {"data.name": "digits", "train.epochs": 1, "train.batch_size": 512, "runtime.progress": False}
    >>> run = train(get_config(method="erm", **small, **fields), "runs/digits")  # doctest: +ELLIPSIS
    erm | digits: 1,437 train, 360 test, 10 classes
    ...
    >>> run
    Run('runs/digits', step 2)
    """
    from sem_jax.runs.disk import local_folder
    from sem_jax.system.compile_cache import use_cache
    from sem_jax.training.loop import train_and_evaluate

    deadline = time.monotonic() + 60 * max_minutes if max_minutes else None
    use_cache(cfg.runtime.cache_dir)
    options = {"profile": profile, "trust_model": trust_model, "extend": extend, "deadline": deadline}
    train_and_evaluate(cfg, str(workdir), **options)
    return load(local_folder(workdir), trust_model=cfg.model.name)


def load(workdir: str | Path, checkpoint: str | int = "final", *, trust_model: str = "") -> "Run":
    """Opens a run folder; nothing of it is executed.

    Args:
      workdir: the run folder, or one of its checkpoints/STEP; gs://BUCKET/FOLDER of a run in a bucket; or a shared run:
        its folder, or hf://owner/name.
      checkpoint: "final", "best_val" (the highest val_accuracy among the kept ones), "ema" (the averaged weights of the
        last one, where the run kept them: optim.ema_decay) or a step.
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


class Run:
    """One checkpoint of a run, from `train` or `load`.

    >>> run = load("runs/digits")
    >>> run.class_names[:3], run.step, run.config.data.name
    (('0', '1', '2'), 2, 'digits')

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
        self._predictors = {}

    def __repr__(self) -> str:
        return f"Run({self.opened.source or str(self.folder)!r}, step {self.step})"

    def predict(
        self,
        images: Any,
        *,
        batch_size: int = 0,
        skip_broken: bool = False,
        progress: bool = True,
    ) -> Prediction:
        """Classes, probabilities and features of images, in evaluation mode.

        Args:
          images: a picture file, a folder of pictures, an .npy file, a PIL image, or a list of these; or an array of
            one image or several, or a list of arrays. Pictures are resized as in training: the shorter side to the
            model's, the centre cut out. Arrays have the model's size, [n h w c], [n h w], [h w c] or [h w], as pixels
            in 0..255 or floats in [0, 1]. Grey becomes RGB for a model of RGB, alpha is left out, and colours become
            luma for a model of one channel.
          batch_size: images that are run at a time; 0 = the run's runtime.eval_batch_size.
          skip_broken: leave out pictures that cannot be read; `files` of the result are those that remain.
          progress: draw a bar, on a terminal or in a notebook.

        Returns:
          One row an image, in the order given; those of a folder in the order of their paths.

        Raises:
          DataError: another size or range of values, or a picture that cannot be read.

        >>> from sem_jax.data import load as load_data
        >>> found = run.predict(load_data("digits").splits["test"].images[:50])
        >>> found.probabilities.shape, found.features.shape, found.names[0] in run.class_names
        ((50, 10), (50, 16), True)
        >>> run.predict("photos/")
        Traceback (most recent call last):
        ...
        sem_jax.errors.DataError: photos does not exist
        Give picture files, folders of them, or .npy files.
        """
        predictor, shape = self._predictor(batch_size, progress), self.opened.data.image_shape
        paths = [images] if is_picture(images) else images
        if not (isinstance(paths, list | tuple) and any(map(is_picture, paths))):
            features, logits = predictor.outputs(from_array(images, shape))
            return Prediction.of(features, logits, self.class_names, [])
        inputs = Inputs(list_inputs(paths), shape, eval_crop=self.config.data.eval_crop, skip_broken=skip_broken)
        outputs = predictor.outputs(inputs, label="predicting")
        kept = [row for row in range(len(inputs)) if row not in inputs.broken]
        files = inputs.names
        features, logits = (array[kept] for array in outputs)
        return Prediction.of(features, logits, self.class_names, [files[row] for row in kept])

    def _predictor(self, batch_size: int, progress: bool):
        from sem_jax.runs.predict import make_predictor

        wanted = batch_size, progress
        if wanted not in self._predictors:
            self._predictors[wanted] = make_predictor(self.opened, batch_size=batch_size, progress=progress)
        return self._predictors[wanted]

    def metrics(self) -> Records:
        """The records of metrics.jsonl, a list with one dict an epoch; `to_pandas()` makes a DataFrame of it.

        >>> [(record["epoch"], record["step"]) for record in run.metrics()]
        [(1, 2)]
        """
        return Records(records.read_metrics(self.folder))

    def evaluate(self, *, say: Callable[[str], Any] | None = None, **options: Any) -> Evaluation:
        """Scores the checkpoint, writes the report and returns the record of eval.json.

        Args:
          say: called with a line when a suite is done, as in `say=print`; None says nothing.
          **options: those of `sem_jax.evaluation.Options`: suites=("clean", "ood"), data_dir=..., out=...

        Returns:
          A dict; its `to_pandas()` is a DataFrame of the main numbers.

        Raises:
          SemError: data or an option that cannot be used.

        >>> done = run.evaluate(suites=("clean",), pictures=False, progress=False)
        >>> [row["measure"] for row in done.scalars]
        ['top1', 'top5', 'nll', 'brier', 'items']
        """
        from sem_jax.evaluation import Options, evaluate

        return Evaluation(evaluate(self.opened, Options(**options), say=say or (lambda line: None)))

    def plot(self) -> Path | None:
        """Draws the learning curves and returns the path of curves.png; None without records.

        It lies in the run folder; for a run that was fetched from hf:// or gs://, in NAME-evaluation/ below the current
        folder.

        >>> run.plot().name
        'curves.png'
        """
        from sem_jax.runs.curves import draw_curves
        from sem_jax.runs.shared import report_folder

        out = ""
        if self.opened.source:  # the folder is a cache, to which nothing is written
            out = report_folder(self.opened.source) / "curves.png"
            out.parent.mkdir(parents=True, exist_ok=True)
        return draw_curves(self.folder, out=out)
