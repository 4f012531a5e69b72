"""Reference values of the `fgbg` plugin: losses and metrics in float64, location by location,
gradients by PyTorch's autograd.

Needs torch, torchvision, numpy and safetensors. Divergences are those of `torch.distributions`,
prices at a location `binary_cross_entropy_with_logits`, boxes `torchvision.ops.box_iou`.

    python make_fgbg_golden.py        # writes fgbg.safetensors beside this file
"""

import json
import platform
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import save_file
from torch.distributions import Bernoulli, Categorical, kl_divergence
from torchvision.ops import box_iou

DEFAULTS = {
    "vectors": "cls_feat",
    "connector": "auto",
    "center": False,
    "fg_loss": "cosine",
    "bg_loss": "kl",
    "bg_kl": "bernoulli",
    "temperature": 1.0,
    "bg_weight": "teacher_score",
    "foreground": "assigned",
    "gate": "location",
    "gate_on": "both",
    "better_by": "score",
    "gate_box": False,
    "margin": 0.0,
    "soft_scale": 0.1,
}
PLACES = {"cls_feat": "head.cls_feat", "box_feat": "head.box_feat", "neck": "neck"}
UPSTREAM = {"loss_fg": 0.75, "loss_bg": 1.25}
LENGTH_EPS, WEIGHT_EPS = 1e-12, 1e-6
# Prices closer than this, relative to their size, may compare differently in float32.
GATE_GAP = 2e-6

LEVELS = [(4, 5), (2, 3)]
STRIDES = [8, 16, 32]


def f64(x):
    """Exact in float32."""
    return torch.from_numpy(np.asarray(x, dtype=np.float32).astype(np.float64))


