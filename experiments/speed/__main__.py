"""Measures training steps on the machine at hand.

    python -m experiments.speed                                       # CPU: narrow nets, some minutes
    python -m experiments.speed --suite=gpu --out=bench.json          # the paper's nets at batch 128 and 512
    python -m experiments.speed --parts=methods --nets=preact         # less of it
    python -m experiments.speed --parts=mixers --cases=puzzle,fmix    # mixup, and what has one of these in its name

Parts: methods (ERM, mixup, CutMix, SEM in its forms), options (the ones that trade exactness for speed) and mixers
(every mixer against mixup, and mixing alone), these two for the first setting of a net alone; streams, pipeline, loop
(device loop against a call a step; on CPU it is known to be 10 times slower and is left out unless named); for the
first setting, in processes of their own: flags, compile (cold, and from the persistent cache), memory (the most that a
GPU had in use).
Prints a table; --out writes everything as JSON, after every setting, so that nothing is lost if a later one fails. A
case that the device's memory does not hold is listed as skipped.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jaxlib
import numpy as np

from experiments.speed import flags, goals, mixing, report, suites
from experiments.speed.cases import Bench, Case, Setting
from experiments.speed.timing import measure
from sem_jax import __version__
from sem_jax.errors import SemError
from sem_jax.mixers import MIXERS
from sem_jax.system.host_memory import keep_freed_memory

PARTS = ("methods", "options", "mixers", "streams", "pipeline", "loop", "flags", "compile", "memory")
ONCE = ("options", "mixers")  # parts of many cases, measured for the first setting of a net
GPU_STEPS, GPU_SECONDS = 50, 1.0  # of a block: so many mixup steps, or as many as take so long, but 10 at least


def cases(parts: list[str], *, first: bool, named: tuple[str, ...] = ()) -> dict[str, Case]:
    """What is timed together; mixup always.

    Args:
      parts: of PARTS.
      first: of the settings with this net.
      named: parts of the names wanted; () = all.
    """
    chosen = {name: suites.METHODS[name] for name in ("mixup", "mixup (again)")}
    groups = {
        "methods": suites.METHODS,
        "options": suites.OPTIONS,
        "streams": {"sem": suites.SEM, **suites.STREAMS},
        "pipeline": suites.PIPELINE,
        "loop": suites.LOOP,
        "mixers": {f"mixer {name}": Case(mixer=name) for name in MIXERS if name not in ("none", "mixup")},
    }
    for part in parts:
        if first or part not in ONCE:
            group = groups.get(part, {})
            chosen |= {name: case for name, case in group.items() if not named or any(n in name for n in named)}
    return chosen


def environment() -> dict:
    """What the numbers depend on."""
    device = jax.devices()[0]
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True)
    return {
        "sem_jax": __version__,
        "git": git.stdout.strip() or None,
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "python": platform.python_version(),
        "device": device.device_kind,
        "devices": len(jax.devices()),
        "platform_version": getattr(device.client, "platform_version", ""),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "gpu": gpu_state(),
    }


def gpu_state() -> str | None:
    """Driver, clocks and power limit, as nvidia-smi has them; None without it."""
    query = "--query-gpu=name,driver_version,clocks.sm,clocks.mem,power.limit"
    try:
        done = subprocess.run(["nvidia-smi", query, "--format=csv,noheader"], capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() or None


def no_gpu() -> bool:
    return jax.default_backend() == "cpu"


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


def extras(setting: Setting, parts: list[str], *, cpu: bool, steps: int, blocks: int) -> dict:
    """What needs processes of its own: compile times cold and cached, flags one at a time, a case's peak memory."""
    both, out = {"mixup": Case(), "sem": suites.SEM}, {}
    if "compile" in parts:
        with tempfile.TemporaryDirectory() as cache:
            cold, cached = (run_compile(setting, cache) for _ in range(2))
        out["compile_s"] = {"setting": setting.name, "cold": cold, "cached": cached}
    if "flags" in parts:
        table = {"": flags.run_child(setting, both, steps=steps, blocks=blocks)}
        for flag in flags.CPU_FLAGS if cpu else flags.GPU_FLAGS:
            known = flags.accepted(flag)
            table[flag] = flags.run_child(setting, both, steps=steps, blocks=blocks, flags=flag) if known else "unknown"
        out["flags"] = {"setting": setting.name, **table}
    if "memory" in parts and not cpu:  # a CPU keeps no such count
        alone = {name: suites.METHODS[name] for name in ("mixup", "sem", "sem, 3 passes", "sem, stop-gradient")}
        found = {name: flags.run_child(setting, {name: case}, steps=2, blocks=1) for name, case in alone.items()}
        peaks = {name: result[name]["device_peak_bytes"] if result else None for name, result in found.items()}
        out["device_peak_bytes"] = {"setting": setting.name, **peaks}
    return out


