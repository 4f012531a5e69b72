"""Reference values of torchvision's FCOS, for `host/src/detection` and `host/src/model/tests`.

Run by hand, never by tests; writes beside itself (versions in the headers):
  detection.safetensors  locations, matches, losses with gradients, detections; f32, indices too
  basic_batch.safetensors  a narrow detector; entries as `../model/make_model_golden.py` says
  keys.json              names and shapes (64x3x7x7) of the full-size detectors' heads; the rest is
                         that of RetinaNet in `../model/keys.json`
"""

import copy
import functools
import json
import sys
import types
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import resnet
from torchvision.models.detection import _utils, fcos
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.image_list import ImageList
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

HERE = Path(__file__).parent
sys.path += [str(HERE.parent / folder) for folder in ("detection", "model")]

from make_detection_golden import flatten, out, put, pyramid, random_boxes  # noqa: E402
from make_model_golden import IMAGE_SIZES, LEVELS, VERSIONS, NarrowResNet, freeze, randomise  # noqa: E402

STRIDES = [8, 16, 32, 64, 128]
# Amid the scores of the random heads, so that some locations pass and some do not.
SCORE_THRESHOLD = 0.2


def generator_of(base, levels):
    return AnchorGenerator(tuple((base << level,) for level in range(levels)), ((1.0,),) * levels)


def make_locations(base, input_size, level_sizes):
    images = ImageList(torch.zeros(1, 3, *input_size), [tuple(input_size)])
    maps = [torch.zeros(1, 1, *size) for size in level_sizes]
    return generator_of(base, len(level_sizes))(images, maps)[0]


def locations():
    body = nn.Conv2d(3, 32, 1)
    body.out_channels = 32
    default = fcos.FCOS(body, 2).anchor_generator
    for case, (base, size) in enumerate([(8, (64, 96)), (8, (100, 132)), (5, (72, 40))]):
        levels = pyramid(size, STRIDES)
        result = make_locations(base, size, levels)
        if base == 8:
            images = ImageList(torch.zeros(1, 3, *size), [size])
            assert torch.equal(result, default(images, [torch.zeros(1, 1, *s) for s in levels])[0])
        put(f"anchors.{case}.base", [base])
        put(f"anchors.{case}.input_size", size)
        put(f"anchors.{case}.level_sizes", levels)
        put(f"anchors.{case}.anchors", result)


def match(targets, grid, cells, radius):
    """`matched_idxs` of `FCOS.compute_loss`, image by image."""
    head = types.SimpleNamespace(compute_loss=lambda targets, outputs, anchors, matched: matched)
    model = types.SimpleNamespace(center_sampling_radius=radius, head=head)
    return fcos.FCOS.compute_loss(model, targets, {}, [grid] * len(targets), cells)


