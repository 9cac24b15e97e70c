"""`python -m sem_jax mixers`: a sheet of any two pictures, the list of options, one message for what cannot work.

And the pictures of the documentation, which are drawn by the same functions.
"""

import re

import numpy as np
import pytest
from PIL import Image

from docs import pictures as docs_pictures
from sem_jax.mixers import MIXERS
from sem_jax.mixers.__main__ import main
from sem_jax.mixers.sheet import CAPTION, GAP, MARGIN, TOP, load_pair
from sem_jax.mixers.table import options_of

SIZE = 16  # of a tile, pixels
RED, BLUE = (220, 20, 20), (20, 20, 220)


@pytest.fixture
def pictures(tmp_path):
    """Two classes of pictures of one colour each, of sizes and shapes of their own."""
    for name, color, count in (("cat", RED, 3), ("dog", BLUE, 2)):
        (tmp_path / name).mkdir()
        for i in range(count):
            Image.new("RGB", (20 + 7 * i, 31), color).save(tmp_path / name / f"{i}.png")
    return tmp_path


def tile(sheet, row, column):
    """The mean colour of the middle of a tile, without the antialiased edge."""
    x, y = MARGIN + column * (SIZE + GAP), TOP + row * (SIZE + GAP + CAPTION)
    return np.asarray(sheet.convert("RGB"), float)[y + 4 : y + SIZE - 4, x + 4 : x + SIZE - 4].mean((0, 1))


def test_a_sheet_of_given_pictures(pictures, tmp_path, capsys):
    out = tmp_path / "sheet" / "of mine"
    texts = ["mixup", "cutmix(min_area=0.3, max_area=0.7)"]
    paths = [str(pictures / name / "0.png") for name in ("cat", "dog")]
    main([f"--out={out}", "--images", *paths, "--mixers", *texts, f"--size={SIZE}"])
    assert sorted(p.name for p in out.iterdir()) == ["mixers.png"]
    assert str(out / "mixers.png") in capsys.readouterr().out
    with Image.open(out / "mixers.png") as sheet:
        # Partner, nine mixtures, anchor; a row a mixer.
        assert sheet.size == (MARGIN + 11 * (SIZE + GAP), TOP + len(texts) * (SIZE + GAP + CAPTION))
        for row in range(2):
            np.testing.assert_allclose(tile(sheet, row, 0), BLUE, atol=6)
            np.testing.assert_allclose(tile(sheet, row, 10), RED, atol=6)
        for column in range(1, 10):  # lam 0.1 ... 0.9, within the 0.05 in which a draw is taken
            lam = column / 10
            mixture = lam * np.array(RED) + (1 - lam) * np.array(BLUE)
            np.testing.assert_allclose(tile(sheet, 0, column), mixture, atol=0.05 * 200 + 6)
        for column in (1, 9):  # areas that this cutmix does not reach
            np.testing.assert_allclose(tile(sheet, 1, column), 255, atol=1)
        assert tile(sheet, 1, 5).max() < 250


def test_the_pictures_of_the_documentation(tmp_path):
    plain = [np.full((40, 30, 3), color, np.uint8) for color in (RED, BLUE)]
    docs_pictures.draw_pairings(tmp_path / "pairings.png", plain, ("cat", "dog"), SIZE)
    with Image.open(tmp_path / "pairings.png") as sheet:
        colors = [tile(sheet, 0, i).round() for i in range(10)]
        rows = (sheet.size[1] - TOP) // (SIZE + GAP + CAPTION)
        for row, kept in ((rows - 2, True), (rows - 1, False)):  # same_class and other_class come last
            assert all((np.abs(tile(sheet, row, i) - colors[i]).max() < 50) == kept for i in range(10))
    docs_pictures.draw_schedules(tmp_path / "schedules.png")
    with Image.open(tmp_path / "schedules.png") as sheet:
        assert sheet.size[0] > 500


