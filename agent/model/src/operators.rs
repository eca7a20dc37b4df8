//! Operators that the runtime lacks, computes wrongly or computes slowly, found in the ONNX file before tract
//! builds anything of it, so that they are named all at once instead of failing somewhere deep.

use serin_protocol::frame::{LoadFault, MAX_NAME_CHARS, MAX_UNSUPPORTED, UnsupportedOperator};
use tract_onnx::Onnx;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto};

use super::graph::nested;

/// Operator sets whose operators tract knows; it looks at names only, so an operator of another set
/// that happens to share a name would silently compute something else.
const KNOWN_DOMAINS: [&str; 4] = ["", "ai.onnx", "ai.onnx.ml", "com.microsoft"];

/// Operators that work and cost time, and in what way.
const SLOW: [(&str, &[&str]); 3] = [
    (
        "is quantised as single operators (QOperator form)",
        &["QLinearConv", "QLinearMatMul", "QLinearAdd", "QLinearMul", "QGemm"],
    ),
    ("quantises at run time", &["DynamicQuantizeLinear", "MatMulInteger", "ConvInteger"]),
    ("is quantised (QDQ form)", &["QuantizeLinear", "DequantizeLinear"]),
];

/// The operators of `proto`, nested graphs included, that `framework` cannot build or computes wrongly.
pub(crate) fn unsupported(proto: &ModelProto, framework: &Onnx) -> Option<LoadFault> {
    let graph = proto.graph.as_ref()?;
    let mut found = Found::default();
    walk(graph, &mut |graph, node| {
        if !is_known(node, framework) {
            found.add(full_name(node), node);
        } else if is_quantised_softmax(graph, node) {
            found.add("Softmax between DequantizeLinear and QuantizeLinear".into(), node);
        }
    });
    (!found.0.is_empty()).then_some(LoadFault::UnsupportedOperators(found.0))
}

/// What of `proto` works and is slow, each in a sentence with what to do about it.
pub(crate) fn slow(proto: &ModelProto) -> Vec<String> {
    let Some(graph) = proto.graph.as_ref() else {
        return Vec::new();
    };
    let mut sentences = Vec::new();
    for (what, operators) in SLOW {
        let mut found = Found::default();
        walk(graph, &mut |_, node| {
            if operators.contains(&node.op_type.as_str()) {
                found.add(node.op_type.clone(), node);
            }
        });
        let count: u32 = found.0.iter().map(|operator| operator.count).sum();
        if let Some(first) = found.0.first() {
            let names: Vec<&str> = found.0.iter().map(|operator| operator.operator.as_str()).collect();
            sentences.push(format!(
                "the model {what}: {} ({count} nodes, the first {:?}). Float is faster in this runtime: pack the \
                 model as it was before quantisation",
                names.join(", "),
                first.node
            ));
        }
    }
    sentences
}

/// Operators in the order in which they first appear.
#[derive(Default)]
struct Found(Vec<UnsupportedOperator>);

impl Found {
    fn add(&mut self, operator: String, node: &NodeProto) {
        if let Some(known) = self.0.iter_mut().find(|known| known.operator == operator) {
            known.count = known.count.saturating_add(1);
        } else if self.0.len() < MAX_UNSUPPORTED {
            self.0.push(UnsupportedOperator { operator, node: name_of(node), count: 1 });
        }
    }
}

fn walk<'a>(graph: &'a GraphProto, see: &mut impl FnMut(&'a GraphProto, &'a NodeProto)) {
    for node in &graph.node {
        see(graph, node);
        nested(node).for_each(|inner| walk(inner, see));
    }
}

fn is_known(node: &NodeProto, framework: &Onnx) -> bool {
    KNOWN_DOMAINS.contains(&node.domain.as_str()) && framework.op_register.0.contains_key(&node.op_type)
}

