"""Golden data for the detectors' architecture, computed by torchvision's own classes.

Writes beside itself:
  basic_batch.safetensors        narrow ResNet of BasicBlocks, BatchNorm2d, everything trained
  bottleneck_frozen.safetensors  narrow ResNet of Bottlenecks, FrozenBatchNorm2d, 3 layers trained
  keys.json                      names, shapes (64x3x7x7) and trained names of the full-size detectors

Entries: `state/<name>` the weights, `image`, `eval/<tap>`, `train/<tap>` (left out where
equal to `eval/<tap>`), `after/<name>` running statistics after one training pass, `grad/<name>` gradients in training mode of
sum over head outputs of mean(output^2); `targets`, `loss` and `detections` of evaluation mode, labels
as floats.

Run: python make_model_golden.py
"""

import copy
import json
import pathlib

import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from torchvision.models import resnet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN, _resnet_fpn_extractor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNet, retinanet_resnet50_fpn
from torchvision.ops.feature_pyramid_network import LastLevelP6P7
from torchvision.ops.misc import FrozenBatchNorm2d

HERE = pathlib.Path(__file__).parent
LEVELS = ["3", "4", "5", "6", "7"]
# Amid the scores of the random heads, so that some anchors pass and some do not.
SCORE_THRESHOLD = 0.08
# [height, width] of the two images of a batch, before padding.
IMAGE_SIZES = [(48, 76), (44, 60)]
VERSIONS = {"torch": torch.__version__, "torchvision": torchvision.__version__}


