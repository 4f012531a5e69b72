"""Cuts a class folder of single blood cells out of BCCD (github.com/Shenggan/BCCD_Dataset, MIT licence).

    python tests/data/bccd_cells.py BCCD OUT [--size 64] [--margin 0.2] [--cap 300] [--seed 0]

BCCD is the folder with `Annotations`, `ImageSets/Main` and `JPEGImages`. Written are
`OUT/train/CLASS/NAME.png` and `OUT/val/CLASS/NAME.png`, for `data.class_folder.train` and `.val`.

- One annotated cell an image: the square around its box, a share `--margin` of its longer side larger at
  each end, resized to `--size` by Pillow's BILINEAR. Where the square leaves the picture, the
  picture is mirrored at its edge.
- The published split of images decides: cells of `trainval` train, those of `test` evaluate, so that no
  picture is on both sides.
- At most `--cap` cells a class and split, drawn from `--seed`: most cells are red ones.
- Boxes without extent are left out and counted. The same arguments give the same files.
"""

import argparse
import pathlib
import random
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
from PIL import Image

SPLITS = {"train": "trainval", "val": "test"}


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bccd", type=pathlib.Path, help="folder with Annotations and JPEGImages")
    parser.add_argument("out", type=pathlib.Path, help="folder to make")
    parser.add_argument("--size", type=int, default=64, help="pixels of a side")
    parser.add_argument("--margin", type=float, default=0.2, help="share of the longer side")
    parser.add_argument("--cap", type=int, default=300, help="cells a class and split, 0: all")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def cells_of(annotation):
    """Class and box `(x1, y1, x2, y2)` of each object, in the file's order."""
    for found in ElementTree.parse(annotation).getroot().iter("object"):
        box = found.find("bndbox")
        corners = [float(box.find(key).text) for key in ("xmin", "ymin", "xmax", "ymax")]
        yield found.find("name").text.strip(), corners


def cut(picture, box, margin, size):
    """The square around `box`, at `size` pixels a side."""
    x1, y1, x2, y2 = box
    side = max(2, round(max(x2 - x1, y2 - y1) * (1 + 2 * margin)))
    left, top = round((x1 + x2 - side) / 2), round((y1 + y2 - side) / 2)
    height, width = picture.shape[:2]
    pad = max(0, -left, -top, left + side - width, top + side - height)
    padded = np.pad(picture, ((pad, pad), (pad, pad), (0, 0)), mode="symmetric")
    square = padded[top + pad : top + pad + side, left + pad : left + pad + side]
    return Image.fromarray(square).resize((size, size), Image.Resampling.BILINEAR)


def main():
    args = parse_args()
    if args.out.exists() and any(args.out.iterdir()):
        sys.exit(f"`{args.out}` is not empty; remove it or name another folder")
    for split, list_name in SPLITS.items():
        names = (args.bccd / "ImageSets" / "Main" / f"{list_name}.txt").read_text().split()
        by_class, without_extent = {}, 0
        for name in sorted(set(names)):
            annotation = args.bccd / "Annotations" / f"{name}.xml"
            for number, (label, box) in enumerate(cells_of(annotation)):
                if box[2] <= box[0] or box[3] <= box[1]:
                    without_extent += 1
                    continue
                by_class.setdefault(label, []).append((name, number, box))
        for label in sorted(by_class):
            cells = by_class[label]
            # A draw of its own for each class, so that one does not move another.
            random.Random(f"{args.seed} {split} {label}").shuffle(cells)
            chosen = sorted(cells[: args.cap or None])
            folder = args.out / split / label
            folder.mkdir(parents=True)
            opened = (None, None)
            for name, number, box in chosen:
                if opened[0] != name:
                    picture = Image.open(args.bccd / "JPEGImages" / f"{name}.jpg").convert("RGB")
                    opened = (name, np.asarray(picture))
                cell = cut(opened[1], box, args.margin, args.size)
                cell.save(folder / f"{name}_{number:02}.png")
            print(f"{split} {label}: {len(chosen)} of {len(cells)}")
        print(f"{split}: {without_extent} boxes without extent left out")


if __name__ == "__main__":
    main()
