"""Reference values of segmenters, their loss and their label maps, by PyTorch and torchvision.

Writes
  deeplab_resnet.safetensors     narrow DeepLabV3 on a ResNet of Bottlenecks, output stride 8
  mobilenet.safetensors          narrow MobileNetV2 and a 1x1 classifier, output strides 16 and 8
  pixels.safetensors             cross-entropy with ignored pixels and its gradient; label maps
  keys.json                      names and shapes (64x3x7x7) of full-size models

Entries of the models: `state/<name>` the weights, `image`, `eval/<tap>`, `train/<tap>`,
`after/<name>` running statistics after one training pass, `grad/<name>` gradients in training mode of
mean(logits^2), exactly 0 where they vanish. Of MobileNetV2 all but `state/` and `image` stand below `8/`, and `16/eval/<tap>` beside
them: torchvision has no dilated MobileNetV2, so strides and dilations of its 3x3 convolutions are edited
here.

Run: python make_segmentation_golden.py
"""

import copy
import json
import pathlib

import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import save_file
from torch import nn
from torchvision.models import mobilenet_v2, resnet, segmentation
from torchvision.models.segmentation.deeplabv3 import ASPP

HERE = pathlib.Path(__file__).parent
VERSIONS = {"torch": torch.__version__, "torchvision": torchvision.__version__}
CLASSES = 3
IGNORED = 255
# In f64.
VANISHING = 1e-10


class NarrowResNet(resnet.ResNet):
    """torchvision's ResNet with a free width: its constructor, line by line, fixes 64."""

    def __init__(self, block, layers, width, replace_stride_with_dilation):
        nn.Module.__init__(self)
        self._norm_layer = nn.BatchNorm2d
        self.inplanes, self.dilation, self.groups, self.base_width = width, 1, 1, 64
        self.conv1 = nn.Conv2d(3, width, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=False)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = self._make_layer(block, width, layers[0])
        for i, dilate in enumerate(replace_stride_with_dilation):
            layer = self._make_layer(block, width << i + 1, layers[i + 1], stride=2, dilate=dilate)
            setattr(self, f"layer{i + 2}", layer)

    def taps(self, x):
        taps = {"stem.conv": self.conv1(x)}
        taps["stem"] = self.relu(self.bn1(taps["stem.conv"]))
        x = self.maxpool(taps["stem"])
        for i in range(1, 5):
            x = taps[f"backbone.c{i + 1}"] = getattr(self, f"layer{i}")(x)
        return taps


class MobileNet(nn.Sequential):
    """torchvision's features without the last 1x1, at an output stride."""

    ENDS = {"stem": 0, "backbone.c2": 3, "backbone.c3": 6, "backbone.c4": 13, "backbone.c5": 17}

    def __init__(self, width, output_stride):
        super().__init__(*mobilenet_v2(width_mult=width).features[:-1])
        stride, dilation = 1, 1
        for layer in self:
            for conv in (m for m in layer.modules() if isinstance(m, nn.Conv2d)):
                if conv.kernel_size == (1, 1):
                    continue
                conv.dilation = (dilation, dilation)
                if stride * conv.stride[0] > output_stride:
                    dilation *= conv.stride[0]
                    conv.stride = (1, 1)
                else:
                    stride *= conv.stride[0]
                conv.padding = conv.dilation

    def taps(self, x):
        taps = {"stem.conv": self[0][0](x)}
        for i, layer in enumerate(self):
            x = layer(x)
            for name in (name for name, end in self.ENDS.items() if end == i):
                taps[name] = x
        return taps


class Segmenter(nn.Module):
    def __init__(self, backbone, classifier):
        super().__init__()
        self.backbone, self.classifier = backbone, classifier

    def forward(self, image):
        taps = self.backbone.taps(image)
        x = taps["backbone.c5"]
        if isinstance(self.classifier, nn.Sequential):
            x = taps["aspp"] = self.classifier[0](x)
            x = self.classifier[1:4](x)
            taps["feat.last"] = x
            taps["logits"] = self.classifier[4](x)
        else:
            taps["feat.last"] = x
            taps["logits"] = self.classifier(x)
        return taps


