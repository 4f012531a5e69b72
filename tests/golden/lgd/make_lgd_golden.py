"""Reference values of the `lgd` plugin (label-guided self-distillation): the module that turns
ground truth and the student's maps into instructive maps, and the distillation loss, in float64
with PyTorch's autograd. Only the object masks are computed in float32, as the plugin does.

Needs torch, numpy and safetensors.

    python make_lgd_golden.py         # writes lgd.safetensors beside this file

Parameters and upstream gradients are millions of numbers: a test draws them from `draws` and
`units` below instead of reading them. With I the index of a case (metadata "facts"):

    parameter i (place in `parameters`)     seed 1000 I + i, bound (2 unit - 1), rounded to float32
    upstream gradient V of the l-th map     seed 1000 I + 900 + l, 2 unit - 1, rounded to float32
    16 sampled elements of a gradient       seed 1000 I + 500 + i, element (draw >> 11) % length

Per case: `student/*` and `target/*` are inputs, `map/*` the instructive maps X, `loss` the
distillation loss (no weight), `d_student_maps/*` the gradient of sum <V, X> by the student's maps,
`d_student_loss/*` that of the loss. `d_param_norm/*` and `d_param_sample/*` tell the gradient by
a parameter: of sum <V, X> for `teacher.*`, of the loss for `adapter.*`. Only cases in the metadata
key "full" have samples. Losses and norms are stored as float64; maps, gradients and samples are
rounded to float32, to fit in a megabyte.

A map of bitmap crops (`load_labelmap`) lengthens the descriptor; masks come from the boxes always.
The gradient by `adapter.2.bias` is zero, for the normalisation removes that bias: what is stored
for it is noise.
"""

import json
import math
import platform
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save

EPS = 1e-5
SAMPLES = 16
# Closer to a kink of a ReLU or to a tie of the max, another summation order may change a gradient.
KINK = 1e-6
# A cell this close to the border of a mask must be on it exactly.
BORDER = 1e-4

DEFAULTS = {
    "add_context_box": True,
    "detach_appearance_embed": False,
    "nr_transformer_heads": 8,
    "interact_pattern": "stuGuided",
    "load_labelmap": False,
}


# The shared generator: SplitMix64.


def draws(seed, count):
    with np.errstate(over="ignore"):
        gamma = np.uint64(0x9E3779B97F4A7C15)
        state = np.uint64(seed) * gamma ^ np.uint64(0x5851F42D4C957F2D)
        z = state + np.arange(1, count + 1, dtype=np.uint64) * gamma
        z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
        return z ^ z >> np.uint64(31)


def units(seed, count):
    return (draws(seed, count) >> np.uint64(11)).astype(np.float64) / 2.0**53


def symmetric(seed, shape, bound):
    x = bound * (2 * units(seed, math.prod(shape)) - 1)
    return torch.from_numpy(x.astype(np.float32).astype(np.float64)).reshape(shape)


# Parameters: (name, shape, fan in), in the order that gives their seeds.


def parameters(channels, classes, config):
    result = []

    def linear(name, inputs, outputs):
        result.append((f"{name}.weight", (outputs, inputs), inputs))
        result.append((f"{name}.bias", (outputs,), inputs))

    def conv3x3(name):
        result.append((f"{name}.weight", (channels, channels, 3, 3), 9 * channels))
        result.append((f"{name}.bias", (channels,), 9 * channels))

    def transformer(name, size):
        linear(f"{name}.conv1", size, 64)
        linear(f"{name}.conv2", 64, 128)
        linear(f"{name}.conv3", 128, 1024)
        linear(f"{name}.fc1", 1024, 512)
        linear(f"{name}.fc2", 512, 256)
        linear(f"{name}.fc3", 256, size * size)

    descriptor = 4 + classes + (49 if config["load_labelmap"] else 0)
    transformer("teacher.label_encoder.stn1", descriptor)
    linear("teacher.label_encoder.conv1", descriptor, 64)
    transformer("teacher.label_encoder.stn2", 64)
    linear("teacher.label_encoder.conv2", 64, 128)
    linear("teacher.label_encoder.conv3", 128, 1024)
    linear("teacher.label_encoder.conv4", 1088, channels)
    linear("teacher.canoni_proj_1d", channels, channels)
    conv3x3("teacher.student_proj_2d")
    result.append(("teacher.attention.in_proj_weight", (3 * channels, channels), channels))
    result.append(("teacher.attention.in_proj_bias", (3 * channels,), channels))
    linear("teacher.attention.out_proj", channels, channels)
    linear("teacher.local_inst_proj_1d", channels, channels)
    conv3x3("teacher.local_inst_proj_2d")
    if config["add_context_box"]:
        linear("teacher.global_ctx_proj_1d", channels, channels)
    for i in range(3):
        conv3x3(f"teacher.refinement.{i}")
    for i in range(3):
        conv3x3(f"adapter.{i}")
    return result


