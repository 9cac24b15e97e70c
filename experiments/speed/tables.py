"""Rows of the measurement: what a case took, put in relation, as JSON and as one Markdown table."""

from experiments.commands import markdown
from experiments.speed.cases import Bench
from experiments.speed.flops import floor_seconds
from experiments.speed.timing import Timing, ratio


def rows(bench: Bench, timings: dict[str, Timing], *, cpu: bool, limit: tuple[float, float] | None) -> list[dict]:
    """One row a case; times of CPU rows are compared in CPU seconds, the wall time stands beside them.

    `mfu` and `floor_ratio` are those of the plain steps scaled by XLA's own FLOP ratio; None where the device's
    limits are not known.
    """
    base, base_cost = timings["mixup"], bench.compiled["mixup"]
    noise = abs(ratio(timings.get("mixup (again)", base), base, cpu=cpu).median - 1.0)
    made = []
    for name, timing in timings.items():
        compiled, relative = bench.compiled[name], ratio(timing, base, cpu=cpu)
        flops_ratio = compiled.flops / base_cost.flops if base_cost.flops else None
        seconds, mfu, floor = timing.wall_ms.median / 1e3, None, None
        if limit and flops_ratio:
            useful = bench.cost.step_flops * bench.setting.batch * flops_ratio
            mfu = useful / seconds / limit[0]
            least = floor_seconds(bench.cost, batch=bench.setting.batch, peak_flops=limit[0], bandwidth=limit[1])
            floor = seconds / (least * flops_ratio)
        made.append(
            {
                "setting": bench.setting.name,
                "net": bench.setting.net,
                "batch": bench.setting.batch,
                "stem": bench.setting.stem,
                "case": name,
                "step_ms": timing.wall_ms.median,
                "step_iqr": timing.wall_ms.iqr,
                "cpu_ms": timing.cpu_ms.median,
                "cpu_iqr": timing.cpu_ms.iqr,
                "images_per_s": bench.setting.batch / seconds,
                "time_ratio": relative.median,
                "time_ratio_iqr": relative.iqr,
                "within_noise": abs(relative.median - 1.0) <= noise,
                "flops_ratio": flops_ratio,
                "flops_per_image": bench.cost.step_flops,
                "mfu": mfu,
                "floor_ratio": floor,
                "peak_bytes": compiled.peak_bytes,
                "compile_s": compiled.compile_s,
            }
        )
    return made


def table(made: list[dict]) -> str:
    """Markdown; "=" marks a ratio to mixup within the noise of mixup timed twice."""
    columns = "net,case,step ms,CPU ms,images/s,time ratio,FLOP ratio,MFU,x floor,MB,compile s".split(",")
    lines = [
        [
            r["setting"],
            r["case"],
            f"{r['step_ms']:.1f} ({r['step_iqr']:.0%})",
            f"{r['cpu_ms']:.0f} ({r['cpu_iqr']:.0%})",
            f"{r['images_per_s']:,.0f}",
            "=" if r["within_noise"] and r["case"] != "mixup" else f"{r['time_ratio']:.2f}",
            _number(r["flops_ratio"], ".3f"),
            _number(r["mfu"], ".1%"),
            _number(r["floor_ratio"], ".2f"),
            f"{r['peak_bytes'] / 1e6:,.0f}",
            f"{r['compile_s']:.1f}",
        ]
        for r in made
    ]
    return markdown(columns, lines)


def _number(value: float | None, form: str) -> str:
    return "not known" if value is None else format(value, form)
