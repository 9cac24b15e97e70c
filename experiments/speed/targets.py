"""Does every configuration compile for its hardware, and what does a step cost? No such hardware is needed.

    python -m experiments.speed.targets --out=targets.jsonl [--minutes=60] [--page=docs/targets.md]

Each file of configs/ with its own method, and the paper's nine methods on two small nets, for one chip and four of a
TPU v5e and for an H100; and a small net with as many images a chip on 256 chips as on four. A line of JSON a cell is
written as soon as its programs are compiled, the quickest first; the same command goes on with those that are missing.
Needs the extras tpu and cuda. `--page` writes the table of what is in the file; with `--minutes=0` nothing is compiled.
"""

import gzip
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from experiments.commands import markdown, parser
from sem_jax import config
from sem_jax.config.finding import known_configs, load_config
from sem_jax.errors import ConfigError, exit_on_error
from sem_jax.system import targets
from sem_jax.system.program_text import has_images
from sem_jax.training.costs import Plan, StepPlan

HARDWARE = ("v5e", "v5e:2x2", "h100")
NARROW = {"model.width": 8}
LOCAL = {"mixer.across_device": False}
# Compiling takes about so many times as long as for the digits' net, and so many of that for the hardware.
NETS = {"digits": 1.0, "mlp_mixer_c10": 2.0, "vit_c10": 3.0, "resnet50": 14.0, "wrn": 20.0, "preact": 8.0}
PLATFORMS = {"v5e": 1.0, "v5e:2x2": 1.1, "v5e:16x16": 3.0, "h100": 0.2}


class Cell(NamedTuple):
    """A configuration for a target.

    Attributes:
      config, method: as in `--config=config:method`; "" = the file's own.
      target: as in `--target`.
      settings: more fields.
    """

    config: str
    method: str
    target: str
    settings: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        more = ",".join(f"{field}={value}" for field, value in self.settings)
        return f"{self.config}:{self.method}@{self.target}" + (f",{more}" if more else "")

    @property
    def weight(self) -> float:
        """How long its programs take to compile, roughly."""
        net = next((weight for net, weight in NETS.items() if self.config.startswith(net)), 5.0)
        return PLATFORMS.get(self.target, 1.0) * (2.0 if "model.width" in dict(self.settings) else net)


