"""Models of one operator with attributes that no exporter of the grid writes, but others may."""

import numpy
from onnx import TensorProto, helper, numpy_helper

from onnx_cases import write

ML = "ai.onnx.ml"
FEATURES = 4
RANDOM = numpy.random.default_rng(11)
NUMBERS = numpy.array([-2, -1, 0, 0.5, 1, 2], dtype=numpy.float32)
ROWS = RANDOM.choice(NUMBERS, size=(24, FEATURES)).astype(numpy.float32)
GAPS = ROWS.copy()
GAPS[RANDOM.random(ROWS.shape) < 0.2] = numpy.nan


def model(operator, outputs, ml=3, inputs=("X",), widths=(FEATURES,), kind=TensorProto.FLOAT, constants=(), **attributes):
    """A model of one node, from rows of `kind` to `outputs`: pairs of name and element type. `constants` are inputs, too."""
    feeds = [helper.make_tensor_value_info(name, kind, [None, width]) for name, width in zip(inputs, widths)]
    made = [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs]
    names = [*inputs, *(constant.name for constant in constants)]
    node = helper.make_node(operator, names, [name for name, _ in outputs], domain=ML, **attributes)
    graph = helper.make_graph([node], "one", feeds, made, initializer=list(constants))
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(ML, ml)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def trees(prefix, count, modes, targets, double=False, positive=False, depth=3):
    """Attributes of random full trees, each leaf with a weight for every one of `targets`."""
    lists = {key: [] for key in ("treeids", "nodeids", "featureids", "modes", "values", "truenodeids",
                                 "falsenodeids", "missing_value_tracks_true")}
    leaves = {key: [] for key in ("treeids", "nodeids", "ids", "weights")}
    inner = 2**depth - 1
    for tree in range(count):
        for node in range(2 * inner + 1):
            is_leaf = node >= inner
            row = {"treeids": tree, "nodeids": node, "featureids": 0 if is_leaf else int(RANDOM.integers(FEATURES)),
                   "modes": "LEAF" if is_leaf else str(RANDOM.choice(modes)), "values": 0.0 if is_leaf else float(RANDOM.choice(NUMBERS)),
                   "truenodeids": 0 if is_leaf else 2 * node + 1, "falsenodeids": 0 if is_leaf else 2 * node + 2,
                   "missing_value_tracks_true": 0 if is_leaf else int(RANDOM.integers(2))}
            for key, value in row.items():
                lists[key].append(value)
            for target in targets if is_leaf else ():
                weight = RANDOM.random() / count if positive else RANDOM.normal()
                for key, value in zip(leaves, (tree, node, target, float(numpy.float32(weight)))):
                    leaves[key].append(value)
    attributes = {f"nodes_{key}": value for key, value in lists.items()} | {f"{prefix}_{key}": value for key, value in leaves.items()}
    if double:
        for key in ("nodes_values", f"{prefix}_weights"):
            values = numpy.array(attributes.pop(key), dtype=numpy.float64)
            attributes[f"{key}_as_tensor"] = numpy_helper.from_array(values, key)
    return attributes


