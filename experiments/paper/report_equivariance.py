"""The report's parts on what the penalty does to the representation: Fig. 3 in numbers, per gamma, and the controls.

    parts["Fig. 3: equivariance"] = equivariance(rows, ledger, figures)     # adds to figures
    parts["Controls"] = controls(rows, ledger)

Relative errors, norms and ranks are shown together: the bare penalty can be lowered by shrinking the features.
"""

from collections.abc import Mapping

import numpy as np

from experiments.paper import grid, report_figures, stats
from experiments.paper.ledger import Ledger
from experiments.paper.tables import Rows, metrics_of, read_paper, scalars, score
from sem_jax.config import DEFAULT_GAMMA

ITEM = "relative error {}"  # of the pairs, in the ledger's items
EQUIVARIANCE = {"mixup": "mixup", "cutmix": "CutMix"}  # a method's mixing by the evaluation's name


def gamma_of(entry: Mapping) -> float:
    return float(entry["overrides"].get("objective.gamma", DEFAULT_GAMMA))


def base_method(method: str) -> str:
    """The method without SEM whose mixing a method or control has."""
    return grid.base_of(method)[0].replace("+sem", "")


def pair_errors(ledger: Ledger, entries: Mapping[int, Mapping], mixer: str) -> dict[int, np.ndarray]:
    """Relative error of every pair at lam 0.5, f64[pairs], of the seeds whose items are there."""
    read = {seed: ledger.items(entry) for seed, entry in entries.items()}
    name = ITEM.format(mixer)
    return {s: np.asarray(items[name], np.float64) for s, items in read.items() if items is not None and name in items}


def change(with_sem: Mapping[int, np.ndarray], without: Mapping[int, np.ndarray]):
    """(mean difference of the pairs' errors, its interval, seeds) over the seeds that both have."""
    seeds = [s for s in with_sem if s in without and with_sem[s].shape == without[s].shape]
    if not seeds:
        return None, None, 0
    values = stats.paired([with_sem[s] for s in seeds], [without[s] for s in seeds])
    values = values[np.isfinite(values)]
    if not len(values):  # features all alike: no distance to relate an error to
        return None, None, 0
    return float(values.mean()), stats.mean_interval(values), len(seeds)


def ordered(rows: Rows, group: tuple[str, str]) -> list[str]:
    """Methods with runs, those of one mixing together and by gamma."""
    there = [m for m in rows.methods(*group) if rows.done.get((*group, m)) and known(m)]
    order = {method: i for i, method in enumerate([*grid.METHODS, *grid.CONTROLS])}

    def key(method):
        entries = rows.done[(*group, method)]
        return order.get(base_method(method), 99), gamma_of(next(iter(entries.values()))), order.get(method, 99)

    return sorted(there, key=key)


def known(method: str) -> bool:
    """Whether this version has the row; a ledger may be older or newer."""
    return method in grid.METHODS or method in grid.CONTROLS


def _mean_sd(values: list[float], digits: int = 3) -> str:
    mean, sd, _ = stats.mean_sd(values)
    if mean is None:
        return ""
    return f"{mean:.{digits}f}" + (f" ± {sd:.{digits}f}" if sd is not None else "")


def _curve(entries: Mapping[int, Mapping], mixer: str, column: str, index: int) -> list[float]:
    curves = [e["curves"][mixer][column] for e in entries.values() if mixer in e.get("curves", {})]
    return [curve[index] for curve in curves if curve[index] is not None]


def equivariance(rows: Rows, ledger: Ledger, figures: dict) -> dict:
    """Relative errors with and without SEM, per gamma, under mixup and CutMix."""
    tables, captions = [], {}
    for group in rows.groups():
        body = []
        for method in ordered(rows, group):
            entries, base = rows.done[(*group, method)], base_method(method)
            gamma = gamma_of(next(iter(entries.values())))
            line = [method, f"{gamma:g}" if "sem" in method else "0", str(len(entries))]
            for mixer, title in EQUIVARIANCE.items():
                line.append(_mean_sd(scalars(entries, "equivariance", f"relative error {title}")))
                if method == base:
                    line.append("")
                    continue
                without = rows.done.get((*group, base), {})
                value, interval, n = change(pair_errors(ledger, entries, mixer), pair_errors(ledger, without, mixer))
                fewer = f" (n={n})" if n < len(entries) else ""
                none = "features all alike" if without else f"no {base}"
                line.append(f"{value:+.3f} [{interval[0]:+.3f}, {interval[1]:+.3f}]{fewer}" if interval else none)
            line.append(_mean_sd(scalars(entries, "equivariance", "cosine mixup")))
            line.append(_mean_sd(_curve(entries, "mixup", "norm", -1), 2))
            line.append(_mean_sd(scalars(entries, "equivariance", "effective rank"), 1))
            body.append(line)
        if not body:
            continue
        columns = ["method", "gamma", "n", "relative error, mixup", "against the same without SEM"]
        columns += ["relative error, CutMix", "against the same without SEM"]
        columns += ["cosine, mixup", "feature norm", "effective rank"]
        name = "-".join(group)
        tables.append({"title": f"{grid.net_name(rows.size, group[0])}, {group[1]}", "columns": columns, "rows": body})
        lines = {m: rows.done[(*group, m)] for m in ordered(rows, group)}
        if picture := report_figures.error_curves(lines, gamma_of):
            figures[f"equivariance-{name}"] = picture
            captions[f"equivariance-{name}"] = "Relative equivariance error against lam, mean over pairs and seeds."
        points = _by_gamma(rows, group, ledger)
        if len(points) > 1:
            figures[f"gamma-{name}"] = report_figures.against_gamma(points)
            captions[f"gamma-{name}"] = (
                "mixup with SEM against gamma (0: mixup without): relative error with its 95% interval over pairs, "
                "feature norm and test accuracy (bars: one standard deviation over seeds)."
            )
    if not tables:
        return {
            "status": "missing",
            "reason": "No run has the equivariance suite.",
            "remedy": "experiments.paper scores it",
        }
    note = (
        "||g(x_mix) - mixture|| / ||g(x_i) - g(x_j)|| at lam 0.5 for random pairs of test images in evaluation mode, "
        "mean ± standard deviation over n seeds. The change is that of the mean error with a 95% interval: the pairs, "
        "the same for all runs, are resampled and the seeds averaged. Norm and effective rank are of the clean images: "
        "where they fall, a lower penalty says little. The paper's Fig. 3 is a picture without numbers."
    )
    return {"status": "done", "note": note, "tables": tables, "figures": captions}


