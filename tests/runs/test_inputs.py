"""What users give for prediction: arrays of every kind, pictures, folders; the command and the face say the same."""

import csv
import io
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

import sem_jax as sj
from sem_jax.errors import ConfigError, DataError, RunError
from sem_jax.runs.__main__ import main
from sem_jax.runs.inputs import Inputs, from_array, list_inputs
from sem_jax.runs.results import Evaluation, Records
from tests.helpers.runs import pictures, write_tree

SHAPE = (4, 6, 3)
U8 = np.arange(2 * 4 * 6 * 3, dtype=np.uint8).reshape(2, 4, 6, 3)
GREY = U8[..., :1]


@pytest.mark.parametrize(
    ("given", "shape", "expected"),
    [
        (U8, SHAPE, U8),
        (U8[0], SHAPE, U8[:1]),
        (U8.astype(np.int64), SHAPE, U8),
        (U8 / np.float32(255), SHAPE, U8),
        (U8.tolist(), SHAPE, U8),
        ([U8[0], U8[1]], SHAPE, U8),
        (np.concatenate([U8, GREY], -1), SHAPE, U8),  # alpha
        (GREY, SHAPE, np.repeat(GREY, 3, -1)),
        (GREY[..., 0], SHAPE, np.repeat(GREY, 3, -1)),
        (GREY[0, ..., 0], SHAPE, np.repeat(GREY[:1], 3, -1)),
        (GREY[..., 0], (4, 6, 1), GREY),
    ],
)
def test_arrays_become_pixels(given, shape, expected):
    np.testing.assert_array_equal(from_array(given, shape), expected, strict=True)


