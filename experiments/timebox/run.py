"""A rented accelerator for a few minutes: the most valuable work first, and nothing that is done is lost.

    python -m experiments.timebox --minutes=15 --out=box --data-dir=data
    python -m experiments.timebox --minutes=9 --out=box2 --continue=box --parts=evidence --data-dir=data
    python -m experiments.timebox --narrow --minutes=4 --out=box      # the rehearsal: small nets, digits, any machine

Three parts, each within its own limits, none of which can stop the others:
1. check (1 minute): versions, device; a small step against the CPU, looped = stepped, stacked = sequential.
2. speed (4 minutes): times and MFU of PreActResNet18 and WRN-28-10 at batch 128 and 512, mixup and SEM in its forms.
   At batch 128 also the same steps in PyTorch where it is installed, and PreActResNet18 with other command buffers.
3. evidence (what is left): the next missing runs of the paper's size on CIFAR-10, PreActResNet18, in the order of
   QUEUE, as `python -m experiments.paper --budget` starts them. A run that does not fit is begun, saved and continued
   by the next box.

--out holds what comes out of it, in few files: timebox.jsonl (what became of each part), timebox.log, check.json,
speed.jsonl, ledger.jsonl, evidence.tgz, and checkpoint.json with checkpoint.000, ... of unfinished runs. All of it is
renewed as soon as there is more. Run folders and compiled programs lie in --work.
"""

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.commands import absolute, names, parser
from experiments.paper.methods import CONTROLS
from experiments.timebox.box import Box, Part
from experiments.timebox.keep import keep, keep_records, restore
from sem_jax.config import METHODS
from sem_jax.errors import ConfigError, exit_on_error

GROUPS = {"check": 60.0, "speed": 240.0}
SHARE = {"check": 0.1, "speed": 0.3}  # of all the time, at most
QUICK = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # of a rehearsal, which is compiling for the most part
CLOSING = 10.0  # seconds for bringing home what is left
FIRST = ("mixup+sem", "mixup", "cutmix+sem", "cutmix", "erm")
LITERAL = ("sem-own", "mixup-own")  # the other reading of the recipe
QUEUE = (*FIRST, *(m for m in METHODS if "+es" in m), *LITERAL, *(c for c in CONTROLS if c not in LITERAL))
BUFFERS = {
    "with convolutions in command buffers": "--xla_gpu_enable_command_buffer=+CONVOLUTION",
    "without command buffers": "--xla_gpu_enable_command_buffer=",
}


def speed_parts(out: Path, work: Path, *, narrow: bool) -> list[Part]:
    """The most telling first."""
    base = "experiments.timebox.speed"
    line = f"--out={out / 'speed.jsonl'}"
    if narrow:
        small = (base, "--net=wide_resnet", "--depth=10", "--width=1", "--batch=8", "--steps=1", "--flags", line)
        return [Part("speed: narrow", small, environment=QUICK)]
    alone = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # PyTorch and the next process want memory too
    no_torch = "" if importlib.util.find_spec("torch") else "PyTorch is not installed"

    def ours(net: str, batch: int) -> Part:
        return Part(f"speed: {net} {batch}", (base, f"--net={net}", f"--batch={batch}", line), 90.0)

    def peers(net: str, batch: int) -> Part:
        short = {"preact_resnet": "preact18-64", "wide_resnet": "wrn28-10"}[net]
        command = ("experiments.speed.peers", "--suite=gpu", f"--nets={short} 32px batch {batch}", "--compile=none",
                   "--blocks=5", f"--out={work / f'peers-{net}-{batch}.json'}")  # fmt: skip
        return Part(f"speed: PyTorch {net} {batch}", command, 75.0, alone, no_torch)

    def flags(name: str) -> Part:
        text = f"{os.environ.get('XLA_FLAGS', '')} {BUFFERS[name]}".strip()
        command = (base, "--net=preact_resnet", "--batch=128", "--flags", line)
        return Part(f"speed: {name}", command, 45.0, {"XLA_FLAGS": text})

    with_convolutions, without = BUFFERS
    return [
        ours("preact_resnet", 128),
        peers("preact_resnet", 128),
        ours("wide_resnet", 128),
        flags(with_convolutions),
        ours("preact_resnet", 512),
        ours("wide_resnet", 512),
        flags(without),
        peers("wide_resnet", 128),
    ]


def evidence_part(args, out: Path, work: Path, minutes: float) -> Part:
    """The sweep; its estimates begin with the step time that was measured, if one was."""
    size, backbone, dataset = ("smoke", "wrn", "digits") if args.narrow else ("paper", "preact", "cifar10")
    command = [
        "experiments.paper", f"--size={size}", f"--backbones={backbone}", f"--datasets={dataset}", "--table=all",
        f"--methods={args.methods or ','.join(QUEUE)}", f"--seeds={args.seeds}", f"--out={work}",
        f"--budget={minutes:.2f}", "--begin", f"--corruption-items={args.corruption_items}",
        f"--step-ms={step_ms(out):.3f}",
    ]  # fmt: skip
    command += [
        f"--{name.replace('_', '-')}={value}" for name in ("data_dir", "frost_dir") if (value := getattr(args, name))
    ]
    for name in ("ood", "shift"):
        command += [f"--{name}", *getattr(args, name)] if getattr(args, name) else []
    return Part("evidence", tuple(command))