class Batch:
    """Random taps and targets of one case."""

    def __init__(self, seed, config, shape):
        rng = np.random.default_rng(seed)
        n, self.a, self.k = shape["n"], shape["a"], shape["k"]
        self.n, self.levels = n, shape["levels"]
        self.places = [
            (level, y, x, a)
            for level, (h, w) in enumerate(self.levels)
            for y in range(h)
            for x in range(w)
            for a in range(self.a)
        ]
        count = len(self.places)
        self.points = f64(
            [[(x + 0.5) * STRIDES[l], (y + 0.5) * STRIDES[l]] for l, y, x, _ in self.places]
        )
        self.logits = {"student": [], "teacher": []}
        self.vectors = {"student": [], "teacher": []}
        for h, w in self.levels:
            student = rng.normal(size=(n, self.a * self.k, h, w)) * 2 - 1.5
            teacher = 0.6 * student + rng.normal(size=student.shape) * 1.2 - 0.6
            self.logits["student"].append(f64(student))
            self.logits["teacher"].append(f64(teacher))
            common = rng.normal(size=(n, max(shape["c"]), h, w)) + 0.3
            for who, c in zip(("student", "teacher"), shape["c"]):
                noise = rng.normal(size=(n, c, h, w))
                self.vectors[who].append(f64((common[:, :c] + 0.7 * noise).clip(-0.5)))
        self.connectors = None
        differ = shape["c"][0] != shape["c"][1] or config["connector"] == "always"
        vectors_used = config["fg_loss"] in ("cosine", "mse") or config["bg_loss"] == "cosine"
        if config["vectors"] in PLACES and differ and vectors_used:
            s, t = shape["c"]
            self.connectors = [
                (f64(rng.normal(size=(t, s, 1, 1)) * 0.5), f64(rng.normal(size=t) * 0.2))
                for _ in self.levels
            ]

        objects = shape["objects"]
        height, width = (8 * extent for extent in self.levels[0])
        corner = rng.uniform(size=(n * objects, 2)) * [width * 0.6, height * 0.6]
        side = rng.uniform(0.25, 0.5, size=(n * objects, 2)) * [width, height]
        self.gt_boxes = f64(np.concatenate([corner, corner + side], axis=1))
        self.gt_labels = rng.integers(self.k, size=n * objects)
        self.gt_batch = np.repeat(np.arange(n), objects)

        kind = rng.choice([0, -1, -2], p=[0.25, 0.6, 0.15], size=(n, count))
        kind = {
            "mixed": kind,
            "no_fg": np.where(kind == 0, -1, kind),
            "no_bg": np.where(kind == -1, -2, kind),
            "ignored": np.full_like(kind, -2),
        }[shape["assignment"]]
        if objects == 0:
            kind = np.where(kind == 0, -1, kind)
        self.gt_index = np.full((n, count), -1)
        self.labels = kind.copy()
        for image, i in zip(*np.nonzero(kind == 0)):
            index = image * objects + rng.integers(objects)
            self.gt_index[image, i] = index
            self.labels[image, i] = self.gt_labels[index]

        self.boxes, self.task_loss = {}, {}
        for who in ("student", "teacher"):
            boxes = rng.uniform(0, width, size=(n, count, 4))
            boxes[..., 2:] = boxes[..., :2] + rng.uniform(4, 20, size=(n, count, 2))
            for image, i in zip(*np.nonzero(self.gt_index >= 0)):
                noise = rng.normal(size=4) * 3
                boxes[image, i] = self.gt_boxes[self.gt_index[image, i]].numpy() + noise
            self.boxes[who] = f64(boxes)
            self.task_loss[who] = f64(rng.gamma(1.5, size=(n, count)))
        if shape["teacher"] == "worse":
            self.worsen()
        if shape["teacher"] == "student":
            self.logits["teacher"] = [x.clone() for x in self.logits["student"]]
            self.vectors["teacher"] = [x.clone() for x in self.vectors["student"]]
        if shape["zero_vectors"]:
            fg = [(im, self.places[i]) for im, i in zip(*np.nonzero(self.gt_index >= 0))]
            for who, (image, (level, y, x, _)) in zip(("student", "teacher"), (fg[0], fg[-1])):
                self.vectors[who][level][image, :, y, x] = 0

    def worsen(self):
        """Lowers the teacher's true score at foreground and raises its scores at background."""
        for image in range(self.n):
            for i, (level, y, x, a) in enumerate(self.places):
                label = self.labels[image, i]
                for k in range(self.k):
                    at = (image, a * self.k + k, y, x)
                    student = self.logits["student"][level][at]
                    shift = -0.5 if k == label else 0.5
                    self.logits["teacher"][level][at] = f64((student + shift).item())

    def logit_rows(self, who, image, i):
        level, y, x, a = self.places[i]
        return self.logits[who][level][image, a * self.k : (a + 1) * self.k, y, x]

    def comparable(self, config):
        s, t = (self.vectors[who][0].shape[1] for who in ("student", "teacher"))
        return config["vectors"] == "logits" or self.connectors is not None or s == t

    def vector(self, who, image, i, config):
        if config["vectors"] == "logits":
            z = self.logit_rows(who, image, i)
            return z - z.mean() if config["center"] else z
        level, y, x, _ = self.places[i]
        v = self.vectors[who][level][image, :, y, x]
        if who == "student" and self.connectors:
            weight, bias = self.connectors[level]
            v = weight[:, :, 0, 0] @ v + bias
        return v


def foreground(batch, config):
    """(class, object) by (image, location); background as (-1, -1)."""
    result = {}
    for image in range(batch.n):
        for i in range(len(batch.places)):
            if config["foreground"] == "assigned":
                label = int(batch.labels[image, i])
                if label != -2:
                    result[image, i] = (label, int(batch.gt_index[image, i]))
                continue
            px, py = batch.points[i].tolist()
            inside = []
            for t, (x1, y1, x2, y2) in enumerate(batch.gt_boxes.tolist()):
                if batch.gt_batch[t] == image and x1 < px < x2 and y1 < py < y2:
                    inside.append(((x2 - x1) * (y2 - y1), t))
            t = min(inside)[1] if inside else -1
            result[image, i] = (int(batch.gt_labels[t]) if inside else -1, t)
    return result


