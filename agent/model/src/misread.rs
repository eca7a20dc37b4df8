//! Nodes that tract builds, and reads otherwise than the ONNX specification means them: attributes that it does not look at,
//! and forms of an operator that it takes for others. It would answer something else without an error.

use tract_onnx::pb::{AttributeProto, GraphProto, NodeProto, TensorProto, tensor_proto::DataType};

/// What of `node`, one of `graph`, is read wrongly: the operator, and in what form.
pub(crate) fn form(graph: &GraphProto, node: &NodeProto) -> Option<String> {
    let what = match node.op_type.as_str() {
        "LSTM" | "GRU" | "RNN" => recurrent(node)?,
        "GridSample" => grid_sample(node)?,
        "Pad" => pads(graph, node).iter().any(|pad| *pad < 0).then(|| "by negative numbers".to_owned())?,
        // How many is an attribute there, and an input later.
        "TopK" => (node.input.len() < 2).then(|| "of opset 9 or earlier".to_owned())?,
        "QuantizeLinear" | "DequantizeLinear" => {
            is_of_16_bits(graph, node).then(|| "of 16 bits".to_owned())?
        }
        _ => return None,
    };
    Some(format!("{} {what}", node.op_type))
}

fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|attribute| attribute.name == name)
}

fn word<'a>(node: &'a NodeProto, name: &str) -> Option<&'a [u8]> {
    attribute(node, name).map(|attribute| attribute.s.as_slice())
}

fn recurrent(node: &NodeProto) -> Option<String> {
    let usual: &[&str] = match node.op_type.as_str() {
        "LSTM" => &["Sigmoid", "Tanh", "Tanh"],
        "GRU" => &["Sigmoid", "Tanh"],
        _ => &["Tanh"],
    };
    let given =
        attribute(node, "activations").map(|attribute| attribute.strings.as_slice()).unwrap_or_default();
    let is_usual = |(name, usual): (&Vec<u8>, &&str)| name.eq_ignore_ascii_case(usual.as_bytes());
    if !given.iter().zip(usual.iter().cycle()).all(is_usual) {
        let names: Vec<_> = given.iter().map(|name| String::from_utf8_lossy(name)).collect();
        return Some(format!("with the activations {}", names.join(", ")));
    }
    if attribute(node, "clip").is_some() {
        return Some("with clip".into());
    }
    if attribute(node, "input_forget").is_some_and(|attribute| attribute.i != 0) {
        return Some("with input_forget".into());
    }
    let is_batch_first = attribute(node, "layout").is_some_and(|attribute| attribute.i == 1);
    let is_both = word(node, "direction") == Some(b"bidirectional");
    (is_batch_first && is_both).then(|| "with layout 1 in both directions".into())
}

/// The cells around a place are taken as if they were inside, where only the place itself is.
fn grid_sample(node: &NodeProto) -> Option<String> {
    let is_cubic = matches!(word(node, "mode"), Some(b"bicubic" | b"cubic"));
    let padding = word(node, "padding_mode").filter(|padding| is_cubic && *padding != b"zeros")?;
    Some(format!("with mode bicubic and padding_mode {}", String::from_utf8_lossy(padding)))
}

/// What a `Pad` adds, where the file says so: early versions have it as an attribute.
fn pads(graph: &GraphProto, node: &NodeProto) -> Vec<i64> {
    let listed = attribute(node, "pads").map(|attribute| attribute.ints.clone());
    let stored = || node.input.get(1).and_then(|name| constant(graph, name)).map(wholes);
    listed.or_else(stored).unwrap_or_default()
}

fn is_of_16_bits(graph: &GraphProto, node: &NodeProto) -> bool {
    let zero = node.input.get(2).and_then(|name| constant(graph, name));
    zero.is_some_and(|zero| {
        zero.data_type == DataType::Uint16 as i32 || zero.data_type == DataType::Int16 as i32
    })
}

/// The value `name`, where the file holds it.
fn constant<'a>(graph: &'a GraphProto, name: &str) -> Option<&'a TensorProto> {
    let stored = graph.initializer.iter().find(|tensor| tensor.name == name);
    stored.or_else(|| {
        let makes =
            |node: &&NodeProto| node.op_type == "Constant" && node.output.iter().any(|made| made == name);
        let node = graph.node.iter().find(makes)?;
        attribute(node, "value")?.t.as_ref()
    })
}