/// A Softmax that was quantised: tract takes the three operators for one of its own, which answers nothing but ones,
/// without an error. Golden vectors would show it only where they happen to look.
fn is_quantised_softmax(graph: &GraphProto, node: &NodeProto) -> bool {
    let made_by = |name: &String, op: &str| {
        graph.node.iter().any(|node| node.op_type == op && node.output.contains(name))
    };
    let read_by = |name: &String, op: &str| {
        graph.node.iter().any(|node| node.op_type == op && node.input.first() == Some(name))
    };
    node.op_type == "Softmax"
        && node.input.iter().any(|input| made_by(input, "DequantizeLinear"))
        && node.output.iter().any(|output| read_by(output, "QuantizeLinear"))
}

fn full_name(node: &NodeProto) -> String {
    let name = if KNOWN_DOMAINS.contains(&node.domain.as_str()) {
        node.op_type.clone()
    } else {
        format!("{}::{}", node.domain, node.op_type)
    };
    cut(&name)
}

fn name_of(node: &NodeProto) -> String {
    match (node.name.is_empty(), node.output.first()) {
        (true, Some(output)) => cut(output),
        (true, None) | (false, _) => cut(&node.name),
    }
}

fn cut(name: &str) -> String {
    name.chars().take(MAX_NAME_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::super::graph::tests::{model, node};
    use super::*;
    use tract_onnx::pb::AttributeProto;

    fn named(proto: &ModelProto) -> Vec<(String, String, u32)> {
        match unsupported(proto, &tract_onnx::onnx()) {
            Some(LoadFault::UnsupportedOperators(found)) => {
                found.into_iter().map(|found| (found.operator, found.node, found.count)).collect()
            }
            None => Vec::new(),
            Some(other) => panic!("{other}"),
        }
    }

    #[test]
    fn all_unsupported_operators_are_named_at_once_nested_and_foreign_ones_too() {
        let branch = GraphProto { node: vec![node("Wavelet", &["x"], "b")], ..GraphProto::default() };
        let mut outer = node("If", &["x"], "y");
        outer.attribute.push(AttributeProto { g: Some(branch), ..AttributeProto::default() });
        let mut relu = node("Relu", &["x"], "z");
        relu.domain = "com.acme".into();
        relu.name = "act".into();
        let nodes = vec![outer, relu, node("Wavelet", &["x"], "w2"), node("Relu", &["x"], "fine")];
        let found = named(&model(nodes, &["y"]));
        let line = |operator: &str, node: &str, count| (operator.to_owned(), node.to_owned(), count);
        assert_eq!(found, [line("Wavelet", "b", 2), line("com.acme::Relu", "act", 1)]);
    }

    #[test]
    fn a_softmax_that_was_quantised_is_named_and_a_plain_one_is_not() {
        let chain = |middle: &str| {
            let nodes = vec![
                node("DequantizeLinear", &["x", "w"], "a"),
                node(middle, &["a"], "b"),
                node("QuantizeLinear", &["b", "w"], "c"),
                node("DequantizeLinear", &["c", "w"], "y"),
            ];
            model(nodes, &["y"])
        };
        let found = named(&chain("Softmax"));
        assert_eq!(found.len(), 1);
        assert!(found[0].0.contains("Softmax") && found[0].1 == "b", "{found:?}");
        assert!(named(&chain("Relu")).is_empty());
        assert!(named(&model(vec![node("Softmax", &["x"], "y")], &["y"])).is_empty());
        // It works, and is slow.
        let slow = slow(&chain("Relu"));
        assert_eq!(slow.len(), 1);
        assert!(slow[0].contains("3 nodes") && slow[0].contains("QDQ"), "{slow:?}");
    }

    #[test]
    fn names_without_end_are_cut_and_so_is_their_number() {
        let long = "x".repeat(5000);
        let nodes = (0..40).map(|at| node(&format!("{at}{long}"), &["x"], &long)).collect();
        let found = named(&model(nodes, &["y"]));
        assert_eq!(found.len(), MAX_UNSUPPORTED);
        assert!(
            found.iter().all(|(operator, node, _)| operator.len() == MAX_NAME_CHARS && node.len() == 200)
        );
    }
}
