"""Asks a device's gateway with tritonclient, the public client of the Open Inference Protocol V2 over HTTP.

usage: oip_client.py calls ADDRESS ROWS_CSV VERSION WARM_VERSION
       oip_client.py load ADDRESS ROWS_CSV

`calls` goes through what the client can ask and exits with 1 at the first answer that is not as it should be;
WARM_VERSION is a version that is kept for a rollback, or `-`. `load` asks from 8 lanes, singly and in bursts, until
standard input ends, and prints {"answered": …, "versions": {…}, "failed": […], "executions": …}.
"""

# The client is built on gevent, whose hub must be the only one to wait.
from gevent import monkey

monkey.patch_all()

import csv
import json
import sys
from collections import Counter

import gevent
import numpy as np
from gevent.fileobject import FileObject
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

LANES = 8
BURST = 6
MODEL = "digits"


def read_rows(path: str) -> np.ndarray:
    """The first 64 columns of every line but the first."""
    with open(path, newline="") as file:
        lines = list(csv.reader(file))[1:]
    return np.array([[float(value) for value in line[:64]] for line in lines], dtype=np.float32)


def pixels(rows: np.ndarray, binary: bool) -> list[InferInput]:
    """The model's one input."""
    tensor = InferInput("pixels", list(rows.shape), "FP32")
    tensor.set_data_from_numpy(rows, binary_data=binary)
    return [tensor]


def refused(what: str, text: str, call, *arguments, **named) -> None:
    """`call` must be refused as the protocol has it, with `text` in the message."""
    try:
        call(*arguments, **named)
    except InferenceServerException as error:
        assert text in error.message(), f"{what}: {error}"
        assert error.status() is not None, f"{what}: no status"
        return
    raise AssertionError(f"{what} was not refused")


def describe(client: InferenceServerClient, version: str, warm: str) -> None:
    """Health, metadata and versions."""
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready(MODEL) and client.is_model_ready(MODEL, version)
    assert not client.is_model_ready("other") and not client.is_model_ready(MODEL, "9.9.9")
    server = client.get_server_metadata()
    assert server["name"] == "serin-agent" and "binary_tensor_data" in server["extensions"], server
    model = client.get_model_metadata(MODEL)
    assert model == client.get_model_metadata(MODEL, version), model
    assert model["versions"] == [version], model
    assert model["inputs"][0]["name"] == "pixels" and model["inputs"][0]["shape"] == [-1, 64], model
    outputs = {output["name"]: output["datatype"] for output in model["outputs"]}
    assert outputs == {"probabilities": "FP32", "class": "INT64", "confidence": "FP32", "label": "BYTES"}, outputs
    assert [entry["version"] for entry in client.get_model_repository_index()] == [version]
    refused("another model", "there is no such model", client.get_model_metadata, "other")
    refused("another version", f"in version {version}, not in the one asked for", client.get_model_metadata, MODEL, "9.9.9")
    if warm != "-":
        refused("the warm version", f"version {warm} is only kept ready", client.get_model_metadata, MODEL, warm)


def infer(client: InferenceServerClient, rows: np.ndarray, version: str) -> None:
    """The same rows as JSON and raw, with all outputs and with some."""
    names = ["probabilities", "class", "confidence", "label"]
    answers = []
    for binary in (False, True):
        outputs = [InferRequestedOutput(name, binary_data=binary) for name in names]
        answer = client.infer(MODEL, pixels(rows, binary), version, outputs=outputs, request_id="seven")
        said = answer.get_response()
        assert (said["id"], said["model_name"], said["model_version"]) == ("seven", MODEL, version), said
        assert [output["name"] for output in said["outputs"]] == names, said
        answers.append([answer.as_numpy(name) for name in names])
    # Without outputs the client asks for all of them, raw.
    answer = client.infer(MODEL, pixels(rows, True))
    answers.append([answer.as_numpy(name) for name in names])
    for probabilities, classes, confidence, labels in answers:
        assert probabilities.shape == (len(rows), 10) and probabilities.dtype == np.float32
        assert np.allclose(probabilities.sum(axis=1), 1.0, atol=1e-4)
        assert (probabilities.argmax(axis=1) == classes).all()
        assert np.allclose(probabilities.max(axis=1), confidence)
        assert classes.dtype == np.int64 and len(labels) == len(rows)
        # JSON and raw values say the same, to the last bit.
        assert (probabilities == answers[0][0]).all() and (classes == answers[0][1]).all()
        texts = [label.decode() if isinstance(label, bytes) else label for label in labels]
        assert texts == [label if isinstance(label, str) else label.decode() for label in answers[0][3]]
    mixed = [InferRequestedOutput("label", binary_data=True), InferRequestedOutput("class", binary_data=False)]
    answer = client.infer(MODEL, pixels(rows, False), outputs=mixed, parameters={"of_our_own": 1}, priority=1)
    assert (answer.as_numpy("class") == answers[0][1]).all() and answer.as_numpy("confidence") is None
    pending = [client.async_infer(MODEL, pixels(rows[at : at + 1], at % 2 == 0)) for at in range(len(rows))]
    classes = [request.get_result().as_numpy("class")[0] for request in pending]
    assert classes == list(answers[0][1]), classes
    # A missing value is NaN; what it becomes is the pipeline's affair.
    missing = rows[:1].copy()
    missing[0, 5] = np.nan
    assert client.infer(MODEL, pixels(missing, True)).as_numpy("class").shape == (1,)


