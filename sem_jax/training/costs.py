"""What a run will cost: the record of `plan`, and the page to read."""

from typing import NamedTuple

from sem_jax.errors import ConfigError
from sem_jax.system.program_text import Step


class StepPlan(NamedTuple):
    """One kind of step.

    Attributes:
      name: "mixing" or "plain".
      steps: of the whole run.
      seconds: of a step.
      flops, bytes: of a step on one device, by XLA's count; 0 = not known.
      memory: bytes of one device, data and state included.
      text: what the compiled program says of a step; None for a measured one.
    """

    name: str
    steps: int
    seconds: float
    flops: float
    bytes: float
    memory: int
    text: Step | None = None


class Plan(NamedTuple):
    """What a run will cost; `str` is a page to read.

    Attributes:
      title: method, data set and net.
      notes: what was assumed.
      hardware: name and number of the devices.
      devices: their number.
      memory_limit: bytes of one device; 0 = not known.
      parameters, features: of the net, counts.
      checkpoint: bytes of one, about.
      batch_size, epochs: of the configuration.
      steps: of one or two kinds.
      how: "measured" or how the time was estimated.
      image_shape: (h, w, c).
    """

    title: str
    notes: tuple[str, ...]
    hardware: str
    devices: int
    memory_limit: int
    parameters: int
    features: int
    checkpoint: int
    batch_size: int
    epochs: int
    steps: tuple[StepPlan, ...]
    how: str
    image_shape: tuple[int, ...]

    @property
    def memory(self) -> int:
        """Bytes of one device, of the step that needs most."""
        return max(step.memory for step in self.steps)

    @property
    def seconds(self) -> float:
        """Of all training steps; scoring, checkpoints and compiling come on top."""
        return sum(step.steps * step.seconds for step in self.steps)

    def check(self) -> None:
        """Raises a ConfigError where a device has too little memory."""
        if self.memory_limit and self.memory > self.memory_limit:
            raise too_large(self.hardware, f"{_gib(self.memory)} of {_gib(self.memory_limit)}")

    def __str__(self) -> str:
        limit = _gib(self.memory_limit) if self.memory_limit else "an unknown size"
        rows = [
            (
                "net",
                f"{self.parameters:,} parameters, {self.features:,} features, a checkpoint of {_mb(self.checkpoint)}",
            ),
            ("hardware", f"{self.hardware}, {self.batch_size // self.devices:,} images a device and step"),
            ("memory", f"{_gib(self.memory)} of {limit} a device"),
        ]
        for step in self.steps:
            speed = f"{1e3 * step.seconds:.3g} ms, {self.batch_size / step.seconds:,.0f} images/s"
            rows.append((f"{step.name} step", f"{speed}; {step.steps:,} of them"))
            if step.flops:
                moved = f", {step.bytes / 1e9:.3g} GB read and written" if step.bytes else ""
                rows.append(("", f"{step.flops / 1e9:,.4g} GFLOP{moved} a device"))
            if step.text:
                rows.append(("", _of_text(step.text)))
        rows.append(("training", f"{self.epochs:,} epochs, {_duration(self.seconds)} ({self.how})"))
        lines = [self.title, *(f"  {name:<14} {value}" for name, value in rows)]
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


def too_large(hardware: str, found: str) -> ConfigError:
    """The refusal of a program that needs more memory than a device has."""
    return ConfigError(
        f"does not fit into the memory of {hardware}: {found}",
        "Lower train.batch_size; or set train.gradient_accumulation=2 or runtime.remat=elementwise; or take more "
        "chips, as in --target=v5e:2x2.",
    )


def _of_text(step: Step) -> str:
    total = sum(it.bytes for it in step.collectives)
    kinds = {it.kind for it in step.collectives}
    text = f"{len(step.kernels):,} kernels"
    if step.loops:
        text += f", {len(step.loops)} inner loops"
    if kinds:
        text += f"; {len(step.collectives)} collectives of {_mb(total)} ({', '.join(sorted(kinds))})"
    if step.host:
        text += f"; {len(step.host)} calls of the host"
    return text


def _gib(size: float) -> str:
    return f"{size / (1 << 30):.3g} GiB"


def _mb(size: float) -> str:
    return f"{size / 1e6:.3g} MB"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