def test_colours_become_the_luma_of_pillow():
    images = pictures(3, seed=0, size=4)
    expected = [np.asarray(Image.fromarray(image).convert("L"))[..., None] for image in images]
    np.testing.assert_array_equal(from_array(images, (4, 4, 1)), np.stack(expected), strict=True)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (U8 * 1.0, "float64 go from 0 to 143, expected floats in"),
        (U8 - 3.5, "go from -3.5"),
        (np.full((1, *SHAPE), np.nan), "go from nan to nan"),
        (U8.astype(np.int32) * 2, "int32 go from 0 to 286, expected integers in 0..255"),
        (U8 > 3, "values are bool"),
        (np.array(["a"]), "the array has shape"),
        (U8[:, :3], "shape .2, 3, 6, 3., expected"),
        (U8[:0], "shape .0, 4, 6, 3."),
        (U8[..., :2], "2 channels, the model was trained on 3"),
        ([U8[0], U8[0, :2]], "no array can be made of the list"),
    ],
)
def test_what_is_no_image_is_refused_with_what_was_found(given, words):
    with pytest.raises(DataError, match=words):
        from_array(given, SHAPE)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Pictures of every name, beside files that are none; each is 32x32 but for one."""
    folder, images = tmp_path_factory.mktemp("photos"), pictures(4, seed=5)
    write_tree(folder, images[:1], [""])
    for name in ("a.jfif", "without_suffix", "deep/b.JPG"):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(images[1]).resize((48, 64)).save(folder / name, "JPEG")
    for name in (".hidden.png", "notes.txt", "CHANGELOG", "clip.mp4"):
        (folder / name).write_text("no picture")
    return folder


def test_pictures_have_any_name_and_size_and_are_read_when_asked_for(photos):
    inputs = Inputs(list_inputs([photos]), (32, 32, 3))
    assert [name.removeprefix(f"{photos}/") for name in inputs.names] == [
        "0000.png",
        "a.jfif",
        "deep/b.JPG",
        "without_suffix",
    ]
    np.testing.assert_array_equal(inputs[0:1], pictures(4, seed=5)[:1])
    assert inputs[1:3].shape == (2, 32, 32, 3)
    assert Inputs(list_inputs([photos]), (16, 24, 1))[0:4].shape == (4, 16, 24, 1)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK", "1"])
def test_images_of_pil_are_what_their_files_are(mode, tmp_path):
    image = Image.fromarray(pictures(1, seed=3, size=9)[0])
    image = image.resize((12, 9)).convert(mode)
    turned = Image.Exif()
    turned[0x0112] = 6  # a camera that was held upright
    path = tmp_path / ("x.jpg" if mode == "CMYK" else "x.png")
    image.save(path, exif=turned)
    given = list_inputs([Image.open(path), path])
    assert given[0].name == "image 0"
    images = Inputs(given, SHAPE)[0:2]
    np.testing.assert_array_equal(images[0], images[1])
    with pytest.raises(DataError, match="a ndarray among pictures"):
        list_inputs([path, U8])


def test_broken_pictures_are_named_or_counted(photos, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n")
    items = list_inputs([photos / "0000.png", tmp_path])
    with pytest.raises(DataError, match="bad.png is not a readable image"):
        Inputs(items, (32, 32, 3))[0:2]
    skipping = Inputs(items, (32, 32, 3), skip_broken=True)
    assert not skipping[0:2][1].any() and list(skipping.broken) == [1]
    (empty := tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="does not exist"):
        list_inputs([tmp_path / "nothing.png"])
    with pytest.raises(DataError, match="holds no pictures"):
        list_inputs([empty])


@pytest.mark.parametrize("name", ["notes", "x.png", "x.npy"])
def test_a_pipe_is_not_waited_for(name, tmp_path):
    Image.new("RGB", (6, 4)).save(tmp_path / "a.png")
    os.mkfifo(tmp_path / name)
    assert len(list_inputs([tmp_path])) == 1 + name.endswith(".png")
    with pytest.raises(DataError, match=name):
        Inputs(list_inputs([tmp_path / name]), SHAPE)[0:1]


@pytest.fixture(scope="module")
def run(run_dir):
    return sj.load(run_dir)


def command(capsys, *arguments):
    main([str(it) for it in arguments])
    return capsys.readouterr()


def test_the_command_and_the_face_say_the_same(run, run_dir, photos, tmp_path, capsys):
    (tmp_path / "bad.png").write_bytes(b"")
    np.save(tmp_path / "more.npy", pictures(2, seed=9) / np.float32(255))
    given = [photos, tmp_path / "more.npy", tmp_path / "bad.png"]
    found = run.predict(given, skip_broken=True)
    rows = list(found.rows(top=3))
    assert len(rows) == 6 and rows[-1]["file"].endswith("more.npy[1]") and rows[0]["class_3"] in run.class_names
    assert found.names == [row["class"] for row in rows] and found.features.shape[0] == 6
    out, options = tmp_path / "found.json", ("--top=3", "--skip_broken")
    said = command(capsys, f"--workdir={run_dir}", *given, f"--out={out}", *options, "--batch-size=16")
    assert json.loads(out.read_text()) == rows
    assert "Skipped 1 of 7" in said.err and "bad.png is empty" in said.err and "6 rows" in said.err
    said = command(capsys, f"--workdir={run_dir}", photos, tmp_path / "more.npy", "--batch_size=4")
    table = list(csv.DictReader(io.StringIO(said.out)))
    assert [row["class"] for row in table] == found.names
    np.testing.assert_allclose([float(row["probability"]) for row in table], [row["probability"] for row in rows], 1e-5)
    np.testing.assert_array_equal(run.predict(tmp_path / "more.npy").logits, run.predict(pictures(2, seed=9)).logits)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["photos"], "--workdir is missing"),
        (["--workdir=/nowhere", "photos"], "/nowhere does not exist"),
        (["--workdir=RUN", "nothing"], "nothing does not exist"),
        (["--workdir=RUN", "nothing", "--out=a.xlsx"], "--out must end in .csv or .json"),
        (["--workdir=RUN", "nothing", "--out=/nowhere/a.csv"], "there is no folder /nowhere"),
        (["--workdir=RUN", "nothing", "--top=0"], "--top must be >= 1, got 0"),
        (["--wrkdir=RUN", "nothing"], "Did you mean --workdir?\npython -m sem_jax predict --help"),
    ],
)
def test_what_cannot_be_predicted_is_refused(arguments, words, run_dir, capsys):
    with pytest.raises(SystemExit) as ended:
        main([argument.replace("RUN", str(run_dir)) for argument in arguments])
    said = capsys.readouterr().err
    assert ended.value.code == 2 and words in said and len(said.splitlines()) <= 3


def test_a_broken_picture_leaves_no_file(run_dir, tmp_path, capsys):
    (tmp_path / "bad.png").write_bytes(b"")
    with pytest.raises(SystemExit):
        main([f"--workdir={run_dir}", str(tmp_path), f"--out={tmp_path}/out.csv"])
    assert "bad.png is empty" in capsys.readouterr().err and [it.name for it in tmp_path.iterdir()] == ["bad.png"]


def test_the_file_is_written_through_no_link_and_beside_nobody_elses(run_dir, photos, tmp_path, capsys):
    (other := tmp_path / "other").write_text("mine")
    (tmp_path / "out.csv.part").symlink_to(other)
    (tmp_path / "out.csv").symlink_to(other)
    command(capsys, f"--workdir={run_dir}", photos / "0000.png", f"--out={tmp_path}/out.csv")
    assert other.read_text() == "mine" and (tmp_path / "out.csv").read_text().startswith("file,class,")
    assert {it.name for it in tmp_path.iterdir()} == {"other", "out.csv.part", "out.csv"}


def test_a_terminal_is_told_nothing_by_names(run_dir, photos, tmp_path, capsys):
    """Class names are a stranger's."""
    copy = shutil.copytree(run_dir, tmp_path / "run")
    facts = json.loads((copy / "data.json").read_text())
    facts["class_names"] = [f"\x1b]0;owned\x07{name}" for name in facts["class_names"]]
    (copy / "data.json").write_text(json.dumps(facts))
    said = command(capsys, f"--workdir={copy}", photos / "0000.png").out
    assert "\x1b" not in said and "\\x1b]0;owned\\x07" in said