/// Whole numbers of 64 bits; none of another type.
fn wholes(tensor: &TensorProto) -> Vec<i64> {
    if tensor.data_type != DataType::Int64 as i32 {
        return Vec::new();
    }
    let (chunks, _) = tensor.raw_data.as_chunks::<8>();
    let raw = chunks.iter().map(|bytes| i64::from_le_bytes(*bytes));
    tensor.int64_data.iter().copied().chain(raw).collect()
}

#[cfg(test)]
mod tests {
    use super::super::graph::tests::node;
    use super::*;

    fn named(node: &NodeProto) -> Option<String> {
        form(&GraphProto::default(), node)
    }

    fn with(mut node: NodeProto, attribute: AttributeProto) -> NodeProto {
        node.attribute.push(attribute);
        node
    }

    fn text(name: &str, value: &str) -> AttributeProto {
        AttributeProto { name: name.into(), s: value.as_bytes().to_vec(), ..AttributeProto::default() }
    }

    fn int(name: &str, i: i64) -> AttributeProto {
        AttributeProto { name: name.into(), i, ..AttributeProto::default() }
    }

    #[test]
    fn recurrent_layers_that_are_read_as_others_are_named() {
        let layer = |op| node(op, &["x", "w", "r"], "y");
        let activations = |names: &[&str]| AttributeProto {
            name: "activations".into(),
            strings: names.iter().map(|name| name.as_bytes().to_vec()).collect(),
            ..AttributeProto::default()
        };
        assert_eq!(named(&layer("LSTM")), None);
        let usual = ["Sigmoid", "Tanh", "Tanh", "sigmoid", "tanh", "tanh"];
        assert_eq!(named(&with(layer("LSTM"), activations(&usual))), None);
        let other = named(&with(layer("GRU"), activations(&["HardSigmoid", "Tanh"]))).expect("named");
        assert_eq!(other, "GRU with the activations HardSigmoid, Tanh");
        assert_eq!(named(&with(layer("RNN"), int("clip", 0))).as_deref(), Some("RNN with clip"));
        assert_eq!(named(&with(layer("LSTM"), int("input_forget", 0))), None);
        let forgets = named(&with(layer("LSTM"), int("input_forget", 1)));
        assert_eq!(forgets.as_deref(), Some("LSTM with input_forget"));
        let both = with(layer("LSTM"), text("direction", "bidirectional"));
        assert_eq!(named(&both), None);
        assert!(named(&with(both, int("layout", 1))).is_some());
        assert_eq!(named(&with(layer("LSTM"), text("direction", "reverse"))), None);
    }

    #[test]
    fn other_operators_that_are_read_as_others_are_named() {
        let sample = |mode: &str, padding: &str| {
            named(&with(
                with(node("GridSample", &["x", "w"], "y"), text("mode", mode)),
                text("padding_mode", padding),
            ))
        };
        assert!(sample("bicubic", "border").is_some() && sample("cubic", "reflection").is_some());
        assert_eq!((sample("bicubic", "zeros"), sample("linear", "border")), (None, None));
        assert_eq!(named(&node("TopK", &["x"], "y")).as_deref(), Some("TopK of opset 9 or earlier"));
        assert_eq!(named(&node("TopK", &["x", "w"], "y")), None);

        let raw = [0_i64, -1].iter().flat_map(|pad| pad.to_le_bytes()).collect();
        let stored = TensorProto {
            name: "p".into(),
            data_type: DataType::Int64 as i32,
            raw_data: raw,
            ..TensorProto::default()
        };
        let zero =
            TensorProto { name: "z".into(), data_type: DataType::Uint16 as i32, ..TensorProto::default() };
        let value =
            AttributeProto { name: "value".into(), t: Some(stored.clone()), ..AttributeProto::default() };
        let made = with(node("Constant", &[], "c"), value);
        let graph = GraphProto { initializer: vec![stored, zero], node: vec![made], ..GraphProto::default() };
        for pads in ["p", "c"] {
            let named = form(&graph, &node("Pad", &["x", pads], "y"));
            assert_eq!(named.as_deref(), Some("Pad by negative numbers"));
        }
        assert_eq!(form(&graph, &node("Pad", &["x", "elsewhere"], "y")), None);
        let listed = AttributeProto { name: "pads".into(), ints: vec![0, -1], ..AttributeProto::default() };
        assert!(named(&with(node("Pad", &["x"], "y"), listed)).is_some());
        assert!(form(&graph, &node("QuantizeLinear", &["x", "s", "z"], "y")).is_some());
        assert_eq!(form(&graph, &node("QuantizeLinear", &["x", "s", "p"], "y")), None);
    }
}
