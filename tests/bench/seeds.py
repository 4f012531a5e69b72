"""Trains arms with several seeds and compares them in pairs: an arm against the plain student of the
same seed, which starts from the same weights and sees the same images in the same order.

    python tests/bench/seeds.py --kdhost target/release/kdhost --config configs/bccd/lgd_r18_bccd.toml \\
        --set data.voc.root=FOLDER --seeds 0 1 2 --out runs/lgd_bccd \\
        --arm paper --arm no_freeze distill.config.pre_freeze_backbone=0

Each `--arm NAME [KEY=VALUE ...]` is the configuration with these settings; the plain student is
trained beside the first and taken from the cache afterwards. Finished runs are not repeated. The
interval is Student's, over the differences by seed.
"""

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path

# Two-sided 95 % quantiles of Student's t by degrees of freedom.
T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
# By task; the first is compared in pairs.
METRICS = {
    "ap": ["ap", "ap50", "ap75", "ap_small"],
    "miou": ["miou", "macc", "aacc"],
    "top1": ["top1", "top5", "mean_class"],
}


def run(args, arm, settings, seed):
    """Rows of one job: the plain student's and the arm's."""
    folder = Path(args.out) / f"{arm}-seed{seed}"
    report = folder / "job.json"
    if not report.exists():
        sets = [item for value in [*args.set, *settings] for item in ("--set", value)]
        command = [
            args.kdhost, "--config", args.config, "--seed", str(seed), "--output", str(folder),
            "--quiet", "--json", *sets,
        ]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)}: exit code {done.returncode}")
        report.write_text(done.stdout)
    return json.loads(report.read_text())["rows"]


def plain(rows):
    """The plain student on the images of the last row's: the last of several."""
    names = ("student", "student (")
    controls = [row for row in rows if row["name"] == names[0] or row["name"].startswith(names[1])]
    return controls[-1]


def spread(values):
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, float("nan")
    return mean, math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kdhost", required=True)
    parser.add_argument("--config", required=True)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", required=True, help="folder of the runs")
    parser.add_argument("--arm", nargs="+", action="append", required=True, metavar="NAME KEY=VALUE")
    args = parser.parse_args()

    results = {"plain": {}}
    for seed in args.seeds:
        for arm, *settings in args.arm:
            rows = run(args, arm, settings, seed)
            results.setdefault(arm, {})[seed] = rows[-1]
            results["plain"][seed] = plain(rows)
            main = next(name for name in METRICS if name in rows[-1]["metrics"])
            print(f"seed {seed} {arm}: {main} {100 * rows[-1]['metrics'][main]:.2f}, plain "
                  f"{100 * results['plain'][seed]['metrics'][main]:.2f}", file=sys.stderr, flush=True)

    names = METRICS[main]
    head = " | ".join(f"{name} mean ± SD" for name in names)
    print(f"| arm | {head} | {main} − plain, 95 % | by seed |")
    print("|---|" + "---|" * (len(names) + 2))
    for arm, rows in results.items():
        cells = []
        for metric in names:
            mean, sd = spread([100 * rows[s]["metrics"][metric] for s in args.seeds])
            cells.append(f"{mean:.1f} ± {sd:.1f}")
        pairs = [100 * (rows[s]["metrics"][main] - results["plain"][s]["metrics"][main]) for s in args.seeds]
        mean, sd = spread(pairs)
        half = T95.get(len(pairs) - 1, 1.96) * sd / math.sqrt(len(pairs))
        paired = "" if arm == "plain" else f"{mean:+.1f} [{mean - half:+.1f}, {mean + half:+.1f}]"
        by_seed = ", ".join(f"{100 * rows[s]['metrics'][main]:.1f}" for s in args.seeds)
        print(f"| {arm} | " + " | ".join(cells) + f" | {paired} | {by_seed} |")


if __name__ == "__main__":
    main()
