"""A run is shared, comes back equal to the bit, executes nothing and says nothing of the machine it came from."""

import json
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import sem_jax as sj
from sem_jax.convert.card import Score, make_card, scores_of
from sem_jax.convert.share import main, share_run
from sem_jax.errors import ConfigError, RunError, SemError
from sem_jax.runs.opening import open_run
from sem_jax.runs.shared import FILES, report_folder
from tests.helpers.runs import write_run

pytest.importorskip("safetensors")
HOME = "/home/somebody/photos"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("share") / "mine"
    write_run(folder, "", val_size=0, steps=(1, 2), name="digits")
    config = json.loads((folder / "config.json").read_text())
    config["data"]["dir"], config["runtime"]["cache_dir"] = HOME, HOME
    (folder / "config.json").write_text(json.dumps(config))
    result = {"steps": 2, "test_accuracy": 0.9, "test_nll": 0.3, "commit": "c" * 40, "method": "mixup+sem"}
    result |= {"devices": ["cpu"], "platform": "Linux-host-name", "secret": HOME}
    (folder / "result.json").write_text(json.dumps(result))
    return folder


@pytest.fixture(scope="module")
def shared(run, tmp_path_factory):
    """The same run as a shared folder; treat it as read-only."""
    folder = tmp_path_factory.mktemp("to") / "shared"
    share_run(str(run), str(folder), license="apache-2.0")
    return folder


def assert_same(one, other):
    for a, b in zip(jax.tree.leaves(one.variables), jax.tree.leaves(other.variables), strict=True):
        np.testing.assert_array_equal(a, b)
    assert one.fingerprint == other.fingerprint and one.data == other.data and one.step == other.step


def test_a_folder_comes_back_equal_to_the_bit(run, shared, rng):
    assert {path.name for path in shared.iterdir()} == {*FILES, "manifest.json", "README.md"}
    mine, theirs = sj.load(run), sj.load(shared)
    assert_same(mine.opened, theirs.opened)
    images = rng.integers(0, 256, (4, 8, 8, 1), dtype=np.uint8)
    for a, b in zip(mine.predict(images), theirs.predict(images), strict=True):
        np.testing.assert_array_equal(a, b)
    assert theirs.metrics() == mine.metrics() and theirs.step == 2


