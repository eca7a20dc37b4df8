"""Lays out real models as a device has them: real_models.py WHEEL_MODELS FOLDER.

Each folder gets model.onnx, manifest.json, pipeline.json, labels.txt and golden.json: rows, and what onnxruntime
computes of them.
"""

import json
import pathlib
import shutil
import sys
import warnings

warnings.filterwarnings("ignore")

import numpy
import onnxruntime
from skl2onnx import to_onnx
from sklearn import datasets, ensemble, neural_network

RANDOM = numpy.random.default_rng(9)
CASES = 3


def lay_out(folder, name, path, rows, relative=1e-3, absolute=1e-4, outputs=None):
    """`rows` are arrays by input, with one row in the first place of each."""
    target = folder / name
    target.mkdir(parents=True)
    shutil.copy(path, target / "model.onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options)
    names = outputs or [output.name for output in session.get_outputs()]
    computed = [session.run(names, case) for case in rows]
    none = "0" * 64
    inputs = {f"in_{at}": (name, array) for at, (name, array) in enumerate(rows[0].items())}
    made = {f"out_{at}": (name, array) for at, (name, array) in enumerate(zip(names, computed[0]))}

    def spec(name, array):
        kind = {"f": "FP32", "i": "INT64"}[array.dtype.kind]
        return {"name": name, "datatype": kind, "shape": [-1, *array.shape[1:]]}

    files = ["card.md", "golden.bin", "labels.txt", "model.onnx", "pipeline.json", "reference.bin"]
    manifest = {
        "format": 1, "model": name.replace("_", "-"), "version": "1.0.0", "owner": "bench", "description": "",
        "lineage": {"git_commit": "0" * 40, "weights": none, "data": none, "schema_version": "1"},
        "runtime": "tract-0.23", "targets": [], "prediction": None,
        "inputs": [spec(name, array) for name, (_, array) in inputs.items()],
        "outputs": [spec(name, array) for name, (_, array) in made.items()],
        "measured": dict.fromkeys(("minimum_memory", "memory_limit", "peak_resident", "latency_p50_micros",
                                   "latency_p99_micros", "load_micros"), 0),
        "files": [{"name": file, "digest": none, "size": 0} for file in files],
    }
    pipeline = {
        "pre": [{"op": "feed", "input": name, "model_input": model} for name, (model, _) in inputs.items()],
        "post": [{"op": "take", "model_output": model, "output": name} for name, (model, _) in made.items()],
    }
    cases = [
        {"inputs": {name: row[model].ravel().tolist() for name, (model, _) in inputs.items()},
         "outputs": {name: array.ravel().tolist() for name, array in zip(made, arrays)}}
        for row, arrays in zip(rows, computed)
    ]
    (target / "manifest.json").write_text(json.dumps(manifest))
    (target / "pipeline.json").write_text(json.dumps(pipeline))
    (target / "labels.txt").write_text("")
    for name, (model, array) in inputs.items():
        array.astype(numpy.float32).tofile(target / f"{name}.f32")
    (target / "golden.json").write_text(json.dumps({"relative": relative, "absolute": absolute, "cases": cases}))


def scan(height, width):
    """Something like dark writing on paper, scaled as PP-OCR has it."""
    page = numpy.full((1, 3, height, width), 0.9, dtype=numpy.float32)
    for _ in range(40):
        top, left = RANDOM.integers(height - 8), RANDOM.integers(width - 12)
        page[:, :, top : top + RANDOM.integers(2, 8), left : left + RANDOM.integers(2, 12)] = RANDOM.random() - 1
    return page + RANDOM.normal(scale=0.02, size=page.shape).astype(numpy.float32)


def from_wheels(wheels, folder):
    def sound():
        return {"input": RANDOM.normal(scale=0.1, size=(1, 576)).astype(numpy.float32),
                "h": numpy.zeros((1, 1, 128), dtype=numpy.float32), "c": numpy.zeros((1, 1, 128), dtype=numpy.float32)}

    lay_out(folder, "silero_vad_16k_sequence", wheels / "silero_vad_16k_sequence.onnx", [sound() for _ in range(CASES)])
    for name, file, height, width in (
        ("ppocr_v4_det", "ch_PP-OCRv4_det_infer.onnx", 320, 320),
        ("ppocr_v4_rec", "ch_PP-OCRv4_rec_infer.onnx", 48, 320),
        ("ppocr_v2_cls", "ch_ppocr_mobile_v2.0_cls_infer.onnx", 48, 192),
    ):
        lay_out(folder, name, wheels / file, [{"x": scan(height, width)} for _ in range(CASES)])


def from_sklearn(folder):
    features, target = datasets.load_digits(return_X_y=True)
    features = features.astype(numpy.float32)
    for name, estimator in (
        ("random_forest", ensemble.RandomForestClassifier(100, random_state=1)),
        ("gradient_boosting", ensemble.HistGradientBoostingClassifier(max_iter=60, random_state=1)),
        ("mlp", neural_network.MLPClassifier((256, 128), max_iter=60, random_state=1)),
    ):
        model = to_onnx(estimator.fit(features, target), features[:1], options={"zipmap": False},
                        target_opset={"": 18, "ai.onnx.ml": 3})
        path = folder / f"{name}.onnx"
        path.write_bytes(model.SerializeToString())
        rows = [{"X": features[at : at + 1]} for at in range(CASES)]
        lay_out(folder, name, path, rows, 1e-4, 1e-5, ["probabilities"])
        path.unlink()


if __name__ == "__main__":
    wheels, folder = map(pathlib.Path, sys.argv[1:])
    from_wheels(wheels, folder)
    from_sklearn(folder)
