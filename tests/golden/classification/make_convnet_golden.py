"""Reference values of convolutional classifiers, by torchvision.

Writes
  basic.safetensors, bottleneck.safetensors   narrow ResNets of either block
  mobilenet_v2.safetensors                    a narrow MobileNetV2 with its full last convolution; the
                                              blocks' weights are `../segmentation/mobilenet.safetensors`
  keys.json                                   names and shapes (64x3x7x7) of full-size models

Entries of the models: `state/<name>` the weights, `image`, `eval/<tap>`, `train/<tap>`,
`after/<name>` running statistics after one training pass, `grad/<name>` gradients in training mode of
mean(logits^2), exactly 0 where they vanish. Computed in f64, on images whose sides are no multiple of any
stride. Of long gradients and of the first taps the leading rows are written.

Run: python make_convnet_golden.py
"""

import json
import pathlib
import sys

import torch
from safetensors.torch import load_file
from torch import nn
from torchvision.models import mobilenet_v2, resnet, resnet18, resnet50

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "segmentation"))
import make_segmentation_golden as shared  # noqa: E402

CLASSES = 3
# Of MobileNetV2's channels.
WIDTH = 0.1
# A gradient of more values is written in part: its first rows.
MAX_VALUES = 600
ROWS = 8


class ResNet(shared.NarrowResNet):
    def __init__(self, block, layers, width):
        super().__init__(block, layers, width, [False] * 3)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(8 * width * block.expansion, CLASSES)

    def forward(self, image):
        taps = self.taps(image)
        taps["feat.last"] = taps["backbone.c5"]
        logits = self.fc(torch.flatten(self.avgpool(taps["feat.last"]), 1))
        taps["logits"] = logits[:, :, None, None]
        return taps


class MobileNet(nn.Module):
    """torchvision's own network, and its maps beside its logits."""

    def __init__(self, width):
        super().__init__()
        net = mobilenet_v2(width_mult=width, num_classes=CLASSES, dropout=0.0)
        self.features, self.classifier = net.features, net.classifier

    def forward(self, image):
        taps = {"stem.conv": self.features[0][0](image)}
        x = image
        for i, layer in enumerate(self.features):
            x = layer(x)
            for name, end in shared.MobileNet.ENDS.items():
                if end == i:
                    taps[name] = x
        taps["feat.last"] = x
        taps["logits"] = self.classifier(x.mean((2, 3)))[:, :, None, None]
        return taps


def in_segmenter(name):
    return "state/backbone." + name.removeprefix("features.")


def same_as_torchvisions(model, net, image):
    """Our taps end in what the whole network of torchvision gives."""
    net.load_state_dict(model.state_dict())
    net, model = net.eval(), model.eval()
    with torch.no_grad():
        whole, logits = net(image), model(image)["logits"][:, :, 0, 0]
    assert torch.allclose(whole, logits, atol=1e-6), "another network"


def write(path, model, generator, shape):
    with torch.no_grad():
        shared.randomise(model, generator)
        # Of a start near zero the logits would be biases.
        for module in model.modules():
            if isinstance(module, nn.Linear):
                for parameter in module.parameters():
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) / 3)
        if isinstance(model, MobileNet):
            blocks = load_file(HERE.parent / "segmentation" / "mobilenet.safetensors")
            for name, tensor in model.state_dict().items():
                stored = blocks.get(in_segmenter(name))
                if stored is not None:
                    tensor.copy_(stored)
    image = shared.image_for([model], generator, shape)
    if isinstance(model, MobileNet):
        net = mobilenet_v2(width_mult=WIDTH, num_classes=CLASSES, dropout=0.0)
        same_as_torchvisions(model, net, image)
    out = {"image": image}
    for name, tensor in shared.state_of(model).items():
        if not (isinstance(model, MobileNet) and in_segmenter(name) in blocks):
            out[f"state/{name}"] = tensor
    for name, tensor in shared.passes(model, image).items():
        if name.startswith("grad/") and tensor.numel() > MAX_VALUES:
            tensor = tensor[:ROWS]
        if name.split("/")[1] in ("stem.conv", "stem", "backbone.c2", "feat.last"):
            tensor = tensor[:1]
        out[name] = tensor
    out = {key: tensor.detach().float().contiguous().clone() for key, tensor in out.items()}
    shared.save_file(out, HERE / path, metadata=shared.VERSIONS)


def keys():
    listing = {"versions": shared.VERSIONS}
    for name, model in (
        ("resnet18", resnet18(num_classes=7)),
        ("resnet50", resnet50(num_classes=7)),
        ("mobilenet_v2_0.35", mobilenet_v2(width_mult=0.35, num_classes=7)),
        ("mobilenet_v2_1.4", mobilenet_v2(width_mult=1.4, num_classes=7)),
    ):
        listing[name] = {
            key: "x".join(map(str, tensor.shape))
            for key, tensor in shared.state_of(model).items()
        }
    (HERE / "keys.json").write_text(json.dumps(listing, indent=0) + "\n")


def main():
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)
    generator = torch.Generator().manual_seed(3)
    write("basic.safetensors", ResNet(resnet.BasicBlock, [1, 2, 1, 1], 2), generator, (2, 3, 37, 53))
    bottleneck = ResNet(resnet.Bottleneck, [1, 1, 1, 1], 2)
    write("bottleneck.safetensors", bottleneck, generator, (2, 3, 37, 53))
    write("mobilenet_v2.safetensors", MobileNet(WIDTH), generator, (3, 3, 33, 40))
    keys()


if __name__ == "__main__":
    main()