def price(batch, config, who, image, i, label, index):
    z = batch.logit_rows(who, image, i).detach()
    is_fg = label >= 0

    def box():
        if not is_fg:
            return 0.0
        truth = batch.gt_boxes[index : index + 1]
        return 1 - box_iou(batch.boxes[who][image, i : i + 1], truth).item()

    if config["better_by"] == "task_loss":
        result = batch.task_loss[who][image, i].item()
    elif is_fg and config["better_by"] == "iou":
        result = box()
    elif is_fg:
        result = F.binary_cross_entropy_with_logits(z[label], torch.ones_like(z[label])).item()
    else:
        bce = F.binary_cross_entropy_with_logits(z, torch.zeros_like(z), reduction="sum")
        result = bce.item()
    return result + (box() if config["gate_box"] else 0.0)


def gates(batch, config, places):
    """Gate and whether the teacher is better, by (image, location)."""
    prices = {
        key: [price(batch, config, who, *key, *place) for who in ("student", "teacher")]
        for key, place in places.items()
    }

    def apart(s, t):
        assert s == t or abs(s - t) > GATE_GAP * (s + t), (s, t)

    better = {}
    for key, (s, t) in prices.items():
        apart(s, t)
        better[key] = float(t < s)
    gate, margin = {}, config["margin"]
    for key, (s, t) in prices.items():
        apart(s - margin, t)
        if config["gate"] == "location":
            gate[key] = float(t < s - margin)
        elif config["gate"] == "soft":
            x = (s - t - margin) / config["soft_scale"]
            gate[key] = 1 / (1 + np.exp(-x))
        elif config["gate"] == "image":
            sums = [sum(p[w] for k, p in prices.items() if k[0] == key[0]) for w in (0, 1)]
            apart(sums[0] - margin, sums[1])
            gate[key] = float(sums[1] < sums[0] - margin)
        else:
            gate[key] = 1.0
    return gate, better


def cosine(s, t):
    if (s**2).sum() <= LENGTH_EPS or (t**2).sum() <= LENGTH_EPS:
        return s.sum() * 0
    length = lambda v: ((v**2).sum() + LENGTH_EPS).sqrt()
    return (s * t).sum() / (length(s) * length(t))


def divergence(s, t, kind, temperature):
    s, t = s / temperature, t / temperature
    if kind == "bernoulli":
        kl = kl_divergence(Bernoulli(logits=t), Bernoulli(logits=s)).sum()
    else:
        kl = kl_divergence(Categorical(logits=t), Categorical(logits=s))
    return temperature**2 * kl


def run(batch, config):
    places = foreground(batch, config)
    gate, better = gates(batch, config, places)
    sums = {name: torch.zeros((), dtype=torch.float64) for name in ("fg", "bg", "cos", "kl")}
    totals = {key: 0.0 for key in ("gated_fg", "gated_bg", "better_fg", "better_bg", "length")}
    num_fg, num_bg, weights = 0, 0, 0.0
    for key, (label, _) in places.items():
        image, i = key
        s, t = batch.logit_rows("student", *key), batch.logit_rows("teacher", *key)
        comparable = batch.comparable(config)
        vectors = [batch.vector(who, *key, config) for who in ("student", "teacher")]
        cos = cosine(*vectors) if comparable else torch.zeros(())
        side = "fg" if label >= 0 else "bg"
        g = gate[key] if config["gate_on"] in ("both", side) else 1.0
        totals[f"gated_{side}"] += g
        totals[f"better_{side}"] += better[key]
        if side == "fg":
            num_fg += 1
            totals["length"] += vectors[0].norm().item()
            sums["cos"] += cos.detach()
            if config["fg_loss"] == "cosine":
                sums["fg"] = sums["fg"] + g * (1 - cos)
            elif config["fg_loss"] == "kl":
                kl = divergence(s, t, "bernoulli", config["temperature"])
                sums["fg"] = sums["fg"] + g * kl
            elif config["fg_loss"] == "mse":
                sums["fg"] = sums["fg"] + g * ((vectors[0] - vectors[1]) ** 2).mean()
        else:
            num_bg += 1
            w = 1.0 if config["bg_weight"] == "uniform" else t.sigmoid().max().item()
            weights += w
            kl = divergence(s, t, config["bg_kl"], config["temperature"])
            sums["kl"] += kl.detach()
            if config["bg_loss"] != "off":
                distance = kl if config["bg_loss"] == "kl" else 1 - cos
                sums["bg"] = sums["bg"] + g * w * distance
    per_fg, per_bg = max(num_fg, 1), max(num_bg, 1)
    losses = {}
    if config["fg_loss"] != "off":
        losses["loss_fg"] = sums["fg"] / per_fg
    if config["bg_loss"] != "off":
        losses["loss_bg"] = sums["bg"] / (weights + WEIGHT_EPS)
    metrics = {
        "gated_fg": totals["gated_fg"] / per_fg,
        "gated_bg": totals["gated_bg"] / per_bg,
        "teacher_better_fg": totals["better_fg"] / per_fg,
        "teacher_better_bg": totals["better_bg"] / per_bg,
        "mean_kl_bg": sums["kl"].item() / per_bg,
        "num_fg": float(num_fg),
    }
    if batch.comparable(config):
        metrics["mean_cos"] = sums["cos"].item() / per_fg
        metrics["student_norm"] = totals["length"] / per_fg
    return losses, metrics


