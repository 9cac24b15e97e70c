"""What a configuration will cost: parameters, operations, memory, collectives and time, before anything is rented.

    print(plan(cfg, target="v5e:2x2"))      # compiled by that hardware's compiler: estimated
    print(plan(cfg))                        # a few real steps on the devices at hand: measured

No run folder is made. The images are made up, with the shape and number of the data set's, so a public set need not be
here.
"""

import math
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from sem_jax import config as config_lib
from sem_jax import data as data_lib
from sem_jax.errors import ConfigError, one_line
from sem_jax.interfaces import Dataset, Split
from sem_jax.registry import lookup
from sem_jax.system import targets
from sem_jax.system.compiler import step_options
from sem_jax.system.program_text import read_step, roofline_seconds
from sem_jax.training import assemble
from sem_jax.training.ahead_of_time import Calls, sizes_of
from sem_jax.training.costs import Plan, StepPlan, too_large
from sem_jax.training.programs import Programs

IMAGENET = 1_281_167, 1000, 224  # images, classes and pixels of a side, where a folder of images is not at hand
Reader = Callable[[Any, targets.Target, dict[str, Any]], StepPlan]
SECONDS, LEAST = 10.0, 3  # real steps are timed for so long, but so many of them at least


def plan(cfg: ConfigDict, target: str = "", *, read: Reader | None = None) -> Plan:
    """Plans a run.

    Args:
      cfg: a validated configuration.
      target: hardware that is not here, see `system.targets.find_target`; "" = the devices at hand.
      read: the costs of a lowered call on a target, with options of its compiler; default: `read_compiled`.

    Raises:
      ConfigError: an unknown target, a compiler that is not installed, a configuration that does not work with its
        data, or a program that does not fit into the device's memory, with what to change.
    """
    dataset, notes = _made_up(cfg)
    if not target:
        return _measured(cfg, dataset, notes)
    return _compiled(cfg, dataset, notes, targets.find_target(target), read or read_compiled)


def _made_up(cfg: ConfigDict) -> tuple[Dataset, tuple[str, ...]]:
    """A data set of the right shape and number that takes no memory."""
    source, notes = lookup(data_lib.DATASETS, "data set", cfg.data.name), ()
    number, classes, side = source.train_size, source.num_classes, source.image_size
    depends = number is None or classes is None or side is None
    if number is None or classes is None or side is None:
        number, classes, side = IMAGENET
    side = cfg.data.image_size or side
    number = cfg.data.train_size or number - cfg.data.val_size
    classes = cfg.model.num_classes or classes
    if depends:
        notes = (
            f"Assumed, as {cfg.data.name} depends on your data: {number:,} images of {side}x{side} in {classes:,} "
            "classes; set data.train_size, data.image_size and model.num_classes.",
        )
    shape = (side, side, source.channels or 3)
    split = Split(np.broadcast_to(np.uint8(0), (number, *shape)), np.broadcast_to(np.int32(0), (number,)))
    names = tuple(map(str, range(classes)))
    statistics = (0.5,) * shape[2], (0.25,) * shape[2]
    return Dataset(cfg.data.name, {"train": split}, names, *statistics, ""), notes


def _kinds(cfg: ConfigDict, lengths: assemble.Lengths) -> dict[str, int]:
    """Steps of the whole run by kind."""
    mixing = 0 if cfg.mixer.name == "none" else min(cfg.mixer.stop_epoch * lengths.epoch, lengths.total)
    return {name: steps for name, steps in (("mixing", mixing), ("plain", lengths.total - mixing)) if steps}


def _compiled(cfg: ConfigDict, dataset: Dataset, notes: tuple[str, ...], target: targets.Target, read: Reader) -> Plan:
    chip = target.chip
    if cfg.model.dtype == "auto":
        cfg = cfg.copy_and_resolve_references()
        cfg.model.dtype = "bfloat16"
    with targets.compiling_for(target) as devices:
        devices = devices[: cfg.runtime.devices or None]
        config_lib.validate(cfg, num_devices=len(devices))
        calls = Calls(cfg, dataset, devices, memory=chip.memory)
        options = targets.compiler_options(target) | step_options(devices[0].device_kind, vmem=cfg.runtime.vmem)
        steps = []
        for name, count in _kinds(cfg, calls.lengths).items():
            every = cfg.objective.penalty_every if name == "mixing" else 1
            parts = [(call, part) for call, part in zip(calls.lower(name), (1 / every, 1 - 1 / every), strict=False)]
            for i, (lowered, share) in enumerate(parts):
                label = name if len(parts) == 1 else f"{name}, {'without' if i else 'with'} penalty"
                steps.append(read(lowered, target, options)._replace(name=label, steps=round(count * share)))
    how = f"roofline over the program compiled by XLA:GPU for {chip.name}, not measured; launches are not counted"
    if chip.kind == "tpu":
        how = f"estimated by XLA:TPU at {chip.clock / 1e9:.2f} GHz, not measured"
    return Plan(
        _title(cfg),
        notes,
        f"{len(devices)} x {chip.name}",
        len(devices),
        chip.memory,
        calls.net.parameters,
        calls.net.features,
        calls.net.checkpoint,
        cfg.train.batch_size,
        cfg.train.epochs,
        tuple(steps),
        how,
        dataset.splits["train"].images.shape[1:],
    )


