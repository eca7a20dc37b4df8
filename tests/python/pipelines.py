"""Model folders whose raw inputs, tensors and outputs come from the training side: scikit-learn for a table,
Pillow and numpy for images, numpy for boxes, onnxruntime behind all. Usage: pipelines.py FOLDER"""

import csv
import io
import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

RANDOM = np.random.default_rng(7)
FLOAT, INT = TensorProto.FLOAT, TensorProto.INT64


def model(nodes, inputs, outputs, constants=()):
    """An ONNX model of `nodes`; `inputs` and `outputs` are name -> (type, lengths after the rows)."""
    value = lambda name, kind, row: helper.make_tensor_value_info(name, kind, ["rows", *row])
    graph = helper.make_graph(
        nodes,
        "graph",
        [value(name, *of) for name, of in inputs.items()],
        [value(name, *of) for name, of in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in constants],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    return made


def run(made, tensors):
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, tensors)))


def spec(name, datatype, *row, features=()):
    return {"name": name, "datatype": datatype, "shape": [-1, *row], "features": list(features)}


def toml_of(specs, kind):
    lines = []
    for one in specs:
        lines += [f"[[{kind}]]", f'name = "{one["name"]}"', f'datatype = "{one["datatype"]}"']
        lines += [f"shape = {json.dumps(one['shape'])}", f"features = {json.dumps(one['features'])}", ""]
    return "\n".join(lines)


def plain(array):
    """A flat list, as JSON has it."""
    flat = np.asarray(array).ravel().tolist()
    return [None if isinstance(one, float) and np.isnan(one) else one for one in flat]


def write(folder, made, inputs, outputs, pre, post, cases, absolute, files=(), reference="", labels=(), more=""):
    """A model folder. A case is raw inputs, tensors and outputs, each name -> values of one row."""
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(made.SerializeToString())
    (folder / "pipeline.json").write_text(json.dumps({"pre": pre, "post": post}, indent=2))
    (folder / "labels.txt").write_text("".join(f"{label}\n" for label in labels))
    (folder / "card.md").write_text("# Made by pipelines.py\n")
    (folder / "reference.csv").write_text(reference)
    for name, content in files:
        (folder / name).write_bytes(content)
    with (folder / "golden.ndjson").open("w") as golden:
        for raw, tensors, expected in cases:
            tensors = {name: plain(values) for name, values in tensors.items()}
            expected = {name: plain(values) for name, values in expected.items()}
            golden.write(json.dumps({"inputs": raw, "tensors": tensors, "outputs": expected}) + "\n")
    (folder / "serin.toml").write_text(
        f'model = "digits"\nversion = "{folder.name}"\nowner = "vision"\ndescription = "A pipeline."\n'
        f'[lineage]\ngit_commit = "{"0" * 40}"\nschema_version = "1"\n'
        f"{toml_of(inputs, 'inputs')}\n{toml_of(outputs, 'outputs')}\n{more}\n"
        f"[golden]\nrelative = 1e-5\nabsolute = {absolute}\n"
    )


