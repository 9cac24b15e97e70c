"""What mixing alone costs, without the net: fine enough for shares of a step that its own spread would hide.

    rows = measure_mixing(setting, step={"wall_ms": 229.0, "cpu_ms": 340.0}, blocks=15)
    print(table(rows))

Of the mixers that mix pixels and ask no net; those of hidden states mix inside of it. The ratio to a mixup step is
1 + (mixing - mixup's mixing) / mixup step, in CPU seconds on a CPU and in wall time elsewhere.
"""

from collections.abc import Mapping

import jax
import numpy as np

from experiments.commands import markdown
from experiments.speed.cases import Setting
from experiments.speed.timing import measure
from sem_jax.mixers import MIXERS, make_mix, make_mixer

ASK_A_NET = ("attentive_cutmix", "puzzlemix")


def pixel_mixers() -> list[str]:
    """Rows of MIXERS whose cost is all in the mixing."""
    return [name for name in MIXERS if name not in ("none", *ASK_A_NET) and make_mixer(name, alpha=1.0).hook is None]


def measure_mixing(setting: Setting, *, step: Mapping[str, float], blocks: int, steps: int = 20) -> list[dict]:
    """Times every such mixer on a batch of the setting.

    Args:
      setting: whose batch and image size.
      step: milliseconds of its mixup step, {"wall_ms", "cpu_ms"}.
      blocks, steps: rounds over all mixers, and batches of each in a round.

    Returns:
      A row a mixer: {"setting", "mixer", "mixing_ms", "mixing_cpu_ms", "step_ratio"}.
    """
    cpu = jax.default_backend() == "cpu"
    rng = np.random.default_rng(0)
    images = jax.device_put(rng.normal(size=(setting.batch, setting.size, setting.size, 3)).astype(np.float32))
    key = jax.random.key(0)

    def runner(name: str):
        mix = make_mix(make_mixer(name, alpha=1.0))
        # The labels' side is a part of it: without it XLA would leave out what only lam needs.
        call = jax.jit(lambda key, images: mix(key, images))

        def run(count: int) -> None:
            for i in range(count):
                out = call(jax.random.fold_in(key, i), images)
            jax.block_until_ready(out)

        return run

    names = pixel_mixers()
    timings = measure({name: runner(name) for name in names}, steps=steps, blocks=blocks)
    base, of_step = timings["mixup"], step["cpu_ms" if cpu else "wall_ms"]
    rows = []
    for name in names:
        wall, used = timings[name].wall_ms.median, timings[name].cpu_ms.median
        more = used - base.cpu_ms.median if cpu else wall - base.wall_ms.median
        row = {"setting": setting.name, "mixer": name, "mixing_ms": wall, "mixing_cpu_ms": used}
        rows.append(row | {"step_ratio": 1 + more / of_step})
    return rows


def table(rows: list[dict]) -> str:
    """Markdown."""
    columns = ["net", "mixing alone", "ms a batch", "CPU ms", "step, by it / mixup step"]
    return markdown(
        columns,
        (
            [r["setting"], r["mixer"], f"{r['mixing_ms']:.2f}", f"{r['mixing_cpu_ms']:.2f}", f"{r['step_ratio']:.3f}"]
            for r in rows
        ),
    )