def all_cells() -> list[Cell]:
    """Every cell of the table, the quickest first."""
    cells = [Cell(name, "", target) for name in known_configs() for target in HARDWARE]
    for method in config.METHODS:
        cells += [Cell("digits", method, target) for target in HARDWARE]
        cells += [Cell("preact_c10", method, target, tuple(NARROW.items())) for target in HARDWARE]
    large = {**NARROW, "train.batch_size": 128 // 4 * 256}  # as many images a chip as v5e:2x2 has
    cells += [
        Cell("preact_c10", "mixup+sem", "v5e:16x16", tuple(large.items())),
        Cell("preact_c10", "mixup+sem", "v5e:2x2", tuple({**NARROW, **LOCAL}.items())),
        Cell("preact_c10", "mixup+sem", "v5e:16x16", tuple({**large, **LOCAL}.items())),
    ]
    return sorted(cells, key=lambda cell: cell.weight)


class Programs:
    """Compiles each program once: the methods with ES consist of programs that others have too.

    Args:
      texts: folder for the compiled programs' texts; None = they are not kept.

    Attributes:
      used: digests of the programs that were asked for.
    """

    def __init__(self, texts: Path | None = None):
        self.used: list[str] = []
        self._known: dict[str, StepPlan] = {}
        self._texts = texts

    def __call__(self, lowered: Any, target: targets.Target, options: dict[str, Any]) -> StepPlan:
        from sem_jax.training.plan import read_compiled

        digest = hashlib.sha256(f"{target.text} {options} {lowered.as_text()}".encode()).hexdigest()[:16]
        if digest not in self._known:
            keep = (lambda text: self._keep(digest, text)) if self._texts else None
            self._known[digest] = read_compiled(lowered, target, options, keep=keep)
        self.used.append(digest)
        return self._known[digest]

    def _keep(self, digest: str, text: str) -> None:
        assert self._texts
        self._texts.mkdir(parents=True, exist_ok=True)
        with gzip.open(self._texts / f"{digest}.txt.gz", "wt") as file:
            file.write(text)


def measure(cell: Cell, programs: Programs) -> dict[str, Any]:
    """The line of a cell."""
    from sem_jax.training.plan import plan

    begin, programs.used = time.process_time(), []
    cfg = config.override(
        load_config(f"{cell.config}:{cell.method}" if cell.method else cell.config), dict(cell.settings)
    )
    config.validate(cfg)
    line: dict[str, Any] = {"cell": cell.name, "method": config.method_of(cfg), "batch": cfg.train.batch_size}
    try:
        found = plan(cfg, cell.target, read=programs)
        line |= numbers(found)
        found.check()
    except ConfigError as error:
        line |= {"fits": False, "says": " ".join(str(error).split())}
    return line | {"cpu_seconds": round(time.process_time() - begin), "versions": versions()}


def numbers(found: Plan) -> dict[str, Any]:
    """What a plan says, for a line of JSON."""
    steps = []
    for step in found.steps:
        exchanged = step.text.collectives if step.text else ()
        steps.append(
            {
                "kind": step.name,
                "ms": 1e3 * step.seconds,
                "memory": step.memory,
                "cycles": step.text.cycles if step.text else 0,
                "kernels": len(step.text.kernels) if step.text else 0,
                "collectives": len(exchanged),
                "exchanged": sum(it.bytes for it in exchanged),
                "images_exchanged": sum(has_images(it, found.image_shape) for it in exchanged),
                "host": len(step.text.host) if step.text else 0,
            }
        )
    return {"fits": True, "devices": found.devices, "limit": found.memory_limit, "steps": steps, "page": str(found)}


def versions() -> dict[str, str]:
    """Of the compilers."""
    return {name: found for name in ("jax", "libtpu", "jax-cuda13-plugin") if (found := _version(name))}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def read(path: Path) -> dict[str, dict[str, Any]]:
    """The lines of a file by cell; a line that a kill cut off is left out."""
    found = {}
    for text in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        found[line["cell"]] = line
    return found


def table(cells: Iterable[Cell], lines: dict[str, dict[str, Any]]) -> str:
    """A row a cell, in Markdown."""
    rows = []
    for cell in cells:
        line = lines.get(cell.name)
        settings = ", ".join(f"{field.partition('.')[2]} {value}" for field, value in cell.settings)
        head = [
            cell.config + (f" ({settings})" if settings else ""),
            line["method"] if line else cell.method or "its own",
        ]
        rows.append([*head, cell.target, *(_row(line) if line else ["not compiled", *[""] * 6])])
    columns = ("configuration", "method", "hardware", "fits", "memory of a chip, GiB", "step, ms")
    return markdown((*columns, "kernels a step", "collectives a step", "images exchanged", "calls of the host"), rows)


def _row(line: dict[str, Any]) -> list[str]:
    if "steps" not in line:
        says = line["says"]
        fits = f"no: {says.partition(': ')[2]}" if "does not fit" in says else f"not compiled: {_reason(says)}"
        return [fits, *[""] * 6]
    steps = line["steps"]
    exchanged = [f"{it['collectives']} ({it['exchanged'] / 1e6:.3g} MB)" if it["collectives"] else "0" for it in steps]
    return [
        "yes" if line["fits"] else f"no: {line['says']}",
        f"{max(it['memory'] for it in steps) / 2**30:.3g} of {line['limit'] / 2**30:.3g}",
        " / ".join(f"{it['ms']:.3g}" for it in steps),
        " / ".join(str(it["kernels"]) for it in steps),
        " / ".join(exchanged),
        "yes" if any(it["images_exchanged"] for it in steps) else "no",
        str(sum(it["host"] for it in steps)),
    ]


def _reason(says: str) -> str:
    """The compiler's words without its status, and without the program's text that follows them."""
    words = re.sub(r"^[A-Z_]+: ", "", says.partition(" failed: ")[2] or says)
    return f'the compiler says "{re.split(r": | %", words)[0]}"'


def page(lines: dict[str, dict[str, Any]]) -> str:
    """The page of the documentation."""
    cells = all_cells()
    own = sorted((cell for cell in cells if not cell.method), key=lambda cell: cell.config)
    nine = (cell for cell in cells if cell.method and cell.settings in ((), tuple(NARROW.items())))
    small = sorted(nine, key=lambda cell: cell.config)
    many = [cell for cell in cells if cell.settings and cell.method == "mixup+sem" and cell.target[:4] == "v5e:"]
    found = [lines[cell.name] for cell in cells if cell.name in lines]
    compiled = sum("steps" in line for line in found)
    used = sorted({f"{name} {number}" for line in lines.values() for name, number in line["versions"].items()})
    return PAGE.format(
        compiled=compiled,
        refused=len(found) - compiled,
        cells=len(cells),
        used=", ".join(used),
        own=table(own, lines),
        small=table(small, lines),
        many=table(sorted(many, key=lambda cell: (len(cell.settings), cell.weight)), lines),
    )


PAGE = """\
# Every configuration, compiled for its hardware

Written by `python -m experiments.speed.targets --out=FILE --page=docs/targets.md`. Of {cells} cells, {compiled} were
compiled, and the compiler refused {refused} ({used}).

Nothing here ran on such hardware. Each program was compiled by that hardware's own compiler ([how](planning.md)).
Memory is what the program holds. The time is that compiler's estimate (TPU) or a roofline (H100) without launches, of
which each kernel takes one: a small net takes longer there. Two numbers are of a mixing step and of a plain one, where
a method has both. "Images exchanged" says whether a chip sends images to another one; those of the digits, 8x8, are
seen only where they keep their axes, since a row of 64 numbers may be anything. "Calls of the host" counts callbacks.

## Each file of configs/, with its own method

{own}

## The nine methods on two small nets

A method with ES consists of two programs that other methods have too.

{small}

## From 4 chips to 256

Each chip has as many images. Memory of a chip and the number of collectives hardly change with the number of chips.
What the collectives move grows by default: a pair may lie on two chips, so each chip is sent the clean features, labels
and draws of the whole batch; images are read again where they are needed. With `mixer.across_device=False` pairs lie on
one chip and no features travel.

{many}
"""


def main(argv: list[str] | None = None) -> int:
    options = parser("experiments.speed.targets", __doc__)
    options.add_argument("--out", type=Path, required=True, help="file of JSON lines, gone on with")
    options.add_argument("--page", type=Path, help="write the table there, as Markdown")
    options.add_argument("--texts", type=Path, metavar="DIR", help="keep the text of each compiled program, gzipped")
    options.add_argument("--minutes", type=float, default=1e9, help="begin no cell after so long")
    options.add_argument("--cells", default="", metavar="REGEX", help="only those whose name matches")
    args = options.parse_args(argv)
    begin = time.monotonic()
    with exit_on_error():
        targets.stay_off_devices()
        programs = Programs(args.texts)
        for cell in all_cells():
            known = read(args.out)
            if cell.name in known or not re.search(args.cells, cell.name):
                continue
            if time.monotonic() - begin >= 60 * args.minutes:
                break
            line = measure(cell, programs)
            with open(args.out, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
                file.flush()
                os.fsync(file.fileno())
            print(cell.name, line.get("says") or f"{line['steps'][0]['ms']:.3g} ms", flush=True)
        if args.page:
            args.page.write_text(page(read(args.out)), encoding="utf-8")
        return 0
    return 2  # for type checkers: exit_on_error has ended the process


if __name__ == "__main__":
    sys.exit(main())