def ensemble(count, modes, targets, kind=numpy.float32, depth=3, positive=False, **attributes):
    """A model of one `TreeEnsemble` (version 5) with random full trees, its rows and scores cast from and to floats."""
    lists = {key: [] for key in ("featureids", "truenodeids", "falsenodeids", "trueleafs", "falseleafs", "missing_value_tracks_true")}
    splits, kinds, members, roots, leaves, weights = [], [], [], [], [], []
    inner = 2**depth - 1
    for tree in range(count):
        first, leaf = len(splits), len(leaves)
        roots.append(first)
        for node in range(inner):
            mode = int(RANDOM.choice(modes))
            kinds.append(mode)
            splits.append(float(RANDOM.choice(NUMBERS)))
            if mode == 6:
                # onnxruntime takes whole members only.
                members += [float(member) for member in RANDOM.choice([-2, -1, 0, 1, 2], size=int(RANDOM.integers(1, 4)), replace=False)] + [float("nan")]
            is_last = 2 * node + 1 >= inner
            follows = [leaf + 2 * node + way - inner if is_last else first + 2 * node + way for way in (1, 2)]
            row = (int(RANDOM.integers(FEATURES)), *follows, int(is_last), int(is_last), int(RANDOM.integers(2)))
            for key, value in zip(lists, row):
                lists[key].append(value)
        for _ in range(inner + 1):
            leaves.append(int(RANDOM.integers(targets)))
            weights.append(RANDOM.random() / count if positive else RANDOM.normal())
    tensor = lambda name, values, kind=kind: numpy_helper.from_array(numpy.array(values, dtype=kind), name)
    attributes |= {f"nodes_{key}": value for key, value in lists.items()}
    attributes |= {"nodes_splits": tensor("splits", splits), "nodes_modes": tensor("modes", kinds, numpy.uint8),
                   "leaf_weights": tensor("weights", weights), "leaf_targetids": leaves, "tree_roots": roots, "n_targets": targets}
    if members:
        attributes["membership_values"] = tensor("members", members)
    element = helper.np_dtype_to_tensor_dtype(numpy.dtype(kind))
    feeds = [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, FEATURES])]
    made = [helper.make_tensor_value_info("variable", TensorProto.FLOAT, None)]
    nodes = [helper.make_node("Cast", ["X"], ["rows"], to=element),
             helper.make_node("TreeEnsemble", ["rows"], ["scores"], domain=ML, **attributes),
             helper.make_node("Cast", ["scores"], ["variable"], to=TensorProto.FLOAT)]
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(ML, 5)]
    return helper.make_model(helper.make_graph(nodes, "one", feeds, made), opset_imports=opsets, ir_version=9)


# onnxruntime (1.32) cuts off fractions where sets are among other comparisons, so that 1.5 is in a set with 1.
WHOLE = numpy.ceil(GAPS)


def write_ensembles(folder):
    for mode, name in enumerate(("leq", "lt", "gte", "gt", "eq", "neq", "member")):
        write(folder, f"op_ensemble_{name}", ensemble(12, [mode], 1), {"X": WHOLE if name == "member" else GAPS})
    for kind in (numpy.float32, numpy.float64):
        for number, aggregate in enumerate(("average", "sum", "min", "max")):
            for targets in (1, 3):
                made = ensemble(11, range(7), targets, kind, aggregate_function=number)
                write(folder, f"op_ensemble_{aggregate}_{targets}_{numpy.dtype(kind).name}", made, {"X": WHOLE})
        for number, transform in enumerate(("none", "softmax", "logistic", "softmax_zero", "probit")):
            made = ensemble(60, range(7), 3, kind, positive=transform == "probit", post_transform=number)
            stand_in = type(made).FromString(made.SerializeToString())
            for attribute in stand_in.graph.node[1].attribute:
                if attribute.name == "post_transform":
                    # onnxruntime (1.32) has SOFTMAX and LOGISTIC in the other order than the specification.
                    attribute.i = {1: 2, 2: 1}.get(number, number)
            write(folder, f"op_ensemble_{transform}_{numpy.dtype(kind).name}", made, {"X": WHOLE}, 1e-4, 1e-5, stand_in=stand_in)
    write(folder, "op_ensemble_deep", ensemble(3, [0, 6], 1, depth=8), {"X": WHOLE})


def just_beside(numbers):
    """Doubles, and ones beside each that single precision cannot tell from it. Nearer ones JSON may not keep apart."""
    return numpy.array([[number, number - 1e-12, number + 1e-12, number] for number in numbers.tolist()], dtype=numpy.float64)


