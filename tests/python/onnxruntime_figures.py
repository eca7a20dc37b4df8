"""What onnxruntime takes to load and run a model, in a process of its own: onnxruntime_figures.py FOLDER RUNS.

The folder is one that real_models.py made. Prints JSON; memory in bytes.
"""

import gc
import json
import pathlib
import sys
import time

import numpy
import onnxruntime


def memory(field):
    for line in open("/proc/self/status"):
        if line.startswith(field):
            return int(line.split()[1]) * 1024


folder, runs = pathlib.Path(sys.argv[1]), int(sys.argv[2])
manifest, pipeline = (json.loads((folder / name).read_text()) for name in ("manifest.json", "pipeline.json"))
names = {step["input"]: step["model_input"] for step in pipeline["pre"]}
outputs = [step["model_output"] for step in pipeline["post"]]
# Only one row is read, so that the text of the golden outputs is not what is measured.
rows = {}
for spec in manifest["inputs"]:
    shape = [1, *spec["shape"][1:]]
    values = numpy.fromfile(folder / f"{spec['name']}.f32", dtype=numpy.float32)
    rows[names[spec["name"]]] = values.reshape(shape)
gc.collect()
bare = memory("VmRSS:")
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
options.inter_op_num_threads = 1
started = time.perf_counter()
session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
load = time.perf_counter() - started
loading = memory("VmHWM:")
times = []
for _ in range(runs):
    started = time.perf_counter()
    session.run(outputs, rows)
    times.append(time.perf_counter() - started)
print(json.dumps({"bare": bare, "load_micros": load * 1e6, "peak_loading": loading, "peak": memory("VmHWM:"),
                  "resident": memory("VmRSS:"), "run_micros": sorted(times)[runs // 2] * 1e6}))
