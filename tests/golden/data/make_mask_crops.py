"""Writes mask_crops.json: how much of each of the 7x7 cells of an object's box its mask covers.

`area` is shapely's exact area of the united polygons within a cell, over the cell's; `rle` and
`rle_area` are the same object as pixels: pycocotools' compressed run lengths, and the share of a
cell that these pixels cover. Holds boxes that leave the mask inside, cut it, or reach past it."""

import json
import pathlib
from importlib.metadata import version

import numpy as np
import shapely
from pycocotools import mask as coco_mask
from shapely.geometry import Polygon, box

SIDE = 7
SIZE = [240, 320]
rng = np.random.default_rng(0)


def blob(centre, radius, points):
    """A polygon whose distance from its centre varies with the direction: not convex."""
    angle = np.sort(rng.uniform(0, 2 * np.pi, points))
    distance = radius * rng.uniform(0.45, 1.0, points)
    xy = np.stack([centre[0] + distance * np.cos(angle), centre[1] + distance * np.sin(angle)], 1)
    return [round(v, 2) for v in xy.reshape(-1).tolist()]


def shape(polygon):
    # The "linework" method takes even-odd for the inside of an outline that crosses itself.
    return shapely.make_valid(Polygon(np.reshape(polygon, (-1, 2))), method="linework")


def cells(x1, y1, x2, y2):
    xs, ys = np.linspace(x1, x2, SIDE + 1), np.linspace(y1, y2, SIDE + 1)
    return [(xs[i], ys[j], xs[i + 1], ys[j + 1]) for j in range(SIDE) for i in range(SIDE)]


def exact(polygons, bounds):
    union = shapely.union_all([shape(p) for p in polygons])
    return [union.intersection(c).area / c.area for c in (box(*c) for c in cells(*bounds))]


def overlap(low, high, extent):
    """Length of each pixel within [low, high]."""
    edge = np.arange(extent)
    return np.clip(np.minimum(edge + 1, high) - np.maximum(edge, low), 0, None)


def counted(mask, bounds):
    height, width = mask.shape
    return [
        overlap(y1, y2, height) @ mask @ overlap(x1, x2, width) / ((x2 - x1) * (y2 - y1))
        for x1, y1, x2, y2 in cells(*bounds)
    ]


def tight(polygons):
    xy = np.concatenate([np.reshape(p, (-1, 2)) for p in polygons])
    return [*xy.min(0), *xy.max(0)]


objects = [([blob((100, 90), 60, n)], 0.0) for n in (3, 5, 9, 20, 60)]
objects += [([blob((220, 120), 70, 14), blob((200, 150), 60, 11)], 0.0) for _ in range(3)]
objects += [([blob((60, 60), 30, 8), blob((200, 150), 50, 12), blob((150, 60), 20, 5)], 0.0)]
# A bow tie and a pentagram: outlines that cross themselves.
objects += [([[20.0, 30.0, 150.0, 190.0, 150.0, 30.0, 20.0, 190.0]], 0.0)]
star = [(150 + 90 * np.sin(k * 4 * np.pi / 5), 110 - 90 * np.cos(k * 4 * np.pi / 5)) for k in range(5)]
objects += [([[round(float(v), 2) for v in np.reshape(star, -1)]], 0.0)]
# The box cut by the border, as after clipping, and one with room around its object.
objects += [([blob((10, 100), 70, 16)], 0.0), ([blob((310, 230), 60, 16)], 0.0)]
objects += [([blob((160, 120), 50, 12)], 12.5)]

cases = []
for polygons, margin in objects:
    x1, y1, x2, y2 = tight(polygons)
    bounds = [max(x1 - margin, 0), max(y1 - margin, 0), x2 + margin, y2 + margin]
    bounds = [min(v, SIZE[1 - i % 2]) for i, v in enumerate(bounds)]
    # The test reads single precision.
    bounds = [float(np.float32(v)) for v in bounds]
    rle = coco_mask.merge(coco_mask.frPyObjects(polygons, *SIZE))
    pixels = coco_mask.decode(rle).astype(np.float64)
    cases.append(
        {
            "polygons": polygons,
            "box": bounds,
            "area": [round(float(v), 4) for v in exact(polygons, bounds)],
            "rle": rle["counts"].decode(),
            "rle_area": [round(float(v), 4) for v in counted(pixels, bounds)],
        }
    )

versions = {
    "numpy": np.__version__,
    "pycocotools": version("pycocotools"),
    "shapely": shapely.__version__,
}
golden = {"versions": versions, "size": SIZE, "cases": cases}
path = pathlib.Path(__file__).with_name("mask_crops.json")
path.write_text(json.dumps(golden, separators=(",", ":")) + "\n")