def drawn_parameters(index, channels, classes, config):
    return {
        name: symmetric(1000 * index + i, shape, 1 / math.sqrt(fan_in)).requires_grad_()
        for i, (name, shape, fan_in) in enumerate(parameters(channels, classes, config))
    }


# Descriptors and masks.


def clamped(boxes, size):
    """Boxes x1, y1, x2, y2 in the padded image of `size` = (H, W)."""
    height, width = size
    limit = boxes.new_tensor([width - 1, height - 1, width - 1, height - 1])
    return torch.minimum(boxes.clamp_min(0), limit)


def described(target, image, classes, config):
    """Clamped float32 boxes and float64 descriptors of an image: its objects, then the context;
    without an object one dummy only."""
    height, width = target["size"]
    chosen = target["batch"] == image
    boxes, labels = target["boxes"][chosen], target["labels"][chosen]
    crops = target["crops"][chosen].double().reshape(-1, 49) if config["load_labelmap"] else None
    kind = F.one_hot(labels, classes).double()
    extra = None
    if len(boxes) == 0:
        extra, crop = (0.0, 0.0, 1.0, 1.0), torch.zeros(1, 49).double()
    elif config["add_context_box"]:
        extra, crop = (0.0, 0.0, float(width), float(height)), torch.ones(1, 49).double()
    if extra:
        boxes = torch.cat([boxes, torch.tensor([extra])])
        kind = torch.cat([kind, torch.zeros(1, classes).double()])
        crops = torch.cat([crops, crop]) if crops is not None else None
    boxes = clamped(boxes, (height, width))
    parts = [boxes.double() / torch.tensor([width, height, width, height]).double(), kind]
    if crops is not None:
        parts.append(crops)
    return boxes, 2 * torch.cat(parts, 1) - 1


def distances(boxes, size, level, dtype):
    """|center - cell| / size of the box in the level, per axis: (N, h, 1) and (N, 1, w)."""
    result = []
    for axis, cells in ((1, level[0]), (0, level[1])):
        ratio = torch.tensor(cells / size[1 - axis], dtype=dtype)
        low, high = boxes[:, axis].to(dtype) * ratio, boxes[:, axis + 2].to(dtype) * ratio
        center, extent = (low + high) * 0.5, high - low
        cell = torch.arange(cells).to(dtype)
        result.append((center[:, None] - cell).abs() / extent[:, None])
    return result[0][:, :, None], result[1][:, None, :]


def box_masks(boxes, size, level):
    """(N, h w) of 0 and 1. NaN and infinity of an empty box are outside."""
    single = distances(boxes, size, level, torch.float32)
    for f32, f64 in zip(single, distances(boxes, size, level, torch.float64)):
        near = (f64 - 0.5).abs() < BORDER
        assert (f32[near] == 0.5).all() and (f64[near] == 0.5).all(), "a cell near a border"
    inside = (single[0] <= 0.5) & (single[1] <= 0.5)
    return inside.flatten(1).to(torch.float64)


# The module.

# Smallest |x| that a ReLU saw, and smallest gap of the max over objects.
margins = {"relu": math.inf, "max": math.inf}


