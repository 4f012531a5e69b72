"""kdhost on a GPU: what it learns beside the CPU, what a step costs beside torchvision.

Prints Markdown tables; exits with 1 if training on the device differs. README.md says more.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BENCH = ROOT / "tests/bench"
# Of a loss within the compared steps.
TOLERANCE = 1e-3
STEPS = 20
WARM_UPS = 5
# The setting in which two runs of other roundings stay together: see host/src/engine/step/tests.rs.
COMPARED = {
    "student.box_loss": "giou",
    "train.lr": 2e-4,
    "train.warmup_iters": 4,
    "train.max_iters": STEPS,
    "train.log_interval_iters": 1,
    "data.shapes.num_val": 8,
}
CLASSES = 91
# torchvision's ResNet-50 FPN; the teacher of methods that have one is its ResNet-101.
TIMED = """
[data]
batch_size = {batch}
workers = 4
[data.transform]
size = [{height}, {width}]
[data.shapes]
num_train = {images}
size = [{height}, {width}]
[student]
backbone = "resnet50"
fpn_channels = 256
head_convs = 4
anchor_base_size = 32
[teacher.model]
backbone = "resnet101"
fpn_channels = 256
head_convs = 4
anchor_base_size = 32
[train]
optimizer = "sgd"
lr = 1e-6
"""


def sets(values):
    return [word for key, value in values.items() for word in ("--set", f"{key}={value}")]


def train(args, folder, name, device, values):
    """The losses of each step."""
    words = ["train", "--quiet", "--device", device, "--output", folder / name, *sets(values)]
    subprocess.run([args.kdhost, *words], check=True, cwd=folder, stdout=subprocess.DEVNULL)
    lines = (folder / name / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line) for line in lines]
    losses = ("train/loss_cls", "train/loss_bbox")
    return [[step[key] for key in losses] for step in steps if losses[0] in step]


def compare(args, folder):
    """Whether the device and the CPU learn the same; prints by how much they differ."""
    plain = train(args, folder, "cpu", "cpu", COMPARED)
    assert len(plain) == STEPS, f"{len(plain)} steps logged"
    print(f"\n| {STEPS} steps against cpu, f32 | first step | all steps | within |")
    print("|---|--:|--:|--:|")
    good = True
    # Roundings of bf16 are larger than any tolerance that would find an error; they are shown alone.
    for precision, bound in (("f32", TOLERANCE), ("bf16", None)):
        values = COMPARED | {"train.precision": precision}
        steps = train(args, folder, precision, args.device, values)
        differ = [max(abs(a / b - 1) for a, b in zip(s, p)) for s, p in zip(steps, plain)]
        print(f"| {args.device} {precision} | {differ[0]:.1e} | {max(differ):.1e} | {bound or '-'} |")
        good &= len(steps) == STEPS and (bound is None or max(differ) < bound)
    # A checkpoint of the device goes on on the CPU: the run is over, so this evaluates and exports.
    words = ["eval", "--device", "cpu", "--run", folder / "f32", "--json"]
    subprocess.run([args.kdhost, *words], check=True, cwd=folder, stdout=subprocess.DEVNULL)
    print("\ncheckpoint of the device evaluated on the CPU: yes")
    return good


def gpu_mib(device):
    """Memory in use on the whole GPU, as its driver says; nothing where there is none."""
    if not device.startswith("cuda"):
        return None
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    index = device.partition(":")[2] or "0"
    return float(subprocess.check_output([*query, "-i", index], text=True))


def kdhost_reference(args, folder, device):
    """Milliseconds of the step of the reference case."""
    words = ["bench", "step", "--reference", folder, "--follow", "--device", device]
    before = gpu_mib(device) or 0
    child = subprocess.Popen([args.kdhost, *words], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, text=True)  # fmt: skip

    def ask(line):
        print(line, file=child.stdin, flush=True)
        return json.loads(child.stdout.readline())

    assert json.loads(child.stdout.readline()) == {"ready": True}
    first = ask("run")
    for _ in range(WARM_UPS):
        ask("run")
    parts = ("forward_ms", "backward_ms", "optimizer_ms")
    times = [sum(ask("run")[p] for p in parts) for _ in range(args.repeat)]
    memory = gpu_mib(device) and gpu_mib(device) - before
    child.stdin.close()
    assert child.wait() == 0, "kdhost failed"
    return statistics.median(times), memory, [first["loss_cls"], first["loss_bbox"]]


def kdhost_method(args, folder, plugin, precision):
    """Milliseconds of the step of the configuration, with a plugin or `none`."""
    if plugin != "none":
        plugin = args.kdhost.parent / f"lib{plugin}.so"
    words = ["bench", "step", "--config", folder / "timed.toml", "--plugin", plugin, "--json"]
    words += ["--device", args.device, "--repeat", args.repeat, "--warmup", WARM_UPS]
    words += sets({"train.precision": precision})
    answer = subprocess.check_output([args.kdhost, *map(str, words)], text=True, cwd=folder)
    answer = json.loads(answer)
    # The bench includes the wait for images, which has nothing to do with the device.
    return answer["total_ms"] - answer["parts_ms"]["data"], answer["parts_ms"]


def write_case(args, folder):
    """Weights, images and targets of one step, read by both sides."""
    import torch
    from safetensors.torch import save_file

    from cases import SEED, draw_target
    import random
    from torch_worker import build_model, smooth_noise

    draw = random.Random(SEED)
    targets = [draw_target(draw, min(args.size)) for _ in range(args.batch)]
    case = {"backbone": "resnet50", "num_classes": CLASSES, "fpn_channels": 256, "lr": 1e-6}
    case |= {"momentum": 0.9, "weight_decay": 1e-4, "targets": targets}
    (folder / "case.json").write_text(json.dumps(case))
    torch.manual_seed(SEED)
    state = build_model(case).state_dict()
    tensors = {name: t for name, t in state.items() if "num_batches_tracked" not in name}
    # As the CPU's bench has it: the losses then depend on all layers.
    for name, tensor in tensors.items():
        if name.startswith("head.") and name.endswith("weight"):
            tensor.mul_(2.0)
    tensors["images"] = smooth_noise(args.batch, *args.size)
    save_file(tensors, folder / "case.safetensors")


def torch_reference(args, folder, device, precision, tf32):
    """Milliseconds of torchvision's step, its peak memory, its first losses."""
    import torch

    from torch_worker import load_case, losses_of

    on_gpu = device.startswith("cuda")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = True
    layout = torch.channels_last if precision == "bf16" else torch.contiguous_format
    model, images, targets, _ = load_case(folder, layout)
    model, images = model.to(device), images.to(device)
    targets = [{key: value.to(device) for key, value in t.items()} for t in targets]
    sgd = torch.optim.SGD(model.parameters(), 1e-6, 0.9, weight_decay=1e-4)
    times, first = [], None
    for _ in range(1 + WARM_UPS + args.repeat):
        start = time.perf_counter()
        sgd.zero_grad(set_to_none=True)
        autocast = torch.autocast(device.partition(":")[0], torch.bfloat16, precision == "bf16")
        with autocast:
            losses = losses_of(model, images, targets)
        (losses["classification"] + losses["bbox_regression"]).backward()
        sgd.step()
        found = [losses["classification"].item(), losses["bbox_regression"].item()]
        if on_gpu:
            torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - start))
        first = first or found
    memory = torch.cuda.max_memory_reserved() / 2**20 if on_gpu else None
    del model, sgd, losses
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    return statistics.median(times[1 + WARM_UPS :]), memory, first


