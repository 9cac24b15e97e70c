"""The model card of a shared run: a README.md of what is known about it, made of its own records.

    text = make_card(run, scores_of(run), where="hf://owner/name", license="apache-2.0")

Texts that a run's files hold (names of classes, of data sets) are quoted, so that none of them is markup.
"""

import json
import math
import re
from typing import Any, NamedTuple

from sem_jax import config as config_lib
from sem_jax.data import DATASETS, PUBLIC
from sem_jax.errors import RunError
from sem_jax.runs.opening import Run
from sem_jax.runs.reading import read_json
from sem_jax.runs.records import environment, read_metrics
from sem_jax.system import hub

SHOWN = 20  # class names, scores of a suite
PAPER = "[arXiv 2308.06451](https://arxiv.org/abs/2308.06451)"


class Score(NamedTuple):
    """One number of the card."""

    name: str  # "test accuracy"
    value: float  # a fraction where it is an accuracy
    n: int = 0  # images behind an accuracy; 0 = no interval

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of an accuracy over n images."""
        from scipy.stats import binomtest

        low, high = binomtest(round(self.value * self.n), self.n).proportion_ci(0.95, "wilson")
        return float(low), float(high)

    def __str__(self) -> str:
        if not self.n:
            return f"{self.value:.4g}"
        low, high = self.interval
        return f"{self.value:.2%} (n = {self.n:,}; 95 % interval {low:.2%} to {high:.2%})"


def scores_of(run: Run) -> list[Score]:
    """Accuracies that were logged for the checkpoint's step, then the scalars of its evaluation, if there is one."""
    found = {}
    for record in [*read_metrics(run.folder), _json(run, "result.json")]:
        if run.step is not None and record.get("step", record.get("steps")) == run.step:
            found |= record
    scores = []
    for split in ("test", "val"):
        name = f"ema_{split}_accuracy" if run.checkpoint == "ema" else f"{split}_accuracy"
        value, n = found.get(name), run.data.sizes.get(split, 0)
        if isinstance(value, int | float) and 0 <= value <= 1 and n > 0:
            scores.append(Score(f"{split} accuracy", value, n))
    evaluation = _json(run, "evaluation/eval.json")
    about, suites = evaluation.get("run"), evaluation.get("suites")
    if isinstance(about, dict) and isinstance(suites, dict) and about.get("fingerprint") == run.fingerprint:
        for suite, result in suites.items():
            scalars = result.get("scalars") if isinstance(result, dict) else None
            named = scalars.items() if isinstance(scalars, dict) else ()
            numbers = [(name, it) for name, it in named if type(it) in (int, float) and math.isfinite(it)]
            scores += [Score(f"{suite}: {name}", it) for name, it in numbers[:SHOWN] if _plain(suite + name)]
    return scores


def _json(run: Run, name: str) -> dict[str, Any]:
    try:
        found = read_json(run.folder / name)
    except RunError:
        return {}
    return found if isinstance(found, dict) else {}


def _plain(name: str) -> bool:
    return bool(re.fullmatch(r"[\w@%() .,:+/-]{1,80}", name))


def make_card(run: Run, scores: list[Score], *, where: str, license: str = "") -> str:
    """The text of README.md.

    Args:
      run: the run that is shared.
      scores: of `scores_of`.
      where: what `sj.load` takes: hf://owner/name, or a folder's name.
      license: as a hub spells it, "apache-2.0"; "" = none is named.
    """
    return "\n".join([_head(run, scores, where, license), _model(run), _scores(scores), _use(run, where), _limits(run)])