def write_precisions(folder):
    """Rows of doubles, with trees of both precisions, and of whole numbers."""
    regressor, classifier = [("variable", TensorProto.FLOAT)], [("label", TensorProto.INT64), ("scores", TensorProto.FLOAT)]
    beside = just_beside(NUMBERS)
    doubles = numpy.vstack([numpy.roll(beside, turn, axis=1) for turn in range(FEATURES)] + [GAPS[:4]])
    modes = [f"BRANCH_{mode}" for mode in ("LEQ", "LT", "GTE", "GT", "EQ", "NEQ")]
    for double in (False, True):
        precision = "double" if double else "single"
        for mode in modes:
            made = model("TreeEnsembleRegressor", regressor, kind=TensorProto.DOUBLE, n_targets=1, **trees("target", 12, [mode], [0], double))
            write(folder, f"op_double_rows_{precision}_{mode.lower()}", made, {"X": doubles})
        made = model("TreeEnsembleRegressor", regressor, kind=TensorProto.DOUBLE, n_targets=3, aggregate_function="MAX",
                     **trees("target", 11, modes, range(3), double))
        write(folder, f"op_double_rows_{precision}_3", made, {"X": doubles})
        made = model("TreeEnsembleClassifier", classifier, kind=TensorProto.DOUBLE, classlabels_int64s=[4, 7, 9], post_transform="SOFTMAX",
                     **trees("class", 9, modes, range(3), double))
        write(folder, f"op_double_rows_{precision}_classes", made, {"X": doubles})
        made = model("TreeEnsembleClassifier", classifier, kind=TensorProto.DOUBLE, classlabels_int64s=[0, 1], post_transform="LOGISTIC",
                     **trees("class", 9, modes, [0], double))
        write(folder, f"op_double_rows_{precision}_two", made, {"X": doubles})
    # Thresholds that single precision rounds away from where the rows are.
    tenths = trees("target", 12, ["BRANCH_LEQ", "BRANCH_LT"], [0])
    tenths["nodes_values"] = [value / 10 for value in tenths["nodes_values"]]
    made = model("TreeEnsembleRegressor", regressor, kind=TensorProto.DOUBLE, n_targets=1, **tenths)
    write(folder, "op_double_rows_tenths", made, {"X": ROWS.astype(numpy.float64) / 10})
    for kind in (numpy.int64, numpy.int32):
        element, rows = helper.np_dtype_to_tensor_dtype(numpy.dtype(kind)), numpy.round(ROWS).astype(kind)
        name = numpy.dtype(kind).name
        made = model("TreeEnsembleClassifier", classifier, kind=element, classlabels_int64s=[4, 7, 9], **trees("class", 9, modes, range(3)))
        write(folder, f"op_classes_{name}", made, {"X": rows})
    times = numpy.array([[1_700_000_001.25, 1.5, -3, 0], [1_700_000_123.5, 16_777_217, 4, 0]])
    for kind in (numpy.float64, numpy.int64, numpy.int32):
        element, rows = helper.np_dtype_to_tensor_dtype(numpy.dtype(kind)), times.astype(kind)
        name = numpy.dtype(kind).name
        made = model("Scaler", regressor, kind=element, offset=[1.7e9, 1.0, 0.5, 0.0], scale=[0.5, 2.0, 1.0, 1.0])
        write(folder, f"op_scaler_{name}", made, {"X": rows})
        for norm in ("MAX", "L1"):
            write(folder, f"op_normalizer_{norm.lower()}_{name}", model("Normalizer", regressor, kind=element, norm=norm), {"X": rows})
        made = model("LinearClassifier", classifier, kind=element, classlabels_ints=[3, 5, 8], coefficients=[0.5, -0.25, 2.0, 1.0] * 3, intercepts=[0.25, -0.5, 0.0])
        write(folder, f"op_linear_{name}", made, {"X": ROWS.astype(kind)})
        made = model("FeatureVectorizer", regressor, 1, ("A", "B"), (2, 2), element, inputdimensions=[3, 1])
        write(folder, f"op_vectorizer_{name}", made, {"A": rows[:, :2].copy(), "B": rows[:, 2:].copy()})
    made = model("Imputer", [("numbers", TensorProto.INT64)], kind=TensorProto.INT64, imputed_value_int64s=[9, 8, 7, 6], replaced_value_int64=0)
    write(folder, "op_imputer_int64", made, {"X": numpy.round(ROWS).astype(numpy.int64)})
    made = model("Imputer", regressor, imputed_value_floats=[9.0, 8.0, 7.0, 6.0], replaced_value_float=float("nan"))
    write(folder, "op_imputer_gaps", made, {"X": GAPS})
    write(folder, "op_binarizer", model("Binarizer", regressor, threshold=0.5), {"X": ROWS})