def test_a_hub_gives_it_to_everybody(run, hub, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tests.helpers.hub_server.LARGE", ())  # the way of large files has a test of its own
    main([f"--workdir={run}", "--to=hf://some-one/digits"])
    said = capsys.readouterr().out
    address = re.search(r"hf://some-one/digits@[0-9a-f]{40}", said)[0]
    assert "names no license" in said and hub.messages == ["A run of sem_jax"]
    monkeypatch.setenv("SEM_JAX_CACHE", str(tmp_path / "elsewhere"))
    opened = open_run("hf://some-one/digits")
    assert_same(open_run(run), opened)
    assert (opened.source, opened.name) == (address, "digits")
    assert repr(sj.load(address)) == f"Run({address!r}, step 2)"
    assert str(report_folder(opened.source)) == "digits-evaluation"
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:  # what would be drawn, without drawing
        patch.setattr("sem_jax.runs.curves.draw_curves", lambda folder, out: out)
        assert sj.Run(opened).plot() == Path("digits-evaluation/curves.png") and Path("digits-evaluation").is_dir()
    assert HOME.encode() not in b"".join(hub.files("some-one/digits").values())
    for url, words in (
        ("hf://some-one/digits/config.json", "must be the address of a shared run"),
        ("hf://datasets/some-one/digits", "must be the address of a shared run"),
        ("hf://some-one/nothing", "no such repository"),
    ):
        with pytest.raises(SemError, match=words):
            open_run(url)
    hub.add("timm/net", {"config.json": b"{}", "model.safetensors": b""})
    with pytest.raises(RunError, match="is no run of `sem-jax share`: it has no manifest.json"):
        open_run("hf://timm/net")
    hub.served["some-one/digits", "config.json"] = b"{}"
    shutil.rmtree(tmp_path / "hf")
    with pytest.raises(RunError, match="config.json is damaged|cannot be reached"):
        open_run("hf://some-one/digits")


def test_nothing_of_the_machine_is_shared(shared):
    everything = b"".join(path.read_bytes() for path in shared.iterdir())
    assert not [word for word in (HOME, "host-name", "secret", str(Path.home())) if word.encode() in everything]
    config = json.loads((shared / "config.json").read_text())
    assert config["data"]["dir"] == config["runtime"]["cache_dir"] == ""


def test_the_card(shared, run):
    card = (shared / "README.md").read_text()
    head = card.split("---")[1]
    assert 'license: "apache-2.0"' in head and 'library_name: "sem_jax"' in head
    assert "| test accuracy | 90.00% (n = 360; 95 % interval 86.47% to 92.69%) |" in card
    assert f"`{'c' * 40}`" in card and 'sj.load("shared")' in card and "mixup+sem" in card
    yaml = pytest.importorskip("yaml").safe_load(head)
    assert yaml["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.9
    assert "datasets" not in yaml  # digits is on no hub


def test_the_card_of_a_model_and_data_from_elsewhere(run):
    opened = open_run(run)
    config = opened.config.copy_and_resolve_references()
    with config.unlocked():
        config.model.name, config.data.name, config.data.dir = "my_nets:Net", "hf", "hf://some-one/pets@v1"
    card = make_card(opened._replace(config=config), scores_of(opened), where="hf://me/pets", license="")
    assert 'datasets: ["some-one/pets"]' in card and "grey images, u8 [n, 8, 8, 1]" in card
    assert 'sj.load("hf://me/pets", trust_model="my_nets:Net")' in card and "The model is `my_nets:Net`, code" in card


def test_the_interval_is_wilsons():
    p, n, z = 0.9, 360, 1.959963984540054
    centre, half = p + z**2 / 2 / n, z * np.sqrt(p * (1 - p) / n + z**2 / 4 / n**2)
    np.testing.assert_allclose(Score("", p, n).interval, np.array([centre - half, centre + half]) / (1 + z**2 / n))


def test_texts_of_a_run_are_no_markup(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    facts = json.loads((copy / "data.json").read_text())
    facts["class_names"][0] = "a`|\n# b <img src=x> [c](javascript:d)\n---\nlicense: mit"
    (copy / "data.json").write_text(json.dumps(facts))
    share_run(str(copy), str(tmp_path / "to"))
    card = (tmp_path / "to" / "README.md").read_text()
    assert "`a # b img src=x [c](javascript:d) --- license: mit`" in card
    assert "license" not in card.split("---")[1]


@pytest.fixture
def broken(shared, tmp_path):
    return shutil.copytree(shared, tmp_path / "broken")


def refused(folder, words, **options):
    with pytest.raises(SemError, match=words) as error:
        open_run(folder, **options)
    assert len(str(error.value).splitlines()) <= 2


def remade(folder, **changes):
    """The manifest made anew, as a hostile owner can: its digests are right."""
    from sem_jax.runs.manifest import read_manifest, write_manifest

    about = {name: value for name, value in read_manifest(folder).items() if name not in ("files", "format")}
    for name in ("manifest.json", "README.md"):
        (folder / name).unlink()
    write_manifest(folder, about | changes)


def test_every_file_is_checked_before_it_is_read(broken, monkeypatch):
    for name in FILES:
        content = (broken / name).read_bytes()
        (broken / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        refused(broken, f"is damaged: {name}: contents changed")
        (broken / name).write_bytes(content + b" ")
        refused(broken, f"is damaged: {name}: {len(content) + 1} bytes, expected {len(content)}")
        (broken / name).write_bytes(content)
    (broken / "README.md").write_text("edited by its owner")
    assert open_run(broken).step == 2
    refused(broken, "one checkpoint, of step 2; there is no 'best_val'", checkpoint="best_val")
    refused(broken, "there is no '1'", checkpoint="1")
    (broken / "config.json").unlink()
    (broken / "config.json").symlink_to("/etc/hostname")
    refused(broken, "is damaged: config.json: no regular file")


def test_hostile_contents_with_the_right_digests(broken):
    from safetensors.numpy import load_file, save_file

    arrays = load_file(broken / "model.safetensors")
    name = sorted(arrays)[0]
    for change in ({name: arrays[name][..., None]}, {"other": arrays[name]}, {name: arrays[name].astype(np.float64)}):
        save_file(arrays | change, broken / "model.safetensors")
        remade(broken)
        refused(broken, "does not fit its config.json")
        (broken / "README.md").touch()
    (broken / "model.safetensors").write_bytes(b"\xff" * 64)
    remade(broken)
    refused(broken, "cannot be read as safetensors")
    (broken / "README.md").touch()
    with open(broken / "model.safetensors", "wb") as file:
        file.truncate(64 << 20)  # a hole: no bytes on the disk
    remade(broken)
    refused(broken, "bytes, its model needs")
    (broken / "README.md").touch()
    (broken / "evil.py").write_text("")
    remade(broken)
    refused(broken, "'evil.py' is unknown in a shared run")


def test_code_is_not_imported(broken, tmp_path, monkeypatch):
    config = json.loads((broken / "config.json").read_text())
    config["model"]["name"] = "evil_net:Net"
    (broken / "config.json").write_text(json.dumps(config))
    remade(broken)
    (broken / "evil_net.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')")
    monkeypatch.syspath_prepend(str(broken))
    refused(broken, "is code and was not imported")
    assert not (tmp_path / "canary").exists()


def test_a_run_is_not_fetched_because_a_configuration_says_so(hub):
    from sem_jax.runs.opening import open_scorer

    with pytest.raises(ConfigError, match="mixer.scorer must be a folder"):
        open_scorer("hf://a/b", image_shape=(8, 8, 1), mean=(0.5,), std=(0.5,))
    assert not hub.requests


def test_where_it_can_be_shared_to(run, tmp_path, shared):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    for to in (tmp_path / "full", tmp_path / "full" / "x", "gs://bucket/run", "hf://a/b/c", "hf://datasets/a/b"):
        with pytest.raises(ConfigError, match=f"--to={re.escape(str(to))} must be"):
            share_run(str(run), str(to))
    again = shutil.copytree(shared, tmp_path / "again")
    share_run(str(run), str(again), checkpoint="1")
    assert open_run(again).step == 1
