"""Reference values of the `hint` plugin: forward in float64, gradients by PyTorch's autograd.

Needs torch, numpy and safetensors.

    python make_hint_golden.py        # writes hint.safetensors beside this file
"""

import json
import platform
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch.nn.functional import conv2d, interpolate, l1_loss, mse_loss

RANGE_EPS = 1e-6


def min_max(x):
    low, high = x.amin((1, 2, 3), keepdim=True), x.amax((1, 2, 3), keepdim=True)
    return (x - low) / (high - low + RANGE_EPS)


# name, options, student shapes, teacher shapes
CASES = [
    ("l2", {}, [(2, 4, 6, 7), (2, 4, 3, 4)], None),
    ("l1", {"distance": "l1"}, [(2, 4, 6, 7), (2, 4, 3, 4)], None),
    ("l1_normalized", {"distance": "l1", "normalize": True}, [(2, 4, 6, 7)], None),
    ("l2_normalized", {"normalize": True}, [(2, 4, 6, 7), (2, 4, 1, 1)], None),
    ("connector", {}, [(2, 3, 6, 7), (2, 3, 3, 4)], [(2, 5, 6, 7), (2, 5, 3, 4)]),
    (
        "connector_normalized",
        {"normalize": True, "distance": "l1"},
        [(2, 3, 6, 7)],
        [(2, 5, 6, 7)],
    ),
    # Of another stride: twice as fine, an odd factor, and coarser along one axis.
    ("resized", {}, [(2, 4, 3, 4)], [(2, 4, 6, 8)]),
    ("resized_connector", {"distance": "l1"}, [(2, 3, 5, 4)], [(2, 6, 7, 11)]),
    ("resized_down", {"normalize": True}, [(1, 4, 8, 3)], [(1, 4, 5, 6)]),
]


def values(rng, shape):
    """Exact in float32."""
    return torch.from_numpy(rng.normal(size=shape).astype(np.float32).astype(np.float64))


def main():
    tensors, cases = {}, {}
    for index, (name, options, student_shapes, teacher_shapes) in enumerate(CASES):
        rng = np.random.default_rng(2000 + index)
        teacher_shapes = teacher_shapes or student_shapes
        students = [values(rng, shape).requires_grad_() for shape in student_shapes]
        teachers = [values(rng, shape) for shape in teacher_shapes]
        connectors = []
        total = torch.zeros((), dtype=torch.float64)
        for s, t in zip(students, teachers):
            if s.shape[1] != t.shape[1]:
                weight = values(rng, (t.shape[1], s.shape[1], 1, 1)).requires_grad_()
                connectors.append((weight, values(rng, (t.shape[1],)).requires_grad_()))
                s = conv2d(s, *connectors[-1])
            if s.shape[2:] != t.shape[2:]:
                s = interpolate(s, t.shape[2:], mode="bilinear", align_corners=False)
            if options.get("normalize"):
                s, t = min_max(s), min_max(t)
            distance = l1_loss if options.get("distance") == "l1" else mse_loss
            total = total + distance(s, t)
        total.backward()
        tensors[f"{name}/loss"] = total.detach().reshape(1)
        for level, (s, t) in enumerate(zip(students, teachers)):
            tap = f"neck.p{3 + level}"
            tensors[f"{name}/student/{tap}"] = s.detach().float()
            tensors[f"{name}/teacher/{tap}"] = t.float()
            tensors[f"{name}/d_student/{tap}"] = s.grad
        for level, (weight, bias) in enumerate(connectors):
            for part, tensor in (("weight", weight), ("bias", bias)):
                path = f"connector.neck.p{3 + level}.{part}"
                tensors[f"{name}/param/{path}"] = tensor.detach().float()
                tensors[f"{name}/d_param/{path}"] = tensor.grad
        cases[name] = options
        print(f"{name:22} {total.item():.9f}")
    metadata = {
        "cases": json.dumps(cases),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(tensors, Path(__file__).with_name("hint.safetensors"), metadata)


if __name__ == "__main__":
    main()