SHAPE = {
    "n": 2,
    "a": 1,
    "k": 3,
    "c": (5, 5),
    "levels": LEVELS,
    "objects": 2,
    "assignment": "mixed",
    "teacher": "other",
    "zero_vectors": False,
}

# name, options, what differs from SHAPE
CASES = [
    ("default", {}, {}),
    ("anchors_9", {}, {"a": 9, "k": 2, "n": 2}),
    ("one_class", {}, {"k": 1}),
    ("three_levels", {}, {"levels": [(5, 4), (3, 2), (1, 1)], "n": 3}),
    ("connector", {}, {"c": (4, 6)}),
    ("connector_anchors_9", {}, {"c": (4, 6), "a": 9, "k": 2, "levels": [(3, 3)]}),
    ("connector_always", {"connector": "always"}, {}),
    ("box_feat", {"vectors": "box_feat"}, {}),
    ("neck", {"vectors": "neck"}, {"c": (4, 6)}),
    ("logits", {"vectors": "logits"}, {"k": 4}),
    ("logits_anchors_9", {"vectors": "logits"}, {"a": 9, "k": 3}),
    ("logits_centered", {"vectors": "logits", "center": True}, {"k": 4}),
    ("fg_kl", {"fg_loss": "kl"}, {}),
    ("fg_kl_widths", {"fg_loss": "kl"}, {"c": (4, 6)}),
    ("fg_mse", {"fg_loss": "mse"}, {}),
    ("fg_mse_connector", {"fg_loss": "mse"}, {"c": (6, 4), "a": 3}),
    ("fg_off", {"fg_loss": "off"}, {}),
    ("bg_cosine", {"bg_loss": "cosine"}, {"a": 2}),
    ("bg_off", {"bg_loss": "off"}, {}),
    ("all_kl", {"fg_loss": "kl", "bg_loss": "kl"}, {"a": 2}),
    ("bg_softmax", {"bg_kl": "softmax"}, {"k": 4}),
    ("bg_softmax_t2", {"bg_kl": "softmax", "temperature": 2.0}, {"k": 4}),
    ("temperature", {"temperature": 2.5, "fg_loss": "kl"}, {}),
    ("bg_uniform", {"bg_weight": "uniform"}, {}),
    ("boxes", {"foreground": "boxes"}, {}),
    ("boxes_anchors_9", {"foreground": "boxes"}, {"a": 9, "k": 2, "objects": 3}),
    ("boxes_no_objects", {"foreground": "boxes"}, {"objects": 0}),
    ("boxes_iou", {"foreground": "boxes", "better_by": "iou"}, {"objects": 4}),
    ("gate_soft", {"gate": "soft"}, {}),
    ("gate_soft_margin", {"gate": "soft", "margin": 0.2, "soft_scale": 0.5}, {}),
    ("gate_image", {"gate": "image"}, {"n": 4}),
    ("gate_image_margin", {"gate": "image", "margin": 2.0}, {"n": 4}),
    ("gate_off", {"gate": "off"}, {"a": 2}),
    ("gate_on_fg", {"gate_on": "fg"}, {}),
    ("gate_on_bg", {"gate_on": "bg"}, {}),
    ("margin", {"margin": 0.3}, {}),
    ("task_loss", {"better_by": "task_loss"}, {"a": 2}),
    ("iou", {"better_by": "iou"}, {}),
    ("iou_no_objects", {"better_by": "iou"}, {"objects": 0}),
    ("gate_box", {"gate_box": True}, {}),
    ("gate_box_task_loss", {"gate_box": True, "better_by": "task_loss"}, {}),
    ("no_objects", {}, {"objects": 0}),
    ("no_fg", {}, {"assignment": "no_fg"}),
    ("no_bg", {}, {"assignment": "no_bg"}),
    ("all_ignored", {}, {"assignment": "ignored"}),
    ("teacher_never_better", {}, {"teacher": "worse"}),
    ("teacher_is_student", {}, {"teacher": "student"}),
    ("zero_vectors", {"gate": "off"}, {"zero_vectors": True}),
    ("zero_vectors_mse", {"gate": "off", "fg_loss": "mse"}, {"zero_vectors": True}),
]


