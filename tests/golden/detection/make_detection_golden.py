"""Reference values of torchvision's RetinaNet for the tests of `host/src/detection`.

Run by hand, never by tests; writes `detection.safetensors` beside this file (versions in its header).
Everything is f32, indices and labels too: they are small enough to be exact.
"""

import functools
import types
from pathlib import Path

import torch
import torchvision
from safetensors.torch import save_file
from torchvision.models.detection import _utils, retinanet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import batched_nms, box_iou, nms

RATIOS = (0.5, 1.0, 2.0)
out = {}


def put(name, tensor):
    assert name not in out, name
    out[name] = torch.as_tensor(tensor).detach().to(torch.float32).contiguous().clone()


def octaves(base):
    return (base, int(base * 2 ** (1.0 / 3)), int(base * 2 ** (2.0 / 3)))


def make_anchors(base, input_size, level_sizes):
    """As RetinaNet's own generator, for another base size and number of levels."""
    sizes = tuple(octaves(base << level) for level in range(len(level_sizes)))
    generator = AnchorGenerator(sizes, (RATIOS,) * len(sizes))
    images = ImageList(torch.zeros(1, 3, *input_size), [tuple(input_size)])
    return generator(images, [torch.zeros(1, 1, *size) for size in level_sizes])[0]


