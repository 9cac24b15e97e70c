"""How numbers are written in the report's tables, "" for what is not there; and names in its figures."""

from collections.abc import Mapping, Sequence

from experiments.paper import grid
from experiments.paper.scores import Change
from experiments.paper.stats import mean_sd

DATA_NAMES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "tiny_imagenet": "Tiny-ImageNet"}
VARIANTS = {"warmup": "gamma rises", "normalised": "unit vectors"} | {
    name.removeprefix("sem-"): name.removeprefix("sem-").replace("gamma", "gamma ") for name in grid.GAMMAS
}


def data_name(dataset: str) -> str:
    """A data set as it is written in a title: "CIFAR-10" of "cifar10"."""
    return DATA_NAMES.get(dataset, dataset)


def method_name(method: str) -> str:
    """A method as it is written in a figure: "mixup+sem, gamma rises" of the control "sem-warmup"."""
    start, found, variant = method.rpartition("sem-")
    return f"{start.rstrip('-') or 'mixup'}+sem, {VARIANTS[variant]}" if found and variant in VARIANTS else method


def images(recipe: Mapping) -> str:
    """ "500 images", or "all images": of training, from a run's recipe."""
    size = recipe.get("data.train_size")
    return f"{size:,} images" if size else "all images"


def number(value: float | None, form: str = ".2f") -> str:
    return "" if value is None else f"{value:{form}}"


def spread(values: Sequence[float], form: str = ".2f", *, count: bool = False) -> str:
    """ "52.00 ± 2.65 (n=3)": the mean over seeds, its standard deviation where there are several, and their number."""
    mean, sd, n = mean_sd(values)
    if mean is None:
        return ""
    return number(mean, form) + (f" ± {sd:{form}}" if sd is not None else "") + (f" (n={n})" if count else "")


def change(it: Change, form: str = "+.2f", *, count: bool = False, over_seeds: bool = False) -> str:
    """ "+3.67 [+1.20, +6.10] (n=3)": the difference, its interval over test items, and the number of seeds.

    With `over_seeds` the interval over seeds and test items follows where there is one: "+3.67 [+1.20, +6.10], seeds
    too [+0.80, +6.50] (n=3)".
    """
    if it.value is None:
        return ""

    def written(interval):
        return "[" + ", ".join(f"{end:{form}}" for end in interval) + "]"

    found = written(it.interval) if it.interval is not None else "(no items: no interval)"
    both = it.measured and it.measured.intervals and it.measured.intervals.both
    if over_seeds and both:
        found += f", seeds too {written(both)}"
    return f"{it.value:{form}} {found}" + (f" (n={it.seeds})" if count else "")