def read_compiled(
    lowered: Any, target: targets.Target, options: dict[str, Any], *, keep: Callable[[str], object] | None = None
) -> StepPlan:
    """Compiles a `jax.stages.Lowered` call for a target; the costs of a step of it, without name and number.

    Args:
      options: of the compiler.
      keep: called with the compiled program's text.

    Raises:
      ConfigError: it does not fit into the device's memory, or the compiler fails.
    """
    try:
        program = lowered.compile(compiler_options=options)
    except Exception as error:
        found = str(error)
        if "RESOURCE_EXHAUSTED" not in found and "out of memory" not in found.lower():
            if not isinstance(error, jax.errors.JaxRuntimeError):
                raise
            raise ConfigError(
                f"the compiler for {target.text} failed: {one_line(error)[:200]}",
                "On the hardware itself more is tried than ahead of time, so it may compile there.",
            ) from error
        sentences = (part for part in found.replace("\n", " ").split(". ") if "Used" in part or "memory" in part)
        raise too_large(target.text, next(sentences, found)[:200]) from error
    text = program.as_text()
    if keep:
        keep(text)
    chip, step = target.chip, read_step(text)
    memory = program.memory_analysis()
    used = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    cost = program.cost_analysis() or {}
    flops, moved = max(cost.get("flops", 0.0), 0.0), max(cost.get("bytes accessed", 0.0), 0.0)
    if chip.kind == "tpu":
        seconds = step.cycles / chip.clock
    else:
        flops, moved = sum(kernel.flops for kernel in step.kernels), sum(kernel.bytes for kernel in step.kernels)
        seconds = roofline_seconds(step, flops=chip.flops, bandwidth=chip.bandwidth)
    return StepPlan("", 0, seconds, flops, moved, used - memory.alias_size_in_bytes, step)


def _measured(cfg: ConfigDict, dataset: Dataset, notes: tuple[str, ...]) -> Plan:
    """Times real steps on random images, of which there are only as many as a few steps need."""
    train = dataset.splits["train"]
    lengths, batch_size = assemble.lengths(cfg, len(train.labels)), cfg.train.batch_size
    number, shape = min(len(train.labels), 4 * batch_size), train.images.shape[1:]
    rng = np.random.default_rng(0)
    labels = np.arange(number, dtype=np.int32) % len(dataset.class_names)
    few = Split(rng.integers(0, 256, (number, *shape), dtype=np.uint8), labels)
    small = cfg.copy_and_resolve_references()
    if cfg.data.crop_scale:
        notes = (*notes, "Images are not decoded here: data.crop_scale is left out.")
        small.data.crop_scale = 0.0
    small.train.epochs = max(1, cfg.train.epochs)
    programs = Programs(small, dataset._replace(splits={"train": few, "test": few}))
    try:
        steps = tuple(_timed(programs, name, count) for name, count in _kinds(cfg, lengths).items())
        net = sizes_of(programs.model, assemble.optimizer(cfg, 0.1), jax.random.key(0), shape, assemble.averages(cfg))
    finally:
        programs.close()
    device = programs.devices[0]
    resident = math.prod((len(train.labels) - number, *shape))  # the images that were left out
    limit = (device.memory_stats() or {}).get("bytes_limit", 0)
    if cfg.runtime.residency in ("auto", "device") and not cfg.data.crop_scale:
        steps = tuple(step._replace(memory=step.memory + resident) for step in steps)
    return Plan(
        _title(cfg),
        notes,
        f"{len(programs.devices)} x {device.device_kind}",
        len(programs.devices),
        limit,
        net.parameters,
        net.features,
        net.checkpoint,
        batch_size,
        cfg.train.epochs,
        steps,
        "measured on random images",
        shape,
    )


def _timed(programs: Programs, name: str, count: int) -> StepPlan:
    stage = programs.mixing if name == "mixing" else programs.plain
    state, order = programs.initial_state(), programs.order(0)
    sums = programs.prepare(stage, state, order)
    state, sums = jax.block_until_ready(programs.run(stage, state, sums, order, first=0, count=1))
    begin, done = time.perf_counter(), 0
    while done < LEAST or time.perf_counter() - begin < SECONDS:
        state, sums = jax.block_until_ready(programs.run(stage, state, sums, order, first=done % len(order), count=1))
        done += 1
    seconds = (time.perf_counter() - begin) / done
    memory = stage.calls[0].memory_analysis()
    used = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    cost = stage.calls[0].cost_analysis() or {}
    flops, moved = cost.get("flops", 0.0), cost.get("bytes accessed", 0.0)
    return StepPlan(name, count, seconds, max(flops, 0.0), max(moved, 0.0), used - memory.alias_size_in_bytes)


def _title(cfg: ConfigDict) -> str:
    return f"{config_lib.method_of(cfg)} | {cfg.data.name} | {cfg.model.name}, batch {cfg.train.batch_size:,}"
