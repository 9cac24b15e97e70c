"""Export: parameters and the inference program, read back and compared; damaged files."""

import hashlib
import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from sem_jax.convert.export import flat_arrays, load_program, main
from sem_jax.convert.files import read_safetensors
from sem_jax.data import DATASETS
from sem_jax.errors import RunError
from sem_jax.runs.opening import open_run
from tests.helpers.runs import write_run

PAGE_BLOCKS = re.findall(r"```py\n(.*?)```", (Path(__file__).parents[2] / "docs" / "sharing.md").read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "run"
    write_run(folder, "", val_size=0, steps=(1, 2), name="digits")
    return folder


def assert_damage_is_named(read, path, damages):
    kind = {".safetensors": "safetensors", ".stablehlo": "StableHLO"}[path.suffix]
    for damage in damages:
        path.write_bytes(damage)
        with pytest.raises(RunError, match=f"{path.name} cannot be read as {kind}") as caught:
            read(path)
        assert len(str(caught.value).splitlines()) <= 3


def test_parameters_as_safetensors(run, tmp_path, monkeypatch):
    pytest.importorskip("safetensors")
    from safetensors import safe_open

    out = tmp_path / "deep" / "net.safetensors"
    main([f"--workdir={run}", f"--out={out}", "--checkpoint=1"])
    opened = open_run(run, "1")
    arrays, expected = read_safetensors(out), flat_arrays(opened.variables)
    assert set(arrays) == set(expected) and "params/stage1_block1/conv1/kernel" in arrays
    for name in expected:
        np.testing.assert_array_equal(arrays[name], expected[name])
    with safe_open(out, framework="numpy") as file:
        metadata = file.metadata()
    (_, lines) = (block for block in PAGE_BLOCKS if "sem_jax" not in block)
    monkeypatch.chdir(out.parent)
    exec(lines, found := {})
    assert found["about"]["class_names"] == list("0123456789") and set(found["arrays"]) == set(expected)
    assert json.loads(metadata["config.json"])["model"]["name"] == "wide_resnet" and metadata["step"] == "1"
    assert json.loads(metadata["class_names"]) == list("0123456789")
    assert json.loads(metadata["image_shape"]) == [8, 8, 1] and json.loads(metadata["mean"]) == list(opened.data.mean)
    assert_damage_is_named(read_safetensors, tmp_path / "bad.safetensors", [b"", out.read_bytes()[:-9], b"\xff" * 64])


def test_the_program_predicts_what_the_checkpoint_does_for_any_number_of_images(run, tmp_path, rng, monkeypatch):
    pytest.importorskip("flatbuffers")
    out = tmp_path / "net.stablehlo"
    main([f"--workdir={run}", f"--out={out}", "--format=stablehlo"])
    assert jax.export.deserialize(bytearray(out.read_bytes())).platforms == ("cpu", "cuda", "tpu")
    opened, predict = open_run(run), load_program(out)
    source = DATASETS["digits"]
    (program, _) = (block for block in PAGE_BLOCKS if "sem_jax" not in block)
    monkeypatch.chdir(tmp_path)
    for count in (1, 5):
        images = rng.integers(0, 256, (count, 8, 8, 1), dtype=np.uint8)
        features, logits, probabilities = predict(images)
        scaled = (images.astype(np.float32) / 255 - np.float32(source.mean)) / np.float32(source.std)
        expected = opened.model.apply(opened.variables, scaled.astype(np.float32), train=False)
        np.testing.assert_allclose(features, expected.features, atol=1e-4, rtol=1e-4)
        np.testing.assert_allclose(logits, expected.logits, atol=1e-4, rtol=1e-4)
        exponents = np.exp(np.float64(logits) - np.max(logits))
        np.testing.assert_allclose(probabilities, exponents / exponents.sum(-1, keepdims=True), atol=1e-6)
    exec(program, found := {"images": images})
    assert found["names"] == [str(label) for label in np.asarray(logits).argmax(-1)]
    assert found["about"]["image_shape"] == [8, 8, 1] and found["about"]["step"] == 2
    content = out.read_bytes()
    assert found["about"]["sha256"] == hashlib.sha256(content).hexdigest()
    damages = [b"", content[: len(content) // 2], b"\x01" * 100]
    assert_damage_is_named(load_program, tmp_path / "bad.stablehlo", damages)


def test_what_cannot_be_exported_is_refused(run, tmp_path, capsys):
    pytest.importorskip("safetensors")
    for arguments, message in (
        ([f"--workdir={tmp_path / 'none'}", f"--out={tmp_path / 'x'}"], "does not exist"),
        ([f"--workdir={run}", f"--out={tmp_path}"], "is a folder; give a file"),
        ([f"--workdir={run}", f"--out={tmp_path / 'x'}", "--checkpoint=9"], "no checkpoint of step 9"),
    ):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        said = capsys.readouterr().err
        assert caught.value.code == 2 and message in said and len(said.strip().splitlines()) <= 3
