//! What an ONNX file says about itself, read and put in order before tract builds anything of it: inputs,
//! outputs, and what leads to them.

use std::collections::HashSet;

use serin_protocol::frame::LoadFault;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::dimension::Value as Length;
use tract_onnx::pb::type_proto::Value as Type;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, ValueInfoProto};

/// An input of the graph that must be fed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GraphInput {
    /// Its name.
    pub(crate) name: String,
    /// What it takes, where that is something a pipeline can make.
    pub(crate) element: Option<Element>,
    /// The same by its name in ONNX.
    pub(crate) type_name: &'static str,
    /// Its lengths, `None` where left open; `None` altogether when not declared.
    pub(crate) shape: Option<Vec<Option<usize>>>,
}

/// What an input of the graph takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Element {
    /// Single precision.
    Float,
    /// Double precision.
    Double,
    /// Signed 64 bits.
    Int64,
    /// Signed 32 bits.
    Int32,
    /// Unsigned 8 bits.
    Byte,
    /// Truth values.
    Bool,
    /// Texts.
    Text,
}

impl Element {
    const fn of(code: i32) -> Option<Self> {
        const FLOAT: i32 = DataType::Float as i32;
        const DOUBLE: i32 = DataType::Double as i32;
        const INT64: i32 = DataType::Int64 as i32;
        const INT32: i32 = DataType::Int32 as i32;
        const BYTE: i32 = DataType::Uint8 as i32;
        const BOOL: i32 = DataType::Bool as i32;
        const TEXT: i32 = DataType::String as i32;
        Some(match code {
            FLOAT => Self::Float,
            DOUBLE => Self::Double,
            INT64 => Self::Int64,
            INT32 => Self::Int32,
            BYTE => Self::Byte,
            BOOL => Self::Bool,
            TEXT => Self::Text,
            _ => return None,
        })
    }
}

/// Lengths as they are read: `any` where one is left open.
pub(crate) fn lengths(lengths: &[Option<usize>]) -> String {
    let length =
        |length: &Option<usize>| length.map_or_else(|| "any".to_owned(), |length| length.to_string());
    format!("[{}]", lengths.iter().map(length).collect::<Vec<_>>().join(", "))
}

/// Turns every `ZipMap` into an identity. It makes a map from labels to scores of each row of scores;
/// a pipeline takes tensors, and the scores in the order of the labels say the same.
pub(crate) fn open_zip_maps(proto: &mut ModelProto) {
    let nodes = proto.graph.iter_mut().flat_map(|graph| &mut graph.node);
    for node in nodes.filter(|node| node.op_type == "ZipMap" && node.domain == "ai.onnx.ml") {
        node.op_type = "Identity".into();
        node.domain.clear();
        node.attribute.clear();
    }
}

/// Keeps of the graph only what `outputs` depend on: exporters add outputs (class names, zipped maps)
/// that no pipeline takes, made by operators that tract may not have.
pub(crate) fn keep_only(proto: &mut ModelProto, outputs: &[&str]) -> Result<(), LoadFault> {
    let Some(graph) = proto.graph.as_mut() else {
        return Err(LoadFault::Invalid("model.onnx holds no graph".into()));
    };
    for wanted in outputs {
        if !graph.output.iter().any(|output| output.name == *wanted) {
            let names: Vec<&str> = graph.output.iter().map(|output| output.name.as_str()).collect();
            return Err(LoadFault::Invalid(format!(
                "the pipeline takes the output {wanted:?}, the model has {names:?}"
            )));
        }
    }
    let needed = keep_what_leads_to(graph, outputs.iter().map(|name| (*name).to_owned()).collect());
    graph.initializer.retain(|tensor| needed.contains(&tensor.name));
    // What exporters say about values in between is often wrong, and worked out anew in any case.
    graph.value_info.clear();
    graph.output = outputs
        .iter()
        .filter_map(|wanted| graph.output.iter().find(|output| output.name == *wanted).cloned())
        .collect();
    Ok(())
}

/// Drops the nodes of `graph` that none of the values `needed` depends on; answers all names that the others read.
fn keep_what_leads_to(graph: &mut GraphProto, mut needed: HashSet<String>) -> HashSet<String> {
    // Nodes are sorted by definition, so one walk from the end finds everything. In a file that breaks
    // the rule something stays missing, which tract reports as an unresolved input.
    let mut kept = Vec::with_capacity(graph.node.len());
    for node in graph.node.drain(..).rev() {
        if node.output.iter().any(|name| needed.contains(name)) {
            names_read(&node, &mut needed);
            kept.push(node);
        }
    }
    kept.reverse();
    graph.node = kept;
    needed
}

/// A graph of its own that computes `outputs` of `proto`. Weights that they do not depend on are not copied.
pub(crate) fn part(proto: &ModelProto, outputs: &[String]) -> ModelProto {
    let Some(graph) = proto.graph.as_ref() else {
        return ModelProto::default();
    };
    let mut part = GraphProto { node: graph.node.clone(), ..GraphProto::default() };
    let needed = keep_what_leads_to(&mut part, outputs.iter().cloned().collect());
    part.initializer =
        graph.initializer.iter().filter(|tensor| needed.contains(&tensor.name)).cloned().collect();
    part.input = graph.input.iter().filter(|input| needed.contains(&input.name)).cloned().collect();
    part.output = outputs
        .iter()
        .map(|name| ValueInfoProto { name: name.clone(), ..ValueInfoProto::default() })
        .collect();
    ModelProto { graph: Some(part), opset_import: proto.opset_import.clone(), ..ModelProto::default() }
}

