"""Times the loss of the `ssim` plugin, forward and backward, in PyTorch and in kdhost.

PyTorch runs the plugin's default options on maps of the same sizes, strides 8 to 128, in f32 NCHW,
with the gradient to the student's maps alone. The plugin's time is `kdhost bench step`'s.
Prints a Markdown table of milliseconds, medians. README.md says what is compared.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import time
from functools import partial

import torch
import torch.nn.functional as F

STRIDES = (8, 16, 32, 64, 128)
PATCH, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2
RANGE_EPS = 1e-6
SEED = 7
# Batch, channels, height and width of the images: the embedded default, and an ordinary detector.
CASES = [(8, 32, (128, 128)), (2, 256, (512, 512))]


def window_of(shape):
    """The Gaussian of a map's window; small maps have a smaller one."""
    side = min(PATCH, 2 * min(shape[2:]) - 1)
    x = torch.arange(side, dtype=torch.float64) - side // 2
    weights = torch.exp(-(x**2) / (2 * SIGMA**2))
    return (weights / weights.sum()).float()


def convolutions(shape, separable=False):
    """The window as one depthwise convolution, or as one along columns and one along rows."""
    line, channels = window_of(shape), shape[1]
    windows = (line[:, None], line[None]) if separable else (torch.outer(line, line),)
    weights = [window.repeat(channels, 1, 1, 1) for window in windows]

    def blur(x):
        x = F.pad(x, (len(line) // 2,) * 4, "reflect")
        for weight in weights:
            x = F.conv2d(x, weight, groups=channels)
        return x

    return blur


def matrices(shape):
    """The window as products with two band matrices, as the plugin has it."""
    line = window_of(shape)

    def band(n):
        padded = F.pad(torch.eye(n)[None], (len(line) // 2,) * 2, "reflect")
        return F.conv1d(padded.transpose(0, 1), line.view(1, 1, -1))[:, 0].T.contiguous()

    rows, columns = band(shape[2]), band(shape[3]).T.contiguous()
    return lambda x: rows @ (x @ columns)


FILTERS = {"square": convolutions, "separable": partial(convolutions, separable=True)}
FILTERS["matrices"] = matrices


def min_max(x):
    low, high = x.flatten(1).aminmax(dim=1, keepdim=True)
    low, high = low[..., None, None], high[..., None, None]
    return (x - low) / (high - low + RANGE_EPS)


def level_loss(student, teacher, blur):
    s, t = min_max(student), min_max(teacher)
    mean_s, mean_t = blur(s), blur(t)
    square_s, square_t, product = mean_s**2, mean_t**2, mean_s * mean_t
    var_s = (blur(s * s) - square_s).clamp_min(0)
    var_t = (blur(t * t) - square_t).clamp_min(0)
    luminance = (2 * product + C1) / (square_s + square_t + C1)
    similarity = luminance * (2 * (blur(s * t) - product) + C2) / (var_s + var_t + C2)
    return ((1 - similarity) / 2).clamp(0, 1).mean()


def step(students, teachers, blurs):
    """Seconds of forward and backward."""
    start = time.perf_counter()
    loss = sum(level_loss(*level) for level in zip(students, teachers, blurs))
    middle = time.perf_counter()
    torch.autograd.grad(loss, students)
    return middle - start, time.perf_counter() - middle


def time_torch(case, kind, args):
    """Medians of forward and backward in milliseconds."""
    batch, channels, size = case
    torch.manual_seed(SEED)
    shapes = [(batch, channels, *(-(-side // stride) for side in size)) for stride in STRIDES]
    students = [torch.randn(shape, requires_grad=True) for shape in shapes]
    # Related maps, like a distilled student's.
    teachers = [0.6 * s.detach() + 0.4 * torch.randn(s.shape) for s in students]
    blurs = [FILTERS[kind](shape) for shape in shapes]
    times = [step(students, teachers, blurs) for _ in range(args.warmup + args.repeat)]
    return [1e3 * statistics.median(part) for part in zip(*times[args.warmup :])]


def time_plugin(case, args):
    """The same of the plugin, in a training step of tiny detectors with such maps."""
    batch, channels, size = case
    values = {"data.batch_size": batch, "data.shapes.num_train": max(8, batch)}
    values |= dict.fromkeys(("data.transform.size", "data.shapes.size"), str(list(size)))
    values |= {"student.fpn_channels": channels, "teacher.model.fpn_channels": channels}
    command = [args.kdhost, "bench", "step", "--plugin", "libkd_ssim.so", "--json"]
    command += [f"--repeat={args.repeat}", f"--warmup={args.warmup}"]
    command += [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    env = os.environ | dict.fromkeys(("RAYON_NUM_THREADS", "OMP_NUM_THREADS"), str(args.threads))
    env.setdefault("KDHOST_PLUGIN_PATH", str(pathlib.Path(args.kdhost).resolve().parent))
    answer = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True)
    parts = json.loads(answer.stdout.splitlines()[-1])["parts_ms"]
    return [parts["method_forward"], parts["method_backward"]]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kdhost", default="target/release/kdhost")
    parser.add_argument("--batch", type=int, help="with --channels and --size: this case alone")
    parser.add_argument("--channels", type=int)
    parser.add_argument("--size", type=int, nargs=2, metavar=("H", "W"))
    for option, default in (("--threads", 2), ("--repeat", 9), ("--warmup", 3)):
        parser.add_argument(option, type=int, default=default)
    args = parser.parse_args()
    given = (args.batch, args.channels, args.size)
    if any(given) != all(given):
        parser.error("--batch, --channels and --size go together")
    torch.set_num_threads(args.threads)
    print("| case | PyTorch's window | PyTorch fwd + bwd | plugin fwd + bwd | ratio |")
    print("|---|---|---:|---:|---:|")
    cell = lambda t: f"{t[0]:.2f} + {t[1]:.2f} = {sum(t):.2f}"
    for case in [given] if all(given) else CASES:
        name = f"batch {case[0]}, {case[2][0]}x{case[2][1]}, {case[1]} channels"
        times = {kind: time_torch(case, kind, args) for kind in FILTERS}
        plugin = time_plugin(case, args)
        for kind, own in times.items():
            ratio = sum(plugin) / sum(own)
            print(f"| {name} | {kind} | {cell(own)} | {cell(plugin)} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
