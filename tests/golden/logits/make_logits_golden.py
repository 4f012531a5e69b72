"""Reference values of the `logits` plugin: loss and metrics in float64, location by location,
gradients by PyTorch's autograd. Divergences are those of `torch.distributions`.

Needs torch, numpy and safetensors.

    python make_logits_golden.py      # writes logits.safetensors beside this file
"""

import json
import platform
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch.nn.functional import interpolate
from torch.distributions import Bernoulli, Categorical, kl_divergence

DEFAULTS = {
    "kl": "bernoulli",
    "temperature": 1.0,
    "reduction": "foreground",
    "locations": "all",
    "include_ignored": False,
}
SHAPE = {"n": 2, "a": 1, "k": 3, "levels": [(4, 5), (2, 3)], "assignment": "mixed"}

# name, options, what differs from SHAPE
CASES = [
    ("default", {}, {}),
    ("anchors_9", {}, {"a": 9, "k": 2}),
    ("one_class", {}, {"k": 1}),
    ("three_levels", {}, {"levels": [(5, 4), (3, 2), (1, 1)], "n": 3}),
    ("softmax", {"kl": "softmax"}, {"k": 4}),
    ("softmax_anchors_9", {"kl": "softmax", "temperature": 2.0}, {"a": 9, "k": 3}),
    ("temperature", {"temperature": 2.5}, {}),
    ("mean", {"reduction": "mean"}, {}),
    ("mean_ignored", {"reduction": "mean", "include_ignored": True}, {}),
    ("batch", {"reduction": "batch"}, {"n": 3}),
    ("fg", {"locations": "fg"}, {}),
    ("fg_mean", {"locations": "fg", "reduction": "mean"}, {"a": 2}),
    ("bg", {"locations": "bg"}, {}),
    ("bg_mean", {"locations": "bg", "reduction": "mean"}, {}),
    ("ignored_too", {"include_ignored": True}, {}),
    ("no_fg", {}, {"assignment": "no_fg"}),
    ("no_fg_fg", {"locations": "fg"}, {"assignment": "no_fg"}),
    ("no_bg_bg", {"locations": "bg", "reduction": "mean"}, {"assignment": "no_bg"}),
    ("all_ignored", {}, {"assignment": "ignored"}),
    ("all_ignored_mean", {"reduction": "mean"}, {"assignment": "ignored"}),
    ("all_ignored_too", {"include_ignored": True}, {"assignment": "ignored"}),
    ("saturated", {}, {"scale": 12.0}),
]

# Segmenters: name, options, student [N, K, h, w], teacher [h, w].
PIXEL_CASES = [
    ("pixels", {}, (2, 5, 4, 6), (4, 6)),
    ("pixels_finer", {"temperature": 4.0}, (2, 11, 3, 4), (6, 8)),
    ("pixels_odd", {"reduction": "batch", "temperature": 2.0}, (3, 4, 5, 4), (9, 7)),
    ("pixels_coarser", {"kl": "softmax", "reduction": "mean"}, (1, 3, 8, 9), (4, 5)),
]


def f64(x):
    """Exact in float32."""
    return torch.from_numpy(x.astype(np.float32).astype(np.float64))


def divergence(s, t, kind, temperature):
    s, t = s / temperature, t / temperature
    if kind == "bernoulli":
        kl = kl_divergence(Bernoulli(logits=t), Bernoulli(logits=s)).sum()
    else:
        kl = kl_divergence(Categorical(logits=t), Categorical(logits=s))
    return temperature**2 * kl


