"""What is timed: plain data, the same for both sides."""

import random

CLASSES = 91
BATCH = 2
SEED = 7
# Input [N,C,H,W], output channels, kernel, stride, padding, groups.
CONVOLUTIONS = [
    ([1, 64, 160, 160], 64, 3, 1, 1, 1),
    ([1, 256, 80, 80], 256, 3, 1, 1, 1),
    ([1, 256, 160, 160], 64, 1, 1, 0, 1),
    ([1, 64, 160, 160], 256, 1, 1, 0, 1),
    ([1, 3, 640, 640], 64, 7, 2, 3, 1),
    ([4, 128, 40, 40], 128, 3, 1, 1, 1),
    ([1, 512, 20, 20], 512, 3, 1, 1, 1),
    ([1, 256, 160, 160], 512, 1, 2, 0, 1),
    ([1, 64, 320, 320], 64, 3, 2, 1, 1),
    ([1, 256, 80, 80], 256, 3, 1, 1, 256),
]
MAPS = [[1, 64, 160, 160], [1, 256, 160, 160]]


def step_cases():
    """Name and the content of case.json, and the side of the square images in pixels."""
    for short, backbone in (("R18", "resnet18"), ("R50", "resnet50")):
        for side in (256, 512):
            draw = random.Random(SEED)
            case = {"backbone": backbone, "num_classes": CLASSES, "fpn_channels": 256}
            # At larger rates R50 multiplies rounding within ten steps, and losses say nothing.
            case |= {"lr": 1e-6, "momentum": 0.9, "weight_decay": 1e-4}
            case["targets"] = [draw_target(draw, side) for _ in range(BATCH)]
            yield f"step {short} {side}x{side} N={BATCH}", case, side


def draw_target(draw, side):
    """5 to 12 boxes in pixels, 1/16 to 1/2 of the image wide and high; labels from 1 to 90."""
    boxes = []
    for _ in range(draw.randint(5, 12)):
        width, height = (draw.uniform(side / 16, side / 2) for _ in range(2))
        x, y = draw.uniform(0, side - width), draw.uniform(0, side - height)
        boxes.append([round(v, 2) for v in (x, y, x + width, y + height)])
    return {"boxes_xyxy": boxes, "labels": [draw.randint(1, CLASSES - 1) for _ in boxes]}


def op_cases():
    """Name and specification of each operation."""
    for x, out, kernel, stride, padding, groups in CONVOLUTIONS:
        name = f"conv {kernel}x{kernel} s{stride} {x[1]}->{out} {x[2]}x{x[3]} N={x[0]}"
        spec = {"op": "conv2d", "x": x, "out_channels": out, "kernel": kernel, "stride": stride}
        spec |= {"padding": padding, "dilation": 1, "groups": groups, "input_gradient": x[1] != 3}
        yield name + (" depthwise" if groups > 1 else ""), spec
    for op in ("batch_norm", "max_pool"):
        for x in MAPS:
            yield f"{op} {x[1]} {x[2]}x{x[3]}", {"op": op, "x": x}
    x = [1, 256, 40, 40]
    yield "interpolate 256 40x40 to 80x80", {"op": "interpolate", "x": x, "size": [80, 80]}
    x = [2, 9 * CLASSES, 32, 32]
    yield f"focal_loss 9*{CLASSES} 32x32 N=2", {"op": "focal_loss", "x": x, "num_classes": CLASSES}
