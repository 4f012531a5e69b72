"""Writes segmentation.json: label maps, predicted and true, and what mmsegmentation's formula and
torchmetrics say of them.

A case holds
  classes       number of classes
  pairs         [height, width, predicted labels, true labels] of each image; 255 in the truth is ignored
  iou, acc      of each class by mmsegmentation; null where it is NaN
  miou, macc    their means over the classes that have a number
  aacc, fwiou   share of pixels that are right; IoU weighted by the truth's pixels
  torchmetrics  IoU of each class by torchmetrics' confusion matrix, and its own mean accuracies
"""

import json
import pathlib
from importlib.metadata import version

import numpy as np
import torch
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassConfusionMatrix,
    MulticlassJaccardIndex,
)

IGNORE = 255
CASES = {}


def case(function):
    rng = np.random.default_rng(sum(function.__name__.encode()))
    CASES[function.__name__] = function(rng)
    return function


def noisy(rng, truth, classes, share):
    """Right but for a share of the pixels, which are anything."""
    wrong = rng.random(truth.shape) < share
    guess = rng.integers(0, classes, truth.shape)
    known = np.where(truth == IGNORE, rng.integers(0, classes, truth.shape), truth)
    return np.where(wrong, guess, known).astype(np.uint8)


@case
def everything_is_there(rng):
    truths = [rng.integers(0, 4, (6, 8)).astype(np.uint8) for _ in range(3)]
    return 4, [(noisy(rng, t, 4, 0.3), t) for t in truths]


@case
def pixels_without_a_class(rng):
    truths = [rng.choice([0, 1, 2, IGNORE], (7, 5)).astype(np.uint8) for _ in range(3)]
    return 3, [(noisy(rng, t, 3, 0.4), t) for t in truths]


@case
def a_class_that_is_nowhere(rng):
    truths = [rng.choice([0, 1, 3], (5, 9)).astype(np.uint8) for _ in range(2)]
    return 5, [(np.where(noisy(rng, t, 4, 0.3) == 2, 0, noisy(rng, t, 4, 0.3) % 2), t) for t in truths]


@case
def a_class_that_is_predicted_alone(rng):
    truths = [rng.choice([0, 1], (6, 6)).astype(np.uint8) for _ in range(2)]
    return 3, [(noisy(rng, t, 3, 0.5), t) for t in truths]


@case
def a_class_that_is_predicted_where_the_truth_is_open(rng):
    truth = rng.choice([0, 1], (6, 6)).astype(np.uint8)
    truth[:2] = IGNORE
    predicted = truth.copy()
    predicted[:2] = 2
    predicted[3, 3] ^= 1
    return 3, [(predicted, truth)]


@case
def images_of_many_sizes(rng):
    sizes = [(1, 1), (3, 17), (20, 2), (9, 9)]
    truths = [rng.integers(0, 6, size).astype(np.uint8) for size in sizes]
    return 6, [(noisy(rng, t, 6, 0.6), t) for t in truths]


@case
def everything_is_right(rng):
    truth = rng.integers(0, 3, (4, 4)).astype(np.uint8)
    return 3, [(truth.copy(), truth)]


@case
def nothing_is_right(rng):
    truth = rng.integers(0, 2, (4, 4)).astype(np.uint8)
    return 2, [(1 - truth, truth)]


def mmseg(classes, pairs):
    """IoUMetric.intersect_and_union and total_area_to_metrics (mmsegmentation 1.2.2)."""
    totals = torch.zeros(4, classes, dtype=torch.float64)
    for predicted, truth in pairs:
        predicted, truth = torch.from_numpy(predicted), torch.from_numpy(truth)
        mask = truth != IGNORE
        predicted, truth = predicted[mask], truth[mask]
        intersect = predicted[predicted == truth]
        histc = lambda v: torch.histc(v.float(), bins=classes, min=0, max=classes - 1)
        areas = [histc(intersect), histc(predicted), histc(truth)]
        totals += torch.stack([*areas[:1], areas[1] + areas[2] - areas[0], *areas[1:]])
    intersect, union, _, label = totals
    iou, acc = (intersect / union).numpy(), (intersect / label).numpy()
    known = union.numpy() > 0
    weighted = np.sum(label.numpy()[known] / label.sum().item() * iou[known])
    return dict(
        iou=iou,
        acc=acc,
        miou=np.nanmean(iou),
        macc=np.nanmean(acc),
        aacc=(intersect.sum() / label.sum()).item(),
        fwiou=weighted,
    )


def by_torchmetrics(classes, pairs):
    settings = dict(num_classes=classes, ignore_index=IGNORE, validate_args=False)
    metrics = dict(
        matrix=MulticlassConfusionMatrix(**settings),
        aacc=MulticlassAccuracy(average="micro", **settings),
        jaccard=MulticlassJaccardIndex(average="none", **settings),
    )
    for predicted, truth in pairs:
        for metric in metrics.values():
            metric.update(
                torch.from_numpy(predicted).long().flatten(), torch.from_numpy(truth).long().flatten()
            )
    return dict(
        matrix=metrics["matrix"].compute().tolist(),
        aacc=metrics["aacc"].compute().item(),
        iou=metrics["jaccard"].compute().tolist(),
    )


def plain(value):
    if isinstance(value, np.ndarray):
        return [None if np.isnan(v) else float(v) for v in value]
    return float(value)


def main():
    cases = {}
    for name, (classes, pairs) in CASES.items():
        pairs = [(p.astype(np.uint8), t.astype(np.uint8)) for p, t in pairs]
        cases[name] = dict(
            classes=classes,
            pairs=[[*t.shape, p.ravel().tolist(), t.ravel().tolist()] for p, t in pairs],
            torchmetrics=by_torchmetrics(classes, pairs),
            **{key: plain(value) for key, value in mmseg(classes, pairs).items()},
        )
    versions = {name: version(name) for name in ["numpy", "torch", "torchmetrics"]}
    golden = {"versions": versions, "cases": cases}
    path = pathlib.Path(__file__).with_name("segmentation.json")
    path.write_text(json.dumps(golden, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