def pyramid(input_size, strides):
    return [tuple(-(-extent // stride) for extent in input_size) for stride in strides]


def random_boxes(generator, count, input_size, low, high):
    height, width = input_size
    centre = torch.rand(count, 2, generator=generator) * torch.tensor([width, height])
    size = low * (high / low) ** torch.rand(count, 2, generator=generator)
    boxes = torch.cat([centre - size / 2, centre + size / 2], 1)
    boxes[:, 0::2] = boxes[:, 0::2].clamp(0, width)
    boxes[:, 1::2] = boxes[:, 1::2].clamp(0, height)
    return boxes


def anchors():
    strides = [8, 16, 32, 64, 128]
    default = retinanet._default_anchorgen()
    for case, (base, size) in enumerate([(32, (64, 96)), (32, (100, 132)), (16, (72, 40))]):
        levels = pyramid(size, strides)
        result = make_anchors(base, size, levels)
        if base == 32:
            images = ImageList(torch.zeros(1, 3, *size), [size])
            same = default(images, [torch.zeros(1, 1, *level) for level in levels])[0]
            assert torch.equal(result, same)
        put(f"anchors.{case}.base", [base])
        put(f"anchors.{case}.input_size", size)
        put(f"anchors.{case}.level_sizes", levels)
        put(f"anchors.{case}.anchors", result)


def matches():
    g = torch.Generator().manual_seed(1)
    size = (96, 128)
    levels = pyramid(size, [8, 16, 32])
    grid = make_anchors(16, size, levels)
    put("matches.input_size", size)
    put("matches.level_sizes", levels)
    cases = {
        "random": random_boxes(g, 14, size, 6, 90),
        "many": random_boxes(g, 120, size, 3, 120),
        # Exactly an anchor; half way between cells (equal best overlaps on both sides);
        # the same box twice (the first must win).
        "ties": torch.tensor(
            [
                grid[1000].tolist(),
                [36.0, 36.0, 52.0, 52.0],
                [36.0, 36.0, 52.0, 52.0],
                [60.0, 20.0, 68.0, 28.0],
                [0.0, 0.0, 128.0, 96.0],
            ]
        ),
        "tiny": torch.tensor(
            [
                [10.25, 10.5, 10.75, 10.75],
                [64.0, 48.0, 64.0625, 90.0],
                [127.5, 95.5, 128.0, 96.0],
                [0.0, 0.0, 0.001, 0.001],
            ]
        ),
    }
    for name, boxes in cases.items():
        quality = box_iou(boxes, grid)
        assert (quality.max(dim=1).values > 0).all()
        for low, high in ((0.4, 0.5), (0.3, 0.7)):
            matcher = _utils.Matcher(high, low, allow_low_quality_matches=True)
            put(f"matches.{name}.{high}", matcher(quality))
        put(f"matches.{name}.boxes", boxes)


def flatten(maps, columns):
    """The head's own permutation: [N, A*c, H, W] of each level to [N, HWA, c]."""
    rows = []
    for x in maps:
        n, _, h, w = x.shape
        rows.append(x.view(n, -1, columns, h, w).permute(0, 3, 4, 1, 2).reshape(n, -1, columns))
    return rows


def losses():
    g = torch.Generator().manual_seed(2)
    size, classes, per_cell = (48, 64), 3, 9
    levels = pyramid(size, [8, 16, 32])
    grid = make_anchors(16, size, levels)
    targets = [
        {"boxes": random_boxes(g, 5, size, 8, 50), "labels": torch.tensor([0, 1, 2, 1, 0])},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
        {"boxes": torch.tensor([[10.0, 8.0, 44.0, 30.0], [40.5, 20.0, 62.0, 45.5]]), "labels": torch.tensor([2, 2])},
    ]
    logits, deltas = [], []
    for h, w in levels:
        x = torch.randn(3, per_cell * classes, h, w, generator=g) * 2 - 3
        # Logits far beyond where exp overflows or 1 - p vanishes.
        x[:, ::5, 0, 0] = 95.0
        x[:, 1::5, 0, 0] = -95.0
        logits.append(x)
        deltas.append(torch.randn(3, per_cell * 4, h, w, generator=g) * 0.4)
    deltas[0][:, 2::8, :, 0] = 5.0  # above the coder's clip
    matcher = _utils.Matcher(0.5, 0.4, allow_low_quality_matches=True)
    matched = [
        matcher(box_iou(t["boxes"], grid)) if len(t["boxes"]) else torch.full((len(grid),), -1)
        for t in targets
    ]
    print("foreground and ignored", [((m >= 0).sum().item(), (m == -2).sum().item()) for m in matched])
    assert all((m == -2).any() and (m >= 0).sum() > 5 for m in (matched[0], matched[2]))

    put("losses.input_size", size)
    put("losses.level_sizes", levels)
    for i, target in enumerate(targets):
        if len(target["boxes"]):
            put(f"losses.{i}.boxes", target["boxes"])
            put(f"losses.{i}.labels", target["labels"])
    for i, (x, d) in enumerate(zip(logits, deltas)):
        put(f"losses.logits.{i}", x)
        put(f"losses.deltas.{i}", d)
        x.requires_grad_(True)
        d.requires_grad_(True)

    classification = retinanet.RetinaNetClassificationHead(8, per_cell, classes)
    regression = retinanet.RetinaNetRegressionHead(8, per_cell)
    original = retinanet.sigmoid_focal_loss
    for name, alpha, gamma in (("default", 0.25, 2.0), ("other", 0.6, 1.5), ("plain", -1.0, 0.0)):
        retinanet.sigmoid_focal_loss = functools.partial(original, alpha=alpha, gamma=gamma)
        output = {"cls_logits": torch.cat(flatten(logits, classes), 1)}
        loss = classification.compute_loss(targets, output, matched)
        put(f"losses.cls.{name}.config", [alpha, gamma])
        put(f"losses.cls.{name}.value", loss.reshape(1))
        for i, gradient in enumerate(torch.autograd.grad(loss, logits)):
            put(f"losses.cls.{name}.gradient.{i}", gradient)
    for kind in ("l1", "giou"):
        regression._loss_type = kind
        output = {"bbox_regression": torch.cat(flatten(deltas, 4), 1)}
        loss = regression.compute_loss(targets, output, [grid] * 3, matched)
        put(f"losses.bbox.{kind}.value", loss.reshape(1))
        for i, gradient in enumerate(torch.autograd.grad(loss, deltas)):
            put(f"losses.bbox.{kind}.gradient.{i}", gradient)


def detections():
    g = torch.Generator().manual_seed(3)
    classes, per_cell, input_size = 3, 9, (64, 96)
    sizes = [(64, 96), (50, 77)]
    levels = pyramid(input_size, [8, 16, 32])
    grid = make_anchors(16, input_size, levels)
    put("detections.input_size", input_size)
    put("detections.level_sizes", levels)
    put("detections.sizes", sizes)
    logits = [torch.randn(2, per_cell * classes, h, w, generator=g) * 2 - 3 for h, w in levels]
    deltas = [torch.randn(2, per_cell * 4, h, w, generator=g) * 0.5 for h, w in levels]
    for x in logits:
        x[1] -= 3
    for i, (x, d) in enumerate(zip(logits, deltas)):
        put(f"detections.logits.{i}", x)
        put(f"detections.deltas.{i}", d)
    output = {"cls_logits": flatten(logits, classes), "bbox_regression": flatten(deltas, 4)}
    per_level = list(grid.split([h * w * per_cell for h, w in levels]))
    # The last keeps more than 1000 candidates: torchvision suppresses class by class there.
    configs = [(0.05, 0.5, 100, 40), (0.2, 0.3, 1000, 300), (0.01, 0.5, 2000, 100), (0.999, 0.5, 10, 10)]
    for case, (score, overlap, topk, keep) in enumerate(configs):
        model = types.SimpleNamespace(
            score_thresh=score,
            nms_thresh=overlap,
            topk_candidates=topk,
            detections_per_img=keep,
            box_coder=_utils.BoxCoder((1.0, 1.0, 1.0, 1.0)),
        )
        results = retinanet.RetinaNet.postprocess_detections(model, output, [per_level] * 2, sizes)
        put(f"detections.{case}.config", [score, overlap, topk, keep])
        put(f"detections.{case}.counts", [len(r["scores"]) for r in results])
        for key in ("boxes", "scores", "labels"):
            rows = torch.cat([r[key] for r in results])
            if rows.numel():
                put(f"detections.{case}.{key}", rows)
        print("detections", case, [len(r["scores"]) for r in results])


def suppression():
    g = torch.Generator().manual_seed(4)
    boxes = random_boxes(g, 300, (100, 100), 10, 60)
    boxes[50:60] = boxes[40:50]
    scores = torch.rand(300, generator=g)
    scores[100:140] = scores[100]
    labels = torch.randint(0, 4, (300,), generator=g)
    put("nms.boxes", boxes)
    put("nms.scores", scores)
    put("nms.labels", labels)
    for threshold in (0.25, 0.5, 0.75):
        put(f"nms.single.{threshold}", nms(boxes, scores, threshold))
        put(f"nms.batched.{threshold}", batched_nms(boxes, scores, labels, threshold))


def main():
    torch.set_num_threads(1)
    for part in (anchors, matches, losses, detections, suppression):
        part()
    target = Path(__file__).parent / "detection.safetensors"
    save_file(
        out,
        target,
        {"torch": torch.__version__, "torchvision": torchvision.__version__},
    )
    print(target.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