def matches():
    g = torch.Generator().manual_seed(11)
    size = (160, 224)
    levels = pyramid(size, STRIDES[:4])
    cells = [h * w for h, w in levels]
    grid = make_locations(4, size, levels)
    put("matches.input_size", size)
    put("matches.level_sizes", levels)
    cases = {
        "random": random_boxes(g, 14, size, 6, 150),
        "many": random_boxes(g, 150, size, 3, 220),
        # Whole coordinates on the grid: centres at the sampling radius, locations on sides,
        # farthest sides at the bounds of a level, one box twice, areas that f32 rounds to one rank.
        "ties": torch.tensor(
            [
                [16.0, 16.0, 48.0, 48.0],
                [16.0, 16.0, 48.0, 48.0],
                [8.0, 8.0, 40.0, 40.0],
                [60.0, 60.0, 84.0, 84.0],
                [60.0, 60.0, 84.0, 84.125],
                [59.875, 60.0, 84.0, 84.0],
                [98.0, 66.0, 130.0, 94.0],
                [0.0, 0.0, 224.0, 160.0],
                [64.0, 32.0, 192.0, 160.0],
                [96.0, 0.0, 160.0, 128.0],
            ]
        ),
        "tiny": torch.tensor(
            [
                [10.25, 10.5, 10.75, 10.75],
                [23.5, 23.5, 24.5, 24.5],
                [7.75, 100.0, 8.25, 160.0],
                [223.5, 159.5, 224.0, 160.0],
                [0.0, 0.0, 0.001, 0.001],
                [40.0, 40.0, 40.0, 44.0],
            ]
        ),
        # 1e8 pixels^2 and more match nothing.
        "huge": torch.tensor(
            [
                [-9000.0, -9000.0, 9000.0, 9000.0],
                [-4000.0, -4000.0, 4200.0, 4100.0],
                [30.0, 30.0, 90.0, 70.0],
            ]
        ),
    }
    for name, boxes in cases.items():
        target = {"boxes": boxes, "labels": torch.zeros(len(boxes), dtype=torch.int64)}
        put(f"matches.{name}.boxes", boxes)
        for radius in (1.5, 2.0, 50.0):
            matched = match([target], grid, cells, radius)[0]
            put(f"matches.{name}.{radius:g}", matched)
            print("matches", name, radius, (matched >= 0).sum().item())


def losses():
    g = torch.Generator().manual_seed(12)
    size, classes = (96, 128), 3
    levels = pyramid(size, STRIDES[:3])
    cells = [h * w for h, w in levels]
    grid = make_locations(8, size, levels)
    targets = [
        {"boxes": random_boxes(g, 6, size, 10, 90), "labels": torch.tensor([0, 1, 2, 1, 0, 2])},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
        {
            "boxes": torch.tensor([[10.0, 8.0, 44.0, 30.0], [40.5, 20.0, 122.0, 85.5]]),
            "labels": torch.tensor([2, 2]),
        },
    ]
    logits, deltas, centerness = [], [], []
    for h, w in levels:
        x = torch.randn(3, classes, h, w, generator=g) * 2 - 3
        # Logits far beyond where exp overflows or 1 - p vanishes.
        x[:, 1, 0, 0] = 95.0
        x[:, 2, 0, 0] = -95.0
        logits.append(x)
        # Some distances are 0, as after the head's ReLU.
        deltas.append((torch.randn(3, 4, h, w, generator=g) * 1.5 + 1.2).clamp(min=0))
        z = torch.randn(3, 1, h, w, generator=g) * 3
        # Where the derivative of the usual formula jumps, and beyond where exp overflows.
        z[:, :, :, ::3] = 0.0
        z[:, :, :, 1::7] = 120.0
        z[:, :, :, 2::7] = -120.0
        centerness.append(z)
    matched = match(targets, grid, cells, 1.5)
    print("foreground", [(m >= 0).sum().item() for m in matched])
    assert all((m >= 0).sum() > 5 for m in (matched[0], matched[2]))

    put("losses.input_size", size)
    put("losses.level_sizes", levels)
    for i, target in enumerate(targets):
        if len(target["boxes"]):
            put(f"losses.{i}.boxes", target["boxes"])
            put(f"losses.{i}.labels", target["labels"])
    for kind, maps in (("logits", logits), ("deltas", deltas), ("centerness", centerness)):
        for i, x in enumerate(maps):
            put(f"losses.{kind}.{i}", x)
            x.requires_grad_(True)

    head = types.SimpleNamespace(box_coder=_utils.BoxLinearCoder(normalize_by_size=True))
    original = fcos.sigmoid_focal_loss
    for name, alpha, gamma in (("default", 0.25, 2.0), ("other", 0.6, 1.5)):
        fcos.sigmoid_focal_loss = functools.partial(original, alpha=alpha, gamma=gamma)
        outputs = {
            "cls_logits": torch.cat(flatten(logits, classes), 1),
            "bbox_regression": torch.cat(flatten(deltas, 4), 1),
            "bbox_ctrness": torch.cat(flatten(centerness, 1), 1),
        }
        result = fcos.FCOSHead.compute_loss(head, targets, outputs, [grid] * 3, matched)
        put(f"losses.{name}.config", [alpha, gamma])
        for key, kind, maps in (
            ("classification", "cls", logits),
            ("bbox_regression", "bbox", deltas),
            ("bbox_ctrness", "ctrness", centerness),
        ):
            if name != "default" and kind != "cls":
                continue
            put(f"losses.{name}.{kind}.value", result[key].reshape(1))
            gradients = torch.autograd.grad(result[key], maps, retain_graph=True)
            for i, gradient in enumerate(gradients):
                put(f"losses.{name}.{kind}.gradient.{i}", gradient)
    fcos.sigmoid_focal_loss = original


