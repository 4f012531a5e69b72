"""Reference values of the `ssim` plugin: forward in float64, gradients by PyTorch's autograd.

Needs torch, kornia, numpy and safetensors. With exponents (1, 1, 1) and sigma 1.5 the similarity
is `kornia.metrics.ssim` itself (eps=0); for other exponents the three terms are written out here
on kornia's Gaussian filter, in the form without a singular derivative that the plugin documents.

    python make_ssim_golden.py        # writes ssim.safetensors beside this file
"""

import json
import platform
from pathlib import Path

import kornia
import numpy as np
import torch
from kornia.filters import filter2d_separable, get_gaussian_kernel1d
from safetensors.torch import save_file

C1, C2 = 0.01**2, 0.03**2
C3 = C2 / 2
VARIANCE_EPS, POWER_FLOOR, RANGE_EPS = 1e-6, 1e-6, 1e-6

DEFAULTS = {
    "patch_size": 11,
    "sigma": 1.5,
    "alpha": 1.0,
    "beta": 1.0,
    "gamma": 1.0,
    "norm_scope": "image",
    "connector": "auto",
}


def min_max(x, scope):
    dims = {"image": (1, 2, 3), "channel": (2, 3), "tensor": (0, 1, 2, 3)}[scope]
    low, high = x.amin(dims, keepdim=True), x.amax(dims, keepdim=True)
    return (x - low) / (high - low + RANGE_EPS)


def positive_power(x, exponent):
    return x if exponent == 1 else x.clamp_min(POWER_FLOOR) ** exponent


def signed_power(x, exponent):
    return x if exponent == 1 else x.sign() * x.abs().clamp_min(POWER_FLOOR) ** exponent


def similarity(s, t, config, window):
    exponents = (config["alpha"], config["beta"], config["gamma"])
    if exponents == (1, 1, 1) and config["sigma"] == 1.5:
        return kornia.metrics.ssim(s, t, window, max_val=1.0, eps=0.0)
    kernel = get_gaussian_kernel1d(window, config["sigma"], dtype=torch.float64)
    blur = lambda x: filter2d_separable(x, kernel, kernel, border_type="reflect")
    mu_s, mu_t = blur(s), blur(t)
    var_s = (blur(s * s) - mu_s**2).clamp_min(0)
    var_t = (blur(t * t) - mu_t**2).clamp_min(0)
    covariance = blur(s * t) - mu_s * mu_t
    alpha, beta, gamma = exponents
    result = torch.ones_like(s)
    if alpha:
        luminance = (2 * mu_s * mu_t + C1) / (mu_s**2 + mu_t**2 + C1)
        result = result * positive_power(luminance, alpha)
    if beta == 1 and gamma == 1:
        return result * (2 * covariance + C2) / (var_s + var_t + C2)
    deviations = ((var_s + VARIANCE_EPS) * (var_t + VARIANCE_EPS)).sqrt()
    if beta:
        contrast = (2 * deviations + C2) / (var_s + var_t + 2 * VARIANCE_EPS + C2)
        result = result * positive_power(contrast, beta)
    if gamma:
        structure = (covariance + VARIANCE_EPS + C3) / (deviations + C3)
        result = result * signed_power(structure, gamma)
    return result


def loss(students, teachers, connectors, config):
    total = torch.zeros((), dtype=torch.float64)
    for level, (s, t) in enumerate(zip(students, teachers)):
        if connectors:
            s = torch.nn.functional.conv2d(s, *connectors[level])
        if t.shape[2:] != s.shape[2:]:
            t = torch.nn.functional.interpolate(
                t, size=s.shape[2:], mode="bilinear", align_corners=False
            )
        window = min(config["patch_size"], 2 * min(s.shape[2:]) - 1)
        s, t = min_max(s, config["norm_scope"]), min_max(t, config["norm_scope"])
        total = total + ((1 - similarity(s, t, config, window)) / 2).clamp(0, 1).mean()
    return total


# name, options, student shapes, teacher shapes
CASES = [
    ("default", {}, [(2, 4, 16, 18)], None),
    ("two_levels", {}, [(2, 4, 12, 13), (2, 4, 6, 7)], None),
    ("small_5x5", {}, [(2, 4, 5, 5)], None),
    ("small_3x4", {}, [(2, 4, 3, 4)], None),
    ("small_1x1", {}, [(2, 4, 1, 1)], None),
    ("small_1x7", {}, [(2, 4, 1, 7)], None),
    ("scope_channel", {"norm_scope": "channel"}, [(2, 3, 10, 11)], None),
    ("scope_tensor", {"norm_scope": "tensor"}, [(2, 3, 10, 11)], None),
    ("luminance", {"beta": 0.0, "gamma": 0.0}, [(2, 3, 10, 11)], None),
    ("contrast", {"alpha": 0.0, "gamma": 0.0}, [(2, 3, 10, 11)], None),
    ("structure", {"alpha": 0.0, "beta": 0.0}, [(2, 3, 10, 11)], None),
    ("structure_small", {"alpha": 0.0, "beta": 0.0}, [(2, 3, 3, 4)], None),
    ("powers", {"alpha": 2.0, "beta": 1.0, "gamma": 0.5}, [(2, 3, 10, 11)], None),
    ("powers_3", {"alpha": 0.5, "beta": 3.0, "gamma": 2.0}, [(2, 3, 10, 11)], None),
    ("fast_alpha_0", {"alpha": 0.0}, [(2, 3, 10, 11)], None),
    ("patch_7", {"patch_size": 7, "sigma": 1.0}, [(2, 3, 10, 11)], None),
    ("connector", {}, [(2, 3, 9, 8), (2, 3, 4, 4)], [(2, 5, 9, 8), (2, 5, 4, 4)]),
    ("connector_always", {"connector": "always"}, [(2, 4, 9, 8)], None),
    ("resize_down", {}, [(2, 3, 7, 6)], [(2, 3, 13, 12)]),
    ("resize_up", {}, [(2, 3, 8, 10)], [(2, 3, 5, 6)]),
]


def values(rng, shape):
    """Skewed, like features after a few layers; exact in float32."""
    x = rng.normal(size=shape)
    x = x + 0.5 * x**2 + 0.3 * np.cumsum(x, axis=-1)
    return torch.from_numpy(x.astype(np.float32).astype(np.float64))


def main():
    tensors, cases = {}, {}
    for index, (name, options, student_shapes, teacher_shapes) in enumerate(CASES):
        rng = np.random.default_rng(1000 + index)
        config = DEFAULTS | options
        teacher_shapes = teacher_shapes or student_shapes
        students = [values(rng, shape).requires_grad_() for shape in student_shapes]
        teachers = [values(rng, shape) for shape in teacher_shapes]
        if student_shapes == teacher_shapes:
            # Related maps: a distilled student's. Keeps the structure term off its kink at 0.
            for s, t in zip(students, teachers):
                t.copy_((0.6 * s.detach() + 0.4 * t).float().double())
        connectors = []
        if config["connector"] == "always" or student_shapes[0][1] != teacher_shapes[0][1]:
            for s, t in zip(student_shapes, teacher_shapes):
                weight = values(rng, (t[1], s[1], 1, 1)).requires_grad_()
                connectors.append((weight, values(rng, (t[1],)).requires_grad_()))
        total = loss(students, teachers, connectors, config)
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
        print(f"{name:18} {total.item():.9f}")
    metadata = {
        "cases": json.dumps(cases),
        "torch": torch.__version__,
        "kornia": kornia.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(tensors, Path(__file__).with_name("ssim.safetensors"), metadata)


if __name__ == "__main__":
    main()
