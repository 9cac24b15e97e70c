"""What a checkpoint's files unpack to is bounded before it is unpacked; what runs write passes."""

import shutil
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sem_jax.runs import array_files
from sem_jax.runs.array_files import Varints, check_array_files, check_size
from sem_jax.runs.checkpoint import Checkpoints
from sem_jax.runs.layout import items_of
from sem_jax.runs.manifest import Damaged
from sem_jax.runs.state import TrainState
from tests.helpers import bombs


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """(checkpoint, items) of a state with every kind of leaf: scalars, halves, named tuples, whole numbers."""
    folder = tmp_path_factory.mktemp("arrays")
    params = {"a": {"kernel": jnp.ones((3, 2))}, "scale": jnp.float32(2)}
    opt_state = optax.chain(optax.clip(1.0), optax.adamw(0.1)).init(params)
    state = TrainState(jnp.int32(7), params, {"bn": {"mean": jnp.ones(3, jnp.bfloat16)}}, opt_state)
    with Checkpoints(folder, keep=1, best=None) as checkpoints:
        checkpoints.save(7, state, {})
    return folder / "7", items_of(state)


def test_what_a_run_writes_passes_and_comes_back(written):
    path, items = written
    check_array_files(path, items)
    with Checkpoints(path.parent, keep=1, best=None) as checkpoints:
        like = TrainState(jnp.int32(0), **items["model"], **items["trainer"])
        found = checkpoints.restore(like)
    jax.tree.map(np.testing.assert_array_equal, items_of(found.state), items)


@pytest.mark.parametrize("name", ["a.kernel", "scale"])
def test_every_array_that_is_read_is_compared(written, tmp_path, name):
    path, items = written
    shutil.copytree(path, tmp_path / "7")
    bombs.change_array(tmp_path / "7", lambda about: about | {"shape": [1 << 40]}, f"params.{name}")
    with pytest.raises(Damaged, match=f"model: zarr.json of params.{name} has shape"):
        check_array_files(tmp_path / "7", items)


def test_an_array_that_is_not_there_is_damage(written):
    path, items = written
    with pytest.raises(Damaged, match="model: zarr.json of params.b has 0 bytes"):
        check_array_files(path, {"model": {"params": {"b": jnp.ones(3)}}})


def test_a_node_is_found_wherever_it_lies(tmp_path):
    node = bombs.node(bombs.TREE, bombs.zeros(1 << 20), 1)
    piece = 1 << 20
    for at in (0, 5, piece - 1, piece, piece - len(node) // 2, 3 * piece):
        (tmp_path / "file").write_bytes(b"\x0c" * at + node + b"\xdb" * 50)
        assert list(array_files._nodes(tmp_path / "file")) == [node], at


def test_bytes_of_files_and_arrays_belong_together():
    manifest = {"files": {"model/d/x": {"bytes": 100 << 20}}}
    like = lambda count: jax.ShapeDtypeStruct((count,), np.float32)  # noqa: E731
    check_size(manifest, like(25 << 20))
    with pytest.raises(Damaged, match="its files have 104857600 bytes, its arrays need 4"):
        check_size(manifest, like(1))
    with pytest.raises(Damaged, match="its arrays need 13107200000"):
        check_size(manifest, like(25 * (125 << 20)))
    check_size({"files": {}}, SimpleNamespace(shape=(1 << 28,), dtype=np.dtype(np.float32)))  # a gigabyte of zeros


def test_numbers_of_seven_bits_a_byte():
    values = [0, 1, 127, 128, 300, 1 << 33]
    assert Varints(b"".join(map(bombs.varint, values))).take(len(values)) == values
    with pytest.raises(IndexError):
        Varints(b"\x80").take(1)
    with pytest.raises(IndexError):
        Varints(b"\1").take(1 << 60)
