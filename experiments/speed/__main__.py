"""Measures training steps on the machine at hand.

    python -m experiments.speed                                       # CPU: narrow nets, some minutes
    python -m experiments.speed --suite=gpu --out=bench.json          # the paper's nets at batch 128 and 512
    python -m experiments.speed --parts=methods --nets=preact         # less of it
    python -m experiments.speed --parts=mixers --cases=puzzle,fmix    # mixup, and what has one of these in its name

Parts: methods (ERM, mixup, CutMix, SEM in its forms), options (the ones that trade exactness for speed) and mixers
(every mixer against mixup, and mixing alone), these two for the first setting of a net alone; passes, pipeline, loop
(device loop against a call a step; on CPU it is known to be 10 times slower and is left out unless named); for the
first setting, in processes of their own: flags, compile (cold, and from the persistent cache), memory (the most that a
GPU had in use).
Prints a table; --out writes everything as JSON, after every setting, so that nothing is lost if a later one fails. A
case that the device's memory does not hold is listed as skipped.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from experiments.commands import names, parser
from experiments.speed import flags, mixing, settings, tables
from experiments.speed.cases import Bench, Case, Setting
from experiments.speed.environment import environment, no_gpu
from experiments.speed.timing import measure
from sem_jax.errors import SemError
from sem_jax.mixers import MIXERS
from sem_jax.system.host_memory import keep_freed_memory

PARTS = ("methods", "options", "mixers", "passes", "pipeline", "loop", "flags", "compile", "memory")
ONCE = ("options", "mixers")  # parts of many cases, measured for the first setting of a net
CPU_STEPS, GPU_STEPS = 3, 50  # of a block
GPU_SECONDS = 1.0  # or as many steps of mixup as take so long, but 10 at least


def cases(parts: list[str], *, first: bool, named: list[str]) -> dict[str, Case]:
    """What is timed together; mixup always.

    Args:
      parts: of PARTS.
      first: of the settings with this net.
      named: parts of the names wanted; [] = all.
    """
    groups = {
        "methods": settings.METHODS,
        "options": settings.OPTIONS,
        "passes": settings.PASSES,
        "pipeline": settings.PIPELINE,
        "loop": settings.LOOP,
        "mixers": {f"mixer {name}": Case({"mixer.name": name}) for name in MIXERS if name not in ("none", "mixup")},
    }
    chosen = {name: settings.METHODS[name] for name in ("mixup", "mixup (again)")}
    for part in parts:
        if first or part not in ONCE:
            group = groups.get(part, {})
            chosen |= {name: case for name, case in group.items() if not named or any(n in name for n in named)}
    return chosen


def child(request: dict) -> dict:
    """The other side of `flags.run_child`."""
    bench = Bench(Setting(**request["setting"]))
    for name, case in request["cases"].items():
        bench.add(name, Case(**case))
    timings = measure(bench.runs, steps=request["steps"], blocks=request["blocks"]) if request["blocks"] else {}
    return {
        name: {
            "wall_ms": timings[name].wall_ms.median if timings else None,
            "cpu_ms": timings[name].cpu_ms.median if timings else None,
            "compile_s": bench.compiled[name].compile_s,
            "device_peak_bytes": (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use"),
        }
        for name in bench.runs
    }


def in_processes(setting: Setting, parts: list[str], *, cpu: bool, steps: int, blocks: int) -> dict:
    """What needs processes of its own: compile times cold and cached, flags one at a time, a case's peak memory."""
    both, out = {"mixup": Case(), "sem": settings.SEM}, {}
    if "compile" in parts:
        with tempfile.TemporaryDirectory() as cache:
            sem = {"sem": settings.SEM}
            found = [flags.run_child(setting, sem, steps=1, blocks=0, cache_dir=cache) for _ in range(2)]
        cold, cached = (it["sem"]["compile_s"] if it else None for it in found)
        out["compile_s"] = {"setting": setting.name, "cold": cold, "cached": cached}
    if "flags" in parts:
        out["flags"] = {"setting": setting.name, "": flags.run_child(setting, both, steps=steps, blocks=blocks)}
        for flag in flags.CPU_FLAGS if cpu else flags.GPU_FLAGS:
            known = flags.accepted(flag)
            found = flags.run_child(setting, both, steps=steps, blocks=blocks, flags=flag) if known else "unknown"
            out["flags"][flag] = found
    if "memory" in parts and not cpu:  # a CPU keeps no such count
        alone = {name: settings.METHODS[name] for name in ("mixup", "sem", "sem, 3 passes", "sem, stop-gradient")}
        found = {name: flags.run_child(setting, {name: case}, steps=2, blocks=1) for name, case in alone.items()}
        peaks = {name: result[name]["device_peak_bytes"] if result else None for name, result in found.items()}
        out["device_peak_bytes"] = {"setting": setting.name, **peaks}
    return out