def detections():
    g = torch.Generator().manual_seed(13)
    classes, input_size = 3, (96, 128)
    sizes = [(96, 128), (80, 101)]
    levels = pyramid(input_size, STRIDES[:3])
    grid = make_locations(8, input_size, levels)
    put("detections.input_size", input_size)
    put("detections.level_sizes", levels)
    put("detections.sizes", sizes)
    logits = [torch.randn(2, classes, h, w, generator=g) * 2 - 2 for h, w in levels]
    deltas = [(torch.randn(2, 4, h, w, generator=g) * 1.5 + 1).clamp(min=0) for h, w in levels]
    centerness = [torch.randn(2, 1, h, w, generator=g) * 2 for h, w in levels]
    for x in logits:
        x[1] -= 2
    outputs = {}
    for kind, key, maps, columns in (
        ("logits", "cls_logits", logits, classes),
        ("deltas", "bbox_regression", deltas, 4),
        ("centerness", "bbox_ctrness", centerness, 1),
    ):
        for i, x in enumerate(maps):
            put(f"detections.{kind}.{i}", x)
        outputs[key] = flatten(maps, columns)
    per_level = list(grid.split([h * w for h, w in levels]))
    configs = [(0.05, 0.6, 1000, 40), (0.2, 0.6, 1000, 100), (0.2, 0.3, 50, 300), (0.99, 0.6, 10, 10)]
    for case, (score, overlap, topk, keep) in enumerate(configs):
        model = types.SimpleNamespace(
            score_thresh=score,
            nms_thresh=overlap,
            topk_candidates=topk,
            detections_per_img=keep,
            box_coder=_utils.BoxLinearCoder(normalize_by_size=True),
        )
        results = fcos.FCOS.postprocess_detections(model, outputs, [per_level] * 2, sizes)
        put(f"detections.{case}.config", [score, overlap, topk, keep])
        put(f"detections.{case}.counts", [len(r["scores"]) for r in results])
        for key in ("boxes", "scores", "labels"):
            rows = torch.cat([r[key] for r in results])
            if rows.numel():
                put(f"detections.{case}.{key}", rows)
        print("detections", case, [len(r["scores"]) for r in results])


def narrow_fcos(layers, width, fpn, groups, convs, classes):
    body = NarrowResNet(resnet.BasicBlock, layers, width, nn.BatchNorm2d)
    freeze(body, 5)
    backbone = BackboneWithFPN(
        body,
        {"layer2": "0", "layer3": "1", "layer4": "2"},
        [width * factor for factor in (2, 4, 8)],
        fpn,
        extra_blocks=LastLevelP6P7(fpn, fpn),
    )
    norm = functools.partial(nn.GroupNorm, groups)
    head = fcos.FCOSHead.__new__(fcos.FCOSHead)
    nn.Module.__init__(head)
    head.box_coder = _utils.BoxLinearCoder(normalize_by_size=True)
    # The constructor fixes 32 groups.
    head.classification_head = fcos.FCOSClassificationHead(fpn, 1, classes, convs, norm_layer=norm)
    head.regression_head = fcos.FCOSRegressionHead(fpn, 1, convs, norm_layer=norm)
    return fcos.FCOS(
        backbone,
        classes,
        anchor_generator=generator_of(4, len(LEVELS)),
        head=head,
        score_thresh=SCORE_THRESHOLD,
        detections_per_img=300,
    )


