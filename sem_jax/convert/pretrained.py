"""The weights that a run starts from: what `model.init_from` names, fitted to the run's own model.

    start = open_start("resnet50.pth", model, "resnet", image_shape=(224, 224, 3), class_names=("cat", "dog"))
    variables = start.onto(model.init(key, images))     # the head of other classes stays as it was drawn
    start.normalisation, start.record                   # mean and std of the source; what was loaded

A source is a run folder, a file (.safetensors, .pt, .pth), or hf://owner/name[@revision][/file]. Its layout is
recognised from the names in it: those of `layouts.NAMINGS`, or this package's own. What a source says is data: it is
read within bounds and compared with the model's shapes, and nothing of it is executed.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sem_jax.convert.files import read_metadata, read_state_dict
from sem_jax.convert.layouts import NAMINGS, Normalisation
from sem_jax.convert.naming import Fit, fit, layout_of, named_leaves, recognise
from sem_jax.data.bucket_data import bring_file
from sem_jax.errors import RunError
from sem_jax.interfaces import HEADS, Model
from sem_jax.runs.opening import abstract_variables, open_run
from sem_jax.runs.reading import parse_json, read_json
from sem_jax.system import hub

FILES = (".safetensors", ".pt", ".pth")
MAX_COPIES, MAX_REST = 4, 64 << 20  # of the model in a file of weights; bytes beside them
OURS, WEIGHTS, POSITIONS = "sem_jax", "model.safetensors", ("params", "positions")
Path_ = tuple[str, ...]


class Start(NamedTuple):
    """Arrays for the first step of a run."""

    arrays: dict[Path_, np.ndarray]  # ("params", "stem", "kernel") -> f32, for all but what is drawn anew
    normalisation: Normalisation | None  # mean and std that the source was trained with; None: not known
    record: dict[str, Any]  # JSON: source, revision, digest, layout, counts

    def onto(self, variables: Any) -> Any:
        """Variables {"params", "batch_stats"} with the arrays in their places."""
        leaves = [self.arrays.get(path, leaf) for path, leaf in named_leaves(variables)]
        return jax.tree.unflatten(jax.tree.structure(variables), leaves)

    def __str__(self) -> str:
        """What was loaded, resized and drawn anew, in two or three lines."""
        it = self.record
        at = f", revision {it['revision'][:12]}" if it.get("revision") else ""
        lines = [
            f"Start: {it['loaded']['arrays']} arrays with {it['loaded']['numbers']:,} numbers of {it['source']} "
            f"({it['layout']}{at}, SHA-256 {it['sha256'][:12]})."
        ]
        lines += [f"Resized: {', '.join(it['resized'])}."] if it["resized"] else []
        lines += [f"Drawn anew: {', '.join(it['drawn_anew'])}."] if it["drawn_anew"] else []
        return "\n".join(lines)


class _Source(NamedTuple):
    """What was found under a name."""

    fit: Fit
    layout: str
    about: dict[str, Any]  # for the record: source, revision, sha256
    normalisation: Normalisation | None
    class_names: tuple[str, ...] | None = None  # None: not known
    remedy: str = ""  # the settings of the source's model


def open_start(
    text: str,
    model: Model,
    name: str,
    *,
    image_shape: tuple[int, ...],
    class_names: Sequence[str],
    trust_model: str = "",
) -> Start:
    """Reads a source and fits it to a model.

    The head is drawn anew where it has other classes: another number of them or, where the source names its classes,
    other names. The position embeddings of a ViT are resized to the run's images. Everything else must fit.

    Args:
      text: `model.init_from`.
      model, name: the run's model, and `model.name`.
      image_shape, class_names: of the run's images, (h, w, c), and its classes in label order.
      trust_model: custom models that a run folder may import, see `runs.opening.open_run`.

    Raises:
      SemError: there is no such source, it is damaged, or it does not fit; names what does not.
    """
    like = abstract_variables(model, image_shape)
    if hub.is_hub(text):
        source = _from_hub(text, like, name)
    elif Path(text).suffix in FILES:
        source = _from_file(bring_file(text), Path(text).name, like, name)
    else:
        source = _from_run(text, like, trust_model)
    found = source.fit
    resized = _resize_positions(found, like)
    drawn = _drop_head(found, like, other=source.class_names not in (None, tuple(class_names)))
    if problems := found.problems():
        raise RunError(f"{text} does not fit model.name={name!r}: {problems}", source.remedy)
    if bad := ["/".join(path) for path, array in found.arrays.items() if not np.isfinite(array).all()]:
        raise RunError(f"{text}: {bad[0]} is not finite", "Take another copy of these weights.")
    loaded = {"arrays": len(found.arrays), "numbers": sum(array.size for array in found.arrays.values())}
    record = {**source.about, "layout": source.layout, "loaded": loaded, "resized": resized, "drawn_anew": drawn}
    return Start(found.arrays, source.normalisation, record)


def _limit(like: Any) -> int:
    return MAX_COPIES * sum(4 * math.prod(leaf.shape) for leaf in jax.tree.leaves(like)) + MAX_REST


def _from_hub(text: str, like: Any, name: str) -> _Source:
    """A file of a repository, or its model.safetensors; its config.json may say how images are normalised."""
    single = bool(hub.parse(text).file)
    fetched = hub.fetch(text, files=(WEIGHTS, "config.json"), limit=_limit(like))
    if not single and WEIGHTS not in fetched.files:
        raise RunError(f"{text} has no {WEIGHTS}", f"Name its file of weights: {text}/FILE.")
    path = fetched.path if single else fetched.path / WEIGHTS
    source = _from_file(path, text, like, name, revision=fetched.revision)
    if "config.json" in fetched.files and not single and source.class_names is None:
        config = read_json(fetched.path / "config.json")
        said = config.get("pretrained_cfg", config) if isinstance(config, dict) else {}
        source = source._replace(normalisation=_normalisation(said) or source.normalisation)
    return source


def _from_run(text: str, like: Any, trust_model: str) -> _Source:
    run = open_run(text, trust_model=trust_model)
    about = {"source": run.name, "step": run.step, "sha256": run.fingerprint}
    fits = _own_names({path: np.asarray(leaf) for path, leaf in named_leaves(run.variables)}, like)
    normalisation = run.data.mean, run.data.std
    return _Source(fits, OURS, about, normalisation, run.data.class_names, _settings(run.config.model))


def _from_file(path: Path, text: str, like: Any, name: str, revision: str = "") -> _Source:
    """A file of weights in one of the layouts; `text` is what it is called in messages and in the record."""
    arrays = read_state_dict(path, limit=_limit(like))
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    about = {"source": text, **({"revision": revision} if revision else {}), "sha256": digest}
    if arrays and all(key.startswith(("params/", "batch_stats/")) for key in arrays):
        facts = _facts(path)
        names: Any = facts.get("class_names")
        known = isinstance(names, list) and all(isinstance(it, str) for it in names)
        fits = _own_names({tuple(key.split("/")): array for key, array in arrays.items()}, like)
        return _Source(fits, OURS, about, _normalisation(facts), tuple(names) if known else None)
    layout, fields = layout_of(arrays, where=text), recognise(arrays, where=text)
    naming, remedy = NAMINGS[layout], _settings(fields)
    if naming.family != name:
        raise RunError(f"{text} is {naming.source}, but model.name is {name!r}", remedy)
    known = naming.trained_with(fields)
    return _Source(fit(layout, arrays, like), naming.source, about, known, remedy=remedy)


def _settings(fields: Mapping[str, Any]) -> str:
    skipped = ("num_classes", "dtype", "init_from", "options")
    given = [f"--config.model.{name}={value}" for name, value in fields.items() if value and name not in skipped]
    return f"Its model: {' '.join(given)}"


def _own_names(arrays: Mapping[Path_, np.ndarray], like: Any) -> Fit:
    """Arrays under this package's names in a model of the shapes of `like`."""
    shapes = {path: leaf.shape for path, leaf in named_leaves(like)}
    fits = {path: np.asarray(x, np.float32) for path, x in arrays.items() if shapes.get(path) == x.shape}
    reshaped = {path: ("/".join(path), x) for path, x in arrays.items() if path in shapes and path not in fits}
    missing = {path: "/".join(path) for path in shapes if path not in arrays}
    return Fit(fits, missing, reshaped, ["/".join(path) for path in arrays if path not in shapes])


