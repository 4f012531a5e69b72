"""Writes class_crops.json: the parts that torchvision's RandomResizedCrop takes for known draws,
checksums of Pillow's crop and resize of such parts at several sizes, and of torchvision's
Resize and CenterCrop of an image file."""

import json
import math
import pathlib

import PIL
import torch
import torchvision
from PIL import Image
from torchvision.transforms import CenterCrop, RandomResizedCrop, Resize



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


class Recorder:
    """Sees the draws of `RandomResizedCrop.get_params` as numbers from [0, 1)."""

    def __init__(self):
        self.draws = []
        self.uniform, self.randint = torch.Tensor.uniform_, torch.randint

    def __enter__(self):
        recorder = self

        def uniform(tensor, low, high):
            recorder.uniform(tensor, float(low), float(high))
            span = float(high) - float(low)
            recorder.draws.append((tensor.item() - float(low)) / span if span else 0.5)
            return tensor

        def randint(low, high, size):
            drawn = recorder.randint(low, high, size)
            recorder.draws.append((drawn.item() - low + 0.5) / (high - low))
            return drawn

        torch.Tensor.uniform_, torch.randint = uniform, randint
        return self

    def __exit__(self, *_):
        torch.Tensor.uniform_, torch.randint = self.uniform, self.randint


def is_clear(size, areas, aspects, draws):
    """Whether no extent is so near to the middle of two whole ones that torchvision's single precision
    decides."""
    height, width = size
    for area, aspect in zip(draws[0:20:2], draws[1:20:2]):
        target = height * width * (areas[0] + (areas[1] - areas[0]) * area)
        low, high = math.log(aspects[0]), math.log(aspects[1])
        ratio = math.exp(low + (high - low) * aspect)
        for extent in (math.sqrt(target * ratio), math.sqrt(target / ratio)):
            if abs(extent % 1 - 0.5) < 1e-3:
                return False
    return True


torch.manual_seed(0)
parts = []
default = (0.75, 4 / 3)
for size, areas, aspects in [
    ((480, 640), (0.08, 1.0), default),
    ((64, 64), (0.25, 1.0), default),
    ((37, 41), (0.5, 0.9), (0.5, 2.0)),
    ((640, 100), (0.6, 1.0), default),
    ((40, 500), (0.9, 1.0), default),
    ((7, 5), (0.08, 1.0), default),
]:
    image = Image.new("RGB", (size[1], size[0]))
    found = 0
    while found < 25:
        with Recorder() as recorder:
            top, left, height, width = RandomResizedCrop.get_params(image, areas, aspects)
        if not is_clear(size, areas, aspects, recorder.draws):
            continue
        found += 1
        parts.append(
            {
                "size": size,
                "areas": areas,
                "aspects": aspects,
                "draws": recorder.draws,
                "corner": [top, left],
                "part": [height, width],
            }
        )

crops = []
for (height, width), (top, left, part_height, part_width) in [
    ((240, 320), (13, 40, 200, 220)),
    ((240, 320), (0, 0, 240, 320)),
    ((97, 71), (5, 3, 61, 68)),
    ((40, 50), (30, 41, 10, 9)),
]:
    image = generated(height, width)
    part = image.crop((left, top, left + part_width, top + part_height))
    for ratio in (1, 1.5, 2, 2.5, 4):
        side = int(224 / ratio)
        for flip in (False, True):
            out = part.resize((side, side), Image.Resampling.BILINEAR)
            if flip:
                out = out.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            values = out.tobytes()
            crops.append(
                {
                    "size": [height, width],
                    "corner": [top, left],
                    "part": [part_height, part_width],
                    "out_size": [side, side],
                    "flip": flip,
                    "hash": fnv1a(values),
                    "head": list(values[:12]),
                }
            )

middles = []
for (height, width), short_side, size in [
    ((240, 320), 256, (224, 224)),
    ((240, 320), 102, (89, 89)),
    ((320, 240), 64, (56, 56)),
    ((97, 71), 71, (64, 64)),
    ((97, 71), 70, (33, 64)),
    ((50, 50), 64, (64, 64)),
    ((33, 90), 45, (40, 41)),
]:
    image = generated(height, width)
    out = CenterCrop(size)(Resize(short_side)(image))
    values = out.tobytes()
    middles.append(
        {
            "size": [height, width],
            "short_side": short_side,
            "out_size": size,
            "hash": fnv1a(values),
            "head": list(values[:12]),
        }
    )

target = pathlib.Path(__file__).with_name("class_crops.json")
content = {
    "torch": torch.__version__,
    "torchvision": torchvision.__version__,
    "pillow": PIL.__version__,
    "parts": parts,
    "crops": crops,
    "middles": middles,
}
target.write_text(json.dumps(content) + "\n")
