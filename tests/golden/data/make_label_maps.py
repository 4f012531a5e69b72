"""Reference for label maps: nearest-neighbour resizing, and palette files as Pillow reads them.

    python tests/golden/data/make_label_maps.py

Writes label_maps.json beside itself: one case after another, labels small enough to store.
"""

import io
import json
from pathlib import Path

import numpy as np
import PIL
import torch
from PIL import Image

OUT = Path(__file__).with_name("label_maps.json")


def nearest(rng, size, out_size):
    labels = rng.integers(0, 256, size, dtype=np.uint8)
    tensor = torch.from_numpy(labels)[None, None]
    exact = torch.nn.functional.interpolate(tensor, size=out_size, mode="nearest-exact")
    pillow = Image.fromarray(labels).resize(out_size[::-1], Image.Resampling.NEAREST)
    return {
        "size": size,
        "labels": labels.ravel().tolist(),
        "out_size": out_size,
        "torch_nearest_exact": exact.ravel().tolist(),
        "pillow_nearest": np.asarray(pillow).ravel().tolist(),
    }


def palette_file(rng, size, colours, bits):
    """A palette PNG as Pillow writes it with so many bits a pixel, and its indices."""
    ids = rng.integers(0, colours, size, dtype=np.uint8)
    image = Image.fromarray(ids).convert("L")
    image = image.convert("P")
    image.putdata(ids.ravel().tolist())
    image.putpalette(rng.integers(0, 256, 3 * colours, dtype=np.uint8).tolist())
    file = io.BytesIO()
    image.save(file, format="PNG", bits=bits)
    read = Image.open(io.BytesIO(file.getvalue()))
    assert read.mode == "P"
    assert (np.asarray(read) == ids).all()
    return {
        "size": size,
        "bits": bits,
        "png": list(file.getvalue()),
        "ids": ids.ravel().tolist(),
    }


def main():
    rng = np.random.default_rng(0)
    sizes = [
        ([5, 7], [5, 7]),
        ([5, 7], [10, 14]),
        ([10, 14], [5, 7]),
        ([9, 11], [3, 4]),
        ([9, 11], [27, 8]),
        ([16, 12], [7, 19]),
        ([1, 1], [4, 3]),
        ([13, 17], [1, 1]),
        ([20, 30], [29, 15]),
        ([24, 18], [36, 25]),
        ([31, 29], [16, 43]),
        ([8, 8], [12, 6]),
        ([36, 48], [18, 24]),
    ]
    golden = {
        "made_with": {"torch": torch.__version__, "pillow": PIL.__version__},
        "nearest": [nearest(rng, *pair) for pair in sizes],
        "palettes": [
            palette_file(rng, [5, 7], 2, 1),
            palette_file(rng, [6, 9], 4, 2),
            palette_file(rng, [4, 11], 12, 4),
            palette_file(rng, [8, 10], 22, 8),
        ],
    }
    OUT.write_text(json.dumps(golden, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