def _facts(path: Path) -> Mapping[str, Any]:
    """What an exported checkpoint says of its data; {} where it says nothing that can be read."""
    try:
        facts = parse_json(read_metadata(path).get("data.json", "").encode())
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}


def _normalisation(said: Mapping[str, Any]) -> Normalisation | None:
    """The mean and std that a record has, if they are one or three usable numbers each."""
    values: list[tuple[float, ...]] = []
    for name, least in (("mean", -math.inf), ("std", 0.0)):
        numbers: Any = said.get(name)
        if not isinstance(numbers, list | tuple) or len(numbers) not in (1, 3):
            return None
        if not all(type(x) in (int, float) and least < x and math.isfinite(x) for x in numbers):
            return None
        values.append(tuple(map(float, numbers)))
    return (values[0], values[1]) if len(values[0]) == len(values[1]) else None


def _resize_positions(found: Fit, like: Any) -> list[str]:
    """Brings the position embeddings of a ViT to another number of patches, as timm does: bicubic, with antialiasing.

    The class token's embedding stays. Both grids must be square or the source's be.
    """
    if POSITIONS not in found.reshaped or found.reshaped[POSITIONS][1].ndim != 3:
        return []
    (_, there), here = found.reshaped[POSITIONS], dict(named_leaves(like))[POSITIONS].shape
    prefix = int(("params", "class_token") in found.arrays)
    old, new = (math.isqrt(count - prefix) for count in (there.shape[1], here[1]))
    counts = there.shape[1] - prefix, here[1] - prefix
    if (old**2, new**2) != counts or there.shape[2] != here[2]:
        return []
    grid = jnp.asarray(there[:, prefix:], jnp.float32).reshape(old, old, -1)
    grid = jax.image.resize(grid, (new, new, here[2]), "cubic", antialias=True).reshape(1, new * new, -1)
    found.arrays[POSITIONS] = np.concatenate([np.asarray(there[:, :prefix], np.float32), np.asarray(grid)], axis=1)
    del found.reshaped[POSITIONS]
    return [f"positions from {old}x{old} to {new}x{new} patches (bicubic)"]


def _drop_head(found: Fit, like: Any, *, other: bool) -> list[str]:
    """Leaves the head out where its classes are others, or where the source has none; returns its names."""
    head = [path for path, _ in named_leaves(like) if path[0] == "params" and path[1] in HEADS]
    if not other and all(path in found.arrays for path in head):
        return []
    for path in head:
        for part in (found.arrays, found.missing, found.reshaped):
            part.pop(path, None)
    return ["/".join(path[1:]) for path in head]
