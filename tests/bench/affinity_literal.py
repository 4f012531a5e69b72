"""Time and peak memory of the literal affinity loss in PyTorch: both m x m matrices are built.

One image, f32, forward and backward, beside `cargo bench -p kd-affinity`; the fastest of nine passes. Each case is a process of
its own; its peak is `VmHWM` less what the process held before the first pass.

    python tests/bench/affinity_literal.py
    python tests/bench/affinity_literal.py accuracy   # of three forms without the matrices, in f32
"""

import os
import subprocess
import sys
import time

SIDES, CHANNELS, REPEATS = (65, 129), (128, 256), 9


def peak_mib():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


def affinity(rows):
    return rows @ rows.T


def one(side, channels):
    import torch

    torch.manual_seed(1)
    shape = (1, channels, side, side)
    student, code = torch.randn(shape, requires_grad=True), torch.randn(shape).clamp_min(0)
    rows = lambda x: (x / (x.square().sum(1, keepdim=True) + 1e-12).sqrt()).flatten(2)[0].T
    before, times = peak_mib(), []
    for _ in range(REPEATS):
        start = time.perf_counter()
        student.grad = None
        (affinity(rows(student)) - affinity(rows(code))).square().mean().backward()
        times.append(1e3 * (time.perf_counter() - start))
    milliseconds, mib = min(times), peak_mib() - before
    print(f"| {side}×{side} | {channels} | literal | {milliseconds:.0f} | {mib:.0f} |", flush=True)


def accuracy(positions=4225, channels=128):
    """Relative errors of f32 forms for a student that is the code with noise, and the same rotated."""
    import torch

    torch.manual_seed(0)
    unit = lambda rows: rows / rows.norm(dim=1, keepdim=True)
    product = lambda a, b: a.T @ b / positions

    def usual(x, y, last):
        xx, xy, yy = (product(a, b).to(last).square() for a, b in ((x, x), (x, y), (y, y)))
        return xx.sum() - 2 * xy.sum() + yy.sum()

    def plugin(x, y):
        p, m = x + y, x - y
        mixed = product(p, m)
        return (product(p, p) * product(m, m) + mixed * mixed.T).sum() / 2

    print("| loss | rotated | plugin | usual, f32 | usual, f64 last |\n|--:|---|--:|--:|--:|")
    for rotated in (False, True):
        for noise in (1.0, 0.1, 0.01):
            code = unit(torch.randn(positions, channels).add(0.2).clamp_min(0).double() + 1e-9)
            student = unit(code + noise * torch.randn_like(code) / channels**0.5)
            if rotated:
                student = student @ torch.linalg.qr(torch.randn(channels, channels).double())[0]
            loss = usual(student, code, torch.float64).item()
            x, y = student.float(), code.float()
            forms = plugin(x, y), usual(x, y, torch.float32), usual(x, y, torch.float64)
            errors = " | ".join(f"{abs(form.item() - loss) / loss:.0e}" for form in forms)
            print(f"| {loss:.1e} | {rotated} | {errors} |")


def main():
    if sys.argv[1:] == ["accuracy"]:
        return accuracy()
    if len(sys.argv) == 3:
        return one(*map(int, sys.argv[1:]))
    print("| positions | C | form | ms | peak MiB |\n|---|--:|---|--:|--:|", flush=True)
    for side in SIDES:
        for channels in CHANNELS:
            command = [sys.executable, os.path.abspath(__file__), str(side), str(channels)]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