def mistakes(client: InferenceServerClient, rows: np.ndarray, version: str, warm: str) -> None:
    """Bad input: each is told what is wrong."""
    infinite = rows[:1].copy()
    infinite[0, 5] = np.inf
    integers = InferInput("pixels", [1, 64], "INT64")
    integers.set_data_from_numpy(np.zeros((1, 64), dtype=np.int64))
    bad = InferInput("pixels", [2, 64], "FP32")
    bad.set_data_from_numpy(np.zeros((2, 64), dtype=np.float32))
    bad.set_shape([3, 64])
    renamed = InferInput("colour", [1, 64], "FP32")
    renamed.set_data_from_numpy(rows[:1])
    shared = InferInput("pixels", [1, 64], "FP32")
    shared.set_shared_memory("region", 256)
    for what, text, inputs in [
        ("a wrong shape", "the model wants the shape [-1, 64]", pixels(rows[:1, :63].copy(), True)),
        ("a wrong type", "the model wants FP32", [integers]),
        ("a size that does not fit", "do not hold [3, 64]", [bad]),
        ("an unknown input", "the model has no input colour", [renamed]),
        ("an infinite value", "value 5 is infinite", pixels(infinite, True)),
        ("no input", "is missing", []),
        ("too many rows", "too large for this model's worker", pixels(np.zeros((4097, 64), dtype=np.float32), True)),
        ("a body that is too large", "larger than", pixels(np.zeros((40_000, 64), dtype=np.float32), True)),
        ("shared memory", "shared memory is not supported", [shared]),
    ]:
        refused(what, text, client.infer, MODEL, inputs)
    good = pixels(rows[:1], True)
    refused("another model", "there is no such model", client.infer, "other", good)
    refused("another version", f"in version {version}, not in the one asked for", client.infer, MODEL, good, "9.9.9")
    if warm != "-":
        refused("the warm version", f"version {warm} is only kept ready", client.infer, MODEL, good, warm)
    unknown = [InferRequestedOutput("other")]
    refused("an unknown output", "no output other", client.infer, MODEL, good, outputs=unknown)
    ranked = [InferRequestedOutput("probabilities", class_count=3)]
    refused("classification", "classification", client.infer, MODEL, good, outputs=ranked)
    refused("compression", "compressed", client.infer, MODEL, good, request_compression_algorithm="gzip")
    for what, call in [
        ("the configuration", lambda: client.get_model_config(MODEL)),
        ("loading", lambda: client.load_model(MODEL)),
        ("unloading", lambda: client.unload_model(MODEL)),
        ("trace settings", lambda: client.get_trace_settings()),
        ("log settings", lambda: client.get_log_settings()),
        ("shared memory", lambda: client.get_system_shared_memory_status()),
    ]:
        refused(what, "not supported", call)


def statistics(client: InferenceServerClient, version: str) -> dict:
    """What the gateway counted of the active release."""
    (stats,) = client.get_inference_statistics(MODEL)["model_stats"]
    assert stats["version"] == version and stats["last_inference"] > 0, stats
    assert 0 < stats["execution_count"] <= stats["inference_count"], stats
    success = stats["inference_stats"]["success"]
    assert success["count"] > 0 and success["ns"] >= stats["inference_stats"]["compute_infer"]["ns"] > 0, stats
    return stats


def load(address: str, rows: np.ndarray) -> None:
    """Asks and asks. Another release may answer at any moment; none may fail to."""
    client = InferenceServerClient(address, concurrency=LANES * BURST)
    versions, failed, over = Counter(), [], []

    def ask(lane: int) -> None:
        at = lane
        while not over:
            try:
                pending = [
                    client.async_infer(MODEL, pixels(rows[(at + more) % len(rows)][None], more % 2 == 0))
                    for more in range(1 if at % 3 else BURST)
                ]
                for request in pending:
                    versions[request.get_result().get_response()["model_version"]] += 1
            except Exception as error:  # Whatever it is, it is what an app would see.
                failed.append(repr(error))
            at += 1
            gevent.sleep(0.005)

    lanes = [gevent.spawn(ask, lane) for lane in range(LANES)]
    print("asking", flush=True)
    FileObject(sys.stdin).read()
    over.append(True)
    gevent.joinall(lanes)
    (stats,) = client.get_inference_statistics()["model_stats"]
    said = {"answered": sum(versions.values()), "versions": versions, "failed": failed[:5]}
    print(json.dumps({**said, "inferences": stats["inference_count"], "executions": stats["execution_count"]}))


def main() -> None:
    """One of the two."""
    command, address, path, *rest = sys.argv[1:]
    rows = read_rows(path)
    if command == "load":
        return load(address, rows)
    version, warm = rest
    client = InferenceServerClient(address, concurrency=4)
    describe(client, version, warm)
    infer(client, rows[:20], version)
    mistakes(client, rows, version, warm)
    # After all of that it answers as before.
    infer(client, rows[20:40], version)
    statistics(client, version)


if __name__ == "__main__":
    main()
