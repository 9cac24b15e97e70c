"""Files of a corrupted set that have each other's names are found; a true set of another program is never refused."""

import itertools

import numpy as np
import pytest
from sklearn.datasets import load_sample_images

from sem_jax.errors import DataError
from sem_jax.evaluation import corruptions
from sem_jax.evaluation.corruptions import corrupt, names
from sem_jax.evaluation.corruptions.names import IMAGES, SEVERITY, check_names, exchanged
from sem_jax.evaluation.corruptions.published import Published, open_arrays
from sem_jax.interfaces import Split

NAMES = ("impulse_noise", "defocus_blur", "brightness", "contrast", "pixelate", "jpeg_compression")


@pytest.fixture(scope="module", autouse=True)
def small_blocks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corruptions, "BLOCK_PIXELS", IMAGES * 32 * 32)
        yield


@pytest.fixture(scope="module")
def clean():
    """Crops of two photographs at a quarter of their size, so that one has as much content as a small picture."""
    pictures, rng = [picture[::4, ::4] for picture in load_sample_images().images], np.random.default_rng(0)
    crops = []
    for i in range(IMAGES):
        top, left = (rng.integers(0, side - 32) for side in pictures[0].shape[:2])
        crops.append(pictures[i % 2][top : top + 32, left : left + 32])
    return np.stack(crops)


@pytest.fixture(scope="module")
def files(clean):
    """(name, severity) -> images of draws that the check does not make."""
    return {(name, s): corrupt(clean, name, s, seed=9) for name in NAMES for s in (4, 5)}


def opened(holds, layout="arrays"):
    """A set; `holds` maps each name to the images of its file."""

    def read(name, severity):
        assert severity == SEVERITY
        return Split(holds[name], np.zeros(len(holds[name]), np.int32))

    return Published(layout, "/data/CIFAR-10-C", tuple(holds), read)


def fake(files, severity=5, **moved):
    """A set whose file of each name holds what `moved` says, or its own."""
    return opened({name: files[moved.get(name, name), severity] for name in NAMES})


@pytest.mark.parametrize("severity", [4, 5])
def test_true_set_passes(clean, files, severity):
    """Also where the other program's corruptions are weaker throughout."""
    assert check_names(fake(files, severity), clean) == ""


def test_true_set_with_other_tones_passes(clean, files):
    """Each file a little lighter, of less contrast or noisier than ours, in all pairs of such differences."""
    rng = np.random.default_rng(0)
    changes = (lambda x: x, lambda x: x + 12, lambda x: 128 + 0.85 * (x - 128), lambda x: x + rng.normal(0, 6, x.shape))
    for first, second in itertools.product(changes, changes):
        holds = {}
        for i, name in enumerate(NAMES):
            changed = (first, second)[i % 2](files[name, 4 + i % 2].astype(float))
            holds[name] = np.clip(changed, 0, 255).astype(np.uint8)
        assert check_names(opened(holds), clean) == ""


@pytest.mark.parametrize("pair", list(itertools.combinations(NAMES, 2)), ids="-".join)
def test_exchange_of_two_is_refused(clean, files, pair):
    a, b = pair
    with pytest.raises(DataError) as caught:
        check_names(fake(files, **{a: b, b: a}), clean)
    lines = str(caught.value).splitlines()
    assert len(lines) <= 3 and lines[0].startswith("/data/CIFAR-10-C: 2 files seem to have each other's names")
    assert f"{a}.npy looks like {b}" in lines[0] and f"{b}.npy looks like {a}" in lines[0]


def test_cycle_of_three_is_refused(clean, files):
    moved = {"brightness": "contrast", "contrast": "pixelate", "pixelate": "brightness"}
    said = ", ".join(f"{file}.npy looks like {name}" for file, name in moved.items())
    with pytest.raises(DataError, match=f"3 files seem .*: {said}"):
        check_names(fake(files, **moved), clean)


def test_without_a_cycle_nothing_is_refused(clean, files):
    """Two files of one content are another fault, or a program that differs: not to be guessed at."""
    assert check_names(fake(files, brightness="contrast"), clean) == ""


def test_margin_and_factor_are_needed():
    """Files that are nearer to each other's place, but not clearly; snow and frost never."""
    near, far = np.array([[0.9, 0.5], [0.5, 0.9]]), np.array([[0.9, 0.4], [0.4, 0.9]])
    assert exchanged(near, ["fog", "contrast"]) == {}
    assert exchanged(far, ["fog", "contrast"]) == {"fog": "contrast", "contrast": "fog"}
    assert exchanged(far * 0.5, ["fog", "contrast"]) == {}
    assert exchanged(far, ["snow", "frost"]) == {}


def test_reads_the_last_block_of_arrays(clean, files, tmp_path):
    """Rows of severity 5 as they lie in the published files, in a set of more images than are looked at."""
    labels = np.arange(IMAGES + 3) % 10
    np.save(tmp_path / "labels.npy", np.tile(labels, 5).astype(np.uint8))
    pair = ("brightness", "contrast")
    for name, holds in zip(pair, pair[::-1], strict=True):
        array = np.zeros((5, IMAGES + 3, 32, 32, 3), np.uint8)
        array[4, :IMAGES] = files[holds, 5]
        np.save(tmp_path / f"{name}.npy", array.reshape(-1, 32, 32, 3))
    corrupted = open_arrays(str(tmp_path), clean_labels=labels, names=pair)
    more = np.concatenate([clean, clean[:3]])
    with pytest.raises(DataError, match=f"{tmp_path}: 2 files"):
        check_names(corrupted, more)


@pytest.mark.parametrize(
    "layout, count, size, said",
    [("tfds", IMAGES, 32, "order"), ("arrays", 5, 32, "16 clean"), ("arrays", IMAGES, 48, "same size")],
)
def test_left_out_with_a_note(files, monkeypatch, layout, count, size, said):
    monkeypatch.setattr(names, "corrupt", None)  # nothing is generated
    holds = {name: files[name, 5] for name in NAMES}
    note = check_names(opened(holds, layout), np.zeros((count, size, size, 3), np.uint8))
    assert "not checked" in note and said in note
