"""Reference values of the `affinity` plugin: torch modules in float64, gradients by autograd.

Written from the description of the method (arXiv 1903.04688) and the plugin's README: the layers are
`torch.nn.Conv2d`, `ConvTranspose2d` and `BatchNorm2d`, the affinity matrices are built whole, m x m.

    python make_affinity_golden.py        # writes affinity.safetensors beside this file
"""

import json
import math
import platform
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

torch.set_default_dtype(torch.float64)

DEFAULTS = {
    "levels": [3, 4, 5],
    "autoencoder": "shared",
    "code_channels": 0,
    "code_stride": 0,
    "sparsity": 1e-7,
    "sparsity_reduction": "sum",
    "p": 1,
    "q": 2,
    "norm_scope": "location",
    "affinity": "mse",
}
STRIDES = {1: (1, 1, 1), 2: (2, 1, 1), 4: (2, 2, 1), 8: (2, 2, 2)}


def strides_of(student, teacher):
    ratio = 1
    while ratio < 8 and 2 * ratio * teacher <= student:
        ratio *= 2
    return STRIDES[ratio]


class Encoder(nn.Module):
    def __init__(self, c, z):
        super().__init__()
        for i, (a, b) in enumerate([(c, c), (c, z), (z, z)], 1):
            setattr(self, f"conv{i}", nn.Conv2d(a, b, 3, padding=1, bias=False))
            setattr(self, f"norm{i}", nn.BatchNorm2d(b))


class Decoder(nn.Module):
    def __init__(self, c, z):
        super().__init__()
        for i, (a, b) in enumerate([(z, z), (z, c), (c, c)], 1):
            conv = nn.ConvTranspose2d(a, b, 3, padding=1, bias=i == 3)
            setattr(self, f"conv{i}", conv)
            if i < 3:
                setattr(self, f"norm{i}", nn.BatchNorm2d(b))