def randomise_head(head, generator):
    """Outputs away from their tiny start, affine parts away from 1 and 0."""
    rand = functools.partial(torch.rand, generator=generator)
    for module in head.modules():
        if isinstance(module, nn.GroupNorm):
            module.weight.copy_(0.6 + 0.6 * rand(module.weight.shape))
            module.bias.copy_(0.4 * rand(module.bias.shape) - 0.2)
    boxes = head.regression_head
    for layer, scale, shift in (
        (head.classification_head.cls_logits, 0.5, -2.0),
        (boxes.bbox_reg, 0.5, 0.7),
        (boxes.bbox_ctrness, 0.5, 0.3),
    ):
        layer.weight.copy_(scale * (rand(layer.weight.shape) - 0.5))
        layer.bias.copy_(shift + 0.4 * rand(layer.bias.shape))


def run(model, image):
    """All taps by name. `stem.conv` is the first convolution, `stem` that with norm and ReLU, before the
    max-pool."""
    taps = {}
    body = model.backbone.body

    def keep(name):
        return lambda module, args, output: taps.__setitem__(name, output)

    hooks = [body.conv1.register_forward_hook(keep("stem.conv"))]
    hooks.append(body.maxpool.register_forward_pre_hook(lambda m, a: taps.update(stem=a[0])))
    for stage in range(4):
        layer = getattr(body, f"layer{stage + 1}")
        hooks.append(layer.register_forward_hook(keep(f"backbone.c{stage + 2}")))
    maps = list(model.backbone(image).values())
    for hook in hooks:
        hook.remove()
    classes, boxes = model.head.classification_head, model.head.regression_head
    distances = []
    for level, p in zip(LEVELS, maps):
        taps[f"neck.p{level}"] = p
        taps[f"head.cls_feat.p{level}"] = classes.conv(p)
        taps[f"head.box_feat.p{level}"] = boxes.conv(p)
        taps[f"head.cls_logits.p{level}"] = classes.cls_logits(taps[f"head.cls_feat.p{level}"])
        distances.append(boxes.bbox_reg(taps[f"head.box_feat.p{level}"]))
        taps[f"head.box_deltas.p{level}"] = distances[-1].relu()
        taps[f"head.centerness.p{level}"] = boxes.bbox_ctrness(taps[f"head.box_feat.p{level}"])
    whole = model.head(maps)
    for kind, key, columns in (
        ("cls_logits", "cls_logits", classes.num_classes),
        ("box_deltas", "bbox_regression", 4),
        ("centerness", "bbox_ctrness", 1),
    ):
        rows = flatten([taps[f"head.{kind}.p{level}"] for level in LEVELS], columns)
        assert torch.equal(torch.cat(rows, 1), whole[key])
    return taps, distances


def objective(taps):
    return sum(
        taps[f"head.{kind}.p{level}"].square().mean()
        for kind in ("cls_logits", "box_deltas", "centerness")
        for level in LEVELS
    )


def relu_margin(model, image):
    """As that of `make_model_golden.py`, with the ReLU of the distances."""
    model = copy.deepcopy(model).train()
    margins = []

    def note(x):
        margins.append((x.detach().abs().min() / x.detach().std()).item())

    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_pre_hook(lambda module, args: note(args[0]))
    taps, distances = run(model, image)
    note(taps["neck.p6"])
    for x in distances:
        note(x)
    return min(margins)


