"""Times PyTorch + torchvision and kdhost at the same work, taking turns, each in its own process.

Prints Markdown tables of wall-clock milliseconds. README.md says what is measured.
"""

import argparse
import datetime
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack

from cases import op_cases, step_cases

HERE = pathlib.Path(__file__).resolve().parent
GROUPS = ("step", "ops", "data")
WARM_UPS = 2
# Between two turns: idle OpenMP threads spin for some ms before they sleep.
PAUSE_S = 0.02
# Of the first step's losses: all sides have the same weights, images and targets.
LOSS_TOLERANCE = 1e-4
# Of what training changes in the box loss from first to last step: rounding grows meanwhile.
CHANGE_TOLERANCE = 0.25


class Worker:
    """A child process that answers a line with a line of JSON."""

    def __init__(self, command, threads):
        self.command = [str(word) for word in command]
        env = os.environ | dict.fromkeys(("RAYON_NUM_THREADS", "OMP_NUM_THREADS"), str(threads))
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(self.command, env=env, **pipes)

    def fail(self, reason):
        self.process.kill()
        sys.exit(f"`{' '.join(self.command)}`: {reason}")

    def ask(self, line=None):
        """Sends the line if one is given and reads the answer."""
        try:
            if line is not None:
                print(line, file=self.process.stdin, flush=True)
            answer = self.process.stdout.readline()
            return json.loads(answer)
        except BrokenPipeError:
            self.fail(f"ended early, exit code {self.process.wait()}")
        except json.JSONDecodeError:
            self.fail(f"printed {answer!r}" if answer else f"exit code {self.process.wait()}")

    def finish(self, answers=True):
        """Ends the child's input and returns its last answer, if it owes one."""
        self.process.stdin.close()
        answer = self.ask() if answers else None
        return answer if self.process.wait() == 0 else self.fail("failed at its end")


def torch_command(job, *words):
    return [sys.executable, HERE / "torch_worker.py", job, *words]


def once(command, threads=1):
    return Worker(command, threads).finish()


def start(args, stack, torch, kdhost):
    """The processes that take part, by name."""
    torch = torch_command(*torch, "--threads", args.threads)
    commands = {"torch": torch, "torch channels_last": [*torch, "--channels-last"]}
    commands["kdhost"] = [args.kdhost, "bench", *kdhost, "--follow"]
    if not args.channels_last:
        del commands["torch channels_last"]
    if args.torch_only:
        del commands["kdhost"]
    workers = {side: Worker(command, args.threads) for side, command in commands.items()}
    for worker in workers.values():
        stack.callback(worker.process.kill)
    return workers


def alternate(turns, count):
    """Calls each of `turns` once, `count` times over; the answers of each."""
    answers = {side: [] for side in turns}
    for _ in range(count):
        for side, turn in turns.items():
            answers[side].append(turn())
            time.sleep(PAUSE_S)
    return answers


def rows_of(case, answers, phases):
    """One row for each phase and each PyTorch side. `phases`: name to value of an answer."""
    for phase, value in phases.items():
        sides = {}
        for side, given in answers.items():
            values = [value(answer) for answer in given]
            sides[side] = {"median": statistics.median(values), "min": min(values), "all": values}
        kdhost = sides.pop("kdhost", None)
        for side, torch in sides.items():
            words = (case, phase, "" if side == "torch" else side.removeprefix("torch "))
            row = {"case": ", ".join(word for word in words if word), "torch": torch}
            yield row | {"kdhost": kdhost, "ratio": kdhost and kdhost["median"] / torch["median"]}


def check_losses(case, first, last):
    """Ends the run where the sides differ in the first losses or in what training changes."""
    boxes = abs(last["torch"]["loss_bbox"] - first["torch"]["loss_bbox"])
    for when, answers, key, bound in (
        ("first", first, "loss_cls", LOSS_TOLERANCE * first["torch"]["loss_cls"]),
        ("first", first, "loss_bbox", LOSS_TOLERANCE * first["torch"]["loss_bbox"]),
        ("last", last, "loss_bbox", CHANGE_TOLERANCE * boxes),
    ):
        values = {side: answer[key] for side, answer in answers.items()}
        print(f"{case}: {when} {key}: {values}", file=sys.stderr)
        if not all(abs(v - values["torch"]) <= bound for v in values.values()):
            sys.exit(f"{case}: {when} {key} differs: the sides do not compute the same thing")


def bench_step(args, folder, name, case, side):
    """Rows of times and of peak memory."""
    (folder / "case.json").write_text(json.dumps(case))
    once(torch_command("reference", "--folder", folder, "--size", side, side))
    with ExitStack() as stack:
        kdhost = ("step", "--reference", folder)
        workers = start(args, stack, ("step", "--folder", folder), kdhost)
        for worker in workers.values():
            if worker.ask() != {"ready": True}:
                worker.fail("did not say that it is ready")
        turns = {side: lambda w=worker: w.ask("run") for side, worker in workers.items()}
        warm_up, answers = alternate(turns, WARM_UPS), alternate(turns, args.repeat)
        first = {side: given[0] for side, given in warm_up.items()}
        check_losses(name, first, {side: given[-1] for side, given in answers.items()})
        ends = {side: [worker.finish()] for side, worker in workers.items()}
    parts = ("forward", "backward", "optimizer")
    phases = {part: lambda a, p=part: a[f"{p}_ms"] for part in parts}
    phases["total"] = lambda a: sum(a[f"{part}_ms"] for part in parts)
    yield from rows_of(name, answers, phases)
    yield from rows_of(name, ends, {"peak MiB": lambda a: a["peak_mib"]})


