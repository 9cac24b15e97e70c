"""A data set as uploads of a limited size, for a machine without a network, and back into its layout there.

    python -m experiments.timebox.pack make --data-dir=DIR --out=uploads [--mb=52] [--ood NAME=PATH ...]
    python -m experiments.timebox.pack open uploads/0 --to=data       # there, an upload at a time, in any order

Images are lossless WebP, which makes CIFAR-10 two uploads of 51 MiB instead of 180 MB. The last `open` writes
cifar-10-batches-bin, the official binary layout, and NAME_data.npy with NAME_labels.npy for every out-of-distribution
set; before that it says what is missing. Every image is compared after packing.
"""

import io
import json
import sys
import zipfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from experiments.commands import parser
from sem_jax.errors import ConfigError, DataError, exit_on_error
from sem_jax.interfaces import Split

FILE = "pack.npz"
CIFAR, TRAIN_FILES = "cifar-10-batches-bin", 5
PIECE = 5_000  # images of a piece
MOST = 2**20  # bytes of an image, pieces of a set


def encode(image: np.ndarray) -> bytes:
    """u8[h w 3] as lossless WebP.

    Raises:
      DataError: it does not come back as it was.
    """
    file = io.BytesIO()
    Image.fromarray(image).save(file, "WEBP", lossless=True, quality=100, method=4)
    if not np.array_equal(decode(file.getvalue()), image):
        raise DataError("An image changed when it was packed as WebP", "This Pillow cannot write lossless WebP.")
    return file.getvalue()


def decode(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content), formats=("WEBP",)) as image:
        return np.asarray(image.convert("RGB"))


def pieces(name: str, split: Split, pool: ThreadPoolExecutor) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """(name of the piece, its arrays)."""
    for first in range(0, len(split.labels), PIECE):
        images = list(pool.map(encode, np.asarray(split.images[first : first + PIECE])))
        arrays = {"bytes": np.frombuffer(b"".join(images), np.uint8), "sizes": np.asarray([len(it) for it in images])}
        yield f"{name}/{first}", arrays | {"labels": split.labels[first : first + PIECE].astype(np.int32)}


def make(sets: Mapping[str, Split], class_names: tuple[str, ...], out: Path, *, limit: int) -> list[Path]:
    """Writes the uploads; a piece goes into the first one that has room."""
    uploads: list[dict[str, Any]] = []
    with ThreadPoolExecutor() as pool:
        for name, arrays in (piece for item in sets.items() for piece in pieces(*item, pool)):
            size = sum(it.nbytes for it in arrays.values()) + 2**12
            if size > limit:
                raise ConfigError(f"--mb={limit / 2**20:g} is less than the {size / 2**20:.1f} MiB of {PIECE:,} images")
            upload = next((it for it in uploads if it["size"] + size <= limit), None)
            if upload is None:
                uploads.append(upload := {"size": 2**12, "arrays": {}})
            upload["size"] += size
            upload["arrays"] |= {f"{name}/{key}": value for key, value in arrays.items()}
    about = {"classes": class_names, "sets": {name: len(split.labels) for name, split in sets.items()}}
    folders = []
    for number, upload in enumerate(uploads):
        folder = out / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        text = np.frombuffer(json.dumps(about).encode(), np.uint8)
        np.savez(folder / FILE, about=text, **upload["arrays"])
        folders.append(folder)
    return folders