class FeatureAdapter(nn.Module):
    def __init__(self, s, z):
        super().__init__()
        self.conv = nn.Conv2d(s, z, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(z)

    def forward(self, x):
        return F.relu(self.norm(self.conv(x)))


class AffinityAdapter(nn.Module):
    def __init__(self, s, z):
        super().__init__()
        self.conv = nn.Conv2d(s, z, 3, padding=1)

    def forward(self, x):
        return self.conv(x)


def over_levels(norm, maps):
    """One batch of the cells of all levels."""
    columns = [m.permute(1, 0, 2, 3).reshape(m.shape[1], -1) for m in maps]
    y = norm(torch.cat(columns, 1).t()[:, :, None, None]).squeeze(3).squeeze(2).t()
    parts = y.split([c.shape[1] for c in columns], 1)
    back = lambda p, m: p.reshape(m.shape[1], m.shape[0], *m.shape[2:]).permute(1, 0, 2, 3)
    return [back(p, m) for p, m in zip(parts, maps)]


def encode(encoder, maps, strides):
    sizes = []
    for i in range(3):
        sizes.append([m.shape[2:] for m in maps])
        conv = getattr(encoder, f"conv{i + 1}")
        maps = [F.conv2d(m, conv.weight, None, s[i], 1) for m, s in zip(maps, strides)]
        maps = [F.relu(m) for m in over_levels(getattr(encoder, f"norm{i + 1}"), maps)]
    return maps, sizes


def decode(decoder, maps, strides, sizes):
    for i in range(3):
        conv = getattr(decoder, f"conv{i + 1}")
        out = []
        for m, s, size in zip(maps, strides, sizes[2 - i]):
            conv.stride = (s[2 - i],) * 2
            out.append(conv(m, output_size=size))
        maps = out
        if i < 2:
            maps = [F.relu(m) for m in over_levels(getattr(decoder, f"norm{i + 1}"), maps)]
    return maps


def ae_loss(config, phi, code, decoded):
    size = code.abs().sum() / len(code) if config["sparsity_reduction"] == "sum" else code.abs().mean()
    return F.mse_loss(decoded, phi) + config["sparsity"] * size


def r2(phi, decoded):
    around = phi - phi.mean((0, 2, 3), keepdim=True)
    return 1 - (phi - decoded).square().mean() / around.square().mean()


def unit(x, dim, q):
    if q == 1:
        return x / (x.abs().sum(dim, keepdim=True) + 1e-6)
    return x / (x.square().sum(dim, keepdim=True) + 1e-12).sqrt()


def adapt_loss(config, u, v):
    if config["norm_scope"] == "sample":
        u, v = u.flatten(1)[:, :, None], v.flatten(1)[:, :, None]
    else:
        u, v = u.flatten(2), v.flatten(2)
    d = unit(u, 1, config["q"]) - unit(v, 1, config["q"])
    norm = d.abs().pow(config["p"]).mean(1).pow(1 / config["p"])
    return norm.mean()


def affinity(x):
    rows = unit(x.flatten(2), 1, 2).transpose(1, 2)
    return rows @ rows.transpose(1, 2)


def aff_loss(config, s, z):
    d = affinity(s) - affinity(z)
    m = d.shape[1]
    if config["affinity"] == "mse":
        return d.square().sum((1, 2)).div(m * m).mean()
    if config["affinity"] == "rms":
        return d.square().sum((1, 2)).sqrt().div(m).mean()
    return d.square().sum(2).sqrt().sum(1).div(m).mean()


def resized(config, s, z):
    """Student's map and code on one grid."""
    size = s.shape[2:]
    if config["code_stride"]:
        return F.adaptive_avg_pool2d(s, z.shape[2:]), z
    if z.shape[2:] == size:
        return s, z
    if config["autoencoder"] == "none" and all(a >= 2 * b for a, b in zip(z.shape[2:], size)):
        return s, F.adaptive_avg_pool2d(z, size)
    return s, F.interpolate(z, size=size, mode="bilinear", align_corners=False)


# name, phase, options, [(tap, student shape, stride, teacher shape, stride)]
FEAT = "feat.last"


def feat(s, s_stride, t, t_stride):
    return [(FEAT, s, s_stride, t, t_stride)]


def neck(batch, c_s, c_t):
    sizes = [(7, 9), (4, 5), (2, 3)]
    return [
        (f"neck.p{3 + i}", (batch, c_s, *hw), 8 << i, (batch, c_t, *hw), 8 << i)
        for i, hw in enumerate(sizes)
    ]


SMALL = feat((2, 3, 5, 6), 16, (2, 4, 5, 6), 16)
CASES = [
    ("ae_rho1", "ae", {}, SMALL),
    ("ae_rho2_odd", "ae", {}, feat((2, 3, 5, 4), 16, (2, 4, 9, 8), 8)),
    ("ae_rho4_odd", "ae", {}, feat((2, 3, 4, 3), 16, (2, 4, 13, 11), 4)),
    ("ae_rho8", "ae", {}, feat((2, 3, 3, 2), 32, (2, 4, 17, 16), 4)),
    ("ae_mean", "ae", {"sparsity_reduction": "mean", "sparsity": 0.3}, SMALL),
    ("ae_sum", "ae", {"sparsity": 2e-3, "code_channels": 3}, SMALL),
    ("ae_shared", "ae", {}, neck(2, 3, 4)),
    ("ae_per_level", "ae", {"autoencoder": "per_level"}, neck(2, 3, 4)),
    ("joint", "joint", {}, SMALL),
    ("joint_rho2_odd", "joint", {}, feat((2, 3, 5, 4), 16, (2, 4, 9, 8), 8)),
    ("joint_rho4", "joint", {}, feat((2, 3, 4, 3), 16, (2, 4, 13, 11), 4)),
    ("joint_resized", "joint", {}, feat((2, 3, 5, 5), 24, (2, 4, 15, 14), 8)),
    ("joint_finer_student", "joint", {}, feat((2, 3, 7, 6), 8, (2, 4, 4, 3), 16)),
    ("joint_shared", "joint", {}, neck(2, 3, 4)),
    ("joint_per_level", "joint", {"autoencoder": "per_level"}, neck(2, 3, 4)),
    ("joint_code_stride", "joint", {"code_stride": 16, "levels": [3, 4]}, neck(2, 3, 4)),
    ("p1_q1", "joint", {"q": 1}, SMALL),
    ("p2_q2", "joint", {"p": 2}, SMALL),
    ("p2_q1", "joint", {"p": 2, "q": 1}, SMALL),
    ("sample_p1", "joint", {"norm_scope": "sample"}, SMALL),
    ("sample_p2", "joint", {"norm_scope": "sample", "p": 2}, SMALL),
    ("rms", "joint", {"affinity": "rms"}, SMALL),
    ("row", "joint", {"affinity": "row"}, SMALL),
    ("none", "joint", {"autoencoder": "none"}, SMALL),
    ("none_bilinear", "joint", {"autoencoder": "none"}, feat((2, 3, 5, 4), 16, (2, 4, 8, 7), 12)),
    ("none_area", "joint", {"autoencoder": "none"}, feat((2, 3, 4, 3), 16, (2, 4, 9, 7), 8)),
]


def values(rng, shape):
    """Skewed, like features after a few layers; exact in float32."""
    x = rng.normal(size=shape)
    x = x + 0.4 * x**2 + 0.3 * np.cumsum(x, axis=-1)
    return torch.from_numpy(x.astype(np.float32).astype(np.float64))


def randomise(module, rng):
    """Parameters and buffers of a trained module; exact in float32."""
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if not tensor.is_floating_point():
            continue
        noise = torch.from_numpy(rng.normal(size=tuple(tensor.shape)).astype(np.float32))
        scale, shift = {"weight": (0.3, 0.0), "bias": (0.2, 0.1)}.get(name.split(".")[-1], (0.2, 0.0))
        if "norm" in name and name.endswith("weight"):
            scale, shift = 0.2, 1.0
        if name.endswith("running_var"):
            noise, scale, shift = noise.abs(), 0.5, 0.5
        with torch.no_grad():
            tensor.copy_((scale * noise.double() + shift).float().double())


def path_of(prefix, name):
    if "norm" in name:
        name = name.replace("weight", "gamma").replace("bias", "beta")
    return f"{prefix}.{name}"


def main():
    tensors, cases, strides = {}, {}, {}
    for index, (case, phase, options, taps) in enumerate(CASES):
        rng = np.random.default_rng(4000 + index)
        config = DEFAULTS | options
        all_taps = taps
        if taps[0][0] != FEAT:
            taps = [tap for tap in taps if int(tap[0][-1]) in config["levels"]]
        students = {t[0]: values(rng, t[1]).requires_grad_() for t in all_taps}
        teachers = {t[0]: values(rng, t[3]) for t in all_taps}
        c_s, c_t = taps[0][1][1], taps[0][3][1]
        c_z = c_t if config["autoencoder"] == "none" else config["code_channels"] or c_t // 2

        groups = {
            "none": [],
            "shared": [("shared", taps)],
            "per_level": [(tap[0], [tap]) for tap in taps],
        }[config["autoencoder"]]
        modules, autoencoders = {}, {}
        for name, _ in groups:
            autoencoders[name] = Encoder(c_t, c_z), Decoder(c_t, c_z)
            modules[f"encoder.{name}"], modules[f"decoder.{name}"] = autoencoders[name]
        for tap in taps:
            modules[f"feature_adapter.{tap[0]}"] = FeatureAdapter(c_s, c_z)
            modules[f"affinity_adapter.{tap[0]}"] = AffinityAdapter(c_s, c_z)
        for prefix, module in modules.items():
            randomise(module, rng)
            module.train()
            for name, tensor in module.named_parameters():
                tensors[f"{case}/param/{path_of(prefix, name)}"] = tensor.detach().float().clone()
            for name, tensor in module.named_buffers():
                if tensor.is_floating_point():
                    tensors[f"{case}/buffer/{path_of(prefix, name)}"] = tensor.float().clone()

        losses = {"loss_ae": [], "loss_adapt": [], "loss_aff": []}
        quality, codes = [], dict(teachers)
        for name, members in groups:
            encoder, decoder = autoencoders[name]
            maps = [teachers[tap[0]] for tap in members]
            steps = [strides_of(config["code_stride"] or tap[2], tap[4]) for tap in members]
            if phase == "ae":
                code, sizes = encode(encoder, maps, steps)
                decoded = decode(decoder, code, steps, sizes)
                for phi, z, back in zip(maps, code, decoded):
                    losses["loss_ae"].append(ae_loss(config, phi, z, back))
                    quality.append(r2(phi, back))
            else:
                encoder.eval()
                with torch.no_grad():
                    code, _ = encode(encoder, maps, steps)
                codes |= {tap[0]: z for tap, z in zip(members, code)}
        if phase == "joint":
            for tap in taps:
                s, z = resized(config, students[tap[0]], codes[tap[0]])
                u = modules[f"feature_adapter.{tap[0]}"](s)
                losses["loss_adapt"].append(adapt_loss(config, u, z))
                losses["loss_aff"].append(aff_loss(config, modules[f"affinity_adapter.{tap[0]}"](s), z))
        else:
            # Nothing may read the student.
            for s in students.values():
                s.data.fill_(math.nan)

        declared = ["loss_ae"] * bool(groups) + ["loss_adapt", "loss_aff"]
        wanted = ["loss_ae"] if phase == "ae" else ["loss_adapt", "loss_aff"]
        upstream = {"loss_ae": 1.5, "loss_adapt": 2.0, "loss_aff": 0.75}
        total = 0.0
        for name in declared:
            value = torch.stack(losses[name]).mean() if name in wanted else torch.zeros(())
            tensors[f"{case}/loss/{name}"] = value.detach().reshape(1)
            weight = upstream[name] if name in wanted else 0.0
            tensors[f"{case}/d_loss/{name}"] = torch.tensor([weight])
            total = total + weight * value
        total.backward()
        if quality:
            tensors[f"{case}/metric/ae_r2"] = torch.stack(quality).mean().detach().reshape(1)
        gradient = lambda t: torch.zeros_like(t) if t.grad is None else t.grad
        for tap in all_taps:
            tensors[f"{case}/student/{tap[0]}"] = students[tap[0]].detach().float()
            tensors[f"{case}/teacher/{tap[0]}"] = teachers[tap[0]].float()
            tensors[f"{case}/d_student/{tap[0]}"] = gradient(students[tap[0]])
        for prefix, module in modules.items():
            for name, tensor in module.named_parameters():
                tensors[f"{case}/d_param/{path_of(prefix, name)}"] = gradient(tensor)
            for name, tensor in module.named_buffers():
                if tensor.is_floating_point():
                    tensors[f"{case}/new_buffer/{path_of(prefix, name)}"] = tensor.clone()
        cases[case] = options
        strides[case] = {f"student/{t[0]}": t[2] for t in all_taps}
        strides[case] |= {f"teacher/{t[0]}": t[4] for t in all_taps}
        print(f"{case:20}", *(f"{name} {tensors[f'{case}/loss/{name}'].item():.6g}" for name in declared))
    metadata = {
        "cases": json.dumps(cases),
        "strides": json.dumps(strides),
        "joint": json.dumps([case for case, phase, *_ in CASES if phase == "joint"]),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    # Losses stay in f64; the rest is rounded once, to 6e-8 of itself.
    narrow = lambda name, t: t if "/loss/" in name else t.float()
    tensors = {name: narrow(name, tensor).contiguous() for name, tensor in tensors.items()}
    save_file(tensors, Path(__file__).with_name("affinity.safetensors"), metadata)


if __name__ == "__main__":
    main()
