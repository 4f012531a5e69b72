"""Reference values of a pyramid's enlargement, by PyTorch's grid_sample in f64.

Cell i of an axis of the result reads at i / scale; places beyond the last cell read that cell.

Writes enlarge.safetensors: of each case `<case>/x`, `<case>/y` (maps [N, C, H, W]), `<case>/upstream` and
`<case>/dx`, the gradient of sum(y * upstream) at x; `<case>/scale`.

Run: python make_enlarge_golden.py
"""

import pathlib

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
# Scale, coarse and fine [height, width]. The fine grid ends before, at and beyond the coarse one's.
CASES = [
    (2.0, (3, 4), (6, 8)),
    (2.0, (4, 7), (7, 13)),
    (1.5, (5, 4), (8, 6)),
    (2.5, (3, 5), (7, 13)),
    (3.0, (2, 3), (6, 9)),
    (4.0, (3, 2), (9, 8)),
    (1.5, (1, 1), (2, 1)),
    (2.0, (1, 6), (1, 11)),
    (0.5, (6, 7), (3, 4)),
]


def place(fine, coarse, scale):
    """grid_sample's coordinate of each cell: -1 and 1 are the centres of the outermost cells."""
    at = torch.arange(fine, dtype=torch.float64) / scale
    return 2 * at / (coarse - 1) - 1 if coarse > 1 else torch.zeros_like(at)


def enlarge(x, size, scale):
    n, _, height, width = x.shape
    rows, columns = place(size[0], height, scale), place(size[1], width, scale)
    y, x_at = torch.meshgrid(rows, columns, indexing="ij")
    grid = torch.stack([x_at, y], -1).expand(n, -1, -1, -1)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=True)


def main():
    generator = torch.Generator().manual_seed(8)
    entries = {}
    for case, (scale, coarse, fine) in enumerate(CASES):
        # Stored in f32: what is stored is what was computed with.
        draw = lambda size: torch.randn(2, 3, *size, generator=generator).double()
        x, upstream = draw(coarse).requires_grad_(), draw(fine)
        y = enlarge(x, fine, scale)
        (dx,) = torch.autograd.grad((y * upstream).sum(), x)
        values = {"x": x, "y": y, "upstream": upstream, "dx": dx, "scale": torch.tensor([scale])}
        for name, value in values.items():
            entries[f"{case}/{name}"] = value.detach().float().contiguous()
    save_file(entries, HERE / "enlarge.safetensors", metadata={"torch": torch.__version__})


main()
