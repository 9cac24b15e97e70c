"""What a compiled program costs, read from its text (`compiled.as_text()`): one step of a training call.

    step = read_step(compiled.as_text())
    step.cycles, step.kernels, step.collectives

A training call loops over its steps, so a step is the body of that loop. XLA:TPU writes its own estimate of the cycles
of every fusion into the text. It counts an inner loop once; here the loop counts as often as it runs. XLA:GPU writes no
estimate, so the time of a step is a roofline: the bytes that each kernel reads and writes over the memory's bandwidth,
or the operations of its convolution over the peak, whichever takes longer.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f64": 8, "s64": 8, "u64": 8}
_SHAPE = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_ASSIGNED = re.compile(r"^\s+(?:ROOT )?%([\w.\-]+) = (.*?[\]\})]) ([\w\-]+)\((.*)$")
_WHILE = re.compile(r" while\(.*condition=%([\w.\-]+), body=%([\w.\-]+)")
_CYCLES = re.compile(r'"estimated_cycles":"?(\d+)')
_HOST = re.compile(r" (infeed|outfeed)\(|is_host_transfer=true|custom_call_target=\"[^\"]*(callback|[Pp]ython|[Hh]ost)")
_COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "call", "after-all")


class Loop(NamedTuple):
    """A loop inside of a step."""

    name: str
    count: int | None  # how often it runs; None where the text does not say
    cycles: int  # of one round


class Kernel(NamedTuple):
    """One operation of a step that the device is given on its own."""

    name: str
    bytes: int  # of what it reads and writes
    flops: float  # of its convolution or matrix product, where the text shows it


class Collective(NamedTuple):
    """An exchange between devices in a step."""

    kind: str  # "all-reduce", ...
    bytes: int  # of its result
    shapes: tuple[tuple[int, ...], ...]  # of the arrays in its result


class Step(NamedTuple):
    """The costs of one step.

    Attributes:
      cycles: XLA:TPU's estimate; 0 for other hardware.
      loops: those inside of the step, whose cycles are counted in `cycles`.
      kernels: those of the step, without those of inner loops.
      collectives: exchanges between devices.
      host: operations in the whole program that wait for the host, such as callbacks.
    """

    cycles: int
    loops: tuple[Loop, ...]
    kernels: tuple[Kernel, ...]
    collectives: tuple[Collective, ...]
    host: tuple[str, ...] = ()


def read_step(text: str) -> Step:
    """The step of a training call that loops over its steps (`training.calls.make_call(looped=True)`)."""
    computations = dict(_computations(text))
    bodies = {match[2] for lines in computations.values() for line in lines if (match := _WHILE.search(line))}
    if not bodies:
        raise ValueError("the program has no loop over steps")
    body = max(bodies, key=lambda name: len(computations.get(name, ())))
    loops: list[Loop] = []
    cycles = _cycles(computations, body, loops)
    kernels = tuple(_kernels(computations, body))
    named = ((_ASSIGNED.match(line), line) for line in computations[body])
    collectives = tuple(
        Collective(match[3].removesuffix("-start"), _bytes_of(match[2]), _shapes(match[2]))
        for match, _ in named
        if match and match[3].removesuffix("-start") in _COLLECTIVES
    )
    host = tuple(line.strip()[:200] for lines in computations.values() for line in lines if _HOST.search(line))
    return Step(cycles, tuple(loops), kernels, collectives, host)


def has_images(collective: Collective, image: tuple[int, ...]) -> bool:
    """Whether images of this shape (h, w, c) are exchanged: an array has h, w and c among its axes, or h*w*c or h*w.

    Of images smaller than 32x32 only the first is looked for: 64 may be the pixels of an image of 8x8, or a batch. A
    kernel (k, k, in, out) is no image, though one of 3x3 for 32 channels has the axes of three of 32x32.

    >>> has_images(Collective("all-gather", 0, ((128, 3072),)), (32, 32, 3))
    True
    >>> has_images(Collective("all-reduce", 0, ((3, 3, 32, 32), (64,))), (32, 32, 3))
    False
    """
    height, width, channels = image
    written = [[height, width, channels]]
    if height * width >= 32 * 32:
        written += [[height * width, channels], [height * width * channels]]
    others = (it for it in collective.shapes if not (len(it) == 4 and it[0] == it[1] <= 7))
    return any(not Counter(form) - Counter(shape) for shape in others for form in written)


def roofline_seconds(step: Step, *, flops: float, bandwidth: float) -> float:
    """The least time of a step whose kernels run one after the other, launches not counted.

    Args:
      flops: the peak, FLOP/s.
      bandwidth: of the memory, bytes/s.
    """
    return sum(max(kernel.bytes / bandwidth, kernel.flops / flops) for kernel in step.kernels)


def _computations(text: str) -> Iterator[tuple[str, list[str]]]:
    lines: list[str] | None = None
    for line in text.splitlines():
        if line and not line.startswith((" ", "}")):
            match = _HEAD.match(line)
            lines = []
            if match:
                yield match[2], lines
        elif lines is not None:
            lines.append(line)


def _count(lines: list[str]) -> int | None:
    """How often a loop runs: the constant with which its condition compares."""
    found = (re.search(r"%([\w.\-]+) = s32\[\]\S* constant\((\d+)\)", line) for line in lines)
    constants = {match[1]: int(match[2]) for match in found if match}
    for line in lines:
        match = re.search(r"ROOT .* compare\(.*?%([\w.\-]+), .*?%([\w.\-]+)\).*direction=LT", line)
        if match and match[2] in constants:
            return constants[match[2]]
    return None


def _cycles(computations: dict[str, list[str]], name: str, loops: list[Loop]) -> int:
    total = 0
    for line in computations.get(name, ()):
        if match := _CYCLES.search(line):
            total += int(match[1])
        if match := _WHILE.search(line):
            count, inner = _count(computations.get(match[1], [])), _cycles(computations, match[2], loops)
            loops.append(Loop(match[2], count, inner))
            total += inner * (1 if count is None else count)
    return total


def _bytes_of(text: str) -> int:
    """Bytes of all arrays whose shapes are in a text; numbers of 4 bytes where nothing else is known."""
    return sum(_BYTES.get(kind, 4) * _elements(sides) for kind, sides in _SHAPE.findall(text))


def _shapes(text: str) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(map(int, filter(None, sides.split(",")))) for _, sides in _SHAPE.findall(text))


def _kernels(computations: dict[str, list[str]], body: str) -> Iterator[Kernel]:
    shapes = {m[1]: m[2] for line in computations[body] if (m := _ASSIGNED.match(line))}
    for line in computations[body]:
        match = _ASSIGNED.match(line)
        if not match or match[3] in _FREE or match[3].endswith("-done"):
            continue
        name, shape, operation, rest = match.groups()
        operands = re.findall(r"%([\w.\-]+)", rest.split("), ")[0])
        given = [shapes.get(operand, "") for operand in operands]
        size = _bytes_of(shape) + sum(map(_bytes_of, given))
        yield Kernel(f"{operation} {name}", size, _flops(line, shape, given))


def _flops(line: str, shape: str, operands: list[str]) -> float:
    """Twice the multiply-adds of a cuDNN convolution, forward or backward; 0 for anything else.

    Images have n h w c elements, the result n h' w' k, the kernel t c k for windows of t places. The multiply-adds are
    n h' w' c k t, which is t sqrt(product / t) divided by the stride: whichever of the three arrays is computed.
    """
    window = re.search(r"window=\{size=([\dx]+)(?:[^}]*?stride=([\dx]+))?", line)
    if "__cudnn$conv" not in line or window is None:
        return 0.0
    firsts = [_SHAPE.search(text) for text in (shape, *operands[:2])]
    if not all(firsts) or len(firsts) < 3:
        return 0.0
    product = math.prod(_elements(first[2]) for first in firsts if first)
    taps, strides = (math.prod(map(int, sides.split("x"))) for sides in (window[1], window[2] or "1"))
    return 2.0 * taps * math.sqrt(product / taps / strides)


def _elements(sides: str) -> int:
    return math.prod(map(int, filter(None, sides.split(","))))
