"""Hand-made ledgers: entries as a finished run writes them, with items of known accuracy."""

import numpy as np

from experiments.paper import grid

N, OOD, PAIRS = 200, 80, 30
LAM = [round(0.1 * i, 1) for i in range(11)]


def entry(
    method="mixup", seed=0, *, size="cpu", backbone="preact", dataset="cifar10", time="2026-01-01T00:00:00", **more
):
    """A done entry and its items; `accuracy` and `error` set what it got to."""
    accuracy, error = more.pop("accuracy", 0.5), more.pop("error_at_half", 0.4)
    settings = more.pop("settings", ())
    cell = grid.Cell(size, backbone, dataset, method, seed, settings)
    cfg = grid.make_config(cell)
    rng = np.random.default_rng([seed, *method.encode()])
    correct = np.zeros(N, bool)
    correct[rng.permutation(N)[: round(accuracy * N)]] = True
    items = {
        "correct test": correct,
        "correct CINIC-10": correct[:100],
        "msp test": rng.uniform(0.3, 1.0, N),
        "msp SVHN": rng.uniform(0.2, 0.9, OOD),
        "relative error mixup": rng.normal(error, 0.05, PAIRS),
        "relative error cutmix": rng.normal(error, 0.05, PAIRS),
        "relative error own": np.where(np.arange(PAIRS) < 3, np.nan, rng.normal(error, 0.05, PAIRS)),
    } | {f"correct {name} {s}": correct[:50] for name in ("fog", "frost") for s in range(1, 6)}
    from experiments.paper.stats import auroc

    curve = {"lam": LAM, "relative error": [4 * error * x * (1 - x) for x in LAM], "norm": [2.0] * 11}
    done = {
        "ood": {"status": "done", "scalars": {"AUROC msp SVHN": auroc(items["msp test"], items["msp SVHN"])}},
        "clean": {"status": "done", "scalars": {"top1": correct.mean()}},
        "shift": {"status": "done", "scalars": {"top1 CINIC-10": float(correct[:100].mean())}},
        "corruptions": {"status": "done", "scalars": {"mean accuracy": float(correct[:50].mean()), "items": 50}},
        "calibration": {"status": "done", "scalars": {"ECE equal-width": 0.1}},
        "equivariance": {
            "status": "done",
            "scalars": {
                "relative error mixup": error,
                "relative error CutMix": error,
                "relative error own mixer": error,
                "cosine mixup": 0.9,
                "effective rank": 9.0,
            },
        },
    }
    values = {
        **{n: v for n, v in cell._asdict().items() if n != "settings"},
        "id": cell.id,
        "hash": grid.config_hash(cfg),
        "overrides": grid.differences(cfg),
        "status": "done",
        "time": time,
        "accuracy": {"last": float(correct.mean()), "best_val": None, "median_last10": {"value": 0.5, "epochs": 2}},
        "test_nll": 1.5,
        "suites": done,
        "sets": {
            "CINIC-10": {"items": 100},
            "SVHN": {"items": OOD},
            "generated corruptions of cifar10": {"images": "generated", "items": 50},
        },
        "curves": {"mixup": curve, "cutmix": curve},
        "data": {"name": dataset, "fingerprint": "ab" * 32},
        "commit": "c0ffee",
        "devices": ["cpu"],
        "versions": {"jax": "0"},
        "wall_time_s": 10.0,
    }
    return values | more, items


def failure(method="mixup", seed=0, *, size="cpu", error="RunError: it broke"):
    cell = grid.Cell(size, "preact", "cifar10", method, seed)
    named = {n: v for n, v in cell._asdict().items() if n != "settings"}
    return named | {"id": cell.id, "hash": "0", "status": "failed", "time": "2026-01-01T00:00:00", "error": error}
