"""What the training step has to reach, beside what was measured: one line a goal and setting, as a Markdown table.

print(table(rows, cpu=False))        # rows of `report.rows`; "not measured" where a case or a GPU was missing
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

Rows = Mapping[str, dict]  # case -> row, of one setting


class Goal(NamedTuple):
    """One goal.

    Attributes:
      what: is measured.
      must: the least or most that will do, as text.
      reached: value -> bool.
      value: rows of a setting -> the number; KeyError or TypeError where something of it was not measured.
      form: of the number, as `format` takes it.
      gpu: it is a GPU's time that counts.
      applies: (net, batch) -> whether it is asked of the setting.
    """

    what: str
    must: str
    reached: Callable[[float], bool]
    value: Callable[[Rows], float]
    form: str = ".2f"
    gpu: bool = True
    applies: Callable[[str, int], bool] = lambda net, batch: True


def _time(case: str) -> Callable[[Rows], float]:
    return lambda rows: rows[case]["time_ratio"]


GOALS = (
    Goal(
        "operations, SEM / mixup",
        "2.00 +- 0.02",
        lambda x: abs(x - 2) <= 0.02,
        lambda r: r["sem"]["flops_ratio"],
        gpu=False,
    ),
    Goal(
        "time, SEM / mixup, batch >= 512",
        "<= 2.05",
        lambda x: x <= 2.05,
        _time("sem"),
        applies=lambda net, batch: batch >= 512,
    ),
    Goal(
        "time, SEM / mixup, batch 128",
        "<= 1.95",
        lambda x: x <= 1.95,
        _time("sem"),
        applies=lambda net, batch: batch == 128,
    ),
    Goal(
        "time, 3 passes / ours",
        ">= 1.45",
        lambda x: x >= 1.45,
        lambda r: r["sem, 3 passes"]["time_ratio"] / r["sem"]["time_ratio"],
        gpu=False,
    ),
    Goal(
        "MFU, mixup, PreActResNet, batch >= 512",
        ">= 30%",
        lambda x: x >= 0.3,
        lambda r: r["mixup"]["mfu"],
        form=".1%",
        applies=lambda net, batch: net == "preact_resnet" and batch >= 512,
    ),
    Goal(
        "MFU, mixup, WRN, batch >= 256",
        ">= 40%",
        lambda x: x >= 0.4,
        lambda r: r["mixup"]["mfu"],
        form=".1%",
        applies=lambda net, batch: net == "wide_resnet" and batch >= 256,
    ),
    Goal(
        "input pipeline, share of a mixup step",
        "<= 3%",
        lambda x: x <= 0.03,
        lambda r: 1 - r["mixup, no pipeline"]["time_ratio"],
        form=".1%",
    ),
    Goal("time, device loop / a call a step", "<= 1.01", lambda x: x <= 1.01, _time("mixup, device loop")),
)


def table(made: list[dict], *, cpu: bool) -> str:
    """Markdown.

    Args:
      made: rows of all settings.
      cpu: the suite; a CPU says nothing of a GPU's times.
    """
    by_setting: dict[str, dict] = {}
    for row in made:
        by_setting.setdefault(row["setting"], {})[row["case"]] = row
    lines = [["net", "goal", "must", "measured", ""], ["---"] * 5]
    for setting, rows in by_setting.items():
        any_row = next(iter(rows.values()))
        for goal in GOALS:
            if not cpu and not goal.applies(any_row["net"], any_row["batch"]):
                continue
            if cpu and goal.gpu:
                continue
            try:
                value = goal.value(rows)
                found = [format(value, goal.form), "reached" if goal.reached(value) else "missed"]
            except (KeyError, TypeError):
                found = ["not measured", ""]
            lines.append([setting, goal.what, goal.must, *found])
    if cpu:
        lines += [["GPU", goal.what, goal.must, "not measured", ""] for goal in GOALS if goal.gpu]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