def run(students, teachers, labels, config, k):
    total = torch.zeros((), dtype=torch.float64)
    num_fg = counted = 0
    for image in range(len(labels)):
        location = 0
        for student, teacher in zip(students, teachers):
            _, channels, height, width = student.shape
            for y in range(height):
                for x in range(width):
                    for a in range(channels // k):
                        label = labels[image, location]
                        location += 1
                        num_fg += int(label >= 0)
                        kinds = {"fg": label >= 0, "bg": label == -1}
                        kinds["all"] = label != -2 or config["include_ignored"]
                        if not kinds[config["locations"]]:
                            continue
                        counted += 1
                        row = (image, slice(a * k, (a + 1) * k), y, x)
                        s, t = student[row], teacher[row]
                        total = total + divergence(s, t, config["kl"], config["temperature"])
        assert location == labels.shape[1]
    normaliser = {"foreground": max(num_fg, 1), "mean": max(counted, 1), "batch": len(labels)}
    metrics = {"mean_kl": total.item() / max(counted, 1), "num_fg": float(num_fg)}
    return total / normaliser[config["reduction"]], metrics


def pixels(tensors, cases, classes):
    for index, (name, options, shape, size) in enumerate(PIXEL_CASES):
        rng = np.random.default_rng(8500 + index)
        student = f64(rng.normal(size=shape) * 2.0).requires_grad_()
        teacher = f64(rng.normal(size=(*shape[:2], *size)) * 3.0)
        temperature = options.get("temperature", 1.0)
        resized = interpolate(student, size, mode="bilinear", align_corners=False)
        total = torch.zeros((), dtype=torch.float64)
        for image in range(shape[0]):
            for y in range(size[0]):
                for x in range(size[1]):
                    s, t = resized[image, :, y, x], teacher[image, :, y, x]
                    total = total + divergence(s, t, "softmax", temperature)
        count = shape[0] * size[0] * size[1]
        loss = total / (shape[0] if options.get("reduction") == "batch" else count)
        loss.backward()
        tensors[f"{name}/loss"] = loss.detach().reshape(1)
        mean = torch.tensor([total.item() / count], dtype=torch.float64)
        tensors[f"{name}/metric/mean_kl"] = mean
        # Not read by a segmenter's plan; hosts lend such targets empty.
        tensors[f"{name}/target/assign.labels"] = torch.zeros(0, dtype=torch.long)
        tensors[f"{name}/student/logits"] = student.detach().float()
        tensors[f"{name}/teacher/logits"] = teacher.float()
        tensors[f"{name}/d_student/logits"] = student.grad
        cases[name], classes[name] = options, shape[1]
        print(f"{name:18} {loss.item():.9f}")


def main():
    tensors, cases, classes = {}, {}, {}
    pixels(tensors, cases, classes)
    for index, (name, options, shape) in enumerate(CASES):
        rng = np.random.default_rng(8000 + index)
        config, shape = DEFAULTS | options, SHAPE | shape
        n, channels, scale = shape["n"], shape["a"] * shape["k"], shape.get("scale", 2.0)
        students, teachers = [], []
        for h, w in shape["levels"]:
            student = rng.normal(size=(n, channels, h, w)) * scale - 1.5
            teacher = 0.6 * student + rng.normal(size=student.shape) * 0.6 * scale - 0.6
            students.append(f64(student).requires_grad_())
            teachers.append(f64(teacher))
        count = sum(h * w for h, w in shape["levels"]) * shape["a"]
        kind = rng.choice([0, -1, -2], p=[0.25, 0.6, 0.15], size=(n, count))
        kind = {
            "mixed": kind,
            "no_fg": np.where(kind == 0, -1, kind),
            "no_bg": np.where(kind == -1, -2, kind),
            "ignored": np.full_like(kind, -2),
        }[shape["assignment"]]
        labels = np.where(kind == 0, rng.integers(shape["k"], size=kind.shape), kind)
        loss, metrics = run(students, teachers, labels, config, shape["k"])
        if loss.requires_grad:
            loss.backward()
        tensors[f"{name}/loss"] = loss.detach().reshape(1)
        tensors[f"{name}/target/assign.labels"] = torch.from_numpy(labels).long()
        for key, value in metrics.items():
            tensors[f"{name}/metric/{key}"] = torch.tensor([value], dtype=torch.float64)
        for level, (s, t) in enumerate(zip(students, teachers)):
            tap = f"head.cls_logits.p{3 + level}"
            tensors[f"{name}/student/{tap}"] = s.detach().float()
            tensors[f"{name}/teacher/{tap}"] = t.float()
            tensors[f"{name}/d_student/{tap}"] = torch.zeros_like(s) if s.grad is None else s.grad
        cases[name], classes[name] = options, shape["k"]
        print(f"{name:18} {loss.item():.9f}   of {metrics['num_fg']:.0f} foreground")
    metadata = {
        "cases": json.dumps(cases),
        "num_classes": json.dumps(classes),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(tensors, Path(__file__).with_name("logits.safetensors"), metadata)


if __name__ == "__main__":
    main()
