"""Reference values of the `pixel` plugin: torch modules in float64, gradients by PyTorch's autograd.

Needs torch, torchvision, numpy and safetensors. The decoder is `nn.Conv2d`, `nn.PixelShuffle` and
`nn.PReLU`; maps are enlarged by `F.interpolate(align_corners=True)` or cell by cell; boxes are decoded by
torchvision's coders at random anchors and compared by `generalized_box_iou`; padding is told cell by cell.
Upstream gradients of a case are the weights of its stage, so gradients are those of the stage's total.

    python make_pixel_golden.py        # writes pixel.safetensors beside this file
"""

import json
import math
import platform
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import save_file
from torch import nn
from torchvision.models.detection._utils import BoxCoder, BoxLinearCoder
from torchvision.ops import generalized_box_iou

DEFAULTS = {
    "k": 2.0,
    "alpha": 0.9,
    "temperature": 4.0,
    "gsfp": "conv",
    "isrd_fit": "crop",
    "fkd_norm": "auto",
    "fkd_reduction": "mean",
    "kd_weight": 1.0,
    "fkd_weight": 0.0,
    "isrd_weight": 0.0,
    "attn_weight": 0.0,
}


def f64(x):
    """Exact in float32."""
    return torch.from_numpy(np.asarray(x, dtype=np.float32).astype(np.float64))