def open_upload(folder: Path, to: Path) -> list[str]:
    """Decodes an upload's pieces into `to`; writes the layouts once all are there.

    Returns:
      Names of the sets of which pieces are missing; [] once the layouts are written.

    Raises:
      DataError: the file is missing or damaged.
    """
    kept = to / "pieces"
    kept.mkdir(parents=True, exist_ok=True)
    try:
        with open(folder / FILE, "rb") as file, np.load(file, allow_pickle=False) as stored:
            about = json.loads(stored["about"].tobytes())
            sets = {str(name): int(count) for name, count in about["sets"].items()}
            with ThreadPoolExecutor() as pool:
                for name in sorted({key.rpartition("/")[0] for key in stored.files if "/" in key}):
                    set_name, _, first = name.partition("/")
                    if set_name not in sets or not first.isdigit():
                        raise ValueError(f"an unknown piece {name!r:.50}")
                    content, ends = stored[f"{name}/bytes"].tobytes(), np.cumsum(stored[f"{name}/sizes"])
                    parts = [content[b - a : b] for a, b in zip(stored[f"{name}/sizes"], ends, strict=True)]
                    images = np.stack(list(pool.map(decode, parts)))
                    place = kept / f"{list(sets).index(set_name)}-{first}.npz"
                    np.savez(place, images=images, labels=stored[f"{name}/labels"])
    except (OSError, ValueError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        raise DataError(f"{folder / FILE} cannot be read: {error}", "Copy the upload once more.") from error
    wanted = {(i, first) for i, count in enumerate(sets.values()) for first in range(0, count, PIECE)}
    missing = sorted({list(sets)[i] for i, first in wanted if not (kept / f"{i}-{first}.npz").is_file()})
    if not missing:
        write_layouts(kept, sets, [str(name) for name in about["classes"]], to)
    return missing


def write_layouts(kept: Path, sets: Mapping[str, int], class_names: list[str], to: Path) -> None:
    """From all pieces: "train" and "test" in CIFAR-10's binary layout, every other set as a pair of .npy files."""

    def whole(index: int, count: int, key: str) -> np.ndarray:
        return np.concatenate([np.load(kept / f"{index}-{first}.npz")[key] for first in range(0, count, PIECE)])

    for index, (name, count) in enumerate(sets.items()):
        images, labels = whole(index, count, "images"), whole(index, count, "labels")
        if name not in ("train", "test"):
            np.save(to / f"{Path(name).name}_data.npy", images)
            np.save(to / f"{Path(name).name}_labels.npy", labels)
            continue
        folder = to / CIFAR
        folder.mkdir(exist_ok=True)
        (folder / "batches.meta.txt").write_text("\n".join(class_names) + "\n", encoding="utf-8")
        flat = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        rows = np.concatenate([labels[:, None].astype(np.uint8), flat], axis=1)
        names = ["test_batch"] if name == "test" else [f"data_batch_{k + 1}" for k in range(TRAIN_FILES)]
        for part, file in zip(np.array_split(rows, len(names)), names, strict=True):
            part.tofile(folder / f"{file}.bin")


def main(argv: list[str] | None = None) -> int:
    options = parser("experiments.timebox.pack", __doc__)
    commands = options.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("make", help="uploads of a data set")
    packing.add_argument("--data-dir", required=True, metavar="DIR", help="where CIFAR-10 is")
    packing.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="a folder for each upload is made in it"
    )
    packing.add_argument("--mb", type=float, default=52.0, help="MiB of an upload at most; default: 52")
    packing.add_argument("--ood", nargs="+", action="extend", default=[], metavar="NAME=PATH", help="32x32 images")
    opening = commands.add_parser("open", help="an upload, on the other machine")
    opening.add_argument("upload", type=Path)
    opening.add_argument("--to", type=Path, required=True, metavar="DIR", help="folder for the data")
    args = options.parse_args(argv)
    with exit_on_error():
        if args.command == "open":
            missing = open_upload(args.upload, args.to)
            print(f"missing: {', '.join(missing)}; open the other uploads too" if missing else f"all there: {args.to}")
            return 0
        from sem_jax.data import Reading, load, read_array_pair, read_image_tree

        dataset = load("cifar10", data_dir=args.data_dir, reading=Reading(download=False))
        sets = dict(dataset.splits)
        for text in args.ood:
            name, equals, path = text.partition("=")
            if not (equals and name.replace("-", "").replace("_", "").isalnum()) or name in sets:
                raise ConfigError(f"--ood must be NAME=PATH with a name of letters and digits, got {text!r}")
            folder = Path(path).expanduser()
            pictures = folder.is_dir() and not list(folder.glob("*_data.npy"))
            sets[name] = read_image_tree(folder)[0] if pictures else read_array_pair(folder)
        for folder in make(sets, dataset.class_names, args.out, limit=int(args.mb * 2**20)):
            print(folder, f"{(folder / FILE).stat().st_size / 2**20:.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