def end_to_end(model, image):
    """As that of `make_model_golden.py`."""
    targets = [
        {
            "boxes": torch.tensor([[3.0, 4.0, 30.0, 40.0], [12.0, 10.0, 70.0, 50.0]]),
            "labels": torch.tensor([0, 1]),
        },
        {"boxes": torch.tensor([[8.0, 12.0, 26.0, 30.0]]), "labels": torch.tensor([1])},
    ]
    with torch.no_grad():
        features = list(model.backbone(image).values())
        heads = model.head(features)
        anchors = model.anchor_generator(ImageList(image, IMAGE_SIZES), features)
        per_level = [f.shape[2] * f.shape[3] for f in features]
        losses = model.compute_loss(targets, heads, anchors, per_level)
        split = {key: list(value.split(per_level, dim=1)) for key, value in heads.items()}
        found = model.postprocess_detections(
            split, [list(a.split(per_level)) for a in anchors], IMAGE_SIZES
        )
    result = {
        "loss/cls": losses["classification"],
        "loss/bbox": losses["bbox_regression"],
        "loss/ctrness": losses["bbox_ctrness"],
    }
    assert all(loss > 0 for loss in result.values())
    gaps = []
    for i, (target, detections) in enumerate(zip(targets, found)):
        scores = detections["scores"]
        assert len(scores) > 10
        gaps.append((scores[:-1] - scores[1:]).min().item())
        gaps.append(scores.min().item() - SCORE_THRESHOLD)
        for key in ("boxes", "labels"):
            result[f"targets/{i}/{key}"] = target[key].float()
        for key, value in detections.items():
            result[f"detections/{i}/{key}"] = value.float()
    return result, min(gaps)


def model():
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(14)
    # Groups of four channels: of p7's single cell two would leave nothing to normalise.
    detector = narrow_fcos([1, 2, 1, 1], 4, 8, groups=2, convs=2, classes=3)
    with torch.no_grad():
        randomise(detector, generator)
        randomise_head(detector.head, generator)
    while True:
        image = torch.randn((2, 3, 48, 76), generator=generator)
        results, score_margin = end_to_end(detector.eval(), image)
        if relu_margin(detector, image) > 1e-5 and score_margin > 1e-6:
            break
    entries = {"image": image, **results}
    for name, tensor in detector.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            entries[f"state/{name}"] = tensor.clone()
    detector.eval()
    with torch.no_grad():
        entries.update({f"eval/{name}": tap for name, tap in run(detector, image)[0].items()})
    detector.train()
    taps, _ = run(detector, image)
    objective(taps).backward()
    entries.update({f"train/{name}": tap.detach() for name, tap in taps.items()})
    for name, parameter in detector.named_parameters():
        entries[f"grad/{name}"] = parameter.grad
    for name, tensor in detector.state_dict().items():
        if name.endswith(("running_mean", "running_var")):
            entries[f"after/{name}"] = tensor.clone()
    entries = {name: tensor.contiguous() for name, tensor in entries.items()}
    save_file(entries, HERE / "basic_batch.safetensors", metadata=VERSIONS)


def keys():
    detector = fcos.fcos_resnet50_fpn(weights=None, weights_backbone=None, num_classes=91)
    retinanet = json.loads((HERE.parent / "model" / "keys.json").read_text())["resnet50"]
    names = {
        key: "x".join(map(str, tensor.shape))
        for key, tensor in detector.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    head = {key: shape for key, shape in names.items() if key.startswith("head.")}
    rest = {key: shape for key, shape in names.items() if key not in head}
    assert rest == {key: shape for key, shape in retinanet.items() if not key.startswith("head.")}
    listing = {"versions": VERSIONS, "head": head}
    (HERE / "keys.json").write_text(json.dumps(listing, indent=0) + "\n")


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for part in (locations, matches, losses, detections):
        part()
    save_file(out, HERE / "detection.safetensors", VERSIONS)
    model()
    keys()
    print(sum(path.stat().st_size for path in HERE.glob("*[sn]")), "bytes")


if __name__ == "__main__":
    main()
