"""Writes coco_eval.json: ground truth, detections and what pycocotools says of them.

A case holds, in compact rows:
  images       [id, ...] in file order
  categories   [id, ...] in file order
  annotations  [image_id, category_id, x, y, w, h, area, is_crowd]
  predictions  [image_id, category_id, x, y, w, h, score]
  stats        pycocotools' twelve numbers
  class_ap     [AP, AP50] of each category, in file order
"""

import contextlib
import copy
import io
import json
import pathlib
import random
import sys

import numpy as np
from importlib.metadata import version
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

CASES = {}


def case(function):
    rng = random.Random(function.__name__)
    images, categories, annotations, predictions = function(rng)
    CASES[function.__name__] = dict(
        images=list(images),
        categories=list(categories),
        annotations=[list(a) for a in annotations],
        predictions=[list(p) for p in predictions],
    )
    return function


def gt(image, category, box, area=None, crowd=0):
    return [image, category, *box, box[2] * box[3] if area is None else area, crowd]


def dt(image, category, box, score):
    return [image, category, *box, score]


def evaluate(c):
    coco_gt = COCO()
    coco_gt.dataset = dict(
        images=[dict(id=i) for i in c["images"]],
        categories=[dict(id=k, name=str(k)) for k in c["categories"]],
        annotations=[
            dict(id=n, image_id=a[0], category_id=a[1], bbox=a[2:6], area=a[6], iscrowd=a[7])
            for n, a in enumerate(c["annotations"], 1)
        ],
    )
    coco_gt.createIndex()
    rows = [dict(image_id=p[0], category_id=p[1], bbox=p[2:6], score=p[6]) for p in c["predictions"]]
    if rows:
        coco_dt = coco_gt.loadRes(copy.deepcopy(rows))
    else:  # loadRes reads the first row; an evaluation without rows is well defined all the same
        coco_dt = COCO()
        coco_dt.dataset = dict(coco_gt.dataset, annotations=[])
        coco_dt.createIndex()
    evaluation = COCOeval(coco_gt, coco_dt, "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    precision = evaluation.eval["precision"]  # thresholds, recalls, classes, areas, max_dets
    order = sorted(c["categories"])

    def mean(values):
        values = values[values > -1]
        return float(np.mean(values)) if len(values) else -1.0

    class_ap = [
        [mean(precision[:, :, order.index(k), 0, 2]), mean(precision[0, :, order.index(k), 0, 2])]
        for k in c["categories"]
    ]
    return [float(s) for s in evaluation.stats], class_ap


# Boxes


@case
def perfect(rng):
    boxes = [[10 * i, 5 * i, 20 + 9 * i, 30 + 7 * i] for i in range(12)]
    return [1], [1], [gt(1, 1, b) for b in boxes], [dt(1, 1, b, 0.9 - 0.01 * i) for i, b in enumerate(boxes)]


@case
def iou_exactly_at_each_threshold(rng):
    # Detections of h rows inside 100 rows: IoU is h / 100 at, just below and just above a threshold.
    annotations, predictions = [], []
    for image, h in enumerate([*range(50, 100, 5), 49, 51, 59, 61, 84, 86], 1):
        annotations.append(gt(image, 1, [0, 0, 100, 100]))
        predictions.append(dt(image, 1, [0, 0, 100, h], 0.9 - 0.01 * image))
    return range(1, 17), [1], annotations, predictions


@case
def iou_at_thresholds_in_awkward_units(rng):
    annotations, predictions = [], []
    for image in range(1, 41):
        w, h, x, y = (rng.uniform(3, 300) for _ in range(4))
        annotations.append(gt(image, 1, [x, y, w, h]))
        predictions.append(dt(image, 1, [x, y, w, h * rng.choice(range(50, 100, 5)) / 100], rng.random()))
    return range(1, 41), [1], annotations, predictions


@case
def equal_iou_later_object_wins(rng):
    annotations = [gt(1, 1, [0, 0, 10, 10]), gt(1, 1, [4, 0, 10, 10])]
    # The first overlaps both equally and takes the later; the second fits only the later.
    predictions = [dt(1, 1, [2, 0, 10, 10], 0.9), dt(1, 1, [4, 0, 10, 9], 0.8), dt(1, 1, [0, 0, 10, 8], 0.7)]
    return [1], [1], annotations, predictions


@case
def identical_detections(rng):
    box = [5, 5, 40, 40]
    return [1, 2], [1], [gt(1, 1, box), gt(2, 1, box)], [dt(i, 1, box, 0.5) for i in (2, 1, 1, 2, 1)]


@case
def identical_objects(rng):
    box = [5, 5, 40, 40]
    return [1], [1], [gt(1, 1, box) for _ in range(4)], [dt(1, 1, box, s) for s in (0.9, 0.8, 0.7)]


@case
def tiny_boxes(rng):
    annotations, predictions = [], []
    for image in range(1, 21):
        x, y = rng.uniform(0, 1000), rng.uniform(0, 1000)
        w, h = 10 ** rng.uniform(-9, 0), 10 ** rng.uniform(-9, 0)
        annotations.append(gt(image, 1, [x, y, w, h]))
        predictions.append(dt(image, 1, [x, y, w, h * rng.uniform(0.4, 1.6)], rng.random()))
        predictions.append(dt(image, 1, [x, y, w, h], rng.random()))
    return range(1, 21), [1], annotations, predictions


@case
def zero_extent_boxes(rng):
    annotations = [gt(1, 1, [10, 10, 0, 5]), gt(1, 1, [0, 0, 50, 50]), gt(1, 1, [0, 0, 90, 90], crowd=1)]
    predictions = [
        dt(1, 1, [10, 10, 0, 5], 0.9),
        dt(1, 1, [3, 3, 0, 0], 0.8),
        dt(1, 1, [0, 0, 50, 45], 0.7),
        dt(1, 1, [20, 20, 5, 0], 0.95),
    ]
    return [1], [1], annotations, predictions


@case
def boxes_outside_the_image(rng):
    annotations = [gt(1, 1, [-30, -20, 60, 50]), gt(1, 1, [900, 900, 400, 400])]
    predictions = [dt(1, 1, [-28, -20, 60, 50], 0.6), dt(1, 1, [905, 890, 380, 400], 0.7)]
    return [1], [1], annotations, predictions


# Crowds and areas


@case
def crowd_absorbs_many(rng):
    annotations = [gt(1, 1, [0, 0, 200, 200], crowd=1), gt(1, 1, [300, 0, 50, 50])]
    predictions = [dt(1, 1, [20 * i, 10, 18, 30], 0.9 - 0.01 * i) for i in range(9)]
    predictions += [dt(1, 1, [300, 0, 50, 48], 0.5), dt(1, 1, [190, 0, 30, 30], 0.6)]
    return [1], [1], annotations, predictions


@case
def crowd_and_object_compete(rng):
    # The crowd fits better, but an ordinary match stops the scan before ignored objects.
    annotations = [gt(1, 1, [0, 0, 100, 100], crowd=1), gt(1, 1, [10, 10, 40, 40]), gt(1, 1, [60, 60, 30, 30])]
    predictions = [
        dt(1, 1, [10, 10, 40, 28], 0.9),
        dt(1, 1, [12, 10, 40, 40], 0.8),
        dt(1, 1, [60, 60, 30, 31], 0.7),
        dt(1, 1, [60, 62, 30, 31], 0.6),
        dt(1, 1, [80, 80, 60, 60], 0.5),
    ]
    return [1], [1], annotations, predictions


@case
def only_crowds(rng):
    return [1], [1, 2], [gt(1, 1, [0, 0, 99, 99], crowd=1), gt(1, 2, [0, 0, 9, 9])], [dt(1, 1, [0, 0, 9, 9], 0.9), dt(1, 2, [0, 0, 9, 8], 0.3)]


@case
def areas_exactly_on_edges(rng):
    annotations, predictions = [], []
    areas = [1024, 1023.999, 1024.001, 9216, 9215.999, 9216.001]
    for image, area in enumerate(areas, 1):
        annotations.append(gt(image, 1, [0, 0, 50, 50], area=area))
        predictions.append(dt(image, 1, [0, 0, 50, 30 + 3 * image], 0.9 - 0.1 * image))
    # Unmatched detections whose own area is on an edge.
    predictions += [dt(1, 1, [500, 500, 32, 32], 0.95), dt(2, 1, [500, 500, 96, 96], 0.94), dt(3, 1, [500, 500, 31, 32], 0.93)]
    return range(1, 7), [1], annotations, predictions


@case
def annotated_area_is_not_width_times_height(rng):
    annotations, predictions = [], []
    for image in range(1, 31):
        w, h = rng.uniform(20, 160), rng.uniform(20, 160)
        box = [rng.uniform(0, 100), rng.uniform(0, 100), w, h]
        annotations.append(gt(image, 1 + image % 2, box, area=w * h * rng.uniform(0.1, 0.9)))
        predictions.append(dt(image, 1 + image % 2, [box[0] + rng.uniform(-9, 9), box[1], w, h], rng.random()))
    return range(1, 31), [1, 2], annotations, predictions


@case
def object_outside_the_area_range_is_matched_once(rng):
    # For AP_S the large object is ignored: one of the detections on it, the other stays false.
    annotations = [gt(1, 1, [0, 0, 200, 200]), gt(1, 1, [300, 300, 20, 20])]
    predictions = [dt(1, 1, [0, 0, 200, 190], 0.9), dt(1, 1, [0, 0, 200, 180], 0.8), dt(1, 1, [300, 300, 20, 18], 0.7), dt(1, 1, [0, 0, 20, 20], 0.85)]
    return [1], [1], annotations, predictions


# Classes and images


@case
def absent_class(rng):
    return [1], [1, 2, 3], [gt(1, 2, [0, 0, 40, 40])], [dt(1, 2, [0, 0, 40, 36], 0.9)]


@case
def detections_of_an_absent_class(rng):
    predictions = [dt(1, 2, [0, 0, 40, 36], 0.9), dt(1, 1, [0, 0, 40, 36], 0.95), dt(2, 3, [0, 0, 40, 36], 0.99)]
    return [1, 2], [1, 2, 3], [gt(1, 2, [0, 0, 40, 40])], predictions


@case
def images_without_annotations(rng):
    predictions = [dt(2, 1, [0, 0, 40, 36], 0.99), dt(1, 1, [0, 0, 40, 36], 0.9), dt(4, 1, [0, 0, 9, 9], 0.5)]
    return [1, 2, 3, 4], [1], [gt(1, 1, [0, 0, 40, 40]), gt(3, 1, [5, 5, 60, 60])], predictions


@case
def no_predictions(rng):
    return [1, 2], [1, 2], [gt(1, 1, [0, 0, 40, 40]), gt(2, 1, [0, 0, 9, 9])], []


@case
def no_annotations(rng):
    return [1, 2], [1, 2], [], [dt(1, 1, [0, 0, 40, 36], 0.9)]


@case
def nothing_at_all(rng):
    return [1], [1], [], []


@case
def ids_with_gaps_in_any_order(rng):
    images, categories = [9000000001, 17, 5, 423], [90, 7, 44, 1]
    annotations, predictions = [], []
    for _ in range(60):
        box = [rng.randrange(200), rng.randrange(200), rng.randrange(10, 120), rng.randrange(10, 120)]
        i, k = rng.choice(images), rng.choice(categories[:3])
        annotations.append(gt(i, k, box))
        predictions.append(dt(i, rng.choice([k, k, k, 1]), [box[0] + rng.randrange(9), *box[1:]], rng.randrange(10) / 10))
    rng.shuffle(predictions)
    return images, categories, annotations, predictions


# Scores and limits


@case
def ties_across_images(rng):
    # Hits and misses share one score: only the order of images decides the curve.
    images = [5, 3, 1, 4, 2]
    annotations = [gt(i, 1, [0, 0, 50, 50]) for i in images]
    predictions = [dt(i, 1, [0, 0, 50, 50] if i % 2 else [80, 80, 50, 50], 0.5) for i in images]
    return images, [1], annotations, predictions


@case
def ties_within_an_image(rng):
    annotations = [gt(1, 1, [60 * i, 0, 50, 50]) for i in range(5)]
    boxes = [[60 * i, 0, 50, 50 - 4 * i] for i in range(5)] + [[60 * i, 30, 50, 50] for i in range(5)]
    rng.shuffle(boxes)
    return [1], [1], annotations, [dt(1, 1, b, rng.choice([0.25, 0.5])) for b in boxes]


@case
def scores_of_single_precision(rng):
    annotations, predictions = [], []
    scores = [float(np.float32(s)) for s in (0.1, 0.3, 0.7, 1 / 3)]
    nearby = [0.1, 0.3, 0.7, 1 / 3]
    for image in range(1, 31):
        box = [float(np.float32(rng.uniform(0, 90))) for _ in range(2)] + [float(np.float32(rng.uniform(20, 90))) for _ in range(2)]
        annotations.append(gt(image, 1, box))
        for pool in (scores, nearby):
            predictions.append(dt(image, 1, [box[0] + rng.uniform(-20, 20), *box[1:]], rng.choice(pool)))
    return range(1, 31), [1], annotations, predictions


@case
def scores_zero_and_negative(rng):
    annotations = [gt(1, 1, [60 * i, 0, 50, 50]) for i in range(6)]
    scores = [0.0, -0.0, -1.5, 1.0, 0.0, -0.0]
    return [1], [1], annotations, [dt(1, 1, [60 * i + 3 * i, 0, 50, 50], s) for i, s in enumerate(scores)]


@case
def more_than_100_detections(rng):
    annotations, predictions = [], []
    for k in (1, 2):
        for i in range(30):
            annotations.append(gt(1, k, [70 * i, 0, 50, 50]))
        for n in range(170):
            i = rng.randrange(30)
            predictions.append(dt(1, k, [70 * i + rng.randrange(25), 0, 50, 50], rng.randrange(40) / 40))
    return [1], [1, 2], annotations, predictions


@case
def the_hundredth_is_decided_by_order(rng):
    # 150 of one score: the first 100 of the list are kept, and only later ones hit.
    predictions = [dt(1, 1, [500, 500, 9, 9], 0.5)] * 98 + [dt(1, 1, [60 * i, 0, 50, 50], 0.5) for i in range(5)] + [dt(1, 1, [0, 0, 9, 9], 0.5)] * 47
    return [1], [1], [gt(1, 1, [60 * i, 0, 50, 50]) for i in range(5)], predictions


@case
def one_and_ten_detections(rng):
    annotations, predictions = [], []
    for image in (1, 2, 3):
        for i in range(14):
            annotations.append(gt(image, 1, [60 * i, 60 * image, 50, 50]))
            predictions.append(dt(image, 1, [60 * i, 60 * image, 50, 50 - rng.randrange(20)], rng.random()))
            predictions.append(dt(image, 1, [60 * i, 60 * image + 40, 50, 50], rng.random()))
    return [1, 2, 3], [1], annotations, predictions


@case
def recall_exactly_on_the_grid(rng):
    # Recalls are multiples of 1/20 and 1/25, so they land on recall thresholds.
    annotations, predictions = [], []
    for k, n in ((1, 20), (2, 25), (3, 100)):
        for i in range(n):
            annotations.append(gt(1, k, [60 * i, 0, 50, 50]))
            hit = rng.random() < 0.6
            predictions.append(dt(1, k, [60 * i, 0 if hit else 300, 50, 50], rng.random()))
    return [1], [1, 2, 3], annotations, predictions


# Random


def scene(rng, images, categories, objects, spread, crowd, missing, spurious):
    annotations, predictions = [], []
    for _ in range(objects):
        i, k = rng.choice(images), rng.choice(categories)
        side = 2 ** rng.uniform(3, 8)
        w, h = side * rng.uniform(0.5, 2), side * rng.uniform(0.5, 2)
        box = [rng.uniform(0, 640 - 64), rng.uniform(0, 480 - 48), w, h]
        box = [round(v, 2) for v in box]
        is_crowd = int(rng.random() < crowd)
        annotations.append(gt(i, k, box, area=round(box[2] * box[3] * rng.uniform(0.4, 1), 3), crowd=is_crowd))
        for _ in range(rng.randrange(1, 6) if is_crowd else rng.choice([1, 1, 1, 2])):
            if rng.random() < missing:
                continue
            jitter = lambda v, s: round(v + rng.gauss(0, spread) * s, 2)
            predictions.append(dt(i, k, [jitter(box[0], w), jitter(box[1], h), abs(jitter(w, w)), abs(jitter(h, h))], round(min(1, max(0, rng.gauss(0.6, 0.2))), 3)))
    for _ in range(spurious):
        predictions.append(dt(rng.choice(images), rng.choice(categories), [round(rng.uniform(0, 500), 2), round(rng.uniform(0, 400), 2), round(rng.uniform(4, 200), 2), round(rng.uniform(4, 200), 2)], round(rng.random() * 0.7, 3)))
    rng.shuffle(predictions)
    return images, categories, annotations, predictions


@case
def many_classes(rng):
    images = rng.sample(range(1, 100000), 120)
    return scene(rng, images, rng.sample(range(1, 200), 60), 1500, 0.05, 0.03, 0.15, 900)


@case
def few_crowded_images(rng):
    return scene(rng, [4, 2, 9], [1, 2], 260, 0.04, 0.1, 0.1, 300)


def coarse(rng):
    """A grid so coarse that scores, IoUs and areas coincide all the time."""
    images, categories = rng.sample(range(1, 9), 3), rng.sample(range(1, 9), 2)
    box = lambda: [rng.randrange(4) * 16, rng.randrange(4) * 16, rng.choice([16, 32, 48, 96]), rng.choice([16, 32, 48, 96])]
    annotations = [gt(rng.choice(images), rng.choice(categories), box(), rng.choice([None, None, 1024, 9216, 400, 20000]), int(rng.random() < 0.2)) for _ in range(rng.randrange(1, 16))]
    predictions = [dt(rng.choice(images), rng.choice(categories), box(), rng.randrange(1, 5) / 4) for _ in range(rng.randrange(1, 40))]
    predictions += [dt(*rng.choice(annotations)[:2], rng.choice(annotations)[2:6], rng.randrange(1, 5) / 4) for _ in range(12)]
    return images, categories, annotations, predictions


for number in range(40):
    coarse.__name__ = f"coarse_{number:02}"
    case(coarse)


if __name__ == "__main__":
    for c in CASES.values():
        with contextlib.redirect_stdout(io.StringIO()):
            c["stats"], c["class_ap"] = evaluate(c)
    out = dict(
        versions=dict(pycocotools=version("pycocotools"), numpy=np.__version__, python=sys.version.split()[0]),
        cases=CASES,
    )
    path = pathlib.Path(__file__).with_name("coco_eval.json")
    lines = ",\n".join(f"{json.dumps(k)}: {json.dumps(c, separators=(',', ':'))}" for k, c in CASES.items())
    path.write_text(f'{{"versions": {json.dumps(out["versions"])},\n"cases": {{\n{lines}\n}}}}\n')
    print(f"{path.name}: {len(CASES)} cases, {path.stat().st_size} bytes")
