"""The PyTorch side of the bench: one job a process, JSON lines out, wall-clock milliseconds.

  info       versions and CPU capability
  reference  writes case.safetensors (weights and images) beside DIR/case.json
  images     writes JPEGs of smooth noise into DIR
  step       one training step of DIR for each line `run`; peak memory at the end of input
  op         one operation, forward and backward, for each specification read
  data       decodes and resizes the JPEGs of DIR
`step` and `op` follow the protocol of `kdhost bench`.
"""

import argparse
import json
import pathlib
import sys
import time

import numpy as np
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F
from torchvision.io import decode_jpeg, read_file
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNet
from torchvision.ops import sigmoid_focal_loss
from torchvision.ops.feature_pyramid_network import LastLevelP6P7
from torchvision.transforms.v2.functional import resize

from cases import BATCH, SEED


def say(**message):
    print(json.dumps(message), flush=True)


def now_ms():
    return time.perf_counter() * 1e3


def memory_mib(field):
    """`VmRSS` or `VmHWM`, its maximum so far, of this process in MiB."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field + ":"))


def info(args):
    say(
        torch=torch.__version__,
        torchvision=torchvision.__version__,
        capability=torch.backends.cpu.get_cpu_capability(),
        mkldnn=torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled,
        float32_precision=torch.get_float32_matmul_precision(),
    )


def smooth_noise(n, h, w):
    """[N,3,H,W] of mean 0 and deviation 1: blobs of 16 pixels with a little grain."""
    blobs = F.interpolate(torch.randn(n, 3, h // 16, w // 16), (h, w), mode="bicubic")
    image = blobs + 0.1 * torch.randn(n, 3, h, w)
    return (image - image.mean()) / image.std()


def reference(args):
    """The heads' weights are twice torchvision's: the losses then depend on all layers."""
    state = build_model(json.loads((args.folder / "case.json").read_text())).state_dict()
    tensors = {name: t for name, t in state.items() if "num_batches_tracked" not in name}
    for name, tensor in tensors.items():
        if name.startswith("head.") and name.endswith("weight"):
            tensor.mul_(2.0)
    tensors["images"] = smooth_noise(BATCH, *args.size)
    save_file(tensors, args.folder / "case.safetensors")
    say(tensors=len(tensors))


def images(args):
    for i in range(32):
        pixels = (smooth_noise(1, *args.size)[0] * 50 + 128).clamp(0, 255).byte()
        pixels = pixels.permute(1, 2, 0).contiguous().numpy()
        Image.fromarray(pixels).save(args.folder / f"{i:02}.jpg", quality=90)
    say(images=32)


def build_model(case):
    """torchvision's RetinaNet with all of ResNet and its BatchNorm trained."""
    width = case["fpn_channels"]
    backbone = resnet_fpn_backbone(
        backbone_name=case["backbone"],
        weights=None,
        norm_layer=nn.BatchNorm2d,
        trainable_layers=5,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(width, width),
    )
    return RetinaNet(backbone, case["num_classes"]).train()


def load_case(folder, layout):
    """Model with the stored weights, images, targets and optimizer."""
    case = json.loads((folder / "case.json").read_text())
    tensors = load_file(folder / "case.safetensors")
    batch = tensors.pop("images").clone(memory_format=layout)
    model = build_model(case)
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert not unexpected and all("num_batches_tracked" in name for name in missing)
    model.to(memory_format=layout)
    targets = [
        {"boxes": torch.tensor(t["boxes_xyxy"]), "labels": torch.tensor(t["labels"])}
        for t in case["targets"]
    ]
    decay = case["weight_decay"]
    sgd = torch.optim.SGD(model.parameters(), case["lr"], case["momentum"], weight_decay=decay)
    return model, batch, targets, sgd


def losses_of(model, batch, targets):
    """Forward, anchors, matching and both losses, without torchvision's image transform."""
    features = list(model.backbone(batch).values())
    heads = model.head(features)
    sizes = [tuple(batch.shape[2:])] * len(batch)
    anchors = model.anchor_generator(ImageList(batch, sizes), features)
    return model.compute_loss(targets, heads, anchors)


