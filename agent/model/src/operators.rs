//! Operators that the runtime lacks, computes wrongly or computes slowly, found in the ONNX file before tract
//! builds anything of it, so that they are named all at once instead of failing somewhere deep.

use serin_protocol::frame::{LoadFault, MAX_NAME_CHARS, MAX_UNSUPPORTED, UnsupportedOperator};
use tract_onnx::Onnx;
use tract_onnx::pb::tensor_proto::DataLocation;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, TensorProto};

use super::graph::nested;
use super::misread;

/// ONNX's own operator sets. tract looks at names only, so an operator of another set that happens to share a name would
/// silently compute something else.
const OWN_DOMAINS: [&str; 3] = ["", "ai.onnx", "ai.onnx.ml"];
/// Another set, of which tract knows some.
const MICROSOFT: &str = "com.microsoft";
/// Those.
const OF_MICROSOFT: [&str; 11] = [
    "BiasGelu",
    "FastGelu",
    "GatherBlockQuantized",
    "Gelu",
    "GroupQueryAttention",
    "MatMulNBits",
    "MultiHeadAttention",
    "QuickGelu",
    "RotaryEmbedding",
    "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization",
];

/// Operators that make numbers of texts. None of them is here, and no other export does without them.
const OF_TEXTS: [&str; 3] = ["StringNormalizer", "Tokenizer", "TfIdfVectorizer"];

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
    if let Some(elsewhere) = graph.initializer.iter().find(|tensor| is_elsewhere(tensor)) {
        return Some(LoadFault::Invalid(format!(
            "its weights are in a file of their own ({:?} among them), which is no part of a model folder: save the model as \
             one file, such as by onnx.save(onnx.load(PATH), PATH)",
            cut(&elsewhere.name)
        )));
    }
    let mut found = Found::default();
    let mut of_texts: Option<&NodeProto> = None;
    walk(graph, &mut |graph, node| {
        if OF_TEXTS.contains(&node.op_type.as_str()) {
            of_texts.get_or_insert(node);
        }
        if !is_known(node, framework) {
            found.add(full_name(node, framework), node);
        } else if let Some(form) = misread::form(graph, node) {
            found.add(cut(&form), node);
        } else if is_quantised_softmax(graph, node) {
            found.add("Softmax between DequantizeLinear and QuantizeLinear".into(), node);
        }
    });
    if let Some(node) = of_texts {
        return Some(LoadFault::Invalid(format!(
            "it takes texts apart by {} (node {:?}), which does not run on devices: make numbers of the texts where they come \
             from, pack the part of the model behind that, and send it those numbers. Categories, as OneHotEncoder and \
             LabelEncoder take them, may stay texts",
            node.op_type,
            name_of(node)
        )));
    }
    (!found.0.is_empty()).then_some(LoadFault::UnsupportedOperators(found.0))
}

/// Whether the values of a tensor are in another file.
fn is_elsewhere(tensor: &TensorProto) -> bool {
    tensor.data_location == Some(DataLocation::External as i32)
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
    let (domain, name) = (node.domain.as_str(), node.op_type.as_str());
    let is_of_set = OWN_DOMAINS.contains(&domain)
        || (domain == MICROSOFT && (OF_MICROSOFT.contains(&name) || is_slow(name)));
    is_of_set && framework.op_register.0.contains_key(name)
}

/// Whether it is one of those that work and cost time; their names mean the same in both sets.
fn is_slow(name: &str) -> bool {
    SLOW.iter().any(|(_, operators)| operators.contains(&name))
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

/// Its name, with that of its set unless it is ONNX's own, or another that nothing here is confused with.
fn full_name(node: &NodeProto, framework: &Onnx) -> String {
    let is_own = OWN_DOMAINS.contains(&node.domain.as_str());
    let is_apart = node.domain == MICROSOFT && !framework.op_register.0.contains_key(&node.op_type);
    let name =
        if is_own || is_apart { node.op_type.clone() } else { format!("{}::{}", node.domain, node.op_type) };
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
    fn an_operator_of_another_set_is_not_taken_for_one_of_the_same_name() {
        let of_microsoft =
            |op: &str| NodeProto { domain: "com.microsoft".into(), ..node(op, &["x", "w"], "y") };
        assert_eq!(named(&model(vec![of_microsoft("Attention")], &["y"]))[0].0, "com.microsoft::Attention");
        for known in ["SkipLayerNormalization", "QuantizeLinear"] {
            assert!(named(&model(vec![of_microsoft(known)], &["y"])).is_empty(), "{known}");
        }
        assert_eq!(named(&model(vec![of_microsoft("QLinearAdd")], &["y"]))[0].0, "QLinearAdd");
    }

    #[test]
    fn what_takes_texts_apart_is_said_to_belong_before_the_model() {
        let nodes = vec![node("TfIdfVectorizer", &["x"], "t"), node("Relu", &["t"], "y")];
        let fault = unsupported(&model(nodes, &["y"]), &tract_onnx::onnx()).expect("refused").to_string();
        assert!(
            fault.contains("TfIdfVectorizer (node \"t\")") && fault.contains("send it those numbers"),
            "{fault}"
        );
    }

    #[test]
    fn weights_in_a_file_of_their_own_are_said_to_be_missing() {
        let mut proto = model(vec![node("Gemm", &["x", "w"], "y")], &["y"]);
        proto.graph.as_mut().expect("graph").initializer[0].data_location =
            Some(DataLocation::External as i32);
        let fault = unsupported(&proto, &tract_onnx::onnx()).expect("refused").to_string();
        assert!(fault.contains("\"w\" among them") && fault.contains("one file"), "{fault}");
    }

    #[test]
    fn an_attribute_that_is_not_looked_at_is_named() {
        let mut layer = node("LSTM", &["x", "w", "w"], "y");
        layer.attribute.push(AttributeProto { name: "clip".into(), f: 3.0, ..AttributeProto::default() });
        assert_eq!(named(&model(vec![layer], &["y"]))[0].0, "LSTM with clip");
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
