"""What a run starts from: every layout comes back bit for bit; what is resized, drawn anew and refused."""

import hashlib
import json
import os
import zipfile

import jax
import numpy as np
import pytest

from sem_jax.convert.__main__ import main as convert
from sem_jax.convert.export import flat_arrays
from sem_jax.convert.files import read_state_dict, write_safetensors
from sem_jax.convert.layouts import HALF, IMAGENET, NAMINGS
from sem_jax.convert.naming import named_leaves, to_state_dict
from sem_jax.convert.pretrained import open_start
from sem_jax.errors import RunError, SemError
from sem_jax.models import make_model
from sem_jax.runs.opening import open_run, read_facts
from tests.helpers.data_sets import write_tree
from tests.helpers.hub_server import HubServer
from tests.helpers.runs import random_state
from tests.runs.conftest import own_home, place, run_dir  # noqa: F401  a run folder without training

pytest.importorskip("safetensors")

SMALL = {  # layout -> the fields of a small model, the side of its images
    "preact_resnet": ({"name": "preact_resnet", "width": 2, "variant": "v2"}, 8),
    "wide_resnet": ({"name": "wide_resnet", "depth": 10, "width": 1}, 8),
    "resnet": ({"name": "resnet", "depth": 18, "width": 2, "stem": "7x7s2"}, 32),
    "convnext": ({"name": "convnext", "depth": 6, "width": 4, "patch_size": 1}, 8),
    "convnext_torchvision": ({"name": "convnext", "depth": 6, "width": 4, "patch_size": 1}, 8),
    "vit": ({"name": "vit", "depth": 1, "width": 16, "patch_size": 4}, 16),
    "vit_torchvision": ({"name": "vit", "depth": 1, "width": 16, "patch_size": 4}, 16),
    "mlp_mixer": ({"name": "mlp_mixer", "depth": 1, "width": 16, "patch_size": 4}, 16),
}
NAMES = ("ant", "bee", "cat", "dog", "elk")


def small(layout, classes=5, side=0):
    """(model, its name, random variables, side of the images)"""
    fields, usual = SMALL[layout]
    model, side = make_model(**fields, num_classes=classes, dtype="float32"), side or usual
    state = (
        random_state(model, (side, side, 3), 1, seed=0) if layout not in STATELESS else _without_statistics(model, side)
    )
    return model, fields["name"], {"params": state.params, "batch_stats": state.batch_stats}, side


STATELESS = ("convnext", "convnext_torchvision", "vit", "vit_torchvision", "mlp_mixer")


def _without_statistics(model, side):
    class Padded:  # `random_state` wants the statistics of BatchNorm
        @staticmethod
        def init(*arguments, **options):
            return {"batch_stats": {}, **model.init(*arguments, **options)}

    return random_state(Padded, (side, side, 3), 1, seed=0)


def start_from(text, model, name, side, names=NAMES, **options):
    return open_start(str(text), model, name, image_shape=(side, side, 3), class_names=names, **options)


def equal(start, variables):
    leaves = dict(named_leaves(variables))
    assert set(start.arrays) <= set(leaves)
    for path, array in start.arrays.items():
        np.testing.assert_array_equal(array, leaves[path], err_msg=str(path))
    return set(leaves) - set(start.arrays)


def test_a_converted_run_has_the_normalisation_of_its_source(tmp_path, capsys):
    """And what starts from it follows."""
    model, name, variables, side = small("mlp_mixer", classes=2)
    data = write_tree(tmp_path / "photos", size=side)
    write_safetensors(tmp_path / "net.safetensors", to_state_dict("mlp_mixer", variables), {})
    command = [f"--from={tmp_path / 'net.safetensors'}", "--data=image_folder", f"--data-dir={data}"]
    convert([*command, f"--workdir={tmp_path / 'run'}"])
    assert "normalised with mean (0.5, 0.5, 0.5) and std (0.5, 0.5, 0.5)" in capsys.readouterr().out
    assert start_from(tmp_path / "run", model, name, side, ("cat", "dog")).normalisation == HALF
    convert([*command, f"--workdir={tmp_path / 'other'}", "--mean", ".1", ".2", ".3"])
    assert read_facts(tmp_path / "other" / "data.json").mean == (0.1, 0.2, 0.3)


def test_every_layout_is_tried():
    assert set(SMALL) == set(NAMINGS)