def test_names_of_files_need_not_be_utf_8(run_dir, photos, tmp_path, capsysbinary):
    shutil.copy(photos / "0000.png", odd := tmp_path / os.fsdecode(b"caf\xe9.png"))
    assert b"caf\xe9.png," in command(capsysbinary, f"--workdir={run_dir}", odd).out


def test_results_become_tables_of_pandas(run):
    pandas = pytest.importorskip("pandas")
    found = run.predict(pictures(2, seed=1)).to_pandas(top=2)
    assert list(found.columns) == ["class", "probability", "class_2", "probability_2"] and len(found) == 2
    assert run.metrics().to_pandas()["val_accuracy"].tolist() == [0.1, 0.9, 0.2]
    table = {"title": "AUROC", "columns": ["score", "SVHN"], "rows": [["msp", 0.9]]}
    done = Evaluation(suites={"ood": {"scalars": {"AUROC msp SVHN": 0.9}, "tables": [table]}, "shift": {}})
    assert done.to_pandas().to_dict("records") == [{"suite": "ood", "measure": "AUROC msp SVHN", "value": 0.9}]
    assert isinstance(done.to_pandas("AUROC"), pandas.DataFrame) and done.to_pandas("AUROC")["SVHN"][0] == 0.9
    with pytest.raises(ConfigError, match="Unknown table 'AUROK'. Did you mean 'AUROC'"):
        done.to_pandas("AUROK")


def test_without_pandas_one_line_says_so(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RunError, match="pandas is not installed.*\npip install pandas"):
        Records([{"step": 1}]).to_pandas()
