"""Writes optim_golden.json and lr_golden.json: what torch.optim does, step by step.

Run from anywhere: python tests/golden/optim/make_optim_golden.py
"""

import json
import math
import pathlib

import torch
from torch.optim import lr_scheduler as sched

HERE = pathlib.Path(__file__).parent
STEPS, SIZES = 20, {"a.weight": 23, "a.bias": 5}
# `a.bias` is frozen for its first steps, so that its count of updates differs.
FROZEN_UNTIL = {"a.weight": 0, "a.bias": 6}


def f32(tensor):
    return [float(v) for v in tensor.detach()]


def optimizer_case(name, make, decays):
    generator = torch.Generator().manual_seed(3)
    start = {n: torch.randn(k, generator=generator) for n, k in SIZES.items()}
    grads = {n: torch.randn(STEPS, k, generator=generator) for n, k in SIZES.items()}
    lrs = [0.05 * (1 + math.cos(0.3 * i)) + 0.001 for i in range(STEPS)]
    params = {n: v.clone().requires_grad_() for n, v in start.items()}
    groups = [{"params": [params[n]], "weight_decay": decays[n]} for n in SIZES]
    optimizer = make(groups)
    trace = {n: [] for n in SIZES}
    for i in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = lrs[i]
        for n, p in params.items():
            p.grad = None if i < FROZEN_UNTIL[n] else grads[n][i].clone()
        optimizer.step()
        for n, p in params.items():
            trace[n].append(f32(p))
    state = {}
    for n, p in params.items():
        for key, value in optimizer.state[p].items():
            if value is not None and value.dim() == 1:
                state[f"{key}.{n}"] = f32(value)
    return {
        "name": name,
        "lrs": lrs,
        "decays": decays,
        "frozen_until": FROZEN_UNTIL,
        "start": {n: f32(v) for n, v in start.items()},
        "grads": {n: [f32(g) for g in v] for n, v in grads.items()},
        "params": trace,
        "state": state,
    }


def lr_case(name, config, per_epoch, total, make, chained=False):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=config["lr"])
    warmup = config["warmup_iters"]

    def linear():
        return sched.LinearLR(optimizer, start_factor=config["warmup_factor"], total_iters=warmup)

    if warmup == 0:
        scheduler = make(optimizer)
    elif chained:
        scheduler = sched.ChainedScheduler([linear(), make(optimizer)])
    else:
        scheduler = sched.SequentialLR(optimizer, [linear(), make(optimizer)], milestones=[warmup])
    lrs = []
    for _ in range(total):
        lrs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return {"name": name, "config": config, "iters_per_epoch": per_epoch, "total": total, "lrs": lrs}


def main():
    decays = {"a.weight": 1e-2, "a.bias": 0.0}
    cases = [
        optimizer_case("sgd_momentum", lambda g: torch.optim.SGD(g, lr=1.0, momentum=0.9), decays),
        optimizer_case("sgd_plain", lambda g: torch.optim.SGD(g, lr=1.0, momentum=0.0), decays),
        optimizer_case("adamw", lambda g: torch.optim.AdamW(g, lr=1.0, betas=(0.9, 0.99), eps=1e-8), decays),
    ]
    versions = {"torch": torch.__version__}
    (HERE / "optim_golden.json").write_text(json.dumps({"versions": versions, "cases": cases}) + "\n")

    def config(schedule, warmup):
        return {
            "lr": 0.02,
            "warmup_iters": warmup,
            "warmup_factor": 0.001,
            "schedule": schedule,
            "milestones": [2, 4],
            "gamma": 0.1,
            "poly_power": 0.9,
        }

    per_epoch, total = 10, 60
    lr_cases = []
    for warmup in (0, 7):
        rest = total - warmup
        lr_cases += [
            lr_case("constant", config("constant", warmup), per_epoch, total, lambda o: sched.ConstantLR(o, factor=1.0)),
            lr_case(
                "multi_step",
                config("multi_step", warmup),
                per_epoch,
                total,
                lambda o: sched.MultiStepLR(o, milestones=[2 * per_epoch, 4 * per_epoch], gamma=0.1),
                chained=True,
            ),
            lr_case("cosine", config("cosine", warmup), per_epoch, total, lambda o: sched.CosineAnnealingLR(o, T_max=rest)),
            lr_case("poly", config("poly", warmup), per_epoch, total, lambda o: sched.PolynomialLR(o, total_iters=rest, power=0.9)),
        ]
    (HERE / "lr_golden.json").write_text(json.dumps({"versions": versions, "cases": lr_cases}) + "\n")


if __name__ == "__main__":
    main()
