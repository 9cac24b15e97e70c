"""Does the machine compute what it should? A small SEM step against the CPU, and the step's forms against each other.

    python -m experiments.timebox.check --out=check.json [--width=2 --batch=64]

Versions and device; then training steps of mixup + SEM on WRN-10 with the input pipeline in them:
- the loss and gradient norm of the first step in float32 and in bfloat16 on the device, against float32 on the CPU;
- steps in a loop on the device against one call a step;
- both passes stacked against one after the other.

Differences are relative, with a limit each. The programs are compiled in parallel and the file is written after every
difference. Exit status 1 if one is over its limit.
"""

import json
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.commands import parser
from experiments.speed.cases import Bench, Case, Setting
from experiments.speed.environment import environment
from sem_jax.config import override
from sem_jax.system import compiler
from sem_jax.training import assemble
from sem_jax.training.calls import make_advance, make_call

SEM = {"objective.gamma": 0.3}
STEPS = 3
# Relative. TF32 and bfloat16 have 10 and 7 bits; the loss is a mean over a batch, the norm one over all parameters.
LIMITS = {"float32": 5e-3, "bfloat16": 5e-2}


class Program(NamedTuple):
    """A compiled training call of mixup + SEM.

    Attributes:
      call: (state, sums, data, order, first, count, key) -> (state, sums).
      begin: state and sums to begin with, on the host: a call takes over its own.
      rest: data and order, and the key.
      looped: whether a call takes many steps.
      device: on which it runs.
    """

    call: Any
    begin: Any
    rest: tuple
    looped: bool
    device: jax.Device


def compile_step(setting: Setting, *, dtype: str, looped: bool = False, stacked: bool = False, on: str = "") -> Program:
    """Compiles the step.

    Args:
      on: "cpu", or "" for the default device.
    """
    device = jax.devices(on or None)[0]
    with jax.default_device(device):
        bench = Bench(setting)
        case = Case({**SEM, "model.dtype": dtype, "runtime.passes": "stacked" if stacked else "sequential"})
        bench.model = assemble.model(override(bench.configure(Case()), {"model.dtype": dtype}), setting.classes)
        parts = bench.parts(case)
        state, sums, data, order, _, _, key = arguments = bench.arguments(parts)
        lowered = make_call(make_advance(parts.steps[0], parts.fetch), looped=looped).lower(*arguments)
        call = compiler.compile_step(lowered, device.device_kind)
        return Program(call, jax.device_get((state, sums)), (data, order, key), looped, device)


def state_after(program: Program, steps: int = 1) -> dict[str, float]:
    """Loss and gradient norm, means over the steps, and the sum of the parameters' squares after them."""
    state, sums = jax.device_put(program.begin, program.device)
    data, order, key = program.rest
    with jax.default_device(program.device):
        for first, count in [(0, steps)] if program.looped else [(i, 1) for i in range(steps)]:
            state, sums = program.call(state, sums, data, order, first, count, key)
        found = jax.device_get((sums.means, state.params))
    size = sum(float(np.sum(np.square(x, dtype=np.float64))) for x in jax.tree.leaves(found[1]))
    means = {name: float(found[0][name].total / found[0][name].count) for name in ("loss", "grad_norm")}
    return means | {"parameters": size}


def apart(a: dict[str, float], b: dict[str, float]) -> float:
    """The largest relative difference."""
    return max(abs(a[name] - b[name]) / max(abs(b[name]), 1e-12) for name in b)


def main(argv: list[str] | None = None) -> int:
    options = parser("experiments.timebox.check", __doc__)
    options.add_argument("--out", type=Path, required=True, help="JSON file")
    options.add_argument("--width", type=int, default=2, help="widen factor of WRN-10; default: 2")
    options.add_argument("--batch", type=int, default=64, help="default: 64")
    args = options.parse_args(argv)
    setting = Setting("wide_resnet", 10, args.width, batch=args.batch, items=4 * args.batch)
    found: dict = {"environment": environment(), "checks": []}

    def add(name: str, a: dict, b: dict, limit: float) -> None:
        difference = apart(a, b)
        row = {"check": name, "difference": difference, "limit": limit, "holds": difference <= limit}
        found["checks"].append(row)
        args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(f"{name}: {difference:.2g}, at most {limit:g}", flush=True)

    args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    with ThreadPoolExecutor() as pool:

        def start(**options) -> Future:
            return pool.submit(compile_step, setting, **options)

        devices = {dtype: start(dtype=dtype) for dtype in LIMITS}
        here = jax.default_backend() == "cpu"
        on_cpu = devices["float32"] if here else start(dtype="float32", on="cpu")
        looped, stacked = start(dtype="float32", looped=True), start(dtype="float32", stacked=True)
        reference = state_after(on_cpu.result())
        for dtype, limit in LIMITS.items():
            add(f"{dtype} on the device, float32 on the CPU", state_after(devices[dtype].result()), reference, limit)
        limit, stepped = LIMITS["float32"], state_after(devices["float32"].result(), STEPS)
        add(f"{STEPS} steps looped, called one by one", state_after(looped.result(), STEPS), stepped, limit)
        together = state_after(stacked.result(), STEPS)
        add(f"{STEPS} steps with passes stacked, one after the other", together, stepped, limit)
    return 0 if all(row["holds"] for row in found["checks"]) else 1


if __name__ == "__main__":
    sys.exit(main())