def relu(x):
    margins["relu"] = min(margins["relu"], x.detach().abs().min().item())
    return F.relu(x)


def object_max(x):
    if len(x) > 1:
        first, second = x.detach().topk(2, 0).values
        gaps = (first - second)[first > 0]
        if len(gaps):
            margins["max"] = min(margins["max"], gaps.min().item())
    return x.max(0).values


def linear(p, name, x):
    return F.linear(x, p[f"{name}.weight"], p[f"{name}.bias"])


def conv3x3(p, name, x):
    return F.conv2d(x, p[f"{name}.weight"], p[f"{name}.bias"], padding=1)


def layer_norm(x):
    return F.layer_norm(x, x.shape[-1:], eps=EPS)


def group_norm(x):
    return F.group_norm(x, 1, eps=EPS)


def instance_norm(x, eps=EPS):
    """By hand: PyTorch refuses a map of one cell, which becomes 0 here."""
    x = x - x.mean((2, 3), keepdim=True)
    return x / (x.square().mean((2, 3), keepdim=True) + eps).sqrt()


def transform_matrix(p, name, x):
    size = x.shape[1]
    for layer in ("conv1", "conv2", "conv3", "fc1", "fc2"):
        x = relu(layer_norm(linear(p, f"{name}.{layer}", x)))
    return linear(p, f"{name}.fc3", x).reshape(-1, size, size)


def label_encoder(p, x, counts):
    name = "teacher.label_encoder"
    x = torch.einsum("ti,tij->tj", x, transform_matrix(p, f"{name}.stn1", x))
    x = relu(layer_norm(linear(p, f"{name}.conv1", x)))
    local = torch.einsum("ti,tij->tj", x, transform_matrix(p, f"{name}.stn2", x))
    x = relu(layer_norm(linear(p, f"{name}.conv2", local)))
    x = relu(layer_norm(linear(p, f"{name}.conv3", x)))
    whole = torch.cat([object_max(part).expand(len(part), -1) for part in x.split(counts)])
    return relu(layer_norm(linear(p, f"{name}.conv4", torch.cat([local, whole], 1))))


def attention(p, query, key_value, images, heads):
    """Objects attend to objects of their image."""
    name = "teacher.attention"
    result, _ = F.multi_head_attention_forward(
        query[:, None],
        key_value[:, None],
        key_value[:, None],
        query.shape[1],
        heads,
        p[f"{name}.in_proj_weight"],
        p[f"{name}.in_proj_bias"],
        None,
        None,
        False,
        0.0,
        p[f"{name}.out_proj.weight"],
        p[f"{name}.out_proj.bias"],
        attn_mask=images[:, None] != images[None, :],
    )
    return result[:, 0]


