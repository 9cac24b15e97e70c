"""The report's part on the length of training: from how many epochs on mixing, and SEM on top of it, pay.

    parts["Length of training"] = lengths(book, "cpu", ledger, figures)   # None where all runs are of one length

Runs of one row that differ in train.epochs alone (each with its own schedule, and ES at three quarters of it) stand
side by side here; the other tables have one of the lengths.
"""

import json
from collections.abc import Mapping

from matplotlib.figure import Figure

from experiments.paper import grid
from experiments.paper.ledger import Book, Ledger
from experiments.paper.stats import mean_interval, mean_sd, paired
from experiments.paper.tables import METHOD_FIELDS, epochs_of, recipe
from sem_jax.evaluation.report.figures import COLOURS

FOLLOWS = ("train.epochs", "mixer.stop_epoch")  # the second follows the first
METHODS = (*grid.METHODS, *(name for name, control in grid.CONTROLS.items() if control.epochs == 1))
AGAINST = {"mixup": "erm", "mixup+sem": "mixup", "cutmix": "erm", "cutmix+sem": "cutmix"} | {
    name: grid.CONTROLS[name].method.removesuffix("+sem") for name in METHODS[len(grid.METHODS) :]
}
ITEM = "correct test"

Runs = dict[tuple[str, str], dict[str, dict[int, dict[int, dict]]]]  # group -> method -> epochs -> seed -> entry


def by_length(book: Book, size: str) -> Runs:
    """Done runs by length, all of one recipe: of those that have several lengths, the newest."""
    recipes: dict[tuple, dict[str, list[dict]]] = {}
    for entry in sorted(book.done.values(), key=lambda e: e["time"]):
        if entry["size"] == size and entry["method"] in METHODS:
            group = recipes.setdefault((entry["backbone"], entry["dataset"]), {})
            group.setdefault(_recipe(entry), []).append(entry)
    runs: Runs = {}
    for group, by_recipe in recipes.items():
        several = [entries for entries in by_recipe.values() if len({epochs_of(e) for e in entries}) > 1]
        for entries in sorted(several, key=lambda entries: entries[-1]["time"])[-1:]:
            mixing = {e["method"]: _mixing(e) for e in entries}  # a row's newest
            for entry in entries:
                if _mixing(entry) == mixing[entry["method"]]:
                    of_method = runs.setdefault(group, {}).setdefault(entry["method"], {})
                    of_method.setdefault(epochs_of(entry), {})[entry["seed"]] = entry
    return runs


def _recipe(entry: Mapping) -> str:
    return json.dumps({name: value for name, value in recipe(entry).items() if name not in FOLLOWS}, sort_keys=True)


def _mixing(entry: Mapping) -> dict:
    of_method = {name: value for name, value in entry["overrides"].items() if name.startswith(METHOD_FIELDS)}
    return {name: value for name, value in of_method.items() if name not in FOLLOWS}


def lengths(book: Book, size: str, ledger: Ledger, figures: dict) -> dict | None:
    """The part of the report; adds its figure to `figures`."""
    runs = {g: found for g, found in by_length(book, size).items() if len({n for m in found.values() for n in m}) > 1}
    if not runs:
        return None
    tables = []
    for group, found in runs.items():
        epochs = sorted({n for by_epochs in found.values() for n in by_epochs})
        methods = [m for m in METHODS if m in found]
        body = [[m, *(_cell(found[m].get(n, {})) for n in epochs)] for m in methods]
        for method in methods:
            if (base := AGAINST.get(method, "")) in found:
                shares = [_share(found[method].get(n, {}), found[base].get(n, {}), ledger) for n in epochs]
                body.append([f"{method} - {base}", *shares])
        columns = ["test accuracy (%)", *(f"{n} epochs" for n in epochs)]
        tables.append({"title": f"{grid.net_name(size, group[0])}, {group[1]}", "columns": columns, "rows": body})
    figures["lengths"] = draw(runs, size)
    note = (
        "Every run has a schedule of its own length; accuracy after the last epoch, mean ± standard deviation over "
        "seeds. Differences are in percentage points, with 95% intervals over test items."
    )
    return {
        "status": "done",
        "note": note,
        "tables": tables,
        "figures": {
            "lengths": "Test accuracy against the length of training; bars: one standard deviation over seeds."
        },
    }


def _accuracies(entries: Mapping[int, Mapping]) -> list[float]:
    return [100 * e["accuracy"]["last"] for e in entries.values()]


def _cell(entries: Mapping[int, Mapping]) -> str:
    mean, sd, n = mean_sd(_accuracies(entries))
    return "" if mean is None else f"{mean:.2f}" + (f" ± {sd:.2f}" if sd is not None else "") + f" (n={n})"


def _share(entries: Mapping[int, Mapping], base: Mapping[int, Mapping], ledger: Ledger) -> str:
    both = [(ledger.items(entries[s]), ledger.items(base[s])) for s in entries if s in base]
    if not both or any(items is None or ITEM not in items for pair in both for items in pair):
        return ""
    values = 100.0 * paired([a[ITEM] for a, _ in both], [b[ITEM] for _, b in both])
    low, high = mean_interval(values)
    return f"{values.mean():+.2f} [{low:+.2f}, {high:+.2f}] (n={len(both)})"


def draw(runs: Runs, size: str) -> Figure:
    """Accuracy against epochs, a panel a (backbone, data set)."""
    figure = Figure(figsize=(1.0 + 5.2 * len(runs), 3.9), layout="constrained")
    axes = figure.subplots(1, len(runs), squeeze=False)[0]
    for axis, (group, found) in zip(axes, runs.items(), strict=True):
        for index, method in enumerate(m for m in METHODS if m in found):
            epochs = sorted(found[method])
            points = [mean_sd(_accuracies(found[method][n])) for n in epochs]
            spread = [sd or 0.0 for _, sd, _ in points]
            style = "--" if "sem" in method else "-"
            axis.errorbar(
                epochs,
                [m for m, _, _ in points],
                spread,
                fmt=f"o{style}",
                capsize=3,
                color=COLOURS[index % len(COLOURS)],
                label=method,
            )
        axis.set_xscale("log", base=2)
        axis.set_xticks(sorted({n for m in found.values() for n in m}))
        axis.get_xaxis().set_major_formatter("{x:.0f}")
        axis.minorticks_off()
        axis.set_xlabel("epochs")
        axis.set_ylabel("test accuracy (%)")
        axis.set_title(f"{grid.net_name(size, group[0])}, {group[1]}", loc="left", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
        axis.legend(frameon=False, fontsize=9)
    return figure