def test_of_a_folder_one_of_each_class_is_taken_in_turn(pictures):
    """However many pictures there are, two are read, of two classes."""
    for i in range(40):
        Image.new("RGB", (9, 9), RED).save(pictures / "cat" / f"many{i:02}.jpg")
    (pictures / "cat" / "notes.txt").write_text("no picture")
    pair = load_pair([str(pictures)], SIZE)
    assert pair.shape == (2, SIZE, SIZE, 3) and pair.dtype == np.float32 and 0 <= pair.min() <= pair.max() <= 1
    np.testing.assert_allclose(pair[:, 8, 8] * 255, [RED, BLUE], atol=1)


def test_the_list_names_every_mixer_and_all_its_options(capsys):
    main(["--list"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(MIXERS)
    for line, make in zip(lines, MIXERS.values(), strict=True):
        assert re.findall(r"(\w+)=", line) == [name for name in options_of(make) if name != "alpha"]


def broken(folder):
    """A PNG that is cut off in the middle of its pixels."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(noise).save(folder / "whole.png")
    (folder / "broken.png").write_bytes((folder / "whole.png").read_bytes()[:2000])
    return folder / "broken.png"


def bomb(folder):
    """A few bytes whose header claims 10^10 pixels."""
    path = folder / "bomb.bmp"
    Image.new("RGB", (1, 1)).save(path)
    data = bytearray(path.read_bytes())
    data[18:26] = (100_000).to_bytes(4, "little") * 2
    path.write_bytes(data)
    return path


WRONG = [
    (["--images", "{cat}"], "DataError: --images found 1 image, expected two or more"),
    (["--images", "{empty}"], "DataError: --images found 0 images"),
    (["--images", "{cat}", "nowhere.png"], "DataError: --images: .*nowhere.png"),
    (["--images", "{cat}", "{text}"], "DataError: --images: .*text.png"),
    (["--images", "{cat}", "{broken}"], "DataError: --images: .*broken.png"),
    (["--images", "{cat}", "{bomb}"], "DataError: --images: .*bomb.bmp"),
    (["--images", "{cat}", "{empty}"], "DataError: --images: .*empty"),
    (["--mixers", "mixup", "cutmx"], "ConfigError: Unknown mixer 'cutmx'. Did you mean 'cutmix'"),
    (["--mixers", "mixup", "cutmix(min_aera=0.1)"], "ConfigError: Unknown option 'min_aera'.*Did you mean 'min_area'"),
    (["--mixers", "mixup", "cutmix(min_area=2)"], "ConfigError: cutmix needs 0 <= min_area"),
    (["--mixers", "mixup", "cutmix("], "ConfigError: .*got 'cutmix\\('"),
    (["--mixers", "mixup", "manifold_mixup"], "ConfigError: manifold_mixup mixes hidden states"),
    (["--mixers", "mixup", "choice(choices=('mixup', 'alignmix'))"], "ConfigError: .*mixes hidden states"),
    (["--size=24"], "ConfigError: --size must be a multiple of 16, got 24"),
    (["--size=0"], "ConfigError: --size must be a multiple of 16, got 0"),
    (["--seed=-1"], "ConfigError: --seed must be in .*, got -1"),
    (["--out={text}"], "ConfigError: --out=.*text.png"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=[" ".join(a) for a, _ in WRONG])
def test_what_cannot_work_is_refused_in_one_message_before_anything_is_drawn(
    pictures, tmp_path, capsys, arguments, message
):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("no picture")
    names = {
        "cat": pictures / "cat" / "0.png",
        "empty": tmp_path / "empty",
        "text": tmp_path / "text.png",
        "broken": broken(tmp_path),
        "bomb": bomb(tmp_path),
    }
    with pytest.raises(SystemExit) as ended:
        main([f"--out={tmp_path / 'sheet'}", *[a.format(**names) for a in arguments]])
    error = capsys.readouterr().err
    assert ended.value.code == 2 and re.match(message, error), error
    assert len(error.strip().splitlines()) <= 3
    assert not (tmp_path / "sheet").exists()


@pytest.mark.parametrize("arguments", [["--size=big"], ["--mixer", "mixup"], ["mixup"], ["--images"]], ids=str)
def test_what_argparse_refuses(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2 and "sem_jax mixers --help lists the options" in capsys.readouterr().err
