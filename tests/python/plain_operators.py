"""Operators of ONNX itself that the device's runtime makes of others, on the numbers that show why."""

import numpy
from onnx import TensorProto, helper, numpy_helper

from onnx_cases import write

RANDOM = numpy.random.default_rng(11)
# Their exponentials are no floats.
WIDE = numpy.array([[1, 2, 3], [0, 0, 150], [-200, -201, -202], [-1e4, 1e4, 0], [numpy.inf, 0, 1], [-numpy.inf, 0, 1]])
HUGE = numpy.array([[1, 2, 3], [2**40 + 5, -(2**33), 7], [2**52, -1, -(2**51)], [-5, -7, -9]])


def made(nodes, rows, constants=None, opset=18, output=None):
    """A model from X to y."""
    element = helper.np_dtype_to_tensor_dtype(rows.dtype)
    inputs = [helper.make_tensor_value_info("X", element, ["N", *rows.shape[1:]])]
    outputs = [helper.make_tensor_value_info("y", output or element, None)]
    stored = [numpy_helper.from_array(numpy.array(value), name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(nodes, "plain", inputs, outputs, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def single(operator, rows, output=None, opset=18, constants=None, **attributes):
    node = helper.make_node(operator, ["X", *(constants or {})], ["y"], **attributes)
    return made([node], rows, constants, opset, output)


def write_functions(folder):
    for kind in (numpy.float32, numpy.float64):
        rows, name = WIDE.astype(kind), numpy.dtype(kind).name
        write(folder, f"plain_log_sum_exp_{name}", single("ReduceLogSumExp", rows, constants={"axes": [1]}), {"X": rows})
        write(folder, f"plain_log_sum_exp_13_{name}", single("ReduceLogSumExp", rows, opset=13, axes=[-1], keepdims=0), {"X": rows})
        cubes = (RANDOM.normal(size=(6, 3, 4)) * 100).astype(kind)
        write(folder, f"plain_log_sum_exp_2_{name}", single("ReduceLogSumExp", cubes, constants={"axes": [1, 2]}, keepdims=0), {"X": cubes})
        finite = rows[:4]
        write(folder, f"plain_log_softmax_{name}", single("LogSoftmax", finite), {"X": finite})
        # Of large doubles onnxruntime (1.32) makes infinity.
        soft = finite if kind == numpy.float32 else finite[:3]
        write(folder, f"plain_softplus_{name}", single("Softplus", soft), {"X": soft})
        for axis in (1, 2):
            write(folder, f"plain_log_softmax_{axis}_{name}", single("LogSoftmax", cubes, axis=axis), {"X": cubes})
        write(folder, f"plain_log_softmax_flat_{name}", single("LogSoftmax", cubes, opset=11, axis=1), {"X": cubes})
    doubles = numpy.array([[0.5, 1.5, -2.5], [-0.3, 1e15 + 0.5, 1e16], [-800, 800, 3]])
    for operator in ("Sigmoid", "Round", "LeakyRelu"):
        attributes = {"alpha": 0.25} if operator == "LeakyRelu" else {}
        write(folder, f"plain_{operator.lower()}", single(operator, doubles, **attributes), {"X": doubles})
    odd = numpy.array([[numpy.nan, numpy.inf], [-numpy.inf, 0.5]])
    write(folder, "plain_is_nan", single("IsNaN", odd, TensorProto.BOOL), {"X": odd})
    for positive, negative in ((1, 1), (0, 1), (1, 0)):
        rows = odd[:, 1:].repeat(2, axis=1) * [[1, -1]]
        model = single("IsInf", rows, TensorProto.BOOL, detect_positive=positive, detect_negative=negative)
        write(folder, f"plain_is_inf_{positive}{negative}", model, {"X": rows})
    rows = WIDE[:4].astype(numpy.float32)
    write(folder, "plain_celu", single("Celu", rows, alpha=2.0), {"X": rows})


def write_whole_numbers(folder):
    for operator in ("ReduceSum", "ReduceMean", "ReduceL1"):
        for keeps in (0, 1):
            model = single(operator, HUGE, constants={"axes": [1]}, keepdims=keeps)
            write(folder, f"plain_{operator.lower()}_{keeps}", model, {"X": HUGE}, 0, 0)
    small = HUGE[[0, 3]] * 2**20
    write(folder, "plain_square", made([helper.make_node("Mul", ["X", "X"], ["y"])], small), {"X": small}, 0, 0)
    write(folder, "plain_cast_int64", single("Cast", HUGE, to=TensorProto.INT64), {"X": HUGE}, 0, 0)
    times = numpy.array([[1.7e9], [1.7e12], [-1.5]])
    nodes = [helper.make_node("Cast", ["X"], ["whole"], to=TensorProto.INT64), helper.make_node("Div", ["whole", "day"], ["y"])]
    write(folder, "plain_cast_milliseconds", made(nodes, times, {"day": numpy.int64(86_400_000)}, output=TensorProto.INT64), {"X": times})
    # A shape on its way through a cast.
    nodes = [helper.make_node("Shape", ["X"], ["shape"]), helper.make_node("Cast", ["shape"], ["cast"], to=TensorProto.INT64),
             helper.make_node("ConstantOfShape", ["cast"], ["zeros"]), helper.make_node("Add", ["X", "zeros"], ["y"])]
    rows = WIDE[:4].astype(numpy.float32)
    write(folder, "plain_shape", made(nodes, rows), {"X": rows})


def write_recurrent(folder):
    small = lambda *shape: (RANDOM.normal(size=shape) * 0.5).astype(numpy.float32)
    rows = small(24, 6, 3)
    for operator, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1)):
        for direction in ("forward", "reverse", "bidirectional"):
            directions = 2 if direction == "bidirectional" else 1
            weights = {"W": small(directions, gates * 5, 3), "R": small(directions, gates * 5, 5),
                       "B": small(directions, gates * 10), "one": [1]}
            nodes = [helper.make_node("Transpose", ["X"], ["steps"], perm=[1, 0, 2]),
                     helper.make_node(operator, ["steps", "W", "R", "B"], ["all", "last"], hidden_size=5, direction=direction),
                     helper.make_node("Transpose", ["all"], ["by_row"], perm=[2, 0, 1, 3]),
                     helper.make_node("Transpose", ["last"], ["last_by_row"], perm=[1, 0, 2]),
                     helper.make_node("Unsqueeze", ["last_by_row", "one"], ["last_step"]),
                     helper.make_node("Concat", ["by_row", "last_step"], ["y"], axis=1)]
            write(folder, f"plain_{operator.lower()}_{direction}", made(nodes, rows, weights), {"X": rows}, 1e-4, 1e-5)


def write_all(folder):
    write_functions(folder)
    write_whole_numbers(folder)
    write_recurrent(folder)