def run_compile(setting: Setting, cache: str) -> float | None:
    found = flags.run_child(setting, {"sem": suites.SEM}, steps=1, blocks=0, cache_dir=cache)
    return found["sem"]["compile_s"] if found else None


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--out", type=Path, help="JSON file")
    parser.add_argument("--parts", default="", help=f"some of {','.join(PARTS)}; default all (CPU: all but loop)")
    parser.add_argument("--nets", default="", help="only settings whose name contains this")
    parser.add_argument("--cases", default="", metavar="A,B", help="only cases whose name contains one of these")
    parser.add_argument(
        "--steps", type=int, default=0, help="per block; default 3 on CPU, 50 on GPU or a second's worth"
    )
    parser.add_argument("--blocks", type=int, default=7)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    cpu = args.suite == "cpu"
    if cpu:
        keep_freed_memory()  # as the trainer does
    if args.child:
        print(json.dumps(child(json.loads(args.child))))
        return
    if not cpu and no_gpu():
        sys.exit("--suite=gpu: jax finds no GPU here (not measured).")
    parts = args.parts.split(",") if args.parts else [p for p in PARTS if not (cpu and p == "loop")]
    if wrong := [p for p in parts if p not in PARTS]:
        parser.error(f"unknown part {wrong[0]!r}; known: {', '.join(PARTS)}")
    settings = [s for s in (suites.CPU if cpu else suites.GPU) if args.nets in s.name]
    if not settings:
        parser.error(f"no setting of the suite has {args.nets!r} in its name")
    args.cases = tuple(name for name in args.cases.split(",") if name)
    chosen = cases(parts, first=True, named=args.cases)
    if wrong := [name for name in args.cases if not any(name in case for case in chosen)]:
        parser.error(f"no case of the parts {', '.join(parts)} has {wrong[0]!r} in its name")
    found = {"environment": environment(), "rows": [], "mixing": [], "skipped": {}}

    def keep() -> None:
        if args.out:
            args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")

    for i, setting in enumerate(settings):
        first = setting.net not in [s.net for s in settings[:i]]
        rows = measure_setting(setting, parts, args, first=first, skipped=found["skipped"])
        found["rows"] += rows
        if "mixers" in parts and first and rows and not args.cases:
            step = next({"wall_ms": row["step_ms"], "cpu_ms": row["cpu_ms"]} for row in rows if row["case"] == "mixup")
            found["mixing"] += mixing.measure_mixing(setting, step=step, blocks=args.blocks)
        keep()
    more = extras(settings[0], parts, cpu=cpu, steps=args.steps or (3 if cpu else GPU_STEPS), blocks=args.blocks)
    found |= more
    keep()
    print(report.table(found["rows"]), goals.table(found["rows"], cpu=cpu), sep="\n\n")
    if found["mixing"]:
        print("", mixing.table(found["mixing"]), sep="\n")
    for name, value in (({"skipped": found["skipped"]} if found["skipped"] else {}) | more).items():
        print(name, json.dumps(value))


def measure_setting(setting: Setting, parts: list[str], args, *, first: bool, skipped: dict[str, str]) -> list[dict]:
    """The rows of one setting; what could not be run goes into `skipped`, with its reason."""
    cpu = args.suite == "cpu"
    bench = Bench(setting)
    for name, case in cases(parts, first=first, named=args.cases).items():
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
    if "options" in parts and first and "sem" in bench.runs and not args.cases:
        bench.add_alternating(f"sem, every {suites.EVERY} steps", "sem", "mixup", every=suites.EVERY)
    steps = args.steps or (3 if cpu else block_steps(bench.runs["mixup"]))
    timings = measure(bench.runs, steps=steps, blocks=args.blocks, warmup=2 if cpu else min(20, steps))
    return report.rows(bench, timings, cpu=cpu, limit=suites.limits(jax.devices()[0].device_kind))


def block_steps(run: Callable[[int], None]) -> int:
    """How many steps a block has on a GPU."""
    run(3)
    begin = time.perf_counter()
    run(5)
    return int(np.clip(5 * GPU_SECONDS / (time.perf_counter() - begin), 10, GPU_STEPS))


if __name__ == "__main__":
    main()