class NarrowResNet(resnet.ResNet):
    """torchvision's ResNet with a free width: its constructor, line by line, fixes 64."""

    def __init__(self, block, layers, width, norm_layer):
        nn.Module.__init__(self)
        self._norm_layer = norm_layer
        self.inplanes, self.dilation, self.groups, self.base_width = width, 1, 1, 64
        self.conv1 = nn.Conv2d(3, width, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = norm_layer(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = self._make_layer(block, width, layers[0])
        self.layer2 = self._make_layer(block, width * 2, layers[1], stride=2)
        self.layer3 = self._make_layer(block, width * 4, layers[2], stride=2)
        self.layer4 = self._make_layer(block, width * 8, layers[3], stride=2)
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")


def freeze(body, trainable_layers):
    """The rule of torchvision's `_resnet_fpn_extractor`."""
    train = ["layer4", "layer3", "layer2", "layer1", "conv1"][:trainable_layers]
    if trainable_layers == 5:
        train.append("bn1")
    for name, parameter in body.named_parameters():
        if all(not name.startswith(layer) for layer in train):
            parameter.requires_grad_(False)


def narrow_retinanet(block, layers, width, norm_layer, fpn, trainable_layers, classes):
    body = NarrowResNet(block, layers, width, norm_layer)
    freeze(body, trainable_layers)
    channels = [width * factor * block.expansion for factor in (2, 4, 8)]
    backbone = BackboneWithFPN(
        body,
        {"layer2": "0", "layer3": "1", "layer4": "2"},
        channels,
        fpn,
        extra_blocks=LastLevelP6P7(fpn, fpn),
    )
    sizes = ((16,), (32,), (64,), (128,), (256,))
    anchors = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 5)
    return RetinaNet(backbone, classes, anchor_generator=anchors, score_thresh=SCORE_THRESHOLD)


def randomise(model, generator):
    """Statistics and affine parts away from 0 and 1, heads away from their tiny start."""
    for name, tensor in model.state_dict().items():
        rand = torch.rand(tensor.shape, generator=generator)
        if name.endswith("running_var"):
            tensor.copy_(0.5 + rand)
        elif name.endswith("running_mean"):
            tensor.copy_(0.4 * rand - 0.2)
        elif ".bn" in name or "downsample.1" in name:
            if name.endswith("weight"):
                tensor.copy_(0.6 + 0.6 * rand)
            elif name.endswith("bias"):
                tensor.copy_(0.4 * rand - 0.2)
        elif name.startswith("head") and name.endswith("weight"):
            tensor.mul_(60.0 if "cls_logits" in name else 11.0)
        elif "cls_logits.bias" in name:
            tensor.copy_(0.8 * rand - 3.2)
        elif name.endswith("bias"):
            tensor.copy_(0.4 * rand - 0.2)


def run(model, image):
    """All taps by name. `stem.conv` is the first convolution, `stem` that with norm and ReLU, before the
    max-pool."""
    taps = {}
    body = model.backbone.body

    def keep(name):
        return lambda module, args, output: taps.__setitem__(name, output)

    hooks = [body.conv1.register_forward_hook(keep("stem.conv"))]
    hooks.append(body.maxpool.register_forward_pre_hook(lambda m, a: taps.update(stem=a[0])))
    for stage in range(4):
        layer = getattr(body, f"layer{stage + 1}")
        hooks.append(layer.register_forward_hook(keep(f"backbone.c{stage + 2}")))
    pyramid = list(model.backbone(image).values())
    for hook in hooks:
        hook.remove()
    for level, p in zip(LEVELS, pyramid):
        taps[f"neck.p{level}"] = p
        classes, boxes = model.head.classification_head, model.head.regression_head
        taps[f"head.cls_feat.p{level}"] = classes.conv(p)
        taps[f"head.box_feat.p{level}"] = boxes.conv(p)
        taps[f"head.cls_logits.p{level}"] = classes.cls_logits(taps[f"head.cls_feat.p{level}"])
        taps[f"head.box_deltas.p{level}"] = boxes.bbox_reg(taps[f"head.box_feat.p{level}"])
    whole = model.head(pyramid)
    logits = [taps[f"head.cls_logits.p{level}"] for level in LEVELS]
    k = model.head.classification_head.num_classes
    flat = [x.unflatten(1, (-1, k)).permute(0, 3, 4, 1, 2).flatten(1, 3) for x in logits]
    assert torch.equal(torch.cat(flat, 1), whole["cls_logits"])
    return taps


def objective(taps):
    return sum(
        taps[f"head.{kind}.p{level}"].square().mean()
        for kind in ("cls_logits", "box_deltas")
        for level in LEVELS
    )


def relu_margin(model, image):
    """Smallest ReLU input in training mode, against the spread of its layer.

    A unit that rounding pushes over the kink changes gradients by percents: such an image would
    compare two orders of summation, not two implementations.
    """
    model = copy.deepcopy(model).train()
    margins = []

    def note(x):
        margins.append((x.detach().abs().min() / x.detach().std()).item())

    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_pre_hook(lambda module, args: note(args[0]))
    note(run(model, image)["neck.p6"])
    return min(margins)


def end_to_end(model, image):
    """Losses on given targets and final detections, in evaluation mode.

    Also the smallest gap between a score and the next or the threshold: rounding must not decide the
    order, nor who is in.
    """
    targets = [
        {
            "boxes": torch.tensor([[3.0, 4.0, 30.0, 40.0], [20.0, 10.0, 70.0, 50.0]]),
            "labels": torch.tensor([0, 1]),
        },
        {"boxes": torch.tensor([[10.0, 12.0, 24.0, 30.0]]), "labels": torch.tensor([1])},
    ]
    with torch.no_grad():
        features = list(model.backbone(image).values())
        heads = model.head(features)
        anchors = model.anchor_generator(ImageList(image, IMAGE_SIZES), features)
        losses = model.compute_loss(targets, heads, anchors)
        per_level = [f.shape[2] * f.shape[3] * 3 for f in features]
        split = {key: list(value.split(per_level, dim=1)) for key, value in heads.items()}
        found = model.postprocess_detections(
            split, [list(a.split(per_level)) for a in anchors], IMAGE_SIZES
        )
    out = {"loss/cls": losses["classification"], "loss/bbox": losses["bbox_regression"]}
    gaps = []
    for i, (target, detections) in enumerate(zip(targets, found)):
        scores = detections["scores"]
        assert len(scores) > 10
        gaps.append((scores[:-1] - scores[1:]).min().item())
        gaps.append(scores.min().item() - SCORE_THRESHOLD)
        for key in ("boxes", "labels"):
            out[f"targets/{i}/{key}"] = target[key].float()
        for key, value in detections.items():
            out[f"detections/{i}/{key}"] = value.float()
    return out, min(gaps)


def golden(path, model, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        randomise(model, generator)
    # Sides that are no multiple of the strides: c3..p7 are odd here and there.
    while True:
        image = torch.randn((2, 3, 48, 76), generator=generator)
        results, score_margin = end_to_end(model.eval(), image)
        if relu_margin(model, image) > 1e-5 and score_margin > 1e-6:
            break
    out = {"image": image, **results}
    for name, tensor in model.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            out[f"state/{name}"] = tensor.clone()
    model.eval()
    with torch.no_grad():
        out.update({f"eval/{name}": tap for name, tap in run(model, image).items()})
    model.train()
    taps = run(model, image)
    objective(taps).backward()
    if isinstance(model.backbone.body.bn1, nn.BatchNorm2d):
        out.update({f"train/{name}": tap.detach() for name, tap in taps.items()})
    else:
        assert all(torch.equal(tap, out[f"eval/{name}"]) for name, tap in taps.items())
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            out[f"grad/{name}"] = parameter.grad
    for name, tensor in model.state_dict().items():
        if name.endswith(("running_mean", "running_var")):
            out[f"after/{name}"] = tensor.clone()
    out = {name: tensor.contiguous() for name, tensor in out.items()}
    save_file(out, HERE / path, metadata=VERSIONS)


def full_size(name):
    if name == "resnet50":
        return retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=91)
    body = getattr(resnet, name)(weights=None)
    backbone = _resnet_fpn_extractor(
        body, 5, returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(256, 256)
    )
    return RetinaNet(backbone, 91)


def keys():
    listing = {"versions": VERSIONS}
    for name in ("resnet18", "resnet34", "resnet50", "resnet101"):
        state = full_size(name).state_dict()
        listing[name] = {
            key: "x".join(map(str, tensor.shape))
            for key, tensor in state.items()
            if not key.endswith("num_batches_tracked")
        }
    trained = {}
    for norm, norm_layer in (("batch", nn.BatchNorm2d), ("frozen_batch", FrozenBatchNorm2d)):
        for layers in range(6):
            body = resnet.resnet18(weights=None, norm_layer=norm_layer)
            backbone = _resnet_fpn_extractor(
                body, layers, returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(256, 256)
            )
            trained[f"{norm}.{layers}"] = [
                f"backbone.{key}" for key, p in backbone.named_parameters() if p.requires_grad
            ]
    listing["resnet18_trained"] = trained
    (HERE / "keys.json").write_text(json.dumps(listing, indent=0) + "\n")


def main():
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)
    basic = narrow_retinanet(resnet.BasicBlock, [1, 2, 1, 1], 4, nn.BatchNorm2d, 8, 5, 3)
    golden("basic_batch.safetensors", basic, 1)
    bottleneck = narrow_retinanet(resnet.Bottleneck, [2, 1, 1, 1], 2, FrozenBatchNorm2d, 8, 3, 2)
    golden("bottleneck_frozen.safetensors", bottleneck, 2)
    keys()


if __name__ == "__main__":
    main()
