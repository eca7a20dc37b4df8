"""Writes an ONNX model with some rows and what onnxruntime computes of them, for the Rust side to compare."""

import json
import pathlib

import numpy
import onnxruntime


def write(folder, name, model, inputs, relative=1e-5, absolute=1e-5, outputs=None, stand_in=None):
    """Writes `folder/name/model.onnx` and `case.json`.

    `inputs` are arrays of numbers or texts by name, all with equally many rows. The tolerances are those of golden
    vectors: a difference of `absolute + relative * |expected|` passes. `outputs` names those to take, all
    unless given. `stand_in` is the model that onnxruntime computes, where it does not take `model` as it is meant.
    """
    options = onnxruntime.SessionOptions()
    # Sums in one order.
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession((stand_in or model).SerializeToString(), options)
    names = outputs or [output.name for output in session.get_outputs()]
    computed = session.run(names, inputs)
    rows = len(next(iter(inputs.values())))
    case = {
        "relative": relative,
        "absolute": absolute,
        "inputs": [_values(name, array) for name, array in inputs.items()],
        "outputs": [_values(name, _answered(_matrix(array))) for name, array in zip(names, computed)],
    }
    assert all(len(tensor["rows"]) == rows for tensor in case["inputs"] + case["outputs"]), name
    target = pathlib.Path(folder) / name
    target.mkdir(parents=True)
    (target / "model.onnx").write_bytes(model.SerializeToString())
    (target / "case.json").write_text(json.dumps(case))


def _matrix(output):
    """A zipped map per row becomes a row of its values."""
    if isinstance(output, list):
        return numpy.array([list(row.values()) for row in output], dtype=numpy.float32)
    return output


def _answered(output):
    """Outputs are answered in three types only."""
    kinds = {"f": numpy.float32, "i": numpy.int64}
    return output.astype(kinds.get(output.dtype.kind, output.dtype))


def _values(name, array):
    kinds = {"f": "FP32", "i": "INT64", "b": "INT64", "O": "BYTES", "U": "BYTES"}
    whole = {numpy.dtype(numpy.float64): "FP64", numpy.dtype(numpy.int32): "INT32"}
    kind = whole.get(array.dtype) or kinds[array.dtype.kind]
    flat = array.reshape(len(array), -1).tolist()
    if kind in ("FP32", "FP64"):
        flat = [[_json(value) for value in row] for row in flat]
    elif kind != "BYTES":
        flat = [[int(value) for value in row] for row in flat]
    return {"name": name, "kind": kind, "row": list(array.shape[1:]), "rows": flat}


def _json(value):
    """JSON has no infinities and no NaN."""
    if value != value:
        return "nan"
    if value in (float("inf"), float("-inf")):
        return "inf" if value > 0 else "-inf"
    return value
