"""Step times of one net and batch, a JSON line a case, written as soon as the setting is measured.

    python -m experiments.timebox.speed --net=preact_resnet --batch=128 --out=speed.jsonl [--flags]

mixup, and mixup + SEM with both passes stacked, one after the other, and in three as Algorithm 1 writes it.
Programs are compiled in parallel, blocks interleaved. MFU counts the textbook's operations against the device's
limit. With `--flags` there are two cases, for a process with other XLA_FLAGS, whose text every line has. What is not
compiled after three fifths of $SEM_JAX_SECONDS is left out, which its line says; after three quarters no more blocks
are begun.
"""

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import NamedTuple

import jax

from experiments.commands import parser
from experiments.speed import settings, tables
from experiments.speed.__main__ import block_steps
from experiments.speed.cases import Bench, Case, Setting
from experiments.speed.environment import environment
from experiments.speed.timing import measure

DEPTHS = {"preact_resnet": 18, "wide_resnet": 28}
WIDTHS = {"preact_resnet": 64, "wide_resnet": 10}
LOOP = {"runtime.loop": "auto"}  # as the trainer does it on this platform
SEM = LOOP | {"objective.gamma": 0.3}
CASES = {
    "mixup": Case(LOOP),
    "sem, passes stacked": Case(SEM | {"runtime.passes": "stacked"}),
    "sem, one pass after the other": Case(SEM),
    "sem, 3 passes": Case(SEM, three_passes=True),
    "mixup (again)": Case(LOOP),
}
FEW = ("mixup", "sem, passes stacked")
BLOCKS = 5


class Added(NamedTuple):
    """What became of the cases that are not in `bench.runs`, by name."""

    failed: dict[str, str]  # with the reason
    late: list[str]  # still being compiled, or not begun


def add_all(bench: Bench, wanted: dict[str, Case], *, until: float) -> Added:
    """Compiles the cases in threads, equal ones once.

    Args:
      until: of `time.monotonic()`; what is not compiled then is left out.
    """
    failed = {}
    first = {name: next(other for other in wanted if wanted[other] == case) for name, case in wanted.items()}
    pool = ThreadPoolExecutor(max(1, min(len(wanted), (os.cpu_count() or 1) // 2)))

    def add(name: str) -> None:
        try:
            bench.add(name, wanted[name])
            bench.runs[name](1)
        except Exception as error:  # one case must not end the others
            bench.drop(name)
            failed[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:300]}"

    futures = {name: pool.submit(add, name) for name in dict.fromkeys(first.values())}
    wait(futures.values(), timeout=max(0.0, until - time.monotonic()))
    late = [name for name, future in futures.items() if not future.done()]
    pool.shutdown(wait=False, cancel_futures=True)
    for name, other in first.items():
        if name != other and other in bench.runs and other not in late:
            bench.runs[name], bench.compiled[name] = bench.runs[other], bench.compiled[other]
    return Added(failed, late)


def main(argv: list[str] | None = None) -> int:
    options = parser("experiments.timebox.speed", __doc__)
    options.add_argument("--net", choices=DEPTHS, required=True)
    options.add_argument("--batch", type=int, required=True)
    options.add_argument("--width", type=int, default=0, help="default: the paper's")
    options.add_argument("--depth", type=int, default=0, help="default: the paper's")
    options.add_argument("--out", type=Path, required=True, help="file of JSON lines, appended to")
    options.add_argument("--flags", action="store_true", help="two cases only, for other XLA_FLAGS")
    options.add_argument("--steps", type=int, default=0, help="of a block; default: about half a second")
    args = options.parse_args(argv)
    begin, seconds = time.monotonic(), float(os.environ.get("SEM_JAX_SECONDS", "600"))
    setting = Setting(args.net, args.depth or DEPTHS[args.net], args.width or WIDTHS[args.net], batch=args.batch)
    bench = Bench(setting)
    wanted = {name: case for name, case in CASES.items() if not args.flags or name in FEW}
    failed, late = add_all(bench, wanted, until=begin + 0.6 * seconds)
    about = {"kind": "ours", "environment": environment()}
    reasons = failed | {name: f"not compiled within {0.6 * seconds:.0f} s" for name in late}
    lines = [{**about, "setting": setting.name, "case": name, "failed": reason} for name, reason in reasons.items()]
    runs = {name: bench.runs[name] for name in CASES if name in bench.runs and name not in late}
    if "mixup" in runs:
        steps = args.steps or max(10, block_steps(runs["mixup"]) // 2)
        timings = measure(runs, steps=steps, blocks=2, warmup=min(steps, 10))
        if time.monotonic() - begin < 0.75 * seconds:
            timings = measure(runs, steps=steps, blocks=BLOCKS, warmup=1)
        cpu = jax.default_backend() == "cpu"
        limit = settings.limits(jax.devices()[0].device_kind)
        lines += [{**about, **row} for row in tables.rows(bench, timings, cpu=cpu, limit=limit)]
    with open(args.out, "a", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
        file.flush()
        os.fsync(file.fileno())
    for line in lines:
        print(line["case"], line.get("failed") or f"{line['step_ms']:.2f} ms, MFU {line['mfu']}", flush=True)
    if late:  # threads that compile cannot be stopped, and an interpreter that ends waits for them
        sys.stdout.flush()
        os._exit(1 if failed else 0)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
