"""The report's parts on what the penalty does to the representation: Fig. 3 in numbers, per gamma, and the controls.

    parts["Fig. 3: equivariance"] = equivariance(rows, figures)     # adds to figures
    parts["Controls"] = controls(rows)

Relative errors, norms and ranks are shown together: the bare penalty can be lowered by shrinking the features.
"""

import numpy as np

from experiments.paper import grid, report_figures, stats, text
from experiments.paper.rows import Group, Rows, Seeds
from experiments.paper.scores import Change, accuracy_on_test, measured_accuracy, not_compared, scalars, score
from sem_jax.config import DEFAULT_GAMMA

TITLES = {"mixup": "mixup", "cutmix": "CutMix", "own": "own mixer"}  # a mixing by the evaluation's name in its scalars
BY_GAMMA = ("mixup", "mixup+sem", *grid.GAMMAS)

BARS = (
    "Bars are 95% intervals: thick over test items (as in the tables), thin over seeds and test items, where there are "
    "several seeds; few seeds make the thin one too short. No bar: the runs' items are absent, or there are none."
)


def gamma_of(entries: Seeds) -> float:
    """gamma of a row, whose runs have one setting."""
    return float(next(iter(entries.values()))["overrides"].get("objective.gamma", DEFAULT_GAMMA))


def base_method(method: str) -> str:
    """The method without SEM whose mixing a method or control has."""
    return grid.base_of(method)[0].replace("+sem", "")


def same_without_sem(method: str) -> str:
    """The row that a method or control is without SEM: a control of the same fields ("mixup-own"), or its method."""
    _, fields, factor = grid.base_of(method)
    wanted = (base_method(method), fields, factor)
    found = (name for name, it in grid.CONTROLS.items() if (it.method, it.overrides, it.epochs) == wanted)
    return next(found, base_method(method))


def errors(entries: Seeds, mixing: str) -> list[float]:
    """Relative error at lam 0.5 (own mixing: at any lam), mean over pairs, of every seed that has it."""
    return scalars(entries, "equivariance", f"relative error {TITLES[mixing]}")


def pair_errors(rows: Rows, entries: Seeds, mixing: str) -> dict[int, np.ndarray]:
    """The same of every pair, f64[pairs], of the seeds whose items are there."""
    read = {seed: rows.ledger.items(entry) or {} for seed, entry in entries.items()}
    name = f"relative error {mixing}"
    return {seed: np.asarray(items[name], np.float64) for seed, items in read.items() if name in items}


def change(rows: Rows, with_sem: Seeds, without: Seeds, mixing: str, base: str) -> Change:
    """Mean difference of the pairs' errors to the row `base`, and its interval; without items, of the means alone."""
    if unlike := not_compared(with_sem, without, base):
        return Change(None, None, 0, why=unlike)
    a, b = pair_errors(rows, with_sem, mixing), pair_errors(rows, without, mixing)
    seeds = [s for s in a if s in b and a[s].shape == b[s].shape]
    if seeds:
        values = stats.paired([a[s] for s in seeds], [b[s] for s in seeds])
        values = values[np.isfinite(values)]
        if not len(values):  # features all alike: no distance to relate an error to
            return Change(None, None, 0)
        return Change(float(values.mean()), stats.mean_interval(values), len(seeds))
    found = {s: [errors({s: runs[s]}, mixing) for runs in (with_sem, without)] for s in with_sem if s in without}
    differences = [a[0] - b[0] for a, b in found.values() if a and b]
    return Change(float(np.mean(differences)) if differences else None, None, len(differences))


def norms(entries: Seeds) -> list[float]:
    """Mean norm of the clean images' features, of every seed: the curve under mixup at lam 1."""
    values = [e["curves"]["mixup"]["norm"][-1] for e in entries.values() if "mixup" in e.get("curves", {})]
    return [value for value in values if value is not None]


def ordered(rows: Rows, group: Group) -> list[str]:
    """Methods with runs that this version has (a ledger may be older), those of one mixing together and by gamma."""
    order = {method: i for i, method in enumerate([*grid.METHODS, *grid.CONTROLS])}
    there = [m for m in rows.methods(group) if m in order and rows.runs(group, m)]
    return sorted(there, key=lambda m: (order.get(base_method(m), 99), gamma_of(rows.runs(group, m)), order[m]))


