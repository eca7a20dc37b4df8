//! Taking a branch: its values keep apart from all others of the same names, and what nested graphs read moves along.

use super::super::graph::tests::{model, node};
use super::*;
use tract_onnx::pb::{AttributeProto, TensorProto, ValueInfoProto};

fn graph(nodes: Vec<NodeProto>, output: &str) -> GraphProto {
    let output = ValueInfoProto { name: output.into(), ..ValueInfoProto::default() };
    GraphProto { node: nodes, output: vec![output], ..GraphProto::default() }
}

fn conditional(condition: &str, output: &str, then: GraphProto, otherwise: GraphProto) -> NodeProto {
    let mut node = node("If", &[condition], output);
    for (name, graph) in [("then_branch", then), ("else_branch", otherwise)] {
        let name = name.into();
        node.attribute.push(AttributeProto { name, g: Some(graph), ..AttributeProto::default() });
    }
    node
}

fn lines(graph: &GraphProto) -> Vec<String> {
    let line =
        |node: &NodeProto| format!("{} {} {}", node.op_type, node.input.join(","), node.output.join(","));
    graph.node.iter().map(line).collect()
}

#[test]
fn both_branches_use_the_same_names_and_the_one_taken_keeps_apart() {
    let inner = conditional("b", "c", graph(vec![node("Relu", &["b"], "d")], "d"), graph(vec![], "b"));
    let mut then = graph(vec![node("Abs", &["x"], "b"), inner], "c");
    then.initializer.push(TensorProto { name: "k".into(), ..TensorProto::default() });
    let otherwise = graph(vec![node("Neg", &["x"], "b")], "b");
    let first = conditional("p", "y", then.clone(), otherwise.clone());
    let second = conditional("q", "z", then, otherwise);
    let mut proto = model(vec![first, second, node("Add", &["y", "z"], "s")], &["s"]);
    let graph = proto.graph.as_mut().expect("a graph");
    assert_eq!(pending(graph), ["p", "q"]);
    let known = HashMap::from([("p".to_owned(), true), ("q".to_owned(), false)]);
    let mut decided = Vec::new();
    take_branches(graph, &known, &mut decided);
    assert_eq!(decided, ["p", "q"]);
    let expected = [
        "Abs x y/taken/b",
        "If y/taken/b y/taken/c",
        "Identity y/taken/c y",
        "Neg x z/taken/b",
        "Identity z/taken/b z",
        "Add y,z s",
    ];
    assert_eq!(lines(graph), expected);
    assert!(graph.initializer.iter().any(|tensor| tensor.name == "y/taken/k"));
    // The inner one's graphs read what was renamed.
    let nested: Vec<&GraphProto> = super::super::graph::nested(&graph.node[1]).collect();
    assert_eq!(
        (nested[0].node[0].input[0].as_str(), nested[1].output[0].name.as_str()),
        ("y/taken/b", "y/taken/b")
    );
    assert_eq!(pending(graph), ["y/taken/b"]);
}

#[test]
fn a_condition_that_nothing_decides_stays_and_one_behind_it_waits() {
    let branch = || graph(vec![node("Relu", &["x"], "b")], "b");
    let first = conditional("p", "y", branch(), branch());
    let behind = conditional("c", "z", branch(), branch());
    let mut proto = model(vec![first, node("Cast", &["y"], "c"), behind], &["z"]);
    assert_eq!(pending(proto.graph.as_ref().expect("a graph")), ["p"]);
    let decided = decide(&mut proto, &tract_onnx::onnx(), &[], true);
    assert_eq!(decided, Decided::default());
    assert_eq!(proto.graph.expect("a graph").node.len(), 3);
}