def step_ms(out: Path) -> float:
    """Of the mixup step at batch 128 on PreActResNet18, from speed.jsonl; 0 where it was not measured."""
    path = out / "speed.jsonl"
    for line in reversed(path.read_text(encoding="utf-8").splitlines() if path.is_file() else []):
        row = json.loads(line)
        if row.get("net") == "preact_resnet" and row.get("batch") == 128 and row.get("case") == "mixup":
            return float(row["step_ms"])
    return 0.0


def collect_peers(out: Path, work: Path) -> None:
    """Rows of PyTorch into speed.jsonl, each file once."""
    for path in sorted(work.glob("peers-*.json")):
        with contextlib.suppress(ValueError):  # it is being written
            found = json.loads(path.read_text(encoding="utf-8"))
            rows = [{"kind": "PyTorch", "environment": found["environment"], **it} for it in found["settings"]]
            with open(out / "speed.jsonl", "a", encoding="utf-8") as file:
                file.writelines(json.dumps(row) + "\n" for row in rows)
            path.rename(path.with_suffix(".collected"))


def run(args, out: Path, work: Path) -> int:
    """All parts; the exit status."""
    seconds, parts = 60 * args.minutes, names(args.parts)
    for earlier in (out, *(Path(it) for it in args.resume)):  # the newest first: what it has stays
        if begun := restore(earlier, work):
            print(f"from {earlier}: {', '.join(begun)}", flush=True)

    def tick() -> None:
        collect_peers(out, work)
        keep_records(work, out)

    shared = "evidence" in parts  # which wants the most of the time
    groups = {name: min(limit, SHARE[name] * seconds) if shared else limit for name, limit in GROUPS.items()}
    if args.narrow:
        groups = {"check": 0.4 * seconds, "speed": 0.25 * seconds}
    box = Box(out, seconds=seconds - CLOSING, groups=groups, tick=tick, say=lambda line: print(line, flush=True))
    results = []
    try:
        if "check" in parts:
            command, small = ("experiments.timebox.check", f"--out={out / 'check.json'}"), ("--width=1", "--batch=8")
            rehearsed = Part("check", (*command, *small), environment=QUICK)
            results += box.run([rehearsed if args.narrow else Part("check", command)])
        if "speed" in parts:
            results += box.run(speed_parts(out, work, narrow=args.narrow))
        if "evidence" in parts:
            results += box.run([evidence_part(args, out, work, max(box.left / 60 - 0.5, 0.1))])
    finally:
        kept = keep(work, out, megabytes=args.bring_mb)
        print(f"unfinished: {', '.join(kept) or 'none'}; all in {out}: {sizes(out)}", flush=True)
    return 1 if any(it["status"] in ("failed", "killed") for it in results) else 0


def sizes(out: Path) -> str:
    return ", ".join(f"{p.name} {p.stat().st_size / 2**20:.1f} MiB" for p in sorted(out.iterdir()) if p.is_file())


def main(argv: Sequence[str] | None = None) -> int:
    options = parser("experiments.timebox", __doc__)
    add = options.add_argument
    add("--minutes", type=float, required=True, help="in all; it ends by itself")
    add("--out", required=True, metavar="DIR", help="folder for what comes out of it")
    add("--work", default="", metavar="DIR", help="folder of the runs; default: DIR.work beside --out")
    add("--data-dir", default="", metavar="DIR", help="where CIFAR-10 is")
    add("--parts", default="check,speed,evidence", metavar="A,B", help="default: check,speed,evidence")
    add(
        "--continue",
        dest="resume",
        nargs="+",
        default=[],
        metavar="DIR",
        help="--out of earlier boxes, the newest first",
    )
    add("--methods", default="", metavar="A,B", help="of evidence, the most wanted first; default: the queue")
    add("--seeds", default="0,1,2", metavar="A,B", help="default: 0,1,2")
    add("--ood", nargs="+", action="extend", default=[], metavar="NAME=PATH", help="out-of-distribution sets")
    add("--shift", nargs="+", action="extend", default=[], metavar="NAME=PATH", help="labelled sets, same classes")
    add("--frost-dir", default="", metavar="DIR", help="published frost photographs")
    add("--corruption-items", type=int, default=200, metavar="N", help="images of each corruption; default: 200")
    add("--bring-mb", type=float, default=0.0, metavar="MB", help="of checkpoints in --out at most; default: no limit")
    add("--narrow", action="store_true", help="a rehearsal with small nets")
    args = options.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what is there is brought home
    with exit_on_error():
        if wrong := [name for name in names(args.parts) if name not in ("check", "speed", "evidence")]:
            raise ConfigError(f"--parts must be some of check, speed, evidence, got {wrong[0]!r}")
        if not 0 < args.minutes < 24 * 60:
            raise ConfigError(f"--minutes must be above 0 and below a day, got {args.minutes:g}")
        args.data_dir, args.frost_dir = absolute(args.data_dir), absolute(args.frost_dir)
        out = Path(absolute(args.out))
        work = Path(absolute(args.work)) if args.work else out.with_name(out.name + ".work")
        work.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(work).free < 2**30:
            print(f"{work} has less than 1 GiB free: checkpoints may not fit", flush=True)
        return run(args, out, work)
    return 2  # for type checkers: exit_on_error has ended the process