@pytest.mark.parametrize("layout", SMALL)
def test_a_file_of_every_layout_starts_a_run_bit_for_bit(layout, tmp_path):
    model, name, variables, side = small(layout)
    arrays = to_state_dict(layout, variables)
    write_safetensors(tmp_path / "w.safetensors", arrays, {})
    start = start_from(tmp_path / "w.safetensors", model, name, side)
    assert not equal(start, variables) and start.record["layout"] == NAMINGS[layout].source
    assert start.record["sha256"] == hashlib.sha256((tmp_path / "w.safetensors").read_bytes()).hexdigest()
    assert start.record["loaded"] == {
        "arrays": len(jax.tree.leaves(variables)),
        "numbers": sum(x.size for x in jax.tree.leaves(variables)),
    }
    expected = {"preact_resnet": None, "wide_resnet": None, "vit": HALF, "mlp_mixer": HALF}.get(layout, IMAGENET)
    assert start.normalisation == expected
    jax.tree.map(np.testing.assert_array_equal, start.onto(jax.tree.map(np.zeros_like, variables)), variables)


def test_a_head_of_other_classes_is_drawn_anew_and_positions_are_resized(tmp_path):
    _, name, variables, side = small("vit")
    arrays = to_state_dict("vit", variables)
    write_safetensors(tmp_path / "w.safetensors", arrays, {})
    model = make_model(**SMALL["vit"][0], num_classes=3, dtype="float32")
    start = start_from(tmp_path / "w.safetensors", model, name, 24, NAMES[:3])
    assert start.record["drawn_anew"] == ["classifier/bias", "classifier/kernel"]
    assert start.record["resized"] == ["positions from 4x4 to 6x6 patches (bicubic)"]
    assert len(str(start).splitlines()) == 3
    found = start.arrays["params", "positions"]
    assert found.shape == (1, 37, 16)
    np.testing.assert_array_equal(found[:, 0], arrays["pos_embed"][:, 0])


@pytest.mark.slow
def test_positions_are_resized_as_timm_does(tmp_path):
    torch = pytest.importorskip("torch")
    resample = pytest.importorskip("timm.layers").resample_abs_pos_embed
    model, name, variables, _ = small("vit")
    arrays = to_state_dict("vit", variables)
    write_safetensors(tmp_path / "w.safetensors", arrays, {})
    for sides in (6, 3):
        ours = start_from(tmp_path / "w.safetensors", model, name, 4 * sides).arrays["params", "positions"]
        theirs = resample(torch.from_numpy(arrays["pos_embed"].copy()), [sides, sides])
        np.testing.assert_allclose(ours, theirs.numpy(), atol=2e-6)


def test_a_checkpoint_exported_under_our_names_brings_its_normalisation_and_classes(tmp_path):
    model, name, variables, side = small("mlp_mixer")
    facts = {"mean": [0.1, 0.2, 0.3], "std": [1, 2.5, 3], "class_names": list(NAMES)}
    write_safetensors(tmp_path / "w.safetensors", flat_arrays(variables), {"data.json": json.dumps(facts)})
    start = start_from(tmp_path / "w.safetensors", model, name, side)
    assert not equal(start, variables) and start.normalisation == ((0.1, 0.2, 0.3), (1.0, 2.5, 3.0))
    other = start_from(tmp_path / "w.safetensors", model, name, side, ("a", "b", "c", "d", "e"))
    assert {path[1] for path in equal(other, variables)} == {"classifier"}  # as many classes, but others


def test_a_run_folder_is_a_source(run_dir):  # noqa: F811
    run = open_run(run_dir)
    start = start_from(run_dir, run.model, "wide_resnet", 32, run.data.class_names)
    assert not equal(start, run.variables) and start.normalisation == (run.data.mean, run.data.std)
    assert start.record["source"] == run_dir.name and start.record["step"] == 3
    other = start_from(run_dir, run.model, "wide_resnet", 32, tuple(f"not {it}" for it in run.data.class_names))
    assert {path[1] for path in equal(other, run.variables)} == {"classifier"}