def _head(run: Run, scores: list[Score], where: str, license: str) -> str:
    """YAML; JSON's texts are YAML's."""
    name, method = where.rpartition("/")[2].partition("@")[0], config_lib.method_of(run.config)
    data = run.data.name if run.data.name in DATASETS else "other"
    if hub.is_hub(run.config.data.dir):
        data = hub.parse(run.config.data.dir).repo
    head = {
        "license": license or None,
        "library_name": "sem_jax",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "jax", "flax", "sem_jax", *method.split("+")],
        "datasets": [data] if data in PUBLIC or "/" in data else None,
        "metrics": ["accuracy"],
    }
    lines = [f"{key}: {json.dumps(value)}" for key, value in head.items() if value is not None]
    if accuracies := [score for score in scores if score.n]:
        metrics = [{"type": "accuracy", "name": it.name, "value": round(it.value, 6)} for it in accuracies]
        about = {"task": {"type": "image-classification"}, "dataset": {"name": data, "type": data}, "metrics": metrics}
        lines.append(f"model-index: {json.dumps([{'name': name, 'results': [about]}])}")
    return "\n".join(["---", *lines, "---", "", f"# {name}", ""])


def _model(run: Run) -> str:
    cfg, data, about = run.config, run.data, environment()
    height, width, channels = data.image_shape
    colour = "RGB" if channels == 3 else "grey"
    import jax

    count = sum(leaf.size for leaf in jax.tree.leaves(run.variables["params"]))
    default = config_lib.get_default().model
    fields = [f"{k}={v}" for k, v in cfg.model.items() if k != "name" and v != default[k] and _plain(str(v))]
    method, sizes = config_lib.method_of(cfg), ", ".join(f"{n:,} {_quoted(name)}" for name, n in data.sizes.items())
    penalty = f"; penalty of SEM with gamma = {cfg.objective.gamma:g} ({PAPER})" if cfg.objective.gamma else ""
    names = ", ".join(_quoted(name) for name in data.class_names[:SHOWN])
    more = f" and {len(data.class_names) - SHOWN} more (data.json)" if len(data.class_names) > SHOWN else ""
    trained = _json(run, "result.json").get("commit")
    commit = trained if isinstance(trained, str) and re.fullmatch(r"[0-9a-f]{40}\+?", trained) else about["commit"]
    return f"""An image classifier, trained with [sem_jax](https://github.com/sem-jax/sem_jax).

| | |
|---|---|
| model | {_quoted(cfg.model.name)} {" ".join(fields)}; {count:,} parameters |
| method | {method}{penalty} |
| training | {cfg.train.epochs} epochs of batches of {cfg.train.batch_size}, seed {cfg.seed}; step {run.step} |
| data | {_quoted(data.name)}: {sizes} images; SHA-256 of all of them {_quoted(data.fingerprint[:16])} |
| input | {colour} images, u8 [n, {height}, {width}, {channels}]; normalised by the mean and std in data.json |
| classes | {len(data.class_names)}: {names}{more} |
| code | sem_jax {about["versions"]["sem_jax"]}, commit {_quoted(commit or "unknown")} |
"""


def _quoted(text: Any) -> str:
    """A text as code, in which nothing is markup."""
    kept = re.sub(r"[`|<>\s]+", " ", str(text))[:80].strip()
    return f"`{kept or '?'}`"


def _scores(scores: list[Score]) -> str:
    lines = [f"| {score.name} | {score} |" for score in scores] or ["| none | the run was not scored at this step |"]
    return "\n".join(["## Scores", "", "| | |", "|---|---|", *lines, ""])


def _use(run: Run, where: str) -> str:
    name = run.config.model.name
    trust = f", trust_model={json.dumps(name)}" if ":" in name else ""
    code = f"The model is {_quoted(name)}, code of its owner, which has to be installed.\n" if trust else ""
    return f"""## Use

```python
import sem_jax as sj  # pip install "sem-jax[hub] @ git+https://github.com/sem-jax/sem_jax"

run = sj.load({json.dumps(where)}{trust})
print(run.predict(["photo.jpg"]).names)
```

{code}Loading executes nothing of this repository. Each file is compared with the SHA-256 in manifest.json.
"""


def _limits(run: Run) -> str:
    test = "" if run.data.sizes.get("test") else " There was no test split."
    return f"""## Limits

- It knows the classes above and gives one of them to every image, whatever it shows.
- The scores are those of one training with one seed, on images of the same source as the training's.{test}
- An interval covers the draw of the test images, not other seeds, cameras or places.
- Nobody has checked it for uses in which an error harms somebody.
"""