def instructive_maps(p, maps, target, classes, config):
    size, batch = target["size"], len(maps[0])
    images = [described(target, image, classes, config) for image in range(batch)]
    # Whether the image's last row is its context vector instead of an object to render.
    has_context = config["add_context_box"]
    has_objects = [(target["batch"] == image).any().item() for image in range(batch)]
    counts = [len(boxes) for boxes, _ in images]
    owner = torch.repeat_interleave(torch.arange(batch), torch.tensor(counts))

    labels = label_encoder(p, torch.cat([descriptor for _, descriptor in images]), counts)
    labels = relu(layer_norm(linear(p, "teacher.canoni_proj_1d", labels)))

    results = []
    for x in maps:
        level = tuple(x.shape[2:])
        if config["detach_appearance_embed"]:
            x = x.detach()
        projected = relu(group_norm(conv3x3(p, "teacher.student_proj_2d", x))).flatten(2)

        masks = []
        for image, (boxes, _) in enumerate(images):
            mask = box_masks(boxes, size, level)
            if has_context and has_objects[image]:
                mask[-1] = 1
            masks.append(mask)
        appearance = torch.cat(
            [
                mask @ pixels.T / mask.sum(1, keepdim=True).clamp_min(1)
                for mask, pixels in zip(masks, projected)
            ]
        )

        heads, pattern = config["nr_transformer_heads"], config["interact_pattern"]
        if pattern == "stuGuided":
            related = attention(p, appearance, labels, owner, heads)
        elif pattern == "labelGuided":
            related = attention(p, labels, appearance, owner, heads)
        else:
            related = {"student_fill": appearance, "teacher_fill": labels}[pattern]

        rendered, contexts = [], []
        for rows, mask in zip(related.split(counts), masks):
            if has_context:
                contexts.append(rows[-1])
                rows, mask = rows[:-1], mask[:-1]
            drawn = linear(p, "teacher.local_inst_proj_1d", rows).T @ mask
            rendered.append(drawn.reshape(-1, *level))
        z = conv3x3(p, "teacher.local_inst_proj_2d", torch.stack(rendered))
        if has_context:
            context = linear(p, "teacher.global_ctx_proj_1d", torch.stack(contexts))
            z = z + context[:, :, None, None]
        z = relu(z)
        z = relu(group_norm(conv3x3(p, "teacher.refinement.0", z)))
        z = relu(group_norm(conv3x3(p, "teacher.refinement.1", z)))
        results.append(group_norm(conv3x3(p, "teacher.refinement.2", z)))
    return results


def adapted(p, x):
    x = relu(conv3x3(p, "adapter.0", x))
    x = relu(conv3x3(p, "adapter.1", x))
    return conv3x3(p, "adapter.2", x)


def distillation_loss(p, maps, instructive):
    differences = [
        (instance_norm(t.detach()) - instance_norm(adapted(p, s))).flatten()
        for s, t in zip(maps, instructive)
    ]
    return torch.cat(differences).square().mean()


# The cases.


def case(name, images, options=None, *, size=(64, 64), levels=3, channels=16, classes=3, seed=0):
    """`images`: objects per image, or boxes per image. `seed` draws the inputs."""
    options = {"nr_transformer_heads": 4} | (options or {})
    options = {key: value for key, value in options.items() if value != DEFAULTS[key]}
    return name, images, options, size, levels, channels, classes, seed


OVERLAPPING = [
    (8.0, 8.0, 23.0, 23.0),  # on the borders of cells 1 and, with p3's ratio of 1/8, exactly
    (5.3, 10.6, 40.2, 44.9),
    (12.7, 3.4, 50.1, 36.2),
]
TINY = [
    (9.0, 9.0, 15.0, 15.0),  # between the cells of every level
    (41.3, 17.2, 46.9, 23.1),
    (70.5, 66.25, 81.0, 93.5),  # outside: a point at the corner 63, 63
    (-20.5, -10.25, -3.0, -2.5),  # outside: a point at cell 0, 0, whose distance is 0 / 0
    (30.2, 64.5, 50.8, 80.1),  # below: a line
]
CASES = [
    case("one_object", [1]),
    case("two_images_mixed", [2, 1], size=(64, 96)),
    case("no_objects", [0, 0]),
    case("some_empty", [0, 2, 0]),
    case("overlapping", [OVERLAPPING]),
    case("tiny", [TINY]),
    case("hundred", [60, 40]),
    case("larger", [4], size=(96, 128), levels=5),
    case("no_context", [2, 1], {"add_context_box": False}),
    case("no_context_empty", [0, 1], {"add_context_box": False}),
    case("detach", [2], {"detach_appearance_embed": True}),
    case("label_guided", [3], {"interact_pattern": "labelGuided"}, size=(64, 96)),
    case("student_fill", [2], {"interact_pattern": "student_fill"}, seed=1),
    case("teacher_fill", [2], {"interact_pattern": "teacher_fill"}),
    case("heads_8", [3], {"nr_transformer_heads": 8}),
    case("labelmap", [2, 0], {"load_labelmap": True}),
    case("classes_20", [3], classes=20),
    case("channels_24", [2], channels=24),
    case(
        "mask_rcnn",
        [2],
        {"add_context_box": False, "detach_appearance_embed": True, "load_labelmap": True},
    ),
]
FULL = [
    "one_object",
    "two_images_mixed",
    "overlapping",
    "no_objects",
    "no_context",
    "label_guided",
    "labelmap",
    "hundred",
]


