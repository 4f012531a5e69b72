"""Writes resampled.json: metrics of data sets in which images are repeated.

  detection       matches by pycocotools on the data set as it is; for each list of counts pycocotools'
                  AP and precision on a data set in which image i is there counts[i] times
    matches       by class: detections [score, image, matched bits, ignored bits], ground_truths [image, number]
    draws         counts, ap (-1: undefined), ap_by_class, precision [IoU index, by class 101 values or null];
                  in fractions
  segmentation    cells [truth, predicted, pixels] of each image; counts, miou and iou of the summed matrix
  classification  hits of each image; counts and top1
"""

import contextlib
import io
import json
import pathlib
import random
import sys
from importlib.metadata import version

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

CATEGORIES = [3, 1, 8, 5]


def evaluate(num_images, objects, detections, counts):
    """objects [image, class, box, crowd], detections [image, class, box, score]; images repeated by counts."""
    copies, next_id = [], 10
    for count in counts:
        copies.append(range(next_id, next_id + count))
        next_id += count
    images = [dict(id=i) for of_image in copies for i in of_image]
    annotations = [
        dict(image_id=i, category_id=CATEGORIES[k], bbox=box, area=box[2] * box[3], iscrowd=crowd)
        for image, k, box, crowd in objects for i in copies[image]
    ]
    for number, annotation in enumerate(annotations, 1):
        annotation["id"] = number
    rows = [
        dict(image_id=i, category_id=CATEGORIES[k], bbox=box, score=score)
        for image, k, box, score in detections for i in copies[image]
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = dict(images=images, annotations=annotations, categories=[dict(id=k, name=str(k)) for k in CATEGORIES])
        coco.createIndex()
        if rows:
            results = coco.loadRes(rows)
        else:
            results = COCO()
            results.dataset = dict(coco.dataset, annotations=[])
            results.createIndex()
        e = COCOeval(coco, results, "bbox")
        e.params.catIds = CATEGORIES
        e.params.imgIds = [image["id"] for image in images]
        e.evaluate()
        e.accumulate()
    return e


def by_class(e):
    """Of COCOeval, which sorts ids, in the order of CATEGORIES."""
    return [list(e.params.catIds).index(k) for k in CATEGORIES]


def matches(num_images, e):
    areas = len(e.params.areaRng)
    out = []
    for k in by_class(e):
        detections, ground_truths = [], []
        for image in range(num_images):
            one = e.evalImgs[(k * areas + 0) * num_images + image]
            if one is None:
                continue
            bits = lambda matrix, d: sum(int(matrix[t, d] != 0) << t for t in range(10))
            for d, score in enumerate(one["dtScores"]):
                detections.append([score, image, bits(one["dtMatches"], d), bits(one["dtIgnore"], d)])
            number = int(np.count_nonzero(one["gtIgnore"] == 0))
            if number:
                ground_truths.append([image, number])
        out.append(dict(detections=detections, ground_truths=ground_truths))
    return out


def mean(values):
    values = values[values > -1]
    return float(values.mean()) if values.size else -1.0


def draw(num_images, objects, detections, counts, curves):
    e = evaluate(num_images, objects, detections, counts)
    precision = e.eval["precision"][:, :, by_class(e), 0, -1]
    classes = range(len(CATEGORIES))
    curve = lambda t, k: None if precision[t, 0, k] == -1 else precision[t, :, k].tolist()
    return dict(
        counts=counts,
        ap=mean(precision),
        ap_by_class=[mean(precision[:, :, k]) for k in classes],
        precision=[[t, [curve(t, k) for k in classes]] for t in curves],
    )


def scene(rng, num_images, scores, crowd, most):
    """Boxes near objects, some of them twice, and some near none."""
    objects, detections = [], []
    for image in range(num_images):
        for _ in range(rng.randrange(most)):
            k = rng.choice([0, 0, 0, 1, 1, 2])
            box = [rng.randrange(400), rng.randrange(300), rng.randrange(8, 120), rng.randrange(8, 120)]
            objects.append([image, k, box, int(rng.random() < crowd)])
            for _ in range(rng.choice([0, 1, 1, 2])):
                moved = [v + rng.gauss(0, 0.05) * side for v, side in zip(box, box[2:] * 2)]
                detections.append([image, k, [round(v, 1) for v in moved], scores(rng)])
        # Class 3 has no objects: its detections count nowhere.
        for _ in range(rng.randrange(most)):
            box = [rng.randrange(400), rng.randrange(300), rng.randrange(8, 120), rng.randrange(8, 120)]
            detections.append([image, rng.choice([0, 1, 2, 3]), box, scores(rng)])
    rng.shuffle(detections)
    return num_images, objects, detections


def fine(rng):
    return round(rng.random(), 6)


def coarse(rng):
    """So few scores that ties are everywhere, within an image and across."""
    return rng.choice([0.2, 0.4, 0.6, 0.8])


def overfull(rng):
    """One image with more than 100 detections of a class."""
    num_images, objects, detections = scene(rng, 4, coarse, 0.1, 6)
    for _ in range(130):
        box = [rng.randrange(400), rng.randrange(300), rng.randrange(8, 120), rng.randrange(8, 120)]
        detections.append([2, 0, box, coarse(rng)])
    return num_images, objects, detections


def same_image_ties():
    """The smallest case in which copies interleave: a false and a true one of equal score."""
    box, other = [10, 10, 50, 50], [200, 200, 50, 50]
    objects = [[0, 0, box, 0], [1, 0, box, 0]]
    return 2, objects, [[0, 0, other, 0.5], [0, 0, box, 0.5], [1, 0, box, 0.5], [1, 0, other, 0.5]]


SCENES = dict(
    fine=lambda rng: scene(rng, 12, fine, 0.0, 6),
    crowds=lambda rng: scene(rng, 10, fine, 0.3, 6),
    coarse=lambda rng: scene(rng, 12, coarse, 0.15, 7),
    overfull=overfull,
    same_image_ties=lambda rng: same_image_ties(),
    no_detections=lambda rng: (3, [[0, 0, [1, 1, 20, 20], 0], [2, 1, [1, 1, 20, 20], 0]], []),
)


def detection():
    for name, make in SCENES.items():
        rng = random.Random(name)
        num_images, objects, detections = make(rng)
        ones = [1] * num_images
        counts = [ones, [2] * num_images]
        for _ in range(8):
            drawn = [rng.randrange(num_images) for _ in range(num_images)]
            counts.append([drawn.count(i) for i in range(num_images)])
        counts.append([3 if i == 0 else 0 for i in range(num_images)])
        counts.append([5 if i == num_images - 1 else 0 for i in range(num_images)])
        draws = [draw(num_images, objects, detections, c, [0, 5] if n == 2 else []) for n, c in enumerate(counts)]
        e = evaluate(num_images, objects, detections, ones)
        yield dict(name=name, num_images=num_images, matches=matches(num_images, e), draws=draws)


def segmentation():
    rng = np.random.default_rng(5)
    num_classes, num_images = 6, 9
    # Class 4 is predicted and never annotated, class 5 neither.
    matrices = rng.integers(0, 4000, (num_images, num_classes, num_classes)) * (rng.random((num_images, num_classes, num_classes)) < 0.3)
    matrices[:, 4, :] = matrices[:, 5, :] = matrices[:, :, 5] = 0
    cells = [[[int(t), int(p), int(m[t, p])] for t, p in zip(*np.nonzero(m))] for m in matrices]
    draws = []
    for counts in [[1] * num_images, *rng.multinomial(num_images, [1 / num_images] * num_images, 6).tolist(), [0, 4] + [0] * 7, [0] * num_images]:
        total = np.tensordot(counts, matrices, 1)
        right, union = np.diag(total), total.sum(0) + total.sum(1) - np.diag(total)
        iou = [int(r) / int(u) if u else None for r, u in zip(right, union)]
        defined = [v for v in iou if v is not None]
        draws.append(dict(counts=counts, iou=iou, miou=float(np.mean(defined)) if defined else None))
    return dict(num_classes=num_classes, cells=cells, draws=draws)


def classification():
    rng = np.random.default_rng(6)
    hits = rng.random(23) < 0.7
    draws = []
    for counts in [[1] * 23, *rng.multinomial(23, [1 / 23] * 23, 6).tolist()]:
        draws.append(dict(counts=counts, top1=float(np.repeat(hits, counts).mean())))
    return dict(hits=hits.tolist(), draws=draws)


if __name__ == "__main__":
    versions = {name: version(name) for name in ["pycocotools", "numpy"]} | dict(python=sys.version.split()[0])
    out = dict(versions=versions, detection=list(detection()), segmentation=segmentation(), classification=classification())
    path = pathlib.Path(__file__).with_name("resampled.json")
    lines = [f"{json.dumps(k)}: {json.dumps(v, separators=(',', ':'))}" for k, v in out.items() if k != "detection"]
    cases = ",\n".join(json.dumps(c, separators=(",", ":")) for c in out["detection"])
    lines.append(f'"detection": [\n{cases}\n]')
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{path.name}: {path.stat().st_size} bytes")
