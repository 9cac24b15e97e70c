"""Small pictures with a caption each: a page shows them one by one, a file as one sheet.

    gallery = Gallery(test.images[rows], ["cat, taken for dog, 99.8%", ...])
    gallery.tiles(), gallery.sheet()

The number of pictures and their size are bounded, whatever the data set: a gallery adds at most a few hundred KB.
"""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

MOST = 12  # pictures of a gallery
SIDE = 96  # pixels; larger pictures are made smaller
_COLUMNS = 6


class Gallery:
    """At most `MOST` pictures.

    Args:
      images: u8[n h w c], c of 1 or 3; what is beyond MOST is left out.
      captions: text of each, of any content.
    """

    def __init__(self, images: np.ndarray, captions: Sequence[str]):
        self.images, self.captions = np.asarray(images)[:MOST], list(captions)[:MOST]
        if len(self.images) != len(self.captions):
            raise ValueError(f"{len(self.images)} images and {len(self.captions)} captions")

    def _small(self) -> list[Image.Image]:
        made = []
        for image in self.images:
            picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
            picture.thumbnail((SIDE, SIDE))  # antialiased; leaves smaller ones as they are
            made.append(picture)
        return made

    def tiles(self) -> list[tuple[bytes, int, int]]:
        """(PNG, width, height) of each picture; the size is that on a page, where small pictures are enlarged."""
        out = []
        for picture in self._small():
            stream = io.BytesIO()
            shown = picture if max(picture.size) <= SIDE // 2 else picture.quantize(128)  # photographs: a third of it
            shown.save(stream, "PNG", optimize=True)
            scale = SIDE / max(picture.size)
            out.append((stream.getvalue(), round(picture.width * scale), round(picture.height * scale)))
        return out

    def sheet(self) -> Figure:
        """All pictures on one sheet, each below its caption."""
        from sem_jax.evaluation.report.figures import short

        rows = -(-max(1, len(self.images)) // _COLUMNS)
        figure = Figure(figsize=(1.75 * _COLUMNS, 2.1 * rows), layout="constrained")
        axes = list(figure.subplots(rows, _COLUMNS, squeeze=False).flat)
        for axis in axes:
            axis.set_axis_off()
        for axis, picture, caption in zip(axes, self._small(), self.captions, strict=False):
            axis.imshow(np.asarray(picture.convert("RGB")), interpolation="nearest")
            axis.set_title("\n".join(short(part, 22) for part in caption.split(", ")), fontsize=9)
        return figure