def cell(value):
    return "-" if value is None else f"{value:.0f}"


def time_steps(args, folder):
    sys.path.insert(0, str(BENCH))
    size = "x".join(map(str, args.size))
    title = f"RetinaNet-R50 {size}, batch {args.batch}, {args.device}"
    print(f"\n| {title} | ms/step | GPU MiB | first losses |")
    print("|---|--:|--:|--:|")

    def row(name, ms, memory, losses):
        losses = " ".join(f"{loss:.5f}" for loss in losses)
        print(f"| {name} | {ms:.1f} | {cell(memory)} | {losses} |", flush=True)

    write_case(args, folder)
    sides = [("f32", False), ("f32", True), ("bf16", True)]
    for precision, tf32 in sides if args.device.startswith("cuda") else sides[:1]:
        name = f"torchvision {precision}" + (", TF32 allowed" if tf32 else "")
        row(name, *torch_reference(args, folder, args.device, precision, tf32))
    row("kdhost f32, same weights and images", *kdhost_reference(args, folder, args.device))

    height, width = args.size
    timed = TIMED.format(batch=args.batch, height=height, width=width, images=2 * args.batch)
    (folder / "timed.toml").write_text(timed)
    print(f"\n| {title}, generated images | ms/step | over none |")
    print("|---|--:|--:|")
    for precision in ("f32", "bf16"):
        none = None
        for plugin in ("none", "kd_ssim", "kd_lgd"):
            ms, parts = kdhost_method(args, folder, plugin, precision)
            none = none or ms
            print(f"| {plugin} {precision} | {ms:.1f} | {ms / none:.2f} |", flush=True)
            print(f"{plugin} {precision}: {parts}", file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--size", nargs=2, type=int, default=[800, 1344], metavar=("H", "W"))
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--skip-times", action="store_true", help="needs no PyTorch")
    parser.add_argument("--kdhost", type=pathlib.Path, default=ROOT / "target/release/kdhost")
    args = parser.parse_args()
    args.kdhost = args.kdhost.resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        good = compare(args, folder)
        if not args.skip_times:
            time_steps(args, folder)
    if not good:
        sys.exit(f"the device and the CPU differ by more than {TOLERANCE}")


if __name__ == "__main__":
    main()
