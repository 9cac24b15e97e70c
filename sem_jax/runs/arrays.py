"""The arrays of a checkpoint, as orbax writes and reads them.

write_alone(path, items)                                        # {"model": {...}, "trainer": {...}} of host arrays
check_shapes(path, manifest["arrays"], shapes_of(like))
items = read_arrays(path, like)                                 # the parts that `like` names
"""

import contextlib
from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from sem_jax.errors import RunError, one_line
from sem_jax.runs.array_files import check_array_files
from sem_jax.runs.manifest import Damaged


def shapes_of(items: dict) -> dict[str, str]:
    """ "float32[3,3,16]" of every array, by its place in the tree."""
    leaves = jax.tree_util.tree_leaves_with_path(items)
    return {jax.tree_util.keystr(path): f"{x.dtype}{list(x.shape)}".replace(" ", "") for path, x in leaves}


def check_shapes(path: Path, there: dict[str, str], here: dict[str, str]) -> None:
    """Compares with what is expected: orbax converts another dtype silently, and its message on shapes is long."""
    names = [name for name in sorted(there.keys() | here.keys()) if there.get(name) != here.get(name)]
    if names:
        name = names[0]
        raise RunError(
            f"Checkpoint {path} is of another model: {name} is {there.get(name, 'not there')}, "
            f"expected {here.get(name, 'none')}" + (f"; and {len(names) - 1} more" if len(names) > 1 else ""),
            "Use the configuration and the version it was written with.",
        )


def reason_of(error: BaseException) -> str:
    return getattr(error, "strerror", None) or one_line(error, 200)


def read_arrays(path: Path, like: dict, sharding: jax.sharding.Sharding | None = None, *, alone: bool = False) -> dict:
    """The parts of a checkpoint that `like` names, in its shapes and dtypes, on `sharding` or else where `like` is.

    Args:
      alone: of several processes, each reads from a disk of its own.
    """
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding or x.sharding), like)
    try:
        check_array_files(path, like)
        with ocp.Context(multiprocessing_options=_alone(ocp)) if alone else contextlib.nullcontext():
            return ocp.load_checkpointables(str(path), shapes)
    except Damaged as error:
        raise RunError(f"Checkpoint {path} is damaged: {error}", "Choose another one, or move it away.") from None
    except Exception as error:  # orbax raises many types, bare Exception among them
        raise RunError(
            f"Checkpoint {path} cannot be restored: {reason_of(error)}",
            "It is undamaged; perhaps another version of orbax-checkpoint wrote it: see versions in its manifest.json.",
        ) from error


def write_alone(path: str, items: dict) -> None:
    """Writes host arrays in this process, which waits for no other one."""
    if jax.process_count() == 1:
        return ocp.save_checkpointables(path, items)
    import orbax.checkpoint as v0  # in v1, all processes of a run write or none

    options = {"use_ocdbt": True, "use_zarr3": True, "multiprocessing_options": _alone(v0)}
    each = {name: v0.PyTreeCheckpointHandler(**options) for name in items}
    whole = v0.CompositeOptions(multiprocessing_options=_alone(v0))
    handler = v0.CompositeCheckpointHandler(composite_options=whole, **each)  # type: ignore[arg-type]
    with v0.Checkpointer(handler, multiprocessing_options=_alone(v0)) as checkpointer:
        checkpointer.save(path, args=v0.args.Composite(**{name: v0.args.PyTreeSave(it) for name, it in items.items()}))


def _alone(orbax: Any) -> Any:
    """The options of orbax, or of its v1, with which this process waits for no other one."""
    me = jax.process_index()
    options = {"primary_host": me, "active_processes": {me}, "barrier_sync_key_prefix": f"alone{me}"}
    return orbax.options.MultiprocessingOptions(**options)