def equivariance(rows: Rows, figures: dict) -> dict:
    """Relative errors with and without SEM, per gamma, under mixup and CutMix."""
    tables, captions = [], {}
    for group in rows.groups():
        body = [_line(rows, group, method) for method in ordered(rows, group)]
        if not body:
            continue
        columns = ["method", "gamma", "n", "relative error, mixup", "against the same without SEM"]
        columns += ["relative error, CutMix", "against the same without SEM"]
        columns += ["cosine, mixup", "feature norm", "effective rank"]
        name = "-".join(group)
        tables.append({"title": rows.title(group), "columns": columns, "rows": body})
        lines = {m: rows.runs(group, m) for m in ordered(rows, group)}
        for start, curves, says in (
            ("equivariance", report_figures.figure_3(lines), "mixup and CutMix, without and with SEM"),
            ("gammas", report_figures.beside_figure_3(lines, gamma_of), "no mixing, and mixup + SEM by gamma"),
        ):
            title = report_figures.about(rows, group, (it.runs for it in curves), ", ")
            if picture := report_figures.error_curves(curves, title):
                figures[f"{start}-{name}"] = picture
                captions[f"{start}-{name}"] = (
                    f"Relative equivariance error against lam, {says}: mean over pairs and seeds, thin the seeds. "
                    "Both panels have the same axes."
                )
        points = _by_gamma(rows, group)
        if len(points) > 2:  # two gammas are in the table, and their curves in Fig. 3
            figures[f"gamma-{name}"] = report_figures.against_gamma(
                points, report_figures.about(rows, group, (rows.runs(group, m) for m in BY_GAMMA), ", ")
            )
            captions[f"gamma-{name}"] = (
                "mixup with SEM against gamma (0: mixup without): relative error, feature norm and test accuracy; n is "
                f"the number of seeds. {BARS}"
            )
    if not tables:
        remedy = "experiments.paper scores it"
        return {"status": "missing", "reason": "No run has the equivariance suite.", "remedy": remedy}
    note = (
        "||g(x_mix) - mixture|| / ||g(x_i) - g(x_j)|| at lam 0.5 for random pairs of test images in evaluation mode, "
        "mean ± standard deviation over n seeds. The change is that of the mean error with a 95% interval: the pairs, "
        "the same for all runs, are resampled and the seeds averaged. Norm and effective rank are of the clean images: "
        "where they fall, a lower penalty says little. The paper's Fig. 3 is a picture without numbers."
    )
    return {"status": "done", "note": note, "tables": tables, "figures": captions}


def _line(rows: Rows, group: Group, method: str) -> list[str]:
    """A method in the table of equivariance."""
    entries, base = rows.runs(group, method), same_without_sem(method) if "sem" in method else base_method(method)
    without = rows.runs(group, base)
    line = [method, f"{gamma_of(entries):g}" if "sem" in method else "0", str(len(entries))]
    for mixing in ("mixup", "cutmix"):
        line.append(text.spread(errors(entries, mixing), ".3f"))
        if method == base:
            line.append("")
            continue
        it = change(rows, entries, without, mixing, base)
        none = it.why or ("features all alike" if without else f"no {base}")
        line.append(text.change(it, "+.3f", count=it.seeds < len(entries)) or none)
    line.append(text.spread(scalars(entries, "equivariance", "cosine mixup"), ".3f"))
    line.append(text.spread(norms(entries)))
    line.append(text.spread(scalars(entries, "equivariance", "effective rank"), ".1f"))
    return line


def _by_gamma(rows: Rows, group: Group) -> dict[float, dict[str, stats.Measured]]:
    """gamma -> what mixup with that gamma got to; gamma 0 is mixup."""
    points, first = {}, next(filter(None, (rows.runs(group, method) for method in BY_GAMMA)), {})
    for method in BY_GAMMA:
        entries = rows.runs(group, method)
        if not_compared(entries, first, ""):
            continue
        if means := errors(entries, "mixup"):
            points[gamma_of(entries) if "sem" in method else 0.0] = {
                "error": stats.measure(means, list(pair_errors(rows, entries, "mixup").values())),
                "norm": stats.measure(norms(entries)),
                "accuracy": measured_accuracy(rows, entries),
            }
    return dict(sorted(points.items()))


def controls(rows: Rows) -> dict:
    """The rows beside the nine: accuracy against the same mixing without and with SEM, equivariance, norm."""
    tables = []
    for group in rows.groups():
        methods = [m for m in ordered(rows, group) if m in grid.CONTROLS]
        methods += [m for b, d, m in rows.failed if (b, d) == group and m in grid.CONTROLS and m not in methods]
        for base in dict.fromkeys(map(base_method, methods)) if rows.entries(group) else ():
            against = (base, f"{base}+sem")
            shown = (*against, *(m for m in methods if base_method(m) == base))
            body = [_control(rows, group, method, against) for method in shown]
            columns = ["row", "what it is", "accuracy (%)", "n", *(f"against {name}" for name in against)]
            columns += [f"relative error, {TITLES[base]}", "feature norm", "empty because"]
            tables.append({"title": f"{rows.title(group)}: {base}", "columns": columns, "rows": body})
    if not tables:
        remedy = f"python -m experiments.paper --size={rows.size} --methods=controls"
        return {"status": "missing", "reason": "No control has a run.", "remedy": remedy}
    note = (
        "Each control is a method with or without SEM, with other settings. Differences are in percentage points. "
        "Without a relative error: the features of all images are alike."
    )
    return {"status": "done", "note": note, "tables": tables}


def _control(rows: Rows, group: Group, method: str, against: tuple[str, str]) -> list[str]:
    """A line of the table of controls."""
    entries = rows.runs(group, method)
    says = grid.CONTROLS[method].says if method in grid.CONTROLS else "for comparison"
    found = [score(rows, accuracy_on_test(group[1]), group, method, against=name) for name in against]
    changes = ["" if method == name else text.change(it.sem) for name, it in zip(against, found, strict=True)]
    values, remark = found[0].values, "; ".join(dict.fromkeys(it.remark for it in found if it.remark))
    line = [method, says, text.spread(values), str(len(values)), *changes]
    return [*line, text.spread(errors(entries, against[0]), ".3f"), text.spread(norms(entries)), remark]