def values(rng, shape):
    """Skewed, like features after a few layers; exact in float32."""
    x = rng.normal(size=shape)
    x = x + 0.5 * x**2 + 0.3 * np.cumsum(x, axis=-1)
    return torch.from_numpy(x.astype(np.float32).astype(np.float64))


def random_boxes(rng, count, size):
    """Of 5 pixels to two thirds of the image, some over its border."""
    height, width = size
    boxes = np.empty((count, 4))
    for axis, length in ((0, width), (1, height)):
        extent = np.exp(rng.uniform(math.log(5), math.log(length * 2 / 3), count))
        center = rng.uniform(2, length - 2, count)
        boxes[:, axis], boxes[:, axis + 2] = center - extent / 2, center + extent / 2
    return boxes


def drawn_inputs(index, images, config, size, levels, channels, classes, seed):
    rng = np.random.default_rng(1000 * (seed + 1) + index)
    maps = []
    for level in range(levels):
        stride = 8 << level
        shape = (len(images), channels, -(-size[0] // stride), -(-size[1] // stride))
        maps.append(values(rng, shape).requires_grad_())
    boxes = [random_boxes(rng, n, size) if isinstance(n, int) else np.array(n) for n in images]
    counts = [len(b) for b in boxes]
    target = {
        "size": size,
        "boxes": torch.from_numpy(np.concatenate(boxes).astype(np.float32)),
        "labels": torch.from_numpy(rng.integers(0, classes, sum(counts))),
        "batch": torch.repeat_interleave(torch.arange(len(images)), torch.tensor(counts)),
    }
    if config["load_labelmap"]:
        # Like a bilinear crop of a bitmap: many exact zeros and ones.
        crops = rng.uniform(-0.5, 1.5, (sum(counts), 7, 7)).clip(0, 1)
        target["crops"] = torch.from_numpy(crops.astype(np.float32))
    return maps, target


def gradients(output, inputs):
    if not output.requires_grad:
        return [torch.zeros_like(x) for x in inputs]
    found = torch.autograd.grad(output, inputs, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found)]


def reference(index, images, options, size, levels, channels, classes, seed):
    config = DEFAULTS | options
    maps, target = drawn_inputs(index, images, config, size, levels, channels, classes, seed)
    p = drawn_parameters(index, channels, classes, config)
    margins.update(relu=math.inf, max=math.inf)

    instructive = instructive_maps(p, maps, target, classes, config)
    total = torch.zeros((), dtype=torch.float64)
    for level, x in enumerate(instructive):
        upstream = symmetric(1000 * index + 900 + level, tuple(x.shape), 1.0)
        total = total + (upstream * x).sum()
    loss = distillation_loss(p, maps, instructive)
    d_maps = gradients(total, maps + list(p.values()))
    d_loss = gradients(loss, maps + list(p.values()))
    for name, by_maps, by_loss in zip(p, d_maps[levels:], d_loss[levels:]):
        assert not (by_maps if name.startswith("adapter.") else by_loss).any()

    return {
        "maps": maps,
        "target": target,
        "parameters": p,
        "instructive": [x.detach() for x in instructive],
        "loss": loss.detach(),
        "d_student_maps": d_maps[:levels],
        "d_student_loss": d_loss[:levels],
        "d_param": {
            name: by_loss if name.startswith("adapter.") else by_maps
            for name, by_maps, by_loss in zip(p, d_maps[levels:], d_loss[levels:])
        },
        "margins": dict(margins),
    }


# What the specification states about the module.


def check_generator():
    """The published first outputs of SplitMix64 from state 1234567."""
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    mask, gamma = 2**64 - 1, 0x9E3779B97F4A7C15

    def scalar(state, k):
        z = (state + k * gamma) & mask
        z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ z >> 27) * 0x94D049BB133111EB) & mask
        return z ^ z >> 31

    assert [scalar(1234567, k) for k in (1, 2, 3)] == expected
    for seed in (0, 1, 18_057):
        state = (seed * gamma & mask) ^ 0x5851F42D4C957F2D
        assert draws(seed, 5).tolist() == [scalar(state, k) for k in range(1, 6)]


