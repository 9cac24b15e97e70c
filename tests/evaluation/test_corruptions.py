"""Every corruption against a plain float64 NumPy, SciPy or Pillow version of itself that is given the same draws."""

import functools
import io

import jax
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage, stats
from sklearn.datasets import load_sample_images

from sem_jax.errors import ConfigError, DataError
from sem_jax.evaluation.corruptions import CORRUPTIONS, SEVERITIES, digital, frost_pictures, generate, sheet
from sem_jax.evaluation.corruptions.generate import corrupt
from sem_jax.rngs import key_for

NAMES = tuple(CORRUPTIONS)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of 8 images of 32x32, since a block is always filled up."""
    monkeypatch.setattr(generate, "BLOCK_PIXELS", 8 * 32 * 32)


@functools.cache
def photographs(height, width, count=8):
    """Crops of two photographs, at half their size, so that a crop has some content."""
    pictures = [picture[::2, ::2] for picture in load_sample_images().images]
    rng = np.random.default_rng(0)
    crops = []
    for i in range(count):
        picture = pictures[i % 2]
        top, left = rng.integers(0, picture.shape[0] - height), rng.integers(0, picture.shape[1] - width)
        crops.append(picture[top : top + height, left : left + width])
    return np.stack(crops)


def draws(name, severity, shape):
    """The draws that `corrupt` makes for the first block of a set, with seed 0."""
    count = generate.BLOCK_PIXELS // (shape[0] * shape[1])
    key = key_for(jax.random.key(0, impl="threefry2x32"), f"corruptions/{name}", severity)
    return generate._draw_block(CORRUPTIONS[name].draw, shape, key, np.arange(count, dtype=np.int32))


def to_bytes(values):
    """A plain cast, as the published arrays were stored; 1e-4 forgives what floats lose."""
    return np.floor(np.clip(values, 0, 255) + 1e-4).astype(np.uint8)


# ---- the references: (image f64[h w c] in [0, 1], draw, parameters) -> f64 in [0, 1] --------------------------------


def gaussian_noise(x, draw, sigma):
    return x + sigma * draw


def shot_noise(x, draw, photons):
    return np.minimum(stats.poisson.ppf(draw, x * photons) / photons, 1)


def impulse_noise(x, draw, amount):
    x = x.copy()
    for index in np.ndindex(x.shape):
        if draw[index] < amount / 2:
            x[index] = 0
        elif draw[index] < amount:
            x[index] = 1
    return x


def defocus_blur(x, draw, radius, sigma):
    axis = np.arange(-8, 9)
    disk = (axis[:, None] ** 2 + axis[None, :] ** 2 <= radius**2) * 1.0
    disk /= disk.sum()
    line = np.exp(-np.array([1, 0, 1]) / (2 * sigma**2))
    kernel = ndimage.correlate(disk, np.outer(line, line) / line.sum() ** 2, mode="constant")
    return np.stack([ndimage.correlate(x[..., c], kernel, mode="mirror") for c in range(x.shape[-1])], -1)


def smooth(x, sigma):
    return ndimage.gaussian_filter(x, (sigma, sigma, 0), mode="nearest", truncate=4.0)


def glass_blur(x, draw, sigma, step, rounds):
    """With the exchange of two views, pixel after pixel, as the published arrays were made."""
    height, width, _ = x.shape
    pixels = np.floor(255 * smooth(x, sigma) + 1e-4)
    for i in range(rounds):
        for row in range(height - step, step, -1):
            for col in range(width - step, step, -1):
                up, left = int(draw[row, col]) >> 2 * i & 1, int(draw[row, col]) >> 2 * i + 1 & 1
                pixels[row, col], pixels[row - up, col - left] = pixels[row - up, col - left], pixels[row, col]
    return smooth(pixels / 255, sigma)


def motion(x, angle, radius, sigma):
    height, width, _ = x.shape
    weights = np.array([np.exp(-(i**2) / (2 * sigma**2)) for i in range(2 * radius + 1)])
    total = np.zeros_like(x)
    for i, weight in enumerate(weights / weights.sum()):
        down = int(np.ceil(i * np.sin(np.radians(angle)) - 0.5))
        right = int(np.ceil(i * np.cos(np.radians(angle)) - 0.5))
        rows = np.clip(np.arange(height) + down, 0, height - 1)
        cols = np.clip(np.arange(width) + right, 0, width - 1)
        total += weight * x[rows][:, cols]
    return np.round(255 * total) / 255


def motion_blur(x, draw, radius, sigma):
    return motion(x, draw, radius, sigma)


def clipped_zoom(x, factor):
    """The middle of the image, enlarged by SciPy and cut back."""
    taken = [int(np.ceil(size / factor)) for size in x.shape[:2]]
    first = [(size - part) // 2 for size, part in zip(x.shape, taken, strict=False)]
    middle = x[first[0] : first[0] + taken[0], first[1] : first[1] + taken[1]]
    large = ndimage.zoom(middle, (factor, factor, 1), order=1)
    trim = [(made - size) // 2 for made, size in zip(large.shape, x.shape[:2], strict=False)]
    return large[trim[0] : trim[0] + x.shape[0], trim[1] : trim[1] + x.shape[1]]


def zoom_blur(x, draw, count):
    end = {7: 1.06, 12: 1.11, 16: 1.16, 21: 1.21, 26: 1.26}[count]
    factors = np.arange(1, end, 0.01)
    assert len(factors) == count
    return (x + sum(clipped_zoom(x, factor) for factor in factors)) / (count + 1)


def snow(x, draw, loc, scale, zoom, threshold, radius, sigma, keep):
    layer = clipped_zoom((loc + scale * draw.flakes)[..., None], zoom)
    layer[layer < threshold] = 0
    layer = np.floor(np.clip(layer, 0, 1) * 255 + 1e-4) / 255
    layer = motion(layer, draw.angle, radius, sigma)
    gray = x if x.shape[-1] == 1 else (x @ [0.299, 0.587, 0.114])[..., None]
    x = keep * x + (1 - keep) * np.maximum(x, gray * 1.5 + 0.5)
    return np.clip(x + layer + np.rot90(layer, 2), 0, 1)


def frost(x, draw, weight, frost_weight):
    pictures, sizes = frost_pictures.stacked("", x.shape)
    number = int(draw[0] * 5)
    picture = pictures[number][: sizes[number, 0], : sizes[number, 1]]
    top, left = (int(u * (a - b)) for u, a, b in zip(draw[1:], picture.shape[:2], x.shape[:2], strict=True))
    return weight * x + frost_weight * picture[top : top + x.shape[0], left : left + x.shape[1]] / 255


def plasma(draw, decay):
    """Diamond-square point by point, on a torus."""
    size = len(draw)
    heights, wibble, step = np.zeros((size, size)), 100.0, size
    while step >= 2:
        half = step // 2

        def fill(row, col, around, wibble=wibble):
            near = [heights[(row + down) % size, (col + right) % size] for down, right in around]
            heights[row, col] = np.mean(near) + wibble**2 * draw[row, col]

        for row in range(half, size, step):
            for col in range(half, size, step):
                fill(row, col, [(-half, -half), (-half, half), (half, -half), (half, half)])
        for row in range(0, size, half):
            for col in range(half if row % step == 0 else 0, size, step):
                fill(row, col, [(-half, 0), (half, 0), (0, -half), (0, half)])
        step, wibble = half, wibble / decay
    heights -= heights.min()
    return heights / heights.max()


def fog(x, draw, amount, decay):
    mist = plasma(draw, decay)[: x.shape[0], : x.shape[1], None]
    return (x + amount * mist) * x.max() / (x.max() + amount)


def brightness(x, draw, amount):
    """Through HSV, pixel by pixel, with the standard library."""
    import colorsys

    out = np.empty_like(x)
    for index in np.ndindex(x.shape[:2]):
        rgb = x[index] if x.shape[-1] == 3 else np.repeat(x[index], 3)
        hue, saturation, value = colorsys.rgb_to_hsv(*rgb)
        out[index] = colorsys.hsv_to_rgb(hue, saturation, min(value + amount, 1))[: x.shape[-1]]
    return out


def contrast(x, draw, factor):
    means = x.mean(axis=(0, 1))
    return (x - means) * factor + means


def elastic_transform(x, draw, amplitude, sigma, jitter):
    height, width, channels = x.shape
    side = min(height, width)
    third = side // 3
    corners = np.array([[1, 1], [1, -1], [-1, -1]]) * third + [width // 2, height // 2]
    moved = corners + jitter * side * draw.corners
    forth = np.linalg.solve(np.c_[corners, np.ones(3)], moved)  # [x y 1] @ forth = new [x y]
    back = np.linalg.inv(np.c_[forth, [0, 0, 1]])
    rows, cols = np.mgrid[:height, :width]
    source = np.stack([cols, rows, np.ones_like(rows)], -1) @ back
    x = np.stack(
        [
            ndimage.map_coordinates(x[..., c], [source[..., 1], source[..., 0]], order=1, mode="mirror")
            for c in range(channels)
        ],
        -1,
    )
    down, right = (
        amplitude * side * ndimage.gaussian_filter(field, sigma * side, mode="reflect", truncate=3)
        for field in draw.field
    )
    return np.stack(
        [
            ndimage.map_coordinates(x[..., c], [rows + down, cols + right], order=1, mode="reflect")
            for c in range(channels)
        ],
        -1,
    )


def pillow(x):
    return Image.fromarray(np.round(255 * x).astype(np.uint8).squeeze())


def pixelate(x, draw, share):
    picture = pillow(x)
    small = picture.resize((int(picture.width * share), int(picture.height * share)), Image.Resampling.BOX)
    return np.asarray(small.resize(picture.size, Image.Resampling.BOX)).reshape(x.shape) / 255


def jpeg_compression(x, draw, quality):
    buffer = io.BytesIO()
    pillow(x).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer)).reshape(x.shape) / 255


def reference(name, severity, images, count):
    """The reference of `name` on the first `count` images."""
    row = CORRUPTIONS[name]
    parameters = row.severities[severity - 1]
    drawn = draws(name, severity, images.shape[1:])
    made = []
    for i in range(count):
        draw = jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]).astype(np.float64), drawn)
        made.append(globals()[name](images[i] / 255, draw, *parameters))
    return to_bytes(255 * np.stack(made))


EXACT = ("impulse_noise", "glass_blur", "pixelate", "jpeg_compression")
DETERMINISTIC = ("defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression")


def assert_equals_reference(name, severity, images, count):
    got = corrupt(images, name, severity)
    assert got.shape == images.shape and got.dtype == np.uint8
    difference = np.abs(got[:count].astype(int) - reference(name, severity, images, count))
    assert difference.max() <= (0 if name in EXACT else 1), f"{difference.max()} at severity {severity}"
    assert (difference > 0).mean() < 0.01


@pytest.mark.parametrize("name", NAMES)
def test_equals_float64_reference(name):
    images = photographs(32, 32)
    before = images.copy()
    for severity in SEVERITIES:
        assert_equals_reference(name, severity, images, 3)
    assert np.array_equal(images, before)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("gaussian_noise", "shot_noise")])
def test_equals_reference_on_one_channel_not_square(name):
    assert_equals_reference(name, 4, photographs(48, 40)[..., 1:2], 2)


@pytest.mark.parametrize("name", ["zoom_blur", "frost", "elastic_transform", "pixelate", "jpeg_compression"])
def test_equals_reference_at_64(name):
    assert_equals_reference(name, 5, photographs(64, 64), 1)


@pytest.mark.parametrize("name", NAMES)
def test_image_depends_on_seed_and_place_alone(name):
    images = photographs(32, 32)
    whole = corrupt(images, name, 3)
    assert np.array_equal(corrupt(images, name, 3), whole)
    pieces = np.concatenate([corrupt(images[:3], name, 3), corrupt(images[3:], name, 3, start=3)])
    assert np.array_equal(pieces, whole)
    assert np.array_equal(corrupt(images, name, 3, seed=1), whole) == (name in DETERMINISTIC)
    same = np.repeat(images[:1], 8, axis=0)
    different = len(np.unique(corrupt(same, name, 3), axis=0))
    assert different == 1 if name in DETERMINISTIC else different > 5


@pytest.mark.parametrize("name", ["defocus_blur", "zoom_blur", "contrast", "pixelate"])
def test_blocks_change_nothing(name, monkeypatch):
    images = np.concatenate([photographs(32, 32), photographs(32, 32)[:, ::-1], photographs(32, 32)[:2, :, ::-1]])
    small = corrupt(images, name, 3)  # two full ones and one filled up
    monkeypatch.setattr(generate, "BLOCK_PIXELS", 32 * 32 * 32)
    assert np.array_equal(corrupt(images, name, 3), small)


def test_severity_compiles_nothing_new():
    images = photographs(32, 32)
    for name, row in CORRUPTIONS.items():
        if row.on_host:
            continue
        corrupt(images, name, 1)
        before = generate._apply_block._cache_size(), generate._draw_block._cache_size()
        for severity in SEVERITIES:
            corrupt(images, name, severity)
        assert (generate._apply_block._cache_size(), generate._draw_block._cache_size()) == before, name


def applied(name, severity, images, zero=()):
    """`corrupt` with the draws of severity 1 at any severity, so that only the severity differs; `zero` names draws."""
    row = CORRUPTIONS[name]
    if row.on_host:
        return corrupt(images, name, severity)
    drawn = draws(name, 1, images.shape[1:])
    if zero:
        drawn = drawn._replace(**{field: np.zeros_like(getattr(drawn, field)) for field in zero})
    tables = row.tables(row.severities[severity - 1], images.shape[1:])
    return np.asarray(generate._apply_block(row.apply, drawn, images, tables))


def mean_change(images, made):
    return np.abs(made.astype(float) - images).mean()


def unexplained(images, made):
    """Share of the variance of the corrupted pixels that no affine function of the clean pixel explains."""
    return 1 - np.corrcoef(images.ravel(), made.astype(float).ravel())[0, 1] ** 2


def detail(made):
    return np.abs(np.diff(made.astype(float), axis=2)).mean()


BY_CHANGE = [n for n in NAMES if n not in ("frost", "glass_blur", "elastic_transform")]


@pytest.mark.parametrize("name", BY_CHANGE)
def test_damage_grows_with_severity(name):
    images = photographs(32, 32)
    changes = [mean_change(images, applied(name, severity, images)) for severity in SEVERITIES]
    steps = np.diff([0, *changes])
    if name == "motion_blur":
        # (6, 2) and (8, 2) differ in the tail of the line alone, past six deviations: the same pictures.
        assert abs(steps[3]) < 1e-3
        steps = np.delete(steps, 3)
    assert (steps > 0.05).all(), changes


def test_frost_hides_more_with_severity():
    # The image is dimmed while the frost grows, so the mean change itself falls after severity 3. Dark images, since
    # white that is cut off hides more at severity 3 than at 4.
    images = photographs(32, 32) // 3
    shares = [unexplained(images, applied("frost", severity, images)) for severity in SEVERITIES]
    assert (np.diff([0, *shares]) > 0.01).all(), shares


def test_glass_blur_moves_more_or_smooths_more():
    # The table alternates: (blur, rounds) = (0.05, 1) (0.25, 1) (0.4, 1) (0.25, 2) (0.4, 2), and blur hides moves.
    images = photographs(32, 32)
    made = {severity: applied("glass_blur", severity, images) for severity in SEVERITIES}
    change = {severity: mean_change(images, made[severity]) for severity in SEVERITIES}
    assert change[4] > change[2] + 0.5 and change[5] > change[3] + 0.5
    assert detail(made[1]) > detail(made[2]) > detail(made[3]) and detail(made[4]) > detail(made[5])


def test_elastic_bends_more_with_severity():
    # The affine part shrinks by the table, so the whole change doesn't grow; without it, it does.
    images = photographs(32, 32)
    changes = [mean_change(images, applied("elastic_transform", s, images, zero=("corners",))) for s in SEVERITIES]
    assert changes[0] < 1e-3 and (np.diff(changes) > 0.1).all(), changes
    jitters = [mean_change(images, applied("elastic_transform", s, images, zero=("field",))) for s in SEVERITIES]
    assert (np.diff(jitters) < 0).all(), jitters


def test_severities_are_the_table_of_the_cifar_sets():
    # Told apart from ImageNet-C's, whose gaussian noise is .08 .12 .18 .26 .38, by the standard deviation itself.
    gray = np.full((8, 32, 32, 3), 128, np.uint8)
    for severity, sigma in zip(SEVERITIES, (0.04, 0.06, 0.08, 0.09, 0.10), strict=True):
        assert corrupt(gray, "gaussian_noise", severity).astype(float).std() == pytest.approx(255 * sigma, rel=0.02)
    for severity, amount in zip(SEVERITIES, (0.01, 0.02, 0.03, 0.05, 0.07), strict=True):
        assert (corrupt(gray, "impulse_noise", severity) != 128).mean() == pytest.approx(amount, rel=0.15)
    assert [row[0] for row in CORRUPTIONS["jpeg_compression"].severities] == [80, 65, 58, 50, 40]


def test_shot_noise_is_poisson():
    # 245,760 values of 51 (mean 10 photons of 50): a chi-square test accepts Poisson(10) and rejects Poisson(10.1).
    image = np.full((8, 32, 32, 3), 51, np.uint8)
    made = np.stack([corrupt(image, "shot_noise", 5, seed=seed) for seed in range(10)])
    photons = np.ceil(made / 5.1 - 0.01).astype(int).ravel()
    found = np.bincount(np.clip(photons, 2, 20), minlength=21)[2:]

    def p_value(mean):
        cdf = stats.poisson.cdf(np.arange(2, 20), mean)
        expected = np.diff([0, *cdf, 1]) * photons.size
        return stats.chisquare(found, expected).pvalue

    assert p_value(10) > 0.01 and p_value(10.1) < 1e-6


def test_unchanged_where_nothing_happens():
    flat = np.full((8, 32, 32, 3), 100, np.uint8)
    for name in ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "contrast", "elastic_transform", "pixelate"):
        for severity in SEVERITIES:
            assert np.array_equal(corrupt(flat, name, severity), flat), name


def test_extreme_images_stay_in_range():
    images = np.stack([np.zeros((32, 32, 3), np.uint8), np.full((32, 32, 3), 255, np.uint8)])
    for name in NAMES:
        assert np.isfinite(corrupt(images, name, 5)).all()
    assert np.array_equal(corrupt(images, "brightness", 5)[0], np.full((32, 32, 3), 76))
    assert np.array_equal(corrupt(images, "shot_noise", 5)[0], images[0])  # no light, no photons


def test_bilinear_borders_at_any_distance():
    image = np.random.default_rng(0).uniform(0, 255, (9, 7, 1)).astype(np.float32)
    y, x = np.random.default_rng(1).uniform(-30, 30, (2, 9, 7)).astype(np.float32)
    for border, mode in ((digital._mirror, "mirror"), (digital._reflect, "reflect")):
        got = digital.bilinear(image, y, x, border)[..., 0]
        np.testing.assert_allclose(got, ndimage.map_coordinates(image[..., 0], [y, x], order=1, mode=mode), atol=2e-3)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 32, 32, 3), np.float32), "float32"),
        (np.zeros((32, 32, 3), np.uint8), r"\[32, 32, 3\]"),
        (np.zeros((2, 32, 32, 4), np.uint8), r"\[2, 32, 32, 4\]"),
        (np.zeros((2, 28, 28, 1), np.uint8), "28x28"),
    ],
)
def test_wrong_images(images, message):
    with pytest.raises(DataError, match=message):
        corrupt(images, "fog", 1)


def test_wrong_name_and_severity():
    images = photographs(32, 32)[:1]
    with pytest.raises(ConfigError, match="Did you mean 'fog'"):
        corrupt(images, "fogg", 1)
    for severity in (0, 6, 3.0, "3", None):
        with pytest.raises(ConfigError, match="severity must be one of"):
            corrupt(images, "fog", severity)


def test_no_images():
    for name in NAMES:
        assert corrupt(np.zeros((0, 32, 32, 3), np.uint8), name, 1).shape == (0, 32, 32, 3)


def write_frost(folder, size=(330, 340)):
    rng = np.random.default_rng(0)
    for name in frost_pictures.FILES:
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(folder / name)


def test_frost_pictures_of_a_folder(tmp_path):
    write_frost(tmp_path)
    images = np.zeros((8, 32, 32, 3), np.uint8)
    made = corrupt(images, "frost", 1, frost_dir=str(tmp_path))
    crops = []
    for name in frost_pictures.FILES:
        picture = np.asarray(Image.open(tmp_path / name))[2::5, 2::5]  # 1/5 of the size
        windows = np.lib.stride_tricks.sliding_window_view(picture, (32, 32), axis=(0, 1))
        crops.append(np.moveaxis(windows, 2, -1).reshape(-1, 32, 32, 3))
    crops = np.concatenate(crops)
    for image in made:
        assert (np.floor(np.float32(0.2) * crops + 1e-4) == image).all(axis=(1, 2, 3)).any()
    assert not np.array_equal(made, corrupt(images, "frost", 1))


def test_frost_folder_errors(tmp_path):
    with pytest.raises(DataError, match=r"lacks frost1\.png, frost2\.png, frost3\.png, frost4\.jpg, frost5\.jpg"):
        corrupt(photographs(32, 32), "frost", 1, frost_dir=str(tmp_path))
    write_frost(tmp_path, (165, 150))
    with pytest.raises(DataError, match=r"frost1\.png is too small: 165x150 pixels for 32x32"):
        corrupt(photographs(32, 32), "frost", 1, frost_dir=str(tmp_path))
    (tmp_path / "frost2.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"frost2\.png is not a readable image"):
        corrupt(photographs(64, 64), "frost", 1, frost_dir=str(tmp_path))


def test_picture_sheet(tmp_path):
    images = photographs(32, 32)[:2]
    grid = np.stack([np.stack([images, *(corrupt(images, name, s) for s in SEVERITIES)]) for name in NAMES])
    figure = sheet.picture_sheet(grid)
    figure.savefig(tmp_path / "sheet.png", dpi=60)
    with Image.open(tmp_path / "sheet.png") as picture:
        assert picture.width > 500 and picture.height > 500
    labels = [axis.get_ylabel().replace("\n", "_") for axis in figure.axes if axis.get_ylabel()]
    assert labels == list(NAMES)
    with pytest.raises(ValueError, match="grid must be"):
        sheet.picture_sheet(grid[:, :3])