def write_categories(folder):
    """Texts, whole numbers and floats as categories."""
    texts, numbers, floats = [("texts", TensorProto.STRING)], [("numbers", TensorProto.INT64)], [("variable", TensorProto.FLOAT)]
    words = RANDOM.choice(["low", "high", "", "Köln", "unknown"], size=(24, FEATURES)).astype(object)
    wholes = RANDOM.integers(-2, 5, size=(24, FEATURES))
    # Neither what is missing nor what is beyond all integers is a category, nor is it category 0. onnxruntime makes of
    # them whatever the processor does; on x86 the smallest integer, which is no category here.
    odd = numpy.array([[numpy.nan, numpy.inf, -numpy.inf, 1e20], [0.75, -0.75, 1.5, -1.5], [0, 1, -1, 2]])
    for kind in (numpy.float32, numpy.float64):
        element, name = helper.np_dtype_to_tensor_dtype(numpy.dtype(kind)), numpy.dtype(kind).name
        write(folder, f"op_one_hot_{name}", model("OneHotEncoder", floats, kind=element, cats_int64s=[-1, 0, 1, 2**63 - 1]), {"X": odd.astype(kind)})
    write(folder, "op_one_hot_int64", model("OneHotEncoder", floats, kind=TensorProto.INT64, cats_int64s=[3, 0, -1, 3]), {"X": wholes})
    write(folder, "op_one_hot_texts", model("OneHotEncoder", floats, kind=TensorProto.STRING, cats_strings=["Köln", "", "low"]), {"X": words})
    keys, codes = ["low", "Köln", "", "low"], [7, 8, 9, 10]
    for ml in (2, 4):
        # Of keys that are equal the first one counts.
        cases = {"texts_int64": (TensorProto.STRING, words, numbers, {"keys_strings": keys, "values_int64s": codes}),
                 "texts_floats": (TensorProto.STRING, words, floats, {"keys_strings": keys, "values_floats": [0.5, 1.5, 2.5, 3.5]}),
                 "texts_texts": (TensorProto.STRING, words, texts, {"keys_strings": keys, "values_strings": ["a", "b", "", "d"]}),
                 "int64_texts": (TensorProto.INT64, wholes, texts, {"keys_int64s": [0, 1, 1, 4], "values_strings": ["a", "b", "c", "d"]}),
                 "int64_floats": (TensorProto.INT64, wholes, floats, {"keys_int64s": [0, 1, 1, 4], "values_floats": [1.5, 2.5, 3.5, 4.5]}),
                 "int64_int64": (TensorProto.INT64, wholes, numbers, {"keys_int64s": [0, 1, 1, 4], "values_int64s": codes, "default_int64": 5}),
                 "floats_int64": (TensorProto.FLOAT, GAPS, numbers, {"keys_floats": [-0.0, 0.5, 0.5, float("nan")], "values_int64s": codes})}
        for name, (element, rows, outputs, attributes) in cases.items():
            write(folder, f"op_labels_{ml}_{name}", model("LabelEncoder", outputs, ml, kind=element, **attributes), {"X": rows})
    # Of version 1 the last of equal classes counts.
    classes = {"classes_strings": ["low", "", "Köln", "low"]}
    write(folder, "op_labels_1_texts", model("LabelEncoder", numbers, 1, kind=TensorProto.STRING, **classes), {"X": words})
    write(folder, "op_labels_1_int64", model("LabelEncoder", texts, 1, kind=TensorProto.INT64, **classes), {"X": wholes})
    pairs = {"cats_strings": ["low", "Köln", "", "low"], "cats_int64s": [1, 2, 3, 3]}
    for name, defaults in {"": {}, "_defaults": {"default_int64": 9, "default_string": "other"}}.items():
        write(folder, f"op_mapper_texts{name}", model("CategoryMapper", numbers, 1, kind=TensorProto.STRING, **pairs, **defaults), {"X": words})
        write(folder, f"op_mapper_int64{name}", model("CategoryMapper", texts, 1, kind=TensorProto.INT64, **pairs, **defaults), {"X": wholes})
    tensor = lambda name, values: numpy_helper.from_array(numpy.array(values), name)
    doubles = {"keys_tensor": tensor("k", [0.1, 0.2, numpy.nan]), "values_tensor": tensor("v", [1.1, 2.2, 3.3]), "default_tensor": tensor("d", [-1.5])}
    rows = numpy.array([[0.1, 0.2, numpy.nan, numpy.float32(0.1)]])
    write(folder, "op_labels_doubles", model("LabelEncoder", [("doubles", TensorProto.DOUBLE)], 4, kind=TensorProto.DOUBLE, **doubles), {"X": rows})
    encoded = lambda name, values: helper.make_tensor(name, TensorProto.STRING, [len(values)], [value.encode() for value in values])
    made = {"keys_tensor": encoded("k", keys), "values_tensor": encoded("v", ["a", "b", "c", "d"]), "default_tensor": encoded("d", ["none"])}
    write(folder, "op_labels_text_tensors", model("LabelEncoder", texts, 4, kind=TensorProto.STRING, **made), {"X": words})
    places = tensor("places", [3, 0])
    for name, (element, rows) in {"texts": (TensorProto.STRING, words), "int64": (TensorProto.INT64, wholes), "int32": (TensorProto.INT32, wholes.astype(numpy.int32)),
                                  "float64": (TensorProto.DOUBLE, ROWS.astype(numpy.float64))}.items():
        write(folder, f"op_extractor_{name}", model("ArrayFeatureExtractor", [("picked", element)], kind=element, constants=[places]), {"X": rows})