def _by_gamma(rows: Rows, group: tuple[str, str], ledger: Ledger) -> dict[float, dict]:
    """gamma -> what mixup with that gamma got to; gamma 0 is mixup."""
    points = {}
    for method in ("mixup", "mixup+sem", *grid.GAMMAS):
        entries = rows.done.get((*group, method), {})
        errors = pair_errors(ledger, entries, "mixup")
        if not entries or not errors:
            continue
        mean = np.mean(list(errors.values()), axis=0)
        mean = mean[np.isfinite(mean)]
        gamma = gamma_of(next(iter(entries.values()))) if "sem" in method else 0.0
        points[gamma] = {
            "error": float(mean.mean()),
            "interval": stats.mean_interval(mean),
            "norm": stats.mean_sd(_curve(entries, "mixup", "norm", -1)),
            "accuracy": stats.mean_sd([100 * e["accuracy"]["last"] for e in entries.values()]),
        }
    return dict(sorted(points.items()))


def controls(rows: Rows, ledger: Ledger) -> dict:
    """The rows beside the nine: accuracy against the same mixing without and with SEM, equivariance, norm."""
    tables, paper = [], read_paper()
    for group in rows.groups():
        methods = [m for m in ordered(rows, group) if m in grid.CONTROLS]
        methods += [m for b, d, m in rows.failed if (b, d) == group and m in grid.CONTROLS and m not in methods]
        metrics = [m for m in metrics_of(rows.entries(*group)) if m.table == "1"]
        for base in dict.fromkeys(map(base_method, methods)) if metrics else ():
            against = (base, f"{base}+sem")
            body = [
                _control(rows, group, method, against, metrics[0], ledger, paper)
                for method in (*against, *(m for m in methods if base_method(m) == base))
            ]
            columns = ["row", "what it is", "accuracy (%)", "n", *(f"against {name}" for name in against)]
            columns += [f"relative error, {EQUIVARIANCE[base]}", "feature norm", "empty because"]
            name = grid.net_name(rows.size, group[0])
            tables.append({"title": f"{name}, {group[1]}: {base}", "columns": columns, "rows": body})
    if not tables:
        remedy = f"python -m experiments.paper --size={rows.size} --methods=controls"
        return {"status": "missing", "reason": "No control has a run.", "remedy": remedy}
    note = (
        "Each control is a method with or without SEM, with other settings. Differences are in percentage points. "
        "Without a relative error: the features of all images are alike."
    )
    return {"status": "done", "note": note, "tables": tables}


def _control(rows: Rows, group: tuple[str, str], method: str, against: tuple[str, str], metric, ledger, paper) -> list:
    """A line of the table."""
    entries = rows.done.get((*group, method), {})
    shares = [score(rows, metric, *group, method, ledger, paper, against=name) for name in against]
    line = [method, grid.CONTROLS[method].says if method in grid.CONTROLS else "for comparison"]
    own = shares[0]
    line.append("" if own.mean is None else f"{own.mean:.2f}" + (f" ± {own.sd:.2f}" if own.sd is not None else ""))
    line.append(str(own.n))
    for name, it in zip(against, shares, strict=True):
        interval = f" [{it.sem_interval[0]:+.2f}, {it.sem_interval[1]:+.2f}]" if it.sem_interval else ""
        line.append("" if it.sem is None or method == name else f"{it.sem:+.2f}{interval}")
    line.append(_mean_sd(scalars(entries, "equivariance", f"relative error {EQUIVARIANCE[against[0]]}")))
    line.append(_mean_sd(_curve(entries, "mixup", "norm", -1), 2))
    return [*line, own.remark]