def table(folder):
    """Columns of all types through a ColumnTransformer, then a classifier exported by skl2onnx."""
    from skl2onnx import to_onnx
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import (
        FunctionTransformer,
        MinMaxScaler,
        OneHotEncoder,
        OrdinalEncoder,
        RobustScaler,
        StandardScaler,
    )

    count = 400
    cities, sizes = ["Oslo", "Rome", "Bonn, \"old\""], ["S", "M", "L"]
    rows = np.empty((count, 7), dtype=object)
    rows[:, 0] = np.where(RANDOM.random(count) < 0.1, np.nan, RANDOM.normal(41.7, 13.3, count))
    rows[:, 1] = RANDOM.poisson(3, count)
    rows[:, 2] = RANDOM.choice(cities, count)
    rows[:, 3] = RANDOM.choice(sizes, count)
    rows[:, 4] = RANDOM.lognormal(10, 1, count)
    rows[:, 5] = RANDOM.standard_t(3, count)
    rows[:, 6] = RANDOM.integers(1_690_000_000, 1_710_000_000, count)
    age = make_pipeline(SimpleImputer(add_indicator=True))
    scaled = StandardScaler()
    transformer = ColumnTransformer(
        [
            ("age", age, [0]),
            ("visits", FunctionTransformer(lambda values: np.log1p(values.astype(float))), [1]),
            ("city", OneHotEncoder(handle_unknown="ignore"), [2]),
            ("size", OrdinalEncoder(categories=[sizes], handle_unknown="use_encoded_value", unknown_value=-1), [3]),
            ("income", MinMaxScaler(), [4]),
            ("distance", RobustScaler(), [5]),
            ("since", scaled, [6]),
        ],
        sparse_threshold=0,
    )
    features = transformer.fit_transform(rows).astype(np.float32)
    truth = (features[:, 0] / 40 + features[:, 2] + features[:, 6] * 2 + RANDOM.normal(0, 0.3, count) > 2.5).astype(int)
    classifier = LogisticRegression(max_iter=2000).fit(features, truth)
    exported = to_onnx(classifier, features[:1], options={"zipmap": False}, target_opset=17)
    held = rows[:24].copy()
    held[3, 2], held[4, 3], held[5, 0] = "Paris", "XXL", np.nan
    tensors = transformer.transform(held).astype(np.float32)
    answers = run(exported, {"X": tensors})
    names = ["age", "visits", "city", "size", "income", "distance", "since"]
    types = ["FP64", "INT64", "BYTES", "BYTES", "FP64", "FP64", "INT64"]
    steps = dict((name, step) for name, step, _ in transformer.transformers_)
    encoder, income, distance = steps["city"], steps["income"], steps["distance"]
    pre = [
        {"op": "indicator", "input": "age", "output": "age_missing"},
        {"op": "missing", "input": "age", "replace": float(age_mean(steps["age"]))},
        {"op": "log1p", "input": "visits"},
        {"op": "one_hot", "input": "city", "categories": list(encoder.categories_[0]), "unknown": "zeros"},
        {"op": "ordinal", "input": "size", "categories": sizes, "unknown": {"number": -1}},
        {"op": "affine", "input": "income", "scale": float(income.scale_[0]), "offset": float(income.min_[0])},
        {"op": "standard", "input": "distance", "mean": float(distance.center_[0]), "scale": float(distance.scale_[0])},
        {"op": "standard", "input": "since", "mean": float(steps["since"].mean_[0]), "scale": float(steps["since"].scale_[0])},
        {"op": "concat", "inputs": ["age", "age_missing", *names[1:]], "output": "row"},
        {"op": "feed", "input": "row", "model_input": "X"},
    ]
    post = [
        {"op": "take", "model_output": "probabilities", "output": "probabilities"},
        {"op": "pick", "from": "probabilities", "index": 1, "output": "probability"},
        {"op": "threshold", "from": "probability", "at": 0.4, "output": "class"},
        {"op": "labels", "from": "class", "output": "label"},
    ]
    kinds = {"FP64": float, "INT64": int, "BYTES": str}
    cell = lambda kind, value: None if value != value else kinds[kind](value)
    raw = lambda row: {name: [cell(kind, value)] for name, kind, value in zip(names, types, row)}
    cases = []
    for row, tensor, probabilities in zip(held, tensors, answers["probabilities"]):
        leaves = bool(probabilities[1] >= 0.4)
        expected = {"probability": [float(probabilities[1])], "class": [int(leaves)], "label": ["leaves" if leaves else "stays"]}
        cases.append((raw(row), {"X": tensor}, expected))
    reference = io.StringIO()
    table = csv.writer(reference, lineterminator="\n")
    table.writerow(names)
    table.writerows([["" if value != value else value for value in row] for row in rows])
    more = prediction("class", "probability", 2)
    inputs = [spec(name, kind, features=[] if kind == "BYTES" else [name]) for name, kind in zip(names, types)]
    outputs = [spec("probability", "FP32"), spec("class", "INT64"), spec("label", "BYTES")]
    write(folder, exported, inputs, outputs, pre, post, cases, 1e-6, reference=reference.getvalue(), labels=["stays", "leaves"], more=more)
    requests = [{"inputs": raw(row), "outputs": expected} for row, (_, _, expected) in zip(held, cases)]
    (folder / "requests.json").write_text(json.dumps(requests))