/// Adds what `node` reads, in nested graphs too: those may refer to names around them.
fn names_read(node: &NodeProto, names: &mut HashSet<String>) {
    names.extend(node.input.iter().cloned());
    for graph in nested(node) {
        names.extend(graph.output.iter().map(|output| output.name.clone()));
        graph.node.iter().for_each(|inner| names_read(inner, names));
    }
}

pub(crate) fn nested(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    node.attribute.iter().flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs))
}

/// Removes the names of nodes, so that tract calls each by its first output. In ONNX nodes and values
/// have names of their own kinds; tract puts both into one and stumbles when they coincide.
pub(crate) fn forget_node_names(proto: &mut ModelProto) {
    if let Some(graph) = proto.graph.as_mut() {
        forget_names(graph);
    }
}

fn forget_names(graph: &mut GraphProto) {
    for node in &mut graph.node {
        node.name.clear();
        for attribute in &mut node.attribute {
            attribute.g.iter_mut().chain(&mut attribute.graphs).for_each(forget_names);
        }
    }
}

/// The inputs that must be fed: not those with an initializer, which older files also list.
pub(crate) fn inputs(proto: &ModelProto) -> Vec<GraphInput> {
    let Some(graph) = proto.graph.as_ref() else {
        return Vec::new();
    };
    let initialized: HashSet<&str> = graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
    graph.input.iter().filter(|input| !initialized.contains(input.name.as_str())).map(input_of).collect()
}

fn input_of(info: &ValueInfoProto) -> GraphInput {
    let Some(Type::TensorType(tensor)) = info.r#type.as_ref().and_then(|kind| kind.value.as_ref()) else {
        return GraphInput { name: info.name.clone(), element: None, type_name: "no tensor", shape: None };
    };
    let length = |value: &Option<Length>| match value {
        Some(Length::DimValue(length)) => usize::try_from(*length).ok().filter(|length| *length > 0),
        Some(Length::DimParam(_)) | None => None,
    };
    let shape = tensor.shape.as_ref();
    GraphInput {
        name: info.name.clone(),
        element: Element::of(tensor.elem_type),
        type_name: DataType::try_from(tensor.elem_type)
            .map_or("an unknown type", |known| known.as_str_name()),
        shape: shape.map(|shape| shape.dim.iter().map(|dim| length(&dim.value)).collect()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::operators::unsupported;
    use super::*;
    use tract_onnx::pb::{AttributeProto, TensorProto};

    pub(crate) fn node(op: &str, inputs: &[&str], output: &str) -> NodeProto {
        NodeProto {
            op_type: op.into(),
            input: inputs.iter().map(|name| (*name).into()).collect(),
            output: vec![output.into()],
            ..NodeProto::default()
        }
    }

    fn value(name: &str) -> ValueInfoProto {
        ValueInfoProto { name: name.into(), ..ValueInfoProto::default() }
    }

    pub(crate) fn model(nodes: Vec<NodeProto>, outputs: &[&str]) -> ModelProto {
        let weights = ["w", "unused"].map(|name| TensorProto { name: name.into(), ..TensorProto::default() });
        let graph = GraphProto {
            node: nodes,
            initializer: weights.into(),
            input: vec![value("x"), value("w")],
            output: outputs.iter().map(|name| value(name)).collect(),
            ..GraphProto::default()
        };
        ModelProto { graph: Some(graph), ..ModelProto::default() }
    }

    #[test]
    fn an_operator_no_taken_output_needs_does_not_matter() {
        let nodes = vec![node("Gemm", &["x", "w"], "y"), node("ZipMap", &["y"], "zipped")];
        let mut proto = model(nodes, &["y", "zipped"]);
        let framework = tract_onnx::onnx();
        let fault = unsupported(&proto, &framework).expect("named").to_string();
        assert!(fault.contains("ZipMap (node \"zipped\")"), "{fault}");
        keep_only(&mut proto, &["y"]).expect("y is there");
        assert_eq!(unsupported(&proto, &framework), None);
        let graph = proto.graph.as_ref().expect("graph");
        let weights: Vec<&str> = graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
        assert_eq!((weights, graph.node.len(), graph.output.len()), (vec!["w"], 1, 1));
        let fed: Vec<String> = inputs(&proto).into_iter().map(|input| input.name).collect();
        assert_eq!(fed, ["x"]);
    }

    #[test]
    fn what_a_nested_graph_reads_from_outside_is_kept() {
        let branch = GraphProto { node: vec![node("Relu", &["outside"], "b")], ..GraphProto::default() };
        let mut outer = node("If", &["x"], "y");
        outer.attribute.push(AttributeProto { g: Some(branch), ..AttributeProto::default() });
        let mut proto = model(vec![node("Relu", &["x"], "outside"), outer], &["y"]);
        keep_only(&mut proto, &["y"]).expect("y is there");
        assert_eq!(proto.graph.expect("graph").node.len(), 2);
    }

    #[test]
    fn scores_are_taken_from_before_a_zip_map() {
        let mut zip = node("ZipMap", &["y"], "zipped");
        zip.domain = "ai.onnx.ml".into();
        let mut proto = model(vec![node("Gemm", &["x", "w"], "y"), zip], &["zipped"]);
        open_zip_maps(&mut proto);
        keep_only(&mut proto, &["zipped"]).expect("zipped is there");
        assert_eq!(unsupported(&proto, &tract_onnx::onnx()), None);
        assert_eq!(proto.graph.expect("graph").node.len(), 2);
    }

    #[test]
    fn a_missing_output_is_answered_with_those_there_are() {
        let mut proto = model(vec![node("Relu", &["x"], "y")], &["y"]);
        let fault = keep_only(&mut proto, &["z"]).expect_err("no z");
        assert!(fault.to_string().contains("\"z\"") && fault.to_string().contains("\"y\""), "{fault}");
    }
}
