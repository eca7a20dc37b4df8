"""Models that the device rewrites when it loads them."""

import numpy
from onnx import TensorProto, helper, numpy_helper

from onnx_cases import write

RANDOM = numpy.random.default_rng(5)


def constant(name, value):
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(numpy.array(value, dtype=numpy.int64)))


def branch(nodes, output):
    return helper.make_graph(nodes, output, [], [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)])


def made(nodes, row, opset=18):
    """A model from X to y."""
    inputs = [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["N", *row])]
    graph = helper.make_graph(nodes, "rewritten", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def width_is(number, condition):
    return [
        helper.make_node("Shape", ["X"], [f"{condition}_shape"]),
        constant(f"{condition}_axis", 1),
        helper.make_node("Gather", [f"{condition}_shape", f"{condition}_axis"], [f"{condition}_width"], axis=0),
        constant(f"{condition}_number", number),
        helper.make_node("Equal", [f"{condition}_width", f"{condition}_number"], [condition]),
    ]


def squeezing(value):
    return [constant("axes", [1]), helper.make_node("ReduceMean", [value, "axes"], ["b"], keepdims=0)]


def write_all(folder):
    rows = RANDOM.normal(size=(24, 4)).astype(numpy.float32)
    for number in (4, 5):
        # Branches of different rank, and of the same names inside.
        then = branch(squeezing("X"), "b")
        otherwise = branch([helper.make_node("Neg", ["X"], ["b"])], "b")
        nodes = [*width_is(number, "c"), helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=otherwise)]
        write(folder, f"rewrite_if_{number}", made(nodes, [4]), {"X": rows})
    # One decided inside of one decided, and a condition behind what another decides.
    inner = helper.make_node("If", ["d"], ["c_out"], then_branch=branch([helper.make_node("Abs", ["a"], ["b"])], "b"),
                             else_branch=branch(squeezing("a"), "b"))
    then = branch([helper.make_node("Exp", ["X"], ["a"]), inner], "c_out")
    outer = helper.make_node("If", ["c"], ["z"], then_branch=then, else_branch=branch(squeezing("X"), "b"))
    behind = [
        helper.make_node("Shape", ["z"], ["rank_shape"]),
        helper.make_node("Size", ["rank_shape"], ["rank"]),
        constant("two", 2),
        helper.make_node("Equal", ["rank", "two"], ["e"]),
        helper.make_node("If", ["e"], ["y"], then_branch=branch([helper.make_node("Sqrt", ["z"], ["b"])], "b"),
                         else_branch=branch([helper.make_node("Neg", ["z"], ["b"])], "b")),
    ]
    nodes = [*width_is(4, "c"), *width_is(4, "d"), outer, *behind]
    write(folder, "rewrite_if_nested", made(nodes, [4]), {"X": rows})
    # A condition that only the values decide stays as it is.
    total = [constant("all", [0, 1]), helper.make_node("ReduceSum", ["X", "all"], ["sum"], keepdims=0),
             helper.make_node("Sub", ["sum", "sum"], ["zero"]), helper.make_node("Cast", ["zero"], ["c"], to=TensorProto.BOOL)]
    same = helper.make_node("If", ["c"], ["y"], then_branch=branch([helper.make_node("Abs", ["X"], ["b"])], "b"),
                            else_branch=branch([helper.make_node("Neg", ["X"], ["b"])], "b"))
    write(folder, "rewrite_if_by_value", made([*total, same], [4]), {"X": rows})

    cubes = (RANDOM.normal(size=(24, 5, 3, 2)) * 20).astype(numpy.float32)
    for axis in (1, 2, 3):
        node = helper.make_node("Softmax", ["X"], ["y"], axis=axis)
        write(folder, f"rewrite_softmax_{axis}", made([node], [5, 3, 2]), {"X": cubes})
    # Before version 13 it is over everything from the axis on.
    node = helper.make_node("Softmax", ["X"], ["y"], axis=1)
    write(folder, "rewrite_softmax_flat", made([node], [5, 3, 2], 11), {"X": cubes})

    # What one row is answered depends on those beside it: one case alone cannot show it.
    most = [constant("rows", [0]), helper.make_node("ReduceMax", ["X", "rows"], ["most"], keepdims=1)]
    write(folder, "rows_mixed", made([*most, helper.make_node("Div", ["X", "most"], ["y"])], [4]), {"X": abs(rows[:1])})
    # tract's answer to a value that is missing looks like any other.
    missing = rows.copy()
    missing[3, 2] = numpy.nan
    write(folder, "missing_in_a_network", made([helper.make_node("Sigmoid", ["X"], ["y"])], [4]), {"X": missing})
    nothing = numpy_helper.from_array(numpy.float32(0))
    told = [helper.make_node("IsNaN", ["X"], ["gone"]), helper.make_node("Constant", [], ["zero"], value=nothing),
            helper.make_node("Where", ["gone", "zero", "X"], ["there"]), helper.make_node("Sigmoid", ["there"], ["y"])]
    write(folder, "missing_and_told", made(told, [4]), {"X": missing})