def exported(folder):
    """A whole scikit-learn pipeline as skl2onnx exports it: columns of texts and numbers go into the model as they are."""
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

    count = 300
    rows = np.empty((count, 3), dtype=object)
    rows[:, 0] = RANDOM.choice(["Oslo", "Rome", "Köln"], count)
    rows[:, 1] = RANDOM.choice(["S", "M", "L"], count)
    rows[:, 2] = RANDOM.normal(41, 13, count).astype(np.float32)
    truth = np.where((rows[:, 0] == "Rome") | (rows[:, 2] > 50), "leaves", "stays")
    transformer = ColumnTransformer(
        [
            ("city", OneHotEncoder(handle_unknown="ignore"), [0]),
            ("size", OrdinalEncoder(categories=[["S", "M", "L"]]), [1]),
            ("age", StandardScaler(), [2]),
        ]
    )
    pipeline = make_pipeline(transformer, RandomForestClassifier(20, random_state=1)).fit(rows, truth)
    texts, number = StringTensorType([None, 1]), FloatTensorType([None, 1])
    types = [("city", texts), ("size", texts), ("age", number)]
    made = to_onnx(pipeline, initial_types=types, options={"zipmap": False}, target_opset=17)
    held = rows[:20].copy()
    held[3, 0] = "Paris"
    names = ["city", "size", "age"]
    tensors = {name: held[:, [at]].astype(str if at < 2 else np.float32) for at, name in enumerate(names)}
    answers = run(made, tensors)
    cases = []
    for (city, size, age), probabilities, label in zip(held, answers["probabilities"], answers["label"]):
        raw = {"city": [city], "size": [size], "age": [float(age)]}
        expected = {"probability": [float(probabilities.max())], "class": [int(probabilities.argmax())], "label": [str(label)]}
        cases.append((raw, {"city": [city], "size": [size], "age": [age]}, expected))
    inputs = [spec("city", "BYTES", 1), spec("size", "BYTES", 1), spec("age", "FP32", 1, features=["age"])]
    outputs = [spec("probability", "FP32"), spec("class", "INT64"), spec("label", "BYTES")]
    pre = [{"op": "feed", "input": name, "model_input": name} for name in names]
    post = [
        {"op": "take", "model_output": "probabilities", "output": "probabilities"},
        {"op": "max", "from": "probabilities", "output": "probability"},
        {"op": "argmax", "from": "probabilities", "output": "class"},
        {"op": "take", "model_output": "label", "output": "label"},
    ]
    reference = "".join(",".join(map(str, row)) + "\n" for row in [names, *rows])
    more = prediction("class", "probability", 2)
    write(folder, made, inputs, outputs, pre, post, cases, 1e-5, reference=reference, labels=["leaves", "stays"], more=more)


def prediction(output, confidence, classes):
    return f'[prediction]\nclass = "{output}"\nconfidence = "{confidence}"\nclasses = {classes}\n'


def age_mean(pipeline):
    return pipeline[0].statistics_[0]


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def picture(width, height):
    """Something with edges, slopes and noise."""
    across, along = np.meshgrid(np.arange(width), np.arange(height))
    channels = [128 + 100 * np.sin(across / (3 + at) + along / (7 - at)) for at in range(3)]
    noise = RANDOM.normal(0, 8, (height, width, 3))
    return Image.fromarray(np.clip(np.stack(channels, -1) + noise, 0, 255).astype(np.uint8))


MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def cropped(image, size):
    """Resize the shorter side, crop the middle: torchvision's usual transform, with Pillow alone."""
    width, height = image.size
    short = size * 8 // 7
    scaled = (short, short * height // width) if width <= height else (short * width // height, short)
    image = image.resize(scaled, Image.BILINEAR)
    left, top = round((image.width - size) / 2), round((image.height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def images(folder, kind, absolute):
    """Files of `kind` through decoder, resize, crop and normalisation into a small network."""
    size, classes = 28, 5
    made = model(
        [
            helper.make_node("Conv", ["pixels", "kernel"], ["maps"], strides=[2, 2]),
            helper.make_node("Relu", ["maps"], ["active"]),
            helper.make_node("GlobalAveragePool", ["active"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["logits"]),
        ],
        {"pixels": (FLOAT, [3, size, size])},
        {"logits": (FLOAT, [classes])},
        [("kernel", RANDOM.normal(0, 0.3, (classes, 3, 3, 3)).astype(np.float32))],
    )
    files, cases = [], []
    pictures = [picture(61, 47), picture(40, 75), picture(33, 33).convert("L"), picture(300, 200)]
    options = {"PNG": [{}] * 4, "JPEG": [{"quality": 95, "subsampling": 0}, {"quality": 90}, {}, {"progressive": True}]}
    variants = list(zip(pictures, options[kind]))
    if kind == "PNG":
        variants += [(picture(50, 40).quantize(32), {}), (picture(41, 39).convert("RGBA"), {}), (picture(36, 36).convert("LA"), {})]
    for at, (image, options) in enumerate(variants):
        name = f"{at}.{kind.lower()}"
        files.append((name, encoded(image, kind, **options)))
        image = Image.open(io.BytesIO(files[-1][1])).convert("RGB")
        pixels = np.asarray(cropped(image, size), dtype=np.float32) / 255
        tensor = ((pixels - MEAN) / STD).astype(np.float32).transpose(2, 0, 1)
        logits = run(made, {"pixels": tensor[None]})["logits"]
        soft = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        order = np.argsort(-soft[0], kind="stable")[:3]
        cases.append(({"image": [{"file": name}]}, {"pixels": tensor}, {"best": order, "scores": soft[0][order]}))
    pre = [
        {"op": "decode_image", "input": "image", "formats": [kind.lower()], "channels": "rgb", "max_pixels": 100_000},
        {"op": "resize_shorter", "input": "image", "length": size * 8 // 7, "filter": "bilinear"},
        {"op": "center_crop", "input": "image", "width": size, "height": size},
        {"op": "image_tensor", "input": "image", "layout": "nchw", "scale": 1 / 255, "mean": MEAN.tolist(), "std": STD.tolist()},
        {"op": "feed", "input": "image", "model_input": "pixels"},
    ]
    post = [
        {"op": "take", "model_output": "logits", "output": "probabilities"},
        {"op": "softmax", "output": "probabilities"},
        {"op": "top_k", "from": "probabilities", "k": 3, "classes": "best", "scores": "scores"},
        {"op": "labels", "from": "best", "output": "labels"},
        {"op": "argmax", "from": "probabilities", "output": "class"},
        {"op": "max", "from": "probabilities", "output": "confidence"},
    ]
    # Predictions on the reference data, which is the same files.
    reference = "".join(f"{line}\n" for line in ["image", *(name for name, _ in files)])
    more = prediction("class", "confidence", classes)
    outputs = [spec("best", "INT64", 3), spec("scores", "FP32", 3), spec("labels", "BYTES", 3)]
    outputs += [spec("class", "INT64"), spec("confidence", "FP32")]
    write(folder, made, [spec("image", "BYTES")], outputs, pre, post, cases, absolute, files, reference, "abcde", more)


def frames(folder):
    """Raw pixels resized in many ways: to the last bit what Pillow makes of them."""
    width, height = 53, 40
    ways = [
        ("nearest_down", 17, 31, "nearest", "RGB"),
        ("nearest_up", 111, 97, "nearest", "RGB"),
        ("bilinear_down", 17, 13, "bilinear", "RGB"),
        ("bilinear_up", 120, 61, "bilinear", "RGB"),
        ("bilinear_across", 20, 40, "bilinear", "RGB"),
        ("bilinear_along", 53, 90, "bilinear", "RGB"),
        ("one", 1, 1, "bilinear", "RGB"),
        ("grey", 29, 23, "bilinear", "L"),
    ]
    names = [way[0] for way in ways]
    made = model(
        [helper.make_node("ReduceMean", [name], [f"{name}_mean"], axes=[1, 2, 3], keepdims=0) for name in names]
        + [helper.make_node("Sum", [f"{name}_mean" for name in names], ["sum"])],
        {name: (FLOAT, [high, wide, 1 if kind == "L" else 3]) for name, wide, high, _, kind in ways},
        {"sum": (FLOAT, [])},
    )
    inputs, pre = [], []
    for name, wide, high, filter, kind in ways:
        inputs.append(spec(name, "UINT8", height, width, 1 if kind == "L" else 3))
        pre += [
            {"op": "frame", "input": name},
            {"op": "resize", "input": name, "width": wide, "height": high, "filter": filter},
            {"op": "image_tensor", "input": name, "layout": "nhwc", "scale": 1, "mean": 0, "std": 1},
            {"op": "feed", "input": name, "model_input": name},
        ]
    cases = []
    for _ in range(3):
        raw, tensors = {}, {}
        for name, wide, high, filter, kind in ways:
            image = picture(width, height).convert(kind)
            raw[name] = plain(np.asarray(image))
            resized = image.resize((wide, high), getattr(Image, filter.upper()))
            tensors[name] = np.asarray(resized, dtype=np.float32).reshape(high, wide, -1)
        answer = run(made, {name: tensor[None] for name, tensor in tensors.items()})
        cases.append((raw, tensors, {"sum": answer["sum"]}))
    post = [{"op": "take", "model_output": "sum", "output": "sum"}]
    write(folder, made, inputs, [spec("sum", "FP32")], pre, post, cases, 0.0)


def texts(folder):
    """Texts as windows of bytes, 64-bit integers to an embedding."""
    length, stride, windows = 16, 12, 3
    made = model(
        [
            helper.make_node("Gather", ["table", "bytes"], ["embedded"]),
            helper.make_node("ReduceMean", ["embedded"], ["logits"], axes=[1, 2], keepdims=0),
        ],
        {"bytes": (INT, [windows, length])},
        {"logits": (FLOAT, [2])},
        [("table", RANDOM.normal(0, 1, (257, 2)).astype(np.float32))],
    )
    pre = [
        {"op": "present", "input": "text"},
        {"op": "byte_windows", "input": "text", "length": length, "stride": stride, "windows": windows,
         "padding": 0, "offset": 1, "long": "cut"},
        {"op": "feed", "input": "text", "model_input": "bytes"},
    ]
    post = [
        {"op": "take", "model_output": "logits", "output": "scores"},
        {"op": "sigmoid", "output": "scores"},
        {"op": "threshold", "from": "scores", "at": [0.5, 0.45], "output": "flags"},
    ]
    cases = []
    for text in ["a", "grüße aus Köln 🐤", "the quick brown fox jumps over the lazy dog, twice", "x" * 16]:
        given = np.frombuffer(text.encode(), np.uint8).astype(np.int64) + 1
        padded = np.zeros(stride * (windows - 1) + length, np.int64)
        padded[: len(given)] = given[: len(padded)]
        tensor = np.stack([padded[at * stride : at * stride + length] for at in range(windows)])
        logits = run(made, {"bytes": tensor[None]})["logits"][0]
        scores = 1 / (1 + np.exp(-logits))
        flags = (scores >= np.array([0.5, 0.45])).astype(int)
        cases.append(({"text": [text]}, {"bytes": tensor}, {"scores": scores, "flags": flags}))
    outputs = [spec("scores", "FP32", 2), spec("flags", "INT64", 2)]
    write(folder, made, [spec("text", "BYTES")], outputs, pre, post, cases, 1e-6)


def suppressed(boxes, scores, least, overlap, most):
    """Class-aware non-maximum suppression, the slow way."""
    best, point = scores.argmax(1), scores.max(1)
    order = [at for at in np.argsort(-point, kind="stable") if point[at] >= least]
    corners = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)
    kept = []
    for at in order:
        for other in kept:
            low, high = np.maximum(corners[at, :2], corners[other, :2]), np.minimum(corners[at, 2:], corners[other, 2:])
            shared = np.prod(np.maximum(high - low, 0))
            union = boxes[at, 2:].prod() + boxes[other, 2:].prod() - shared
            if best[at] == best[other] and shared / union > overlap:
                break
        else:
            kept.append(at)
    kept = kept[:most]
    pad = most - len(kept)
    return (
        np.concatenate([corners[kept], np.zeros((pad, 4))]).astype(np.float32),
        np.concatenate([best[kept], -np.ones(pad)]).astype(int),
        np.concatenate([point[kept], np.zeros(pad)]).astype(np.float32),
    )


def boxes(folder):
    """A detector's boxes and scores, suppressed."""
    count, classes, most = 120, 3, 20
    made = model(
        [
            helper.make_node("Identity", ["places"], ["boxes"]),
            helper.make_node("Softmax", ["points"], ["scores"], axis=-1),
        ],
        {"places": (FLOAT, [count, 4]), "points": (FLOAT, [count, classes])},
        {"boxes": (FLOAT, [count, 4]), "scores": (FLOAT, [count, classes])},
    )
    inputs = [spec("places", "FP32", count, 4), spec("points", "FP32", count, classes)]
    pre = [{"op": "feed", "input": name, "model_input": name} for name in ["places", "points"]]
    post = [
        {"op": "take", "model_output": "boxes", "output": "all_boxes"},
        {"op": "take", "model_output": "scores", "output": "all_scores"},
        {"op": "nms", "boxes": "all_boxes", "form": "center", "scores": "all_scores", "least": 0.5, "overlap": 0.45,
         "most": most, "kept": "boxes", "classes": "classes", "kept_scores": "scores"},
    ]
    cases = []
    for spread in [20, 100, 400]:
        middles, sides = RANDOM.uniform(0, spread, (count, 2)), RANDOM.uniform(5, 40, (count, 2))
        places = np.concatenate([middles, sides], 1).astype(np.float32)
        points = RANDOM.normal(0, 1.5, (count, classes)).astype(np.float32)
        scores = run(made, {"places": places[None], "points": points[None]})["scores"][0]
        corners, numbers, values = suppressed(places, scores, 0.5, 0.45, most)
        raw = {"places": plain(places), "points": plain(points)}
        cases.append((raw, {"places": places, "points": points}, {"boxes": corners, "classes": numbers, "scores": values}))
    outputs = [spec("boxes", "FP32", most, 4), spec("classes", "INT64", most), spec("scores", "FP32", most)]
    write(folder, made, inputs, outputs, pre, post, cases, 1e-4)


def main():
    folder = Path(sys.argv[1])
    table(folder / "table")
    exported(folder / "exported")
    images(folder / "png", "PNG", 1e-6)
    # Decoders of JPEG differ: here by 2 of 256 levels after resizing.
    images(folder / "jpeg", "JPEG", float(sys.argv[2]) if len(sys.argv) > 2 else 0.04)
    frames(folder / "frames")
    texts(folder / "texts")
    boxes(folder / "boxes")


if __name__ == "__main__":
    main()