def main():
    tensors, cases, classes = {}, {}, {}
    for index, (name, options, shape) in enumerate(CASES):
        config, shape = DEFAULTS | options, SHAPE | shape
        batch = Batch(7000 + index, config, shape)
        leaves = {}
        for level in range(len(batch.levels)):
            leaves[f"student/head.cls_logits.p{3 + level}"] = batch.logits["student"][level]
            if config["vectors"] in PLACES:
                tap = f"{PLACES[config['vectors']]}.p{3 + level}"
                leaves[f"student/{tap}"] = batch.vectors["student"][level]
                tensors[f"{name}/teacher/{tap}"] = batch.vectors["teacher"][level].float()
                if batch.connectors:
                    weight, bias = batch.connectors[level]
                    leaves[f"param/connector.{tap}.weight"] = weight
                    leaves[f"param/connector.{tap}.bias"] = bias
            tap = f"head.cls_logits.p{3 + level}"
            tensors[f"{name}/teacher/{tap}"] = batch.logits["teacher"][level].float()
        for leaf in leaves.values():
            leaf.requires_grad_()
        losses, metrics = run(batch, config)
        total = sum(UPSTREAM[key] * loss for key, loss in losses.items())
        if total.requires_grad:
            total.backward()
        for key, leaf in leaves.items():
            tensors[f"{name}/{key}"] = leaf.detach().float()
            grad = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
            tensors[f"{name}/d_{key}"] = grad
        for key, loss in losses.items():
            tensors[f"{name}/loss/{key}"] = loss.detach().reshape(1)
            tensors[f"{name}/d_loss/{key}"] = torch.tensor([UPSTREAM[key]], dtype=torch.float64)
        for key, value in metrics.items():
            tensors[f"{name}/metric/{key}"] = torch.tensor([value], dtype=torch.float64)
        target = lambda key, value: tensors.__setitem__(f"{name}/target/{key}", value)
        target("assign.labels", torch.from_numpy(batch.labels).long())
        target("assign.gt_index", torch.from_numpy(batch.gt_index).long())
        target("points_xy", batch.points.float())
        for who in ("student", "teacher"):
            target(f"{who}.boxes_xyxy", batch.boxes[who].float())
            target(f"{who}.task_loss", batch.task_loss[who].float())
        target("gt_boxes_xyxy", batch.gt_boxes.float())
        target("gt_labels", torch.from_numpy(batch.gt_labels).long())
        target("gt_batch", torch.from_numpy(batch.gt_batch).long())
        cases[name], classes[name] = options, batch.k
        shown = " ".join(f"{key} {loss.item():.9f}" for key, loss in losses.items())
        shares = " ".join(f"{metrics[key]:.2f}" for key in ("gated_fg", "gated_bg"))
        print(f"{name:22} {shown}   gated {shares} of {metrics['num_fg']:.0f} foreground")
    metadata = {
        "cases": json.dumps(cases),
        "num_classes": json.dumps(classes),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(tensors, Path(__file__).with_name("fgbg.safetensors"), metadata)


if __name__ == "__main__":
    main()