def train_step(model, batch, targets, optimizer):
    """One step and its times; dropping the old gradients counts for the optimizer."""
    start = now_ms()
    optimizer.zero_grad(set_to_none=True)
    zeroed = now_ms()
    losses = losses_of(model, batch, targets)
    total = losses["classification"] + losses["bbox_regression"]
    forward = now_ms()
    total.backward()
    backward = now_ms()
    optimizer.step()
    return {
        "optimizer_ms": now_ms() - backward + zeroed - start,
        "forward_ms": forward - zeroed,
        "backward_ms": backward - forward,
        "loss_cls": losses["classification"].item(),
        "loss_bbox": losses["bbox_regression"].item(),
    }


def step(args):
    imported = memory_mib("VmRSS")
    parts = load_case(args.folder, args.layout)
    say(ready=True)
    for line in sys.stdin:
        assert line == "run\n", line
        say(**train_step(*parts))
    say(peak_mib=memory_mib("VmHWM") - imported, whole_process_mib=memory_mib("VmHWM"))


def focal_loss(x, classes):
    """As torchvision's head: [N,HWA,K], one-hot targets (here every 100th anchor), a sum."""
    n, _, h, w = x.shape
    logits = x.view(n, -1, classes, h, w).permute(0, 3, 4, 1, 2).reshape(n, -1, classes)
    foreground = torch.arange(0, logits.shape[1], 100)
    targets = torch.zeros_like(logits)
    targets[:, foreground, foreground % classes] = 1.0
    return sigmoid_focal_loss(logits, targets, alpha=0.25, gamma=2, reduction="sum")


def prepare_op(spec, layout):
    """The operation as a function without arguments, and the tensors that want gradients."""
    x = torch.randn(spec["x"]).contiguous(memory_format=layout)
    x.requires_grad_(spec.get("input_gradient", True))
    channels, op = x.shape[1], spec["op"]
    if op == "conv2d":
        geometry = [spec[k] for k in ("kernel", "stride", "padding", "dilation", "groups")]
        conv = nn.Conv2d(channels, spec["out_channels"], *geometry, bias=False)
        conv.to(memory_format=layout)
        return lambda: conv(x), [x, conv.weight]
    if op == "batch_norm":
        norm = nn.BatchNorm2d(channels).train()
        return lambda: norm(x), [x, norm.weight, norm.bias]
    return {
        "max_pool": lambda: F.max_pool2d(x, 3, 2, 1),
        "interpolate": lambda: F.interpolate(x, spec["size"], mode="nearest"),
        "focal_loss": lambda: focal_loss(x, spec["num_classes"]),
    }[op], [x]


def time_op(forward, wanting, upstream):
    """One forward, and the gradients of sum(y * upstream)."""
    for tensor in wanting:
        tensor.grad = None
    start = now_ms()
    y = forward()
    middle = now_ms()
    torch.autograd.backward(y, upstream)
    return {"forward_ms": middle - start, "backward_ms": now_ms() - middle}


def op(args):
    current = None
    for line in sys.stdin:
        if line != current:
            forward, wanting = prepare_op(json.loads(line), args.layout)
            upstream, current = torch.randn_like(forward().detach()), line
        say(**time_op(forward, wanting, upstream))


def read_torchvision(path, size):
    return resize(decode_jpeg(read_file(str(path))), size, antialias=True)


def read_pillow(path, size):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize(size[::-1], Image.Resampling.BILINEAR))


def data(args):
    read = {"torchvision": read_torchvision, "pillow": read_pillow}[args.decoder]
    paths = [p for p in sorted(args.folder.iterdir()) if p.suffix.lower() in (".jpg", ".jpeg")]
    read(paths[0], args.size)
    start = now_ms()
    for path in paths:
        read(path, args.size)
    say(images=len(paths), images_per_s_per_core=len(paths) / (now_ms() - start) * 1e3)


def main():
    jobs = {f.__name__: f for f in (info, reference, images, step, op, data)}
    parser = argparse.ArgumentParser()
    parser.add_argument("job", choices=jobs)
    parser.add_argument("--folder", type=pathlib.Path, metavar="DIR")
    parser.add_argument("--size", type=int, nargs=2, metavar=("H", "W"))
    parser.add_argument("--decoder", choices=("torchvision", "pillow"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--channels-last", action="store_true")
    args = parser.parse_args()
    args.layout = torch.channels_last if args.channels_last else torch.contiguous_format
    torch.set_num_threads(args.threads)
    torch.manual_seed(SEED)
    jobs[args.job](args)


if __name__ == "__main__":
    main()