def bench_ops(args, cases):
    phases = {"fwd": lambda a: a["forward_ms"], "bwd": lambda a: a["backward_ms"]}
    phases["fwd+bwd"] = lambda a: a["forward_ms"] + a["backward_ms"]
    with ExitStack() as stack:
        workers = start(args, stack, ("op",), ("op",))
        for name, spec in cases:
            turns = {side: lambda w=w: w.ask(json.dumps(spec)) for side, w in workers.items()}
            alternate(turns, WARM_UPS)
            yield from rows_of(name, alternate(turns, args.repeat), phases)
        for worker in workers.values():
            worker.finish(answers=False)


def bench_data(args, folder):
    """ms per image; each turn is a new process that reads all images."""
    words = ["data", "--folder", folder, "--size", *args.size]
    readers = ("torchvision", "pillow")
    commands = {reader: torch_command(*words, "--decoder", reader) for reader in readers}
    if not args.torch_only:
        commands["kdhost"] = [args.kdhost, "bench", *words]
    turns = {side: lambda c=command: once(c) for side, command in commands.items()}
    alternate(turns, 1)
    name = "JPEG to {}x{}, ms an image".format(*args.size)
    phases = {"": lambda answer: 1e3 / answer["images_per_s_per_core"]}
    return list(rows_of(name, alternate(turns, args.repeat), phases))


def print_table(title, rows):
    print(f"\n{title}\n")
    heads = ("torch ms", "kdhost ms", "kdhost/torch", "torch min", "kdhost min")
    print(f"| {'case':<58} |", " | ".join(f"{head:>12}" for head in heads), "|")
    print(f"| {'-' * 58} |", " | ".join("-" * 11 + ":" for _ in heads), "|")
    for row in rows:
        torch, kdhost = row["torch"], row["kdhost"] or {"median": None, "min": None}
        values = [torch["median"], kdhost["median"], row["ratio"], torch["min"], kdhost["min"]]
        cells = ["-" if v is None else f"{v:.2f}" for v in values]
        print(f"| {row['case']:<58} |", " | ".join(f"{cell:>12}" for cell in cells), "|")
    sys.stdout.flush()


def touch_memory(gib):
    """A virtual machine is slow to hand out a page for the first time: has it done before."""
    subprocess.run([sys.executable, "-c", f"b'1' * int({gib} * 2**30)"], check=False)


def environment(args):
    cpuinfo = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(": ")[1] for line in cpuinfo if line.startswith("model name")), "?")
    found = {"date": datetime.datetime.now().astimezone().isoformat(timespec="seconds")}
    found |= {"cpu": cpu, "cores": os.cpu_count(), "threads": args.threads}
    found |= {"repeat": args.repeat, **once(torch_command("info"))}
    if not args.torch_only:
        found["kdhost"] = subprocess.check_output([args.kdhost, "--version"], text=True).strip()
    tuning = ("MALLOC_", "LD_PRELOAD", "OMP_", "GOMP_", "KMP_", "MKL_", "DNNL_", "ONEDNN_")
    return found | {key: v for key, v in os.environ.items() if key.startswith(tuning)}


def parse():
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("groups", nargs="*", metavar="step|ops|data", help="default: all")
    parser.add_argument("--only", default="", metavar="SUBSTRING", help="of a case's name")
    parser.add_argument("--repeat", type=int, default=9, help="after the warm-ups")
    parser.add_argument("--threads", type=int, default=2, help="of each side; data takes 1")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE")
    parser.add_argument("--torch-only", action="store_true", help="without kdhost")
    parser.add_argument("--channels-last", action="store_true", help="torch this way as well")
    parser.add_argument("--images", type=pathlib.Path, metavar="DIR", help="of JPEGs, for data")
    parser.add_argument("--size", nargs=2, type=int, default=[512, 512], metavar=("H", "W"))
    parser.add_argument("--touch-gib", type=float, default=0.75 * available, metavar="GIB",
                        help="memory to touch beforehand; default 3/4 of what is free")  # fmt: skip
    binary = HERE.parents[1] / "target/release/kdhost"
    parser.add_argument("--kdhost", type=pathlib.Path, default=binary, metavar="FILE")
    args = parser.parse_args()
    args.groups = args.groups or GROUPS
    if not set(args.groups) <= set(GROUPS):
        parser.error(f"groups are {', '.join(GROUPS)}")
    if not args.torch_only and not args.kdhost.is_file():
        parser.error(f"no file {args.kdhost}: build it, or give --kdhost or --torch-only")
    return args


def main():
    args = parse()
    result = {"environment": environment(args), "step": [], "ops": [], "data": []}
    print("; ".join(f"{key} {value}" for key, value in result["environment"].items()))
    if args.repeat < 7:
        print("Fewer than 7 repetitions: a smoke test, not a result.")
    touch_memory(args.touch_gib)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for case in [c for c in step_cases() if args.only in c[0] and "step" in args.groups]:
            result["step"] += bench_step(args, folder, *case)
        if result["step"]:
            print_table("Training step", result["step"])
        ops = [c for c in op_cases() if args.only in c[0] and "ops" in args.groups]
        if ops:
            result["ops"] += bench_ops(args, ops)
            print_table("Operations; the ratio that counts is that of fwd+bwd", result["ops"])
        if "data" in args.groups and args.only in "JPEG":
            if not args.images:
                once(torch_command("images", "--folder", folder, "--size", 480, 640))
            result["data"] += bench_data(args, args.images or folder)
            print_table("Data, one thread", result["data"])
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