class Case:
    """Tensors of a case; leaves are the student's taps and the parameters."""

    def __init__(self, name, seed, task, config, losses, planned, stage=0, classes=3):
        self.name, self.task, self.stage, self.classes = name, task, stage, classes
        self.options, self.config = config, DEFAULTS | config
        self.counted, self.planned = losses, planned
        self.rng = np.random.default_rng(seed)
        self.student, self.teacher, self.params, self.targets = {}, {}, {}, {}
        self.image_sizes = self.input_size = None
        self.ce = 0.0

    def normal(self, shape, scale=1.0, shift=0.0):
        return f64(self.rng.normal(size=shape) * scale + shift)

    def taps(self, name, student, teacher, scale=1.0, shift=0.0):
        if student is not None:
            self.student[name] = self.normal(student, scale, shift)
        if teacher is not None:
            self.teacher[name] = self.normal(teacher, scale, shift)

    def images(self, grid, image, channels, tap="stem.conv"):
        """A stem of the student, and the teacher's image."""
        n = 2
        self.taps(tap, (n, channels, *grid), None, 0.8, 0.3)
        self.taps("image", None, (n, 3, *image), 1.2, 0.2)

    def decoder(self, tap="stem.conv"):
        (_, channels, *grid), (_, _, *image) = self.student[tap].shape, self.teacher["image"].shape
        scale = max(math.ceil(large / small) for large, small in zip(image, grid))
        self.params["decoder.conv.weight"] = self.normal((3 * scale**2, channels, 1, 1), 0.6)
        self.params["decoder.prelu.weight"] = f64([0.25, 0.4, -0.1])

    def padded(self, image_sizes, input_size):
        self.image_sizes, self.input_size = image_sizes, input_size
        self.targets["image_sizes"] = torch.tensor(image_sizes)
        self.targets["input_size"] = torch.tensor(input_size)

    # What follows computes.

    def mask(self, size):
        """[N, H, W] of bools: cells whose centre is in the image."""
        n = next(iter(self.teacher.values())).shape[0]
        mask = torch.ones(n, *size, dtype=torch.bool)
        if self.image_sizes is None:
            return mask
        inputs = self.teacher["image"].shape[2:]
        k = self.config["k"]
        for image in range(n):
            extent = []
            for axis in range(2):
                ratio = math.log(inputs[axis] / self.input_size[axis])
                nearer_to_k = abs(ratio - math.log(k)) < abs(ratio)
                extent.append(self.image_sizes[image][axis] * (k if nearer_to_k else 1.0))
            for y in range(size[0]):
                for x in range(size[1]):
                    centre = ((y + 0.5) * inputs[0] / size[0], (x + 0.5) * inputs[1] / size[1])
                    mask[image, y, x] = centre[0] < extent[0] and centre[1] < extent[1]
        return mask

    def isrd(self):
        stem = self.student["stem.conv" if self.config["gsfp"] == "conv" else "stem"]
        image = self.teacher["image"]
        weight = self.params["decoder.conv.weight"]
        rows, channels, _, _ = weight.shape
        scale = math.isqrt(rows // 3)
        conv = nn.Conv2d(channels, rows, 1, bias=False)
        decoder = nn.Sequential(conv, nn.PixelShuffle(scale), nn.PReLU(3)).double()
        slopes = self.params["decoder.prelu.weight"]
        painted = torch.func.functional_call(
            decoder, {"0.weight": weight, "2.weight": slopes}, (stem,)
        )
        height, width = image.shape[2:]
        if self.config["isrd_fit"] == "crop":
            painted = painted[:, :, :height, :width]
        else:
            painted = F.interpolate(painted, (height, width), mode="bilinear", align_corners=False)
        mask = self.mask((height, width))[:, None].expand_as(image)
        loss = F.l1_loss(painted[mask], image[mask])
        return loss, {"isrd_gain": 1 - loss.item() / image[mask].abs().mean().item()}

    def kd(self):
        t = self.config["temperature"]
        teacher = self.teacher["logits"]
        student = F.interpolate(
            self.student["logits"], teacher.shape[2:], mode="bilinear", align_corners=False
        )
        mask = self.mask(teacher.shape[2:])
        student = student.permute(0, 2, 3, 1)[mask]
        teacher = teacher.permute(0, 2, 3, 1)[mask]
        loss = t**2 * F.kl_div(
            F.log_softmax(student / t, 1), F.softmax(teacher / t, 1), reduction="batchmean"
        )
        agree = (student.argmax(1) == teacher.argmax(1)).double().mean().item()
        return loss, {"kd_agree": agree}

    def levels(self, place):
        return [name.split(".")[-1] for name in self.student if name.startswith(f"{place}.p")]

    def anchors_of(self, taps, place, channels, level):
        """[N, H W A, channels], an anchor of a cell after another."""
        x = taps[f"{place}.{level}"]
        n, c, h, w = x.shape
        return x.reshape(n, c // channels, channels, h, w).permute(0, 3, 4, 1, 2).flatten(1, 3)

    def heads(self):
        names = self.levels("head.cls_logits")
        z_s, z_t, d_s, d_t, valid = [], [], [], [], []
        for level in names:
            z_s.append(self.anchors_of(self.student, "head.cls_logits", self.classes, level))
            z_t.append(self.anchors_of(self.teacher, "head.cls_logits", self.classes, level))
            d_s.append(self.anchors_of(self.student, "head.box_deltas", 4, level))
            d_t.append(self.anchors_of(self.teacher, "head.box_deltas", 4, level))
            cells = self.mask(self.student[f"head.cls_logits.{level}"].shape[2:]).flatten(1)
            anchors = d_s[-1].shape[1] // cells.shape[1]
            valid.append(cells.repeat_interleave(anchors, 1))
        z_s, z_t, d_s, d_t, valid = (torch.cat(x, 1) for x in (z_s, z_t, d_s, d_t, valid))
        labels = self.targets["assign.labels"]
        positives = int((labels >= 0).sum())
        p_t = z_t.sigmoid()
        bce = F.binary_cross_entropy_with_logits(z_s, p_t, reduction="none")
        focal = (z_s.sigmoid() - p_t).abs() * bce
        classes = focal[valid].sum() / max(1, positives)

        n, count, _ = d_s.shape
        corner = self.rng.uniform(0, 40, size=(n * count, 2))
        side = self.rng.uniform(6, 30, size=(n * count, 2))
        anchors = f64(np.concatenate([corner, corner + side], 1))
        if any(name.startswith("head.centerness") for name in self.student):
            coder = BoxLinearCoder(normalize_by_size=True)
            decode = lambda deltas: coder.decode(deltas.flatten(0, 1), anchors)
        else:
            coder = BoxCoder((1.0, 1.0, 1.0, 1.0))
            decode = lambda deltas: coder.decode_single(deltas.flatten(0, 1), anchors)
        giou = generalized_box_iou(decode(d_s), decode(d_t)).diagonal().reshape(n, count)
        m = p_t.amax(2) * valid
        boxes = (m * (1 - giou)).sum() / max(1.0, m.sum().item())
        metrics = {
            "kd_giou": ((m * giou).sum() / m.sum()).item(),
            "kd_scores": m.sum().item(),
            "num_fg": float(positives),
        }
        return classes, boxes, metrics

    def up(self, x, size):
        if tuple(x.shape[2:]) == tuple(size):
            return x
        if self.task != "detection":
            return F.interpolate(x, size, mode="bilinear", align_corners=True)
        k = self.config["k"]
        rows = []
        for axis in range(2):
            last = x.shape[2 + axis] - 1
            rows.append([min(i / k, last) for i in range(size[axis])])
        out = []
        for y in rows[0]:
            y0, y1 = math.floor(y), min(math.floor(y) + 1, x.shape[2] - 1)
            for c in rows[1]:
                x0, x1 = math.floor(c), min(math.floor(c) + 1, x.shape[3] - 1)
                top = x[:, :, y0, x0] * (1 - c + x0) + x[:, :, y0, x1] * (c - x0)
                low = x[:, :, y1, x0] * (1 - c + x0) + x[:, :, y1, x1] * (c - x0)
                out.append(top * (1 - y + y0) + low * (y - y0))
        return torch.stack(out, 2).reshape(*x.shape[:2], *size)

    def fkd(self):
        place = "neck" if self.task == "detection" else "backbone"
        norm = self.config["fkd_norm"]
        standardised = norm == "pkd" or norm == "auto" and self.task == "detection"
        losses = []
        for name in [name for name in self.student if name.startswith(place)]:
            student, teacher = self.student[name], self.teacher[name]
            if f"adapter.{name}.weight" in self.params:
                weight, bias = (self.params[f"adapter.{name}.{x}"] for x in ("weight", "bias"))
                student = F.conv2d(student, weight, bias)
            student = self.up(student, teacher.shape[2:])
            mask = self.mask(teacher.shape[2:])
            student, teacher = (x.permute(1, 0, 2, 3)[:, mask] for x in (student, teacher))
            if standardised:
                norm = lambda x: (x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + 1e-6)
                losses.append(F.mse_loss(norm(student), norm(teacher)) / 2)
            else:
                losses.append(F.mse_loss(student, teacher))
        total = sum(losses)
        return total / len(losses) if self.config["fkd_reduction"] == "mean" else total

    def attention(self):
        losses = []
        for name in [name for name in self.student if name.startswith("attn.")]:
            block = name.split(".")[1]
            grids = [taps[f"backbone.{block}"].shape[2:] for taps in (self.student, self.teacher)]
            student = self.student[name][:, :, 1:, 1:]
            teacher = self.teacher[name][:, :, 1:, 1:]
            n, heads, q, _ = student.shape
            to = tuple(grids[1])
            keys = student.reshape(n * heads * q, 1, *grids[0])
            keys = F.interpolate(keys, to, mode="bilinear", align_corners=True)
            keys = keys.reshape(n * heads, q, -1).transpose(1, 2)
            queries = keys.reshape(n * heads * keys.shape[1], 1, *grids[0])
            queries = F.interpolate(queries, to, mode="bilinear", align_corners=True)
            student = queries.reshape(n, heads, keys.shape[1], -1).transpose(2, 3)
            student = student / student.sum(3, keepdim=True)
            teacher = teacher / teacher.sum(3, keepdim=True)
            losses.append(((student - teacher) ** 2).sum(3).mean())
        return sum(losses) / len(losses)

    def weight(self, loss):
        c = self.config
        detects = self.task == "detection"
        if loss == "loss_isrd":
            return c["isrd_weight"] or {2.0: 10.0, 4.0: 50.0}[c["k"]]
        if loss.startswith("loss_kd"):
            return c["kd_weight"] * (1.0 if detects else c["alpha"])
        if loss == "loss_attn":
            return c["attn_weight"]
        standardised = c["fkd_norm"] == "pkd" or c["fkd_norm"] == "auto" and detects
        return c["fkd_weight"] or (6.0 if standardised else 1.0)

    def run(self):
        for leaf in [*self.student.values(), *self.params.values()]:
            leaf.requires_grad_()
        losses, metrics = {}, {}
        if "loss_isrd" in self.counted:
            losses["loss_isrd"], found = self.isrd()
            metrics |= found
        if "loss_kd_bbox" in self.counted:
            losses["loss_kd"], losses["loss_kd_bbox"], found = self.heads()
            metrics |= found
        elif "loss_kd" in self.counted:
            losses["loss_kd"], found = self.kd()
            metrics |= found
        if "loss_fkd" in self.counted:
            losses["loss_fkd"] = self.fkd()
        if "loss_attn" in self.counted:
            losses["loss_attn"] = self.attention()
        assert set(losses) == set(self.counted), (losses.keys(), self.counted)
        total = sum(self.weight(name) * loss for name, loss in losses.items())
        total.backward()
        return losses, metrics, total

    def save(self, tensors):
        losses, metrics, total = self.run()
        put = lambda key, value: tensors.__setitem__(f"{self.name}/{key}", value)
        number = lambda x: torch.tensor([float(x)], dtype=torch.float64)
        for kind, leaves in (("student", self.student), ("param", self.params)):
            for name, leaf in leaves.items():
                put(f"{kind}/{name}", leaf.detach().float())
                grad = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
                put(f"d_{kind}/{name}", grad.float())
        for name, tap in self.teacher.items():
            put(f"teacher/{name}", tap.float())
        for name, target in self.targets.items():
            put(f"target/{name}", target)
        for name in self.planned:
            put(f"loss/{name}", number(losses[name].detach() if name in losses else 0))
            put(f"d_loss/{name}", number(self.weight(name) if name in losses else 0))
            put(f"weight/{name}", number(self.weight(name)))
        for name, value in metrics.items():
            put(f"metric/{name}", number(value))
        put("ce", number(self.ce))
        mixes = self.task != "detection" and "loss_kd" in self.planned
        share = 1 - self.config["alpha"] if mixes else 1.0
        put("total", number(total.detach() + share * self.ce))
        shown = " ".join(f"{k} {v.item():.9f}" for k, v in losses.items())
        print(f"{self.name:28} {shown}")


CASES = []


def case(task, losses, planned=None, stage=0, classes=3, **config):
    def add(build):
        made = Case(
            build.__name__, 900 + len(CASES), task, config, losses, planned or losses, stage, classes
        )
        build(made)
        CASES.append(made)

    return add


CLS, SEG, DET = "classification", "segmentation", "detection"
OFF = {"kd": "off"}


def logits(c, n=2):
    c.taps("logits", (n, c.classes, 1, 1), (n, c.classes, 1, 1), 2.0)
    labels = torch.from_numpy(c.rng.integers(c.classes, size=n))
    c.ce = F.cross_entropy(c.student["logits"].flatten(1), labels).item()


@case(CLS, ["loss_isrd", "loss_kd"], mode="vanilla")
def vanilla_cls(c):
    c.images((5, 5), (17, 17), 4)
    logits(c)
    c.decoder()


@case(CLS, ["loss_isrd", "loss_kd"], mode="vanilla", k=4.0, alpha=0.5, temperature=2.0, kd_weight=3.0)
def vanilla_cls_k4(c):
    c.images((4, 4), (32, 32), 3)
    logits(c)
    c.decoder()


@case(CLS, ["loss_isrd"], mode="vanilla", isrd_weight=20.0, **OFF)
def isrd_vit(c):
    c.images((3, 3), (32, 32), 4)
    logits(c)
    c.decoder()


@case(CLS, ["loss_isrd"], mode="vanilla", isrd_fit="resize", **OFF)
def isrd_resize(c):
    c.images((5, 5), (21, 21), 4)
    logits(c)
    c.decoder()


@case(CLS, ["loss_isrd"], mode="vanilla", gsfp="stem", **OFF)
def isrd_stem_not_square(c):
    c.images((4, 7), (13, 24), 4, "stem")
    c.images((4, 7), (13, 24), 4)
    logits(c)
    c.decoder()


PLANNED_CLS = ["loss_isrd", "loss_kd", "loss_fkd"]


@case(CLS, ["loss_kd"], PLANNED_CLS, stage=0)
def tas_cls_model(c):
    c.images((5, 6), (10, 12), 4)
    logits(c)
    c.taps("backbone.c2", (2, 3, 5, 6), (2, 5, 5, 6))
    c.decoder()


def backbone(c):
    c.taps("backbone.c2", (2, 3, 4, 5), (2, 3, 8, 9))
    c.taps("backbone.c3", (2, 4, 2, 3), (2, 4, 4, 5))
    c.taps("backbone.c4", (2, 4, 1, 2), (2, 4, 2, 3))
    c.taps("backbone.c5", (2, 5, 2, 1), (2, 5, 3, 1))


@case(CLS, PLANNED_CLS, stage=1)
def tas_cls_input(c):
    c.images((4, 5), (16, 18), 4)
    logits(c)
    backbone(c)
    c.decoder()


@case(CLS, PLANNED_CLS, stage=1, fkd_norm="pkd", fkd_reduction="sum")
def tas_cls_input_pkd_sum(c):
    c.images((4, 5), (16, 18), 4)
    logits(c, 2)
    backbone(c)
    c.decoder()


@case(CLS, PLANNED_CLS, stage=0, order="compress_input_first")
def tas_cls_input_first(c):
    c.images((4, 5), (16, 18), 4)
    logits(c)
    backbone(c)
    c.decoder()


@case(CLS, PLANNED_CLS + ["loss_attn"], stage=1, attn_weight=5.0)
def tas_vit_input(c):
    c.images((2, 3), (22, 27), 6)
    logits(c)
    for block in ("b1", "b2"):
        c.taps(f"backbone.{block}", (2, 4, 2, 3), (2, 4, 4, 5))
        for taps, tokens in ((c.student, 7), (c.teacher, 21)):
            taps[f"attn.{block}"] = f64(c.normal((2, 2, tokens, tokens)).softmax(3))
    c.decoder()


@case(SEG, ["loss_isrd", "loss_kd"], mode="vanilla")
def vanilla_seg(c):
    c.images((4, 5), (15, 18), 3)
    c.taps("logits", (2, 3, 4, 5), (2, 3, 7, 9), 2.0)
    c.padded([[8, 7], [6, 10]], [8, 10])
    c.decoder()


@case(SEG, PLANNED_CLS, stage=1)
def tas_seg_input(c):
    c.images((4, 5), (16, 20), 3)
    c.taps("logits", (2, 4, 4, 5), (2, 4, 8, 10), 2.0)
    c.taps("backbone.c2", (2, 3, 4, 5), (2, 3, 8, 10))
    c.taps("backbone.c5", (2, 4, 2, 3), (2, 4, 4, 5))
    c.padded([[8, 7], [6, 10]], [8, 10])
    c.decoder()


@case(SEG, ["loss_kd"], PLANNED_CLS, stage=0)
def tas_seg_model(c):
    c.images((4, 5), (8, 10), 3)
    c.taps("logits", (2, 4, 4, 5), (2, 4, 2, 3), 2.0)
    c.teacher["logits"] = c.normal((2, 4, 8, 10), 2.0)
    c.taps("backbone.c2", (2, 3, 4, 5), (2, 6, 4, 5))
    c.padded([[8, 7], [6, 10]], [8, 10])
    c.decoder()


PREDICTED = ["loss_kd", "loss_kd_bbox"]


def detector(c, levels, anchors, channels, fcos=False, teacher_shift=-1.0, no_foreground=False):
    """Heads and necks on the same grids."""
    n, count = 2, 0
    for level, (h, w) in zip(("p3", "p4"), levels):
        shape = (n, anchors * c.classes, h, w)
        c.taps(f"head.cls_logits.{level}", shape, shape, 1.5, teacher_shift)
        shape = (n, anchors * 4, h, w)
        c.taps(f"head.box_deltas.{level}", shape, shape, 0.4)
        if fcos:
            for taps in (c.student, c.teacher):
                name = f"head.box_deltas.{level}"
                taps[name] = f64(taps[name].abs() + 0.1)
            c.taps(f"head.centerness.{level}", (n, 1, h, w), (n, 1, h, w))
        c.taps(f"neck.{level}", (n, channels[0], h, w), (n, channels[1], h, w), 1.3, 0.4)
        count += h * w * anchors
    kinds = c.rng.choice([0, -1, -2], p=[0.2, 0.7, 0.1], size=(n, count))
    classes = c.rng.integers(c.classes, size=(n, count))
    labels = np.where(kinds == 0, -1 if no_foreground else classes, kinds)
    c.targets["assign.labels"] = torch.from_numpy(labels)


@case(DET, PREDICTED + ["loss_fkd"], stage=0)
def tas_retinanet_input(c):
    c.images((4, 6), (16, 24), 3)
    detector(c, [(3, 4), (2, 2)], 3, (4, 4))
    c.padded([[8, 10], [5, 12]], [8, 12])


@case(DET, PREDICTED + ["loss_fkd"], stage=0)
def tas_fcos_input(c):
    c.images((4, 6), (16, 24), 3)
    detector(c, [(6, 8), (3, 4)], 1, (4, 4), fcos=True)
    c.padded([[8, 10], [5, 12]], [8, 12])


@case(DET, PREDICTED + ["loss_fkd"], stage=2, fkd_norm="mse", classes=1)
def tas_retinanet_model(c):
    c.images((4, 6), (8, 12), 3)
    detector(c, [(4, 6), (2, 3)], 2, (4, 4))
    c.padded([[8, 10], [5, 12]], [8, 12])


@case(DET, PREDICTED + ["loss_fkd"], stage=2, adapter="auto", fkd_norm="mse")
def tas_fcos_model_adapter(c):
    c.images((4, 6), (8, 12), 3)
    detector(c, [(4, 6), (2, 3)], 1, (3, 5), fcos=True)
    c.padded([[8, 10], [5, 12]], [8, 12])
    for level in ("p3", "p4"):
        c.params[f"adapter.neck.{level}.weight"] = c.normal((5, 3, 1, 1), 0.6)
        c.params[f"adapter.neck.{level}.bias"] = c.normal((5,), 0.3)


@case(DET, PREDICTED, stage=0, fkd="off", kd_weight=0.5)
def tas_retinanet_no_foreground(c):
    c.images((4, 6), (16, 24), 3)
    detector(c, [(3, 4), (2, 2)], 2, (4, 4), teacher_shift=-6.0, no_foreground=True)
    c.padded([[8, 10], [5, 12]], [8, 12])


WITH_ISRD = ["loss_isrd"] + PREDICTED + ["loss_fkd"]


@case(DET, WITH_ISRD, stage=0, isrd="on")
def tas_retinanet_input_isrd(c):
    c.images((4, 6), (16, 24), 3)
    detector(c, [(3, 4), (2, 2)], 2, (4, 4))
    c.padded([[8, 10], [5, 12]], [8, 12])
    c.decoder()


@case(DET, PREDICTED + ["loss_fkd"], WITH_ISRD, stage=2, isrd="on")
def tas_retinanet_model_isrd(c):
    c.images((4, 6), (8, 12), 3)
    detector(c, [(3, 4), (2, 2)], 2, (4, 4))
    c.padded([[8, 10], [5, 12]], [8, 12])
    c.decoder()


@case(DET, ["loss_isrd", "loss_fkd"], mode="vanilla")
def vanilla_retinanet(c):
    c.images((4, 6), (15, 22), 3)
    detector(c, [(4, 6), (2, 3)], 2, (4, 4))
    c.taps("neck.p3", None, (2, 4, 7, 11))
    c.taps("neck.p4", None, (2, 4, 4, 6))
    c.padded([[7, 10], [5, 11]], [8, 12])
    c.decoder()


def main():
    # The worked example of one image and three classes.
    x_s, x_t = torch.tensor([[2.0, 0, -2]]), torch.tensor([[3.0, -1, -2]])
    kl = F.kl_div(F.log_softmax(x_s / 4, 1), F.softmax(x_t / 4, 1), reduction="batchmean")
    assert abs(16 * kl.item() - 0.357805) < 1e-6
    tensors = {}
    for made in CASES:
        made.save(tensors)
    metadata = {
        "cases": json.dumps({c.name: c.options for c in CASES}),
        "num_classes": json.dumps({c.name: c.classes for c in CASES}),
        "stages": json.dumps({c.name: c.stage for c in CASES}),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(tensors, Path(__file__).with_name("pixel.safetensors"), metadata)


if __name__ == "__main__":
    main()