def measure_setting(setting: Setting, wanted: dict[str, Case], args: argparse.Namespace, skipped: dict) -> list[dict]:
    """The rows of one setting; what could not be run goes into `skipped`, with its reason."""
    cpu = args.suite == "cpu"
    bench = Bench(setting)
    for name, case in wanted.items():
        try:
            bench.add(name, case)
            bench.runs[name](1)
        except SemError as error:  # a setting that a net or mixer refuses
            reason = error
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            reason = error
        else:
            continue
        bench.drop(name)
        skipped[f"{setting.name}: {name}"] = str(reason).splitlines()[0]
    if "mixup" not in bench.runs:  # which everything is compared with
        return []
    steps = args.steps or (CPU_STEPS if cpu else block_steps(bench.runs["mixup"]))
    timings = measure(bench.runs, steps=steps, blocks=args.blocks, warmup=2 if cpu else min(20, steps))
    return tables.rows(bench, timings, cpu=cpu, limit=settings.limits(jax.devices()[0].device_kind))


def block_steps(run: Callable[[int], None]) -> int:
    """How many steps a block has on a GPU."""
    run(3)
    begin = time.perf_counter()
    run(5)
    return int(np.clip(5 * GPU_SECONDS / (time.perf_counter() - begin), 10, GPU_STEPS))


def main(argv: list[str] | None = None) -> None:
    options = parser("experiments.speed", __doc__)
    options.add_argument(
        "--suite", choices=("cpu", "gpu"), default="cpu", help="narrow nets, or the paper's; default cpu"
    )
    options.add_argument("--out", type=Path, help="JSON file")
    options.add_argument("--parts", default="", help=f"some of {','.join(PARTS)}; default all (CPU: all but loop)")
    options.add_argument("--nets", default="", help="only settings whose name contains this")
    options.add_argument("--cases", default="", metavar="A,B", help="only cases whose name contains one of these")
    steps_help = "per block; default 3 on CPU, 50 on GPU or a second's worth"
    options.add_argument("--steps", type=int, default=0, help=steps_help)
    options.add_argument(
        "--blocks", type=int, default=7, help="of steps that are timed for each case, in turns; default 7"
    )
    options.add_argument("--child", help=argparse.SUPPRESS)
    args = options.parse_args(argv)
    cpu = args.suite == "cpu"
    if cpu:
        keep_freed_memory()  # as the trainer does
    if args.child:
        print(json.dumps(child(json.loads(args.child))))
        return
    if not cpu and no_gpu():
        sys.exit("--suite=gpu: jax finds no GPU here (not measured).")
    parts = names(args.parts) or [p for p in PARTS if not (cpu and p == "loop")]
    if wrong := [p for p in parts if p not in PARTS]:
        options.error(f"unknown part {wrong[0]!r}; known: {', '.join(PARTS)}")
    chosen = [s for s in (settings.CPU if cpu else settings.GPU) if args.nets in s.name]
    if not chosen:
        options.error(f"no setting of the suite has {args.nets!r} in its name")
    named = names(args.cases)
    known = cases(parts, first=True, named=named)
    if wrong := [name for name in named if not any(name in case for case in known)]:
        options.error(f"no case of the parts {', '.join(parts)} has {wrong[0]!r} in its name")
    found = {"environment": environment(), "rows": [], "mixing": [], "skipped": {}}

    def keep() -> None:
        if args.out:
            args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")

    for i, setting in enumerate(chosen):
        first = setting.net not in [s.net for s in chosen[:i]]
        rows = measure_setting(setting, cases(parts, first=first, named=named), args, found["skipped"])
        found["rows"] += rows
        if "mixers" in parts and first and rows and not named:
            step = next({"wall_ms": row["step_ms"], "cpu_ms": row["cpu_ms"]} for row in rows if row["case"] == "mixup")
            found["mixing"] += mixing.measure_mixing(setting, step=step, blocks=args.blocks)
        keep()
    steps = args.steps or (CPU_STEPS if cpu else GPU_STEPS)
    more = in_processes(chosen[0], parts, cpu=cpu, steps=steps, blocks=args.blocks)
    found |= more
    keep()
    print(tables.table(found["rows"]))
    if found["mixing"]:
        print("", mixing.table(found["mixing"]), sep="\n")
    for name, value in (({"skipped": found["skipped"]} if found["skipped"] else {}) | more).items():
        print(name, json.dumps(value))


if __name__ == "__main__":
    main()
