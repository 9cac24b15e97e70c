"""The report's part on the length of training: from how many epochs on mixing, and SEM on top of it, pay.

    parts["Length of training"] = lengths(rows, figures)   # None where all runs are of one length

Runs of one row that differ in train.epochs alone (each with its own schedule, and ES at three quarters of it) stand
side by side here; the other tables have one of the lengths.
"""

from collections.abc import Mapping

from matplotlib.figure import Figure

from experiments.paper import grid, text
from experiments.paper.ledger import Book
from experiments.paper.report_equivariance import BARS
from experiments.paper.report_figures import BOX, GREY, MARKERS, MIXERS, about, key_to, legend_below, panels, spot
from experiments.paper.rows import METHOD_FIELDS, Group, Rows, epochs_of, own_recipe, recipe, trained_alike
from experiments.paper.scores import accuracy_on_test, compare, measured_accuracy, not_compared, percent
from sem_jax.evaluation.report.figures import COLOURS

FOLLOWS = ("train.epochs", "mixer.stop_epoch")  # the second follows the first
METHODS = (*grid.METHODS, *(name for name, control in grid.CONTROLS.items() if control.epochs == 1))
AGAINST = {"mixup": "erm", "mixup+sem": "mixup", "cutmix": "erm", "cutmix+sem": "cutmix"} | {
    name: grid.CONTROLS[name].method.removesuffix("+sem") for name in METHODS[len(grid.METHODS) :]
}

Runs = dict[Group, dict[str, dict[int, dict[int, dict]]]]  # group -> method -> epochs -> seed -> entry


def by_length(book: Book, size: str) -> Runs:
    """Done runs by length, all of one recipe: of those that have several lengths, the newest."""
    by_group: dict[Group, list[dict]] = {}
    for entry in sorted(book.done.values(), key=lambda e: e["time"]):
        if entry["size"] == size and entry["method"] in METHODS:
            by_group.setdefault((entry["backbone"], entry["dataset"]), []).append(entry)
    runs: Runs = {}
    for group, entries in by_group.items():
        leads = [e for e in reversed(entries) if not own_recipe(e)] or entries[::-1]
        of_one = ([e for e in entries if trained_alike(e, lead, but=FOLLOWS)] for lead in leads)
        found = next((it for it in of_one if len({epochs_of(e) for e in it}) > 1), [])
        newest = {e["method"]: _settings(e) for e in found}
        for entry in found:
            if _settings(entry) == newest[entry["method"]]:
                of_method = runs.setdefault(group, {}).setdefault(entry["method"], {})
                of_method.setdefault(epochs_of(entry), {})[entry["seed"]] = entry
    return runs


def _settings(entry: Mapping) -> dict:
    """The settings of a run's method."""
    of_method = {name: value for name, value in entry["overrides"].items() if name.startswith(METHOD_FIELDS)}
    return {name: value for name, value in of_method.items() if name not in FOLLOWS}


def lengths(rows: Rows, figures: dict) -> dict | None:
    """The part of the report; adds its figure to `figures`."""
    tables, drawn = [], {}
    for group, found in by_length(rows.book, rows.size).items():
        epochs = sorted({n for by_epochs in found.values() for n in by_epochs})
        if len(epochs) < 2:
            continue
        metric, methods = accuracy_on_test(group[1]), [m for m in METHODS if m in found]
        values = {m: {n: list(percent(metric, runs).values()) for n, runs in found[m].items()} for m in methods}
        body = [[m, *(text.spread(values[m].get(n, []), count=True) for n in epochs)] for m in methods]
        for method in methods:
            if (base := AGAINST.get(method, "")) in found:
                pairs = [(found[method].get(n, {}), found[base].get(n, {})) for n in epochs]
                unlike = ("" if base == "erm" else not_compared(*pair, base) for pair in pairs)
                changes = [
                    why or text.change(compare(metric, *pair, rows.ledger), count=True, over_seeds=True)
                    for pair, why in zip(pairs, unlike, strict=True)
                ]
                body.append([f"{method} - {base}", *changes])
        columns = ["test accuracy (%)", *(f"{n} epochs" for n in epochs)]
        first = next(entry for it in found.values() for runs in it.values() for entry in runs.values())
        title = f"{rows.title(group)}, {text.images(recipe(first))}"
        tables.append({"title": title, "columns": columns, "rows": body})
        drawn[group] = {m: found[m] for m in methods}
    if not tables:
        return None
    figures["lengths"] = draw(drawn, rows)
    note = (
        "Every run has a schedule of its own length; accuracy after the last epoch, mean ± standard deviation over "
        "seeds. Differences are in percentage points, with 95% intervals over test items and, where there are several "
        "seeds, over seeds and test items."
    )
    caption = f"Test accuracy against the length of training. {BARS}"
    return {"status": "done", "note": note, "tables": tables, "figures": {"lengths": caption}}


def draw(runs: Runs, rows: Rows) -> Figure:
    """Accuracy (%) by method and epochs, a panel a (backbone, data set)."""
    figure, axes = panels(1.4 + 5.6 * len(runs), 4.6, len(runs))
    drawn = []
    for axis, (group, found) in zip(axes, runs.items(), strict=True):
        others = iter(COLOURS[2:])
        for index, (method, of_method) in enumerate(found.items()):
            by_epochs = {n: measured_accuracy(rows, seeds) for n, seeds in of_method.items()}
            drawn += by_epochs.values()
            epochs, nine = sorted(by_epochs), method in grid.METHODS
            colour = MIXERS[method.split("+")[0]] if nine else next(others, GREY)
            style, marker = ("--" if "sem" in method else "-") if nine else "-.", MARKERS[index % len(MARKERS)]
            look = {"color": colour, "marker": marker, "label": text.method_name(method)}
            axis.plot(epochs, [by_epochs[n].mean for n in epochs], style, **look)
            for n in epochs:
                spot(axis, n, by_epochs[n], across=False, color=colour, marker=marker)
        axis.set_xscale("log", base=2)
        axis.set_xticks(sorted({n for by_epochs in found.values() for n in by_epochs}))
        axis.get_xaxis().set_major_formatter("{x:.0f}")
        axis.minorticks_off()
        axis.margins(x=0.08)
        axis.set_xlabel("epochs")
        axis.set_ylabel("test accuracy (%)")
        seeds = [it for of_method in found.values() for it in of_method.values()]
        axis.set_title(about(rows, group, seeds, epochs=False), loc="left", fontsize=10)
        axis.legend(**BOX)
    legend_below(figure, key_to(drawn))
    return figure
