"""Writes resize.json: Pillow's antialiased bilinear resize of small 8-bit images, torch's float
version of the same, checksums of Pillow's for larger and odd sizes, and the sizes that
torchvision's detection transform chooses."""

import json
import pathlib

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image
from torchvision.models.detection.transform import GeneralizedRCNNTransform

rng = np.random.default_rng(0)
cases = []
for (height, width), (out_height, out_width) in [
    ((12, 17), (7, 9)),
    ((12, 17), (5, 20)),
    ((9, 8), (16, 21)),
    ((40, 30), (13, 8)),
]:
    ramp = np.add.outer(np.arange(height) * 5, np.arange(width) * 4)[..., None]
    noise = rng.integers(0, 120, (height, width, 3))
    pixels = np.clip(ramp % 140 + noise, 0, 255).astype(np.uint8)
    resized = Image.fromarray(pixels).resize((out_width, out_height), Image.Resampling.BILINEAR)
    planes = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    exact = torch.nn.functional.interpolate(
        planes, (out_height, out_width), mode="bilinear", align_corners=False, antialias=True
    )
    cases.append(
        {
            "size": [height, width],
            "pixels": pixels.reshape(-1).tolist(),
            "out_size": [out_height, out_width],
            "pillow": np.asarray(resized).reshape(-1).tolist(),
            "torch": [round(v, 4) for v in exact[0].permute(1, 2, 0).reshape(-1).tolist()],
        }
    )



def generated(height, width):
    """Bytes that the test generates as well: the upper bits of a linear congruence."""
    state, values = height * 65536 + width, bytearray()
    for _ in range(height * width * 3):
        state = (state * 1664525 + 1013904223) % 2**32
        values.append(state >> 24)
    return Image.frombytes("RGB", (width, height), bytes(values))


def fnv1a(values):
    result = 2166136261
    for value in values:
        result = (result ^ value) * 16777619 % 2**32
    return result


exact = []
for (height, width), (out_height, out_width) in [
    ((480, 640), (240, 320)),
    ((480, 640), (512, 512)),
    ((640, 480), (512, 512)),
    ((375, 500), (512, 512)),
    ((60, 40), (41, 31)),
    ((60, 40), (41, 30)),
    ((60, 40), (40, 50)),
    ((60, 40), (59, 40)),
    ((60, 40), (59, 39)),
    ((50, 40), (97, 71)),
    ((97, 71), (50, 40)),
    ((33, 29), (7, 5)),
    ((37, 41), (37, 17)),
    ((37, 41), (11, 41)),
    ((9, 11), (9, 11)),
    ((8, 16), (300, 3)),
    ((1, 1), (5, 7)),
    ((1, 31), (9, 8)),
    ((31, 1), (8, 9)),
    ((19, 23), (1, 1)),
    ((19, 23), (1, 40)),
    ((19, 23), (40, 1)),
    ((2, 3), (64, 64)),
    ((1, 2000), (1, 3)),
]:
    image = generated(height, width)
    resized = image.resize((out_width, out_height), Image.Resampling.BILINEAR).tobytes()
    exact.append(
        {
            "size": [height, width],
            "out_size": [out_height, out_width],
            "sum": sum(resized),
            "hash": fnv1a(resized),
            "head": list(resized[:12]),
        }
    )

sizes = []
for short_side, long_side in [(800, 1333), (240, 320), (33, 50)]:
    transform = GeneralizedRCNNTransform(short_side, long_side, [0.0] * 3, [1.0] * 3)
    for size in [(480, 640), (640, 480), (427, 640), (500, 333), (100, 900), (37, 41), (33, 33)]:
        image, _ = transform.resize(torch.zeros(3, *size), None)
        sizes.append(
            {
                "short_side": short_side,
                "long_side": long_side,
                "size": size,
                "out_size": list(image.shape[-2:]),
            }
        )

versions = {
    "torch": torch.__version__,
    "torchvision": torchvision.__version__,
    "pillow": PIL.__version__,
    "numpy": np.__version__,
}
golden = {"versions": versions, "resize": cases, "exact": exact, "keep_ratio": sizes}
path = pathlib.Path(__file__).with_name("resize.json")
path.write_text(json.dumps(golden, separators=(",", ":")) + "\n")