def deeplab_resnet():
    """`deeplabv3_resnet50`'s parts in small: its `DeepLabHead` fixes 256 channels."""
    channels = 4
    # Two blocks a dilated stage show both dilations.
    backbone = NarrowResNet(resnet.Bottleneck, [1, 1, 2, 2], 2, [False, True, True])
    head = nn.Sequential(
        ASPP(64, [1, 2, 3], channels),
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.Conv2d(channels, CLASSES, 1),
    )
    # Dropout is left out of our model.
    head[0].project[3].p = 0.0
    return Segmenter(backbone, head)


def mobilenet(output_stride):
    backbone = MobileNet(0.1, output_stride)
    return Segmenter(backbone, nn.Conv2d(32, CLASSES, 1))


def randomise(model, generator):
    """Statistics and affine parts away from 0 and 1; weights wide enough to reach both ends of ReLU6."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            rand = lambda low, high: low + (high - low) * torch.rand(
                module.weight.shape, generator=generator
            )
            module.running_var.copy_(rand(0.5, 1.5))
            module.running_mean.copy_(rand(-0.2, 0.2))
            module.weight.copy_(rand(1.0, 2.5))
            module.bias.copy_(rand(-0.2, 0.8))


def kink_margin(model, image):
    """Smallest distance of an activation's input from an end of it in training mode, against the
    spread of its layer: rounding must not decide which gradients pass."""
    model = copy.deepcopy(model).train()
    margins = []
    capped = []

    def note(module, args):
        x = args[0].detach()
        distance = x.abs()
        if isinstance(module, nn.ReLU6):
            distance = torch.minimum(distance, (x - 6).abs())
            capped.append((x > 6).float().mean().item())
        margins.append((distance.min() / x.std()).item())

    for module in model.modules():
        if isinstance(module, (nn.ReLU, nn.ReLU6)):
            module.inplace = False
            module.register_forward_pre_hook(note)
    with torch.no_grad():
        model(image)
    assert not capped or max(capped) > 0.001, "no activation reaches the upper end"
    return min(margins)


def state_of(model):
    return {
        name: tensor.clone()
        for name, tensor in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }


def passes(model, image):
    """Taps of both modes, statistics afterwards, gradients, in f64; leaves `model` as it was."""
    model, image = copy.deepcopy(model).double().eval(), image.double()
    for module in model.modules():
        if isinstance(module, (nn.ReLU, nn.ReLU6)):
            module.inplace = False
    with torch.no_grad():
        out = {f"eval/{name}": tap for name, tap in model(image).items()}
    model.train()
    taps = model(image)
    out.update({f"train/{name}": tap.detach() for name, tap in taps.items()})
    taps["logits"].square().mean().backward()
    for name, parameter in model.named_parameters():
        # A shift before a convolution that is normalised: the normalisation takes it out again.
        vanishes = parameter.grad.norm() < VANISHING
        out[f"grad/{name}"] = parameter.grad * (0 if vanishes else 1)
    for name, tensor in state_of(model).items():
        if name.endswith(("running_mean", "running_var")):
            out[f"after/{name}"] = tensor
    return out


def conditioned(model, image):
    """Whether f32 has every gradient that does not vanish: rounding must not be what is compared."""
    gradients = []
    for dtype in (torch.float32, torch.float64):
        copied = copy.deepcopy(model).to(dtype).train()
        for module in copied.modules():
            if isinstance(module, (nn.ReLU, nn.ReLU6)):
                module.inplace = False
        copied(image.to(dtype))["logits"].square().mean().backward()
        gradients.append([p.grad.double() for p in copied.parameters()])
    pairs = [(a, b) for a, b in zip(*gradients) if b.norm() > VANISHING]
    return max(((a - b).norm() / b.norm()).item() for a, b in pairs) < 3e-5


def image_for(models, generator, shape):
    while True:
        image = torch.randn(shape, generator=generator)
        safe = min(kink_margin(model, image) for model in models) > 2e-6
        if safe and all(conditioned(model, image) for model in models):
            return image


def save(name, entries):
    entries = {key: tensor.detach().float().contiguous().clone() for key, tensor in entries.items()}
    save_file(entries, HERE / name, metadata=VERSIONS)


def models():
    generator = torch.Generator().manual_seed(1)
    model = deeplab_resnet()
    with torch.no_grad():
        randomise(model, generator)
        # The max-pool leaves zeros too, so that this shift is not taken out by what follows.
        model.backbone.bn1.bias.sub_(2.0)
    # Sides that are no multiple of a stride. Of two images the pooled branch would know a sign alone.
    image = image_for([model], generator, (4, 3, 25, 34))
    out = {f"state/{name}": tensor for name, tensor in state_of(model).items()}
    save("deeplab_resnet.safetensors", {**out, "image": image, **passes(model, image)})

    coarse = mobilenet(16)
    with torch.no_grad():
        randomise(coarse, generator)
    fine = mobilenet(8)
    fine.load_state_dict(coarse.state_dict())
    image = image_for([coarse, fine], generator, (2, 3, 25, 34))
    out = {f"state/{name}": tensor for name, tensor in state_of(coarse).items()}
    for name, model in (("16", coarse), ("8", fine)):
        for key, value in passes(model, image).items():
            # The other output stride shows the strides; gradients are the same code.
            if name == "8" or key.startswith("eval/"):
                out[f"{name}/{key}"] = value
    save("mobilenet.safetensors", {**out, "image": image})


def resize(x, size):
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


def pixels():
    """`loss/<i>/...` and `map/<i>/...`, in f64 and written as f32; labels as floats."""
    generator = torch.Generator().manual_seed(2)
    out = {}
    losses = [((2, 3, 4, 5), (16, 20)), ((1, 11, 5, 4), (33, 29)), ((2, 19, 7, 9), (50, 66)),
              ((1, 4, 6, 9), (4, 5))]
    for i, (shape, size) in enumerate(losses):
        logits = (4 * torch.randn(shape, generator=generator)).double().requires_grad_()
        labels = torch.randint(0, shape[1], (shape[0], *size), generator=generator)
        ignored = torch.rand(labels.shape, generator=generator) < 0.2
        labels[ignored] = IGNORED
        loss = F.cross_entropy(resize(logits, size), labels, ignore_index=IGNORED)
        loss.backward()
        out.update({
            f"loss/{i}/logits": logits,
            f"loss/{i}/labels": labels,
            f"loss/{i}/value": loss.reshape(1),
            f"loss/{i}/gradient": logits.grad,
        })
    # Shape of the logits, input, size before padding, original, mirrored.
    maps = [
        ((2, 5, 4, 6), (32, 48), (32, 48), (32, 48), False),
        ((2, 5, 4, 6), (32, 48), (30, 41), (45, 60), False),
        ((1, 11, 5, 5), (40, 40), (33, 40), (19, 23), True),
        ((1, 3, 3, 4), (24, 32), (20, 29), (20, 29), True),
    ]
    for i, (shape, input_size, size, original, flipped) in enumerate(maps):
        while True:
            logits = torch.randn(shape, generator=generator)
            x = resize(logits.double(), input_size)[:, :, : size[0], : size[1]]
            if flipped:
                x = x.flip(-1)
            x = resize(x, original)
            best = x.topk(2, dim=1).values
            # Rounding must not decide which class is the largest.
            if (best[:, 0] - best[:, 1]).min() > 1e-5:
                break
        out[f"map/{i}/logits"] = logits
        out[f"map/{i}/view"] = torch.tensor([*input_size, *size, *original, int(flipped)])
        out[f"map/{i}/labels"] = x.argmax(1)
    save("pixels.safetensors", out)


def keys():
    def shapes(state):
        return {
            name: "x".join(map(str, tensor.shape))
            for name, tensor in state.items()
            if not name.endswith("num_batches_tracked")
        }

    listing = {"versions": VERSIONS}
    build = segmentation.deeplabv3_resnet50
    model = build(weights=None, weights_backbone=None, aux_loss=False, num_classes=21)
    listing["deeplabv3_resnet50"] = shapes(model.state_dict())
    for width in (0.35, 1.0):
        state = mobilenet_v2(width_mult=width).features[:-1].state_dict()
        state = {f"backbone.{name}": tensor for name, tensor in state.items()}
        listing[f"mobilenet_v2_{width}"] = shapes(state)
    (HERE / "keys.json").write_text(json.dumps(listing, indent=0) + "\n")


def main():
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)
    models()
    pixels()
    keys()


if __name__ == "__main__":
    main()
