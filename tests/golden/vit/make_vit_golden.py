"""Reference values of the vision transformer, by timm's `VisionTransformer`.

Writes
  vit.safetensors       <case>/: `state/<name>` the weights, `image`, `tap/<tap>`, `grad/<name>` the
                        gradients of mean(logits^2), and for each tap `upstream/<tap>` with
                        `injected/<tap>/<name>`, the gradients of sum(tap * upstream); parameters that
                        it does not reach have no entry
  positions.safetensors <i>/file, <i>/resized: a position embedding on another grid, by `interpolate`
  keys.json             names and shapes (192x3x16x16) of full-size models

In f64, written as f32. Case `whole`: the image is 2x3 patches; `rest`: what is beyond 3x4 patches is
not seen.

Run: python make_vit_golden.py
"""

import json
import pathlib

import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer

HERE = pathlib.Path(__file__).parent
VERSIONS = {"torch": torch.__version__, "timm": timm.__version__}
PATCH = 4
CASES = {
    "whole": dict(img_size=(8, 12), embed_dim=8, depth=2, num_heads=2, mlp_ratio=2.0),
    "rest": dict(img_size=(14, 19), embed_dim=12, depth=1, num_heads=3, mlp_ratio=1.4),
}


def build(case):
    return VisionTransformer(
        patch_size=PATCH, num_classes=5, class_token=True, global_pool="token", **CASES[case]
    )


def randomise(model, generator):
    """Weights so large that attention is far from even, and norms away from the identity."""
    for name, parameter in model.named_parameters():
        values = torch.randn(parameter.shape, generator=generator)
        if "norm" in name and name.endswith("weight"):
            parameter.copy_(1 + 0.3 * values)
        elif parameter.ndim == 2:
            parameter.copy_(values * 1.2 / parameter.shape[1] ** 0.5)
        else:
            parameter.copy_(0.3 * values)


def run(model, image):
    """All taps, on the tape."""
    taps = {}
    grid = lambda x: x[:, 1:].transpose(1, 2).unflatten(2, model.patch_embed.grid_size)
    handles = [
        model.patch_embed.proj.register_forward_hook(
            lambda _, __, y: taps.__setitem__("stem.conv", y)
        ),
        model.pos_drop.register_forward_hook(
            lambda _, __, y: taps.__setitem__("stem", grid(y))
        ),
        model.norm.register_forward_hook(
            lambda _, __, y: taps.__setitem__("feat.last", grid(y))
        ),
    ]
    for i, block in enumerate(model.blocks, start=1):
        # So that the attention is there to be read.
        block.attn.fused_attn = False
        handles += [
            block.attn.attn_drop.register_forward_hook(
                lambda _, __, y, i=i: taps.__setitem__(f"attn.b{i}", y)
            ),
            block.register_forward_hook(
                lambda _, __, y, i=i: taps.__setitem__(f"backbone.b{i}", grid(y))
            ),
        ]
    logits = model(image)
    for handle in handles:
        handle.remove()
    taps["logits"] = logits[:, :, None, None]
    return taps


def gradients(model, objective):
    names, parameters = zip(*model.named_parameters())
    found = torch.autograd.grad(objective, parameters, allow_unused=True)
    reached = {name: g for name, g in zip(names, found) if g is not None}
    # Inside a tensor that is reached nothing may look as if it were not.
    assert all(g.norm() > 1e-8 or g.norm() == 0 for g in reached.values())
    return {name: g for name, g in reached.items() if g.norm() > 0}


def models():
    out = {}
    for seed, case in enumerate(CASES):
        generator = torch.Generator().manual_seed(seed)
        model = build(case).eval()
        with torch.no_grad():
            randomise(model, generator)
        image = torch.randn((2, 3, *CASES[case]["img_size"]), generator=generator)
        for name, tensor in model.state_dict().items():
            out[f"{case}/state/{name}"] = tensor.clone()
        out[f"{case}/image"] = image
        model.double()
        taps = run(model, image.double())
        objective = taps["logits"].square().mean()
        for name, gradient in gradients(model, objective).items():
            out[f"{case}/grad/{name}"] = gradient
        for name, tap in taps.items():
            upstream = torch.randn(tap.shape, generator=generator)
            out[f"{case}/tap/{name}"] = tap
            out[f"{case}/upstream/{name}"] = upstream
            objective = (run(model, image.double())[name] * upstream).sum()
            for parameter, gradient in gradients(model, objective).items():
                out[f"{case}/injected/{name}/{parameter}"] = gradient
    save("vit.safetensors", out)


def positions():
    generator = torch.Generator().manual_seed(9)
    out = {}
    for i, (side, grid) in enumerate([(14, (3, 3)), (14, (7, 7)), (3, (6, 5)), (4, (3, 7))]):
        file = torch.randn((1, 1 + side * side, 4), generator=generator)
        cells = file[:, 1:].double().transpose(1, 2).unflatten(2, (side, side))
        cells = F.interpolate(cells, size=grid, mode="bilinear", align_corners=False)
        out[f"{i}/file"] = file
        out[f"{i}/grid"] = torch.tensor(grid)
        out[f"{i}/resized"] = torch.cat([file[:, :1].double(), cells.flatten(2).transpose(1, 2)], 1)
    save("positions.safetensors", out)


def keys():
    listing = {"versions": VERSIONS}
    for name in ("deit_tiny_patch16_224", "deit_small_patch16_224"):
        state = timm.create_model(name, pretrained=False, num_classes=200).state_dict()
        listing[name] = {k: "x".join(map(str, v.shape)) for k, v in state.items()}
    (HERE / "keys.json").write_text(json.dumps(listing, indent=0) + "\n")


def save(name, entries):
    entries = {key: tensor.detach().float().contiguous().clone() for key, tensor in entries.items()}
    save_file(entries, HERE / name, metadata=VERSIONS)


def main():
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)
    models()
    positions()
    keys()


if __name__ == "__main__":
    main()