def check_parameter_counts():
    def count(prefix, classes, options):
        listed = parameters(256, classes, DEFAULTS | options)
        return sum(math.prod(shape) for name, shape, _ in listed if name.startswith(prefix))

    encoder = "teacher.label_encoder."
    assert count("teacher.", 80, {}) == 8_304_336
    assert count("adapter.", 80, {}) == 1_770_240
    assert count("", 80, {}) == 10_074_576
    assert count(encoder, 80, {}) == 4_893_392
    assert count(encoder + "stn1.", 80, {}) == 2_615_376
    assert count(encoder + "stn2.", 80, {}) == 1_853_376
    assert count(encoder + "conv", 80, {}) == 424_640
    assert count(encoder, 80, {"load_labelmap": True}) == 7_632_345
    assert count("teacher.attention.", 80, {}) == 263_168
    assert count("teacher.canoni_proj_1d.", 80, {}) == 65_792
    assert count("teacher.student_proj_2d.", 80, {}) == 590_080
    assert count("teacher.", 80, {"add_context_box": False}) == 8_304_336 - 65_792


def check_descriptor():
    target = {
        "size": (640, 960),
        "boxes": torch.tensor([[96.0, 64.0, 480.0, 320.0]]),
        "labels": torch.tensor([3]),
        "batch": torch.tensor([0]),
    }
    _, rows = described(target, 0, 80, DEFAULTS)
    expected = torch.full((2, 84), -1.0, dtype=torch.float64)
    expected[0, :4] = torch.tensor([-0.8, -0.8, 0, 0])
    expected[0, 4 + 3] = 1
    expected[1, :4] = torch.tensor([-1, -1, 0.9979167, 0.996875])
    assert torch.allclose(rows, expected, rtol=0, atol=1e-7)


def check_masks():
    boxes = torch.tensor([(8.0, 8, 23, 23), (9, 9, 15, 15), (0, 0, 63, 63), (0, 0, 1, 1)])
    masks = box_masks(boxes, (64, 64), (8, 8)).reshape(-1, 8, 8)
    assert masks[0].nonzero().tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]
    assert masks.sum((1, 2)).tolist() == [4, 0, 64, 1]
    tiny = clamped(torch.tensor(TINY), (64, 64))
    for cells in (8, 4, 2):
        assert not box_masks(tiny, (64, 64), (cells, cells)).any()