def test_a_hub_gives_file_revision_digest_and_normalisation(tmp_path, monkeypatch):
    pytest.importorskip("huggingface_hub")
    model, name, variables, side = small("vit")
    write_safetensors(tmp_path / "w.safetensors", to_state_dict("vit", variables), {})
    content = (tmp_path / "w.safetensors").read_bytes()
    config = {"architecture": "vit", "pretrained_cfg": {"mean": [0.485, 0.456, 0.406], "std": [0.2, 0.2, 0.2]}}
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("SEM_JAX_CACHE", str(tmp_path / "cache"))
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        commit = server.add("timm/vit", {"model.safetensors": content, "config.json": json.dumps(config).encode()})
        server.add("timm/none", {"weights.safetensors": content, "config.json": b"{}"})
        start = start_from("hf://timm/vit", model, name, side)
        assert not equal(start, variables)
        assert start.normalisation == ((0.485, 0.456, 0.406), (0.2, 0.2, 0.2))
        assert start.record["revision"] == commit and start.record["source"] == "hf://timm/vit"
        assert start.record["sha256"] == hashlib.sha256(content).hexdigest() and commit[:12] in str(start)
        named = start_from("hf://timm/none/weights.safetensors", model, name, side)
        assert not equal(named, variables) and named.normalisation == HALF
        with pytest.raises(RunError, match="hf://timm/none has no model.safetensors\nName its file of weights"):
            start_from("hf://timm/none", model, name, side)


def wrong_files(arrays):
    """name -> (arrays of a file for the small ViT, what the refusal says)"""
    bad = arrays["norm.weight"] + np.where(np.arange(16) == 3, np.nan, 0).astype(np.float32)
    renamed = {name.replace("attn.qkv", "attn.in_proj"): array for name, array in arrays.items()}
    return {
        "missing": ({k: v for k, v in arrays.items() if ".mlp.fc2" not in k}, "2 missing: blocks.0.mlp.fc2.bias, "),
        "unknown": (
            arrays | {"fc_norm.weight": np.ones(16)},
            "1 unknown: fc_norm.weight\nIts model: --config.model.na",
        ),
        "shape": (arrays | {"norm.bias": np.ones(15)}, r"1 of another shape: norm.bias \[15\]"),
        "qkv": (arrays | {"blocks.0.attn.qkv.bias": np.ones(47)}, r"1 of another shape: blocks.0.attn.qkv.bias \[47\]"),
        "positions": (arrays | {"pos_embed": np.ones((1, 18, 16))}, r"1 of another shape: pos_embed \[1, 18, 16\]"),
        "finite": (arrays | {"norm.weight": bad}, "params/final_norm/scale is not finite"),
        "nearest": (renamed, "is nearest to timm's ViT, but these names of it are not: blocks.0.attn.in_proj"),
        "other": ({"encoder.weight": np.ones(2)}, "is none of mixup-cifar10's PreActResNet, .*it holds encoder.weight"),
        "family": (to_state_dict("mlp_mixer", small("mlp_mixer")[2]), "is timm's MLP-Mixer, but model.name is 'vit'\n"),
        "large": (arrays | {"x": np.ones(20_000_000)}, "w.safetensors holds 160,.* bytes, at most 6.* are read"),
        "ours": ({"params/a/kernel": np.ones(2)}, "1 unknown: params/a/kernel"),
    }


def test_what_does_not_fit_is_refused_with_the_names_and_the_settings(tmp_path):
    model, name, variables, side = small("vit")
    for case, (arrays, message) in wrong_files(to_state_dict("vit", variables)).items():
        write_safetensors(tmp_path / "w.safetensors", arrays, {})
        with pytest.raises(SemError, match=message) as caught:
            start_from(tmp_path / "w.safetensors", model, name, side)
        assert len(str(caught.value).splitlines()) <= 2, case
    for text, message in ((tmp_path / "no.pth", "no.pth does not exist"), (tmp_path / "no", "no does not exist")):
        with pytest.raises(RunError, match=message):
            start_from(text, model, name, side)


def test_what_a_pth_file_unpacks_to_is_bounded(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"w": torch.zeros(1, dtype=torch.float16).expand(50_000, 50_000)}, tmp_path / "view.pth")
    torch.save({"w": torch.zeros(1_000_000)}, tmp_path / "plain.pth")
    with zipfile.ZipFile(tmp_path / "plain.pth") as plain, zipfile.ZipFile(tmp_path / "packed.pth", "w", 8) as packed:
        for member in plain.infolist():
            packed.writestr(member.filename, plain.read(member))
    assert os.path.getsize(tmp_path / "packed.pth") < 100_000
    torch.save({"w": torch.eye(3).to_sparse()}, tmp_path / "sparse.pth")
    for name, message in (
        ("view", "10,000,000,000 bytes"),
        ("packed", "4,00.* bytes"),
        ("sparse", "tensors? alone|no dense"),
    ):
        with pytest.raises(RunError, match=message):
            read_state_dict(tmp_path / f"{name}.pth", limit=1 << 20)
    assert read_state_dict(tmp_path / "plain.pth")["w"].shape == (1_000_000,)