def write_all(folder):
    regressor = [("variable", TensorProto.FLOAT)]
    classifier = [("label", TensorProto.INT64), ("scores", TensorProto.FLOAT)]
    names = [("label", TensorProto.STRING), ("scores", TensorProto.FLOAT)]

    for mode in ("LEQ", "LT", "GTE", "GT", "EQ", "NEQ"):
        attributes = trees("target", 12, [f"BRANCH_{mode}"], [0])
        write(folder, f"op_trees_{mode.lower()}", model("TreeEnsembleRegressor", regressor, n_targets=1, **attributes), {"X": GAPS})
    mixed = [f"BRANCH_{mode}" for mode in ("LEQ", "LT", "GTE", "GT", "EQ", "NEQ")]
    for aggregate in ("SUM", "AVERAGE", "MIN", "MAX"):
        for targets in (1, 3):
            attributes = trees("target", 11, mixed, range(targets))
            made = model("TreeEnsembleRegressor", regressor, n_targets=targets, aggregate_function=aggregate,
                         base_values=[0.5, -0.25, 2.0][:targets], **attributes)
            write(folder, f"op_trees_{aggregate.lower()}_{targets}", made, {"X": GAPS})
    for transform in ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT"):
        share = transform == "PROBIT"
        for base in ([], [0.125, 0.25, 0.0]):
            attributes = trees("class", 9, ["BRANCH_LEQ"], range(3), positive=share) | ({"base_values": base} if base else {})
            made = model("TreeEnsembleClassifier", classifier, classlabels_int64s=[4, 7, 9], post_transform=transform, **attributes)
            write(folder, f"op_classes_{transform.lower()}_{len(base)}", made, {"X": ROWS}, 1e-4, 1e-5)
    for transform in ("NONE", "SOFTMAX", "LOGISTIC"):
        for base in (0, 1):
            for positive in (False, True):
                attributes = trees("class", 9, ["BRANCH_LEQ"], [0], positive=positive)
                if base:
                    attributes["base_values"] = [0.1]
                made = model("TreeEnsembleClassifier", names, classlabels_strings=["no", "yes"], post_transform=transform, **attributes)
                kind = "shares" if positive else "margins"
                write(folder, f"op_two_{kind}_{transform.lower()}_{base}", made, {"X": ROWS})
    attributes = trees("class", 9, ["BRANCH_LEQ"], range(2), positive=True)
    made = model("TreeEnsembleClassifier", classifier, classlabels_int64s=[0, 1], **attributes)
    # Only the scores: onnxruntime answers the second label whenever its score is above 0.
    write(folder, "op_two_columns", made, {"X": ROWS}, outputs=["scores"])

    for norm in ("MAX", "L1", "L2"):
        write(folder, f"op_normalizer_{norm.lower()}", model("Normalizer", regressor, norm=norm), {"X": ROWS})
    write(folder, "op_scaler", model("Scaler", regressor, offset=[1.0], scale=[0.5]), {"X": ROWS})
    write(folder, "op_imputer", model("Imputer", regressor, imputed_value_floats=[9.0], replaced_value_float=0.5), {"X": ROWS})
    for transform in ("NONE", "LOGISTIC", "SOFTMAX"):
        coefficients = [float(number) for number in RANDOM.normal(size=12).astype(numpy.float32)]
        made = model("LinearClassifier", classifier, classlabels_ints=[3, 5], coefficients=coefficients[:4], intercepts=[0.25], post_transform=transform)
        write(folder, f"op_linear_two_{transform.lower()}", made, {"X": ROWS})
        made = model("LinearClassifier", names, classlabels_strings=["a", "b", "c"], coefficients=coefficients,
                     intercepts=[0.25, -0.5, 0.0], post_transform=transform)
        write(folder, f"op_linear_three_{transform.lower()}", made, {"X": ROWS})
        made = model("LinearRegressor", regressor, targets=3, coefficients=coefficients, intercepts=[0.25, -0.5, 0.0], post_transform=transform)
        write(folder, f"op_linear_regressor_{transform.lower()}", made, {"X": ROWS})
    made = model("SVMClassifier", classifier, classlabels_ints=[3, 5, 8], coefficients=coefficients, rho=[0.25],
                 kernel_type="LINEAR", kernel_params=[0.0, 0.0, 0.0])
    write(folder, "op_svm_planes", made, {"X": ROWS})
    made = model("SVMRegressor", regressor, coefficients=coefficients[:4], rho=[0.25], n_supports=0, one_class=1,
                 kernel_type="LINEAR", kernel_params=[0.0, 0.0, 0.0])
    write(folder, "op_svm_one_class", made, {"X": ROWS})
    keys = [-2.0, 0.0, 0.5, 2.0]
    encoder = {"keys_floats": keys, "values_strings": ["low", "none", "some", "high"], "default_string": "?"}
    write(folder, "op_labels_texts", model("LabelEncoder", [("texts", TensorProto.STRING)], 2, **encoder), {"X": ROWS})
    encoder = {"keys_floats": keys + [float("nan")], "values_floats": [1.0, 2.0, 3.0, 4.0, 5.0], "default_float": -1.0}
    write(folder, "op_labels_floats", model("LabelEncoder", regressor, 2, **encoder), {"X": GAPS})
    tensors = {"keys_tensor": numpy.array(keys + [float("nan")], dtype=numpy.float32),
               "values_tensor": numpy.array([1, 2, 3, 4, 5], dtype=numpy.int64), "default_tensor": numpy.array([-7], dtype=numpy.int64)}
    tensors = {name: numpy_helper.from_array(value, name) for name, value in tensors.items()}
    write(folder, "op_labels_tensors", model("LabelEncoder", [("numbers", TensorProto.INT64)], 4, **tensors), {"X": GAPS})
    made = model("OneHotEncoder", regressor, cats_int64s=[-2, 0, 1, 2])
    write(folder, "op_one_hot", made, {"X": ROWS})
    made = model("FeatureVectorizer", regressor, 1, ("A", "B"), (2, 2), inputdimensions=[2, 2])
    write(folder, "op_vectorizer", made, {"A": ROWS[:, :2].copy(), "B": ROWS[:, 2:].copy()})
    write_ensembles(folder)
    write_precisions(folder)
    write_categories(folder)