def check_module():
    classes = 3
    for options in ({}, {"add_context_box": False}, {"interact_pattern": "labelGuided"}):
        config = DEFAULTS | {"nr_transformer_heads": 4} | options
        maps, target = drawn_inputs(99, [3, 0, 4], config, (64, 64), 3, 16, classes, 0)
        p = drawn_parameters(99, 16, classes, config)
        with torch.no_grad():
            expected = instructive_maps(p, maps, target, classes, config)

            order = torch.tensor([2, 0, 1, 5, 3, 6, 4])
            permuted = {"size": target["size"]}
            permuted |= {key: target[key][order] for key in ("boxes", "labels", "batch")}
            for x, y in zip(expected, instructive_maps(p, maps, permuted, classes, config)):
                assert (x - y).abs().max() < 1e-11

            for image in range(3):
                chosen = target["batch"] == image
                alone = {
                    "size": target["size"],
                    "boxes": target["boxes"][chosen],
                    "labels": target["labels"][chosen],
                    "batch": torch.zeros(int(chosen.sum()), dtype=torch.int64),
                }
                single = [x[image : image + 1] for x in maps]
                found = instructive_maps(p, single, alone, classes, config)
                for x, y in zip(expected, found):
                    assert (x[image : image + 1] - y).abs().max() < 1e-11

            for x in expected:
                assert x.mean((1, 2, 3)).abs().max() < 1e-12
                assert (x.square().mean((1, 2, 3)) - 1).abs().max() < 1e-3

            # 2 (1 - rho) with rho the correlation of two channels, and what EPS makes of it.
            weighted, elements = 0.0, 0
            for s, t in zip(maps, expected):
                a = adapted(p, s)
                squares = (instance_norm(t, 0) - instance_norm(a, 0)).square().mean((2, 3))
                for i, c in np.ndindex(*squares.shape):
                    rho = np.corrcoef(t[i, c].flatten(), a[i, c].flatten())[0, 1]
                    assert abs(squares[i, c] - 2 * (1 - rho)) < 1e-11
                    of_t, of_a = (x[i, c].numpy().var() for x in (t, a))
                    of_t, of_a = of_t / (of_t + EPS), of_a / (of_a + EPS)
                    with_eps = of_t + of_a - 2 * rho * math.sqrt(of_t * of_a)
                    weighted += with_eps * t[i, c].numel()
                elements += t.numel()
            loss = distillation_loss(p, maps, expected).item()
            assert abs(loss - weighted / elements) < 1e-12 * loss

    point = instance_norm(torch.ones(2, 3, 1, 1, dtype=torch.float64))
    assert not point.any()


def in_order(data):
    """A file whose metadata keys are sorted: safetensors writes them in any order."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def main():
    torch.set_num_threads(1)
    check_generator()
    check_parameter_counts()
    check_descriptor()
    check_masks()
    check_module()

    tensors, cases, facts = {}, {}, {}
    for index, (name, images, options, size, levels, channels, classes, seed) in enumerate(CASES):
        found = reference(index, images, options, size, levels, channels, classes, seed)
        assert min(found["margins"].values()) > KINK, (name, found["margins"])
        target = found["target"]
        tensors[f"{name}/target/gt_boxes_xyxy"] = target["boxes"]
        tensors[f"{name}/target/gt_labels"] = target["labels"].float()
        tensors[f"{name}/target/gt_batch"] = target["batch"].float()
        tensors[f"{name}/target/input_size"] = torch.tensor(size).float()
        if "crops" in target:
            tensors[f"{name}/target/gt_mask_crops"] = target["crops"]
        tensors[f"{name}/loss"] = found["loss"].reshape(1)
        for level in range(levels):
            tap = f"p{3 + level}"
            tensors[f"{name}/student/neck.{tap}"] = found["maps"][level].detach().float()
            tensors[f"{name}/map/{tap}"] = found["instructive"][level].float()
            for kind in ("d_student_maps", "d_student_loss"):
                tensors[f"{name}/{kind}/neck.{tap}"] = found[kind][level].float()
        for i, (path, gradient) in enumerate(found["d_param"].items()):
            tensors[f"{name}/d_param_norm/{path}"] = gradient.norm().reshape(1)
            if name in FULL:
                chosen = draws(1000 * index + 500 + i, SAMPLES) >> np.uint64(11)
                chosen = torch.from_numpy((chosen % np.uint64(gradient.numel())).astype(np.int64))
                sample = gradient.flatten()[chosen].float()
                tensors[f"{name}/d_param_sample/{path}"] = sample
        cases[name] = options
        facts[name] = {
            "index": index,
            "num_classes": classes,
            "channels": channels,
            "strides": [8 << level for level in range(levels)],
        }
        relu_margin, max_margin = found["margins"]["relu"], found["margins"]["max"]
        print(f"{name:18} {found['loss'].item():.9f}  {relu_margin:.1e} {max_margin:.1e}")
    metadata = {
        "cases": json.dumps(cases),
        "facts": json.dumps(facts),
        "full": json.dumps(FULL),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    data = in_order(save(tensors, metadata))
    assert len(data) < 1_000_000, len(data)
    Path(__file__).with_name("lgd.safetensors").write_bytes(data)


if __name__ == "__main__":
    main()
