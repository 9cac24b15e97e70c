"""The options of an evaluation; no jax is imported, so that a wrong option is refused at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sem_jax.errors import ConfigError
from sem_jax.evaluation.corruptions import CORRUPTIONS
from sem_jax.evaluation.suites import SUITES
from sem_jax.registry import lookup
from sem_jax.system.urls import is_url, require_local


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which suites to run, on which data and how thoroughly.

    >>> Options.quick(pairs=64).suites
    ('clean', 'calibration', 'equivariance')

    Attributes:
      suites: names of `SUITES`, in the order of the report.
      data_dir: folder of the run's data and the standard sets; "" = where training found it, $TFDS_DATA_DIR,
        ~/tensorflow_datasets.
      shift: name -> array pair or image folder of the model's classes.
      ood: name -> array pair or image folder.
      corruptions_dir: folder of the published corrupted set; "" = a standard place, or generated images.
      corruption_items: number of test images to corrupt, chosen by seed; 0 = all.
      corruptions: names of `CORRUPTIONS`, over which the mean is taken.
      frost_dir: folder of the published frost photographs; "" = generated textures.
      trust_model: the custom model that the run, its scorer and the compared ones may import: see `open_run`.
      compare: runs, or checkpoint folders, that every suite scores too, and that are compared with this one.
      pairs: number of pairs of images that the equivariance suite mixes.
      umap: whether to draw the picture of two classes by UMAP too, if umap-learn is installed.
      seed: of corruptions, pairs and choices.
      cached: whether to keep predictions below the run folder.
      out: folder of the report; "" = evaluation/ in the run folder.
      items: an .npz file for each item's results, for paired tests of two runs: "correct SET" bool[n], "msp SET"
        f64[n] and "relative error MIXER" f64[pairs]; "" = none. The same data and options give the same rows.
      pictures: whether to draw figures; without them a small net is scored in half the time.
      progress: whether to draw bars on a terminal.

    Raises:
      ConfigError: an unknown suite or corruption, none at all, or a number out of range.
    """

    suites: Sequence[str] = tuple(SUITES)
    data_dir: str = ""
    shift: Mapping[str, str] = field(default_factory=dict)
    ood: Mapping[str, str] = field(default_factory=dict)
    corruptions_dir: str = ""
    corruption_items: int = 0
    corruptions: Sequence[str] = tuple(CORRUPTIONS)
    frost_dir: str = ""
    trust_model: str = ""
    compare: Sequence[str | Path] = ()
    pairs: int = 1000
    umap: bool = True
    seed: int = 0
    cached: bool = True
    out: str | Path = ""
    items: str | Path = ""
    pictures: bool = True
    progress: bool = True

    def __post_init__(self):
        is_url(self.data_dir)  # refuses others
        for name in ("corruptions_dir", "frost_dir", "out", "items"):
            require_local(f"--{name.replace('_', '-')}", getattr(self, name), out=name in ("out", "items"))
        for option, sets in (("--shift", self.shift), ("--ood", self.ood)):
            for path in sets.values():
                require_local(option, path)
        for path in self.compare:
            _ = str(path).startswith("hf://") or is_url(path)  # refuses others
        for kind, table, names in (("suite", SUITES, self.suites), ("corruption", CORRUPTIONS, self.corruptions)):
            for name in names:
                if name not in table:  # else `lookup` would import it
                    lookup(table, kind, name)
        if not self.suites or not self.corruptions:
            found = f"got {list(self.suites)} and {list(self.corruptions)}"
            raise ConfigError(f"suites and corruptions must name at least one, {found}")
        for name, least in (("corruption_items", 0), ("pairs", 1), ("seed", 0)):
            if (value := getattr(self, name)) < least:
                raise ConfigError(f"{name} must be >= {least}, got {value}")

    @classmethod
    def quick(cls, **changes) -> "Options":
        """The suites that need only the run's own data, with fewer pairs and no UMAP: seconds for small nets."""
        few = {"suites": ("clean", "calibration", "equivariance"), "pairs": 256, "umap": False, "progress": False}
        return cls(**(few | changes))
