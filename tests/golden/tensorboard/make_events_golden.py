"""An event file of scalars, written by TensorBoard's own classes and read back by its own loader.

Output, beside this file: events.tfevents, what `host/src/engine/events` has to write byte for byte for
the same values; versions.json.

With the paths of event files as arguments: reads them as TensorBoard would and prints tag, steps and last
value; fails where a record is broken, or where steps of a tag do not ascend.
"""

import collections
import io
import json
import pathlib
import sys

import google.protobuf
import tensorboard
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.compat.proto import event_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

HERE = pathlib.Path(__file__).parent
# Step, scalars by tag. Values that f32 holds exactly, and some that it does not.
SAMPLE = [
    (1, {"train/loss_cls": 0.75, "train/lr": 0.001}),
    (200, {"time/data": 1e-9, "train/loss_cls": float("nan")}),
    (70_000, {"train/loss_cls": float("inf"), "val/AP": -1.0}),
]


def write(path):
    stream = io.BytesIO()
    records = RecordWriter(stream)
    version = event_pb2.Event(wall_time=1.5, file_version="brain.Event:2")
    records.write(version.SerializeToString())
    for step, values in SAMPLE:
        event = event_pb2.Event(wall_time=1.5 + step, step=step)
        for tag, value in values.items():
            event.summary.value.add(tag=tag, simple_value=value)
        records.write(event.SerializeToString())
    records.flush()
    path.write_bytes(stream.getvalue())


def scalars(path):
    """Steps and values by tag, as TensorBoard's loader gives them."""
    found = collections.defaultdict(list)
    for event in EventFileLoader(str(path)).Load():
        for value in event.summary.value:
            # The loader turns simple values into tensors of one float.
            found[value.tag].append((event.step, value.tensor.float_val[0]))
    return found


def check(path):
    size = pathlib.Path(path).stat().st_size
    found = scalars(path)
    assert found, f"{path}: no scalars"
    for tag, points in sorted(found.items()):
        steps = [step for step, _ in points]
        print(f"{path}: {tag}: {len(steps)} points, steps {steps[0]} to {steps[-1]}, last {points[-1][1]:g}")
        # A method's phases before the run count their own steps.
        assert steps == sorted(set(steps)), f"{path}: steps of {tag} are {steps}"
    print(f"{path}: {size} bytes, {len(found)} tags")


def main():
    if len(sys.argv) > 1:
        for path in sys.argv[1:]:
            check(path)
        return
    path = HERE / "events.tfevents"
    write(path)
    assert sorted(scalars(path)) == ["time/data", "train/loss_cls", "train/lr", "val/AP"]
    versions = {"tensorboard": tensorboard.__version__, "protobuf": google.protobuf.__version__}
    (HERE / "versions.json").write_text(json.dumps(versions, indent=1) + "\n")


main()
