//! Conditions that the shapes of the inputs decide: an `If` on one is replaced by the branch that it takes.
//! Exporters leave such behind by the dozen, and tract refuses those whose branches differ in rank.

use std::collections::HashMap;

use tract_onnx::Onnx;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto};
use tract_onnx::tract_hir::internal::{
    Datum, InferenceFact, InferenceModelExt, OutletId, TDim, TVec, ToDim, TractResult, ensure, tvec,
};

use serin_pipeline::Feed;

/// Most rounds of deciding; each finds the conditions that the one before made decidable. Branches are nested no
/// deeper in any model that a compiler made.
const MAX_ROUNDS: usize = 64;

/// What became of the branches.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Decided {
    /// Names of the conditions, in the order in which they were decided.
    pub(crate) conditions: Vec<String>,
    /// Whether some depend on the number of rows and hold for one row only.
    pub(crate) for_one_row: bool,
}

/// Replaces every `If` of `proto` whose condition follows from the shapes that `feeds` declare. With `open`, what
/// holds for any number of rows is tried first.
pub(crate) fn decide(proto: &mut ModelProto, framework: &Onnx, feeds: &[Feed], open: bool) -> Decided {
    let mut decided = Decided { conditions: Vec::new(), for_one_row: !open };
    for _ in 0..MAX_ROUNDS {
        let Some(graph) = proto.graph.as_ref() else { break };
        let pending = pending(graph);
        if pending.is_empty() {
            break;
        }
        let mut known = constants(proto, framework, feeds, &pending, decided.for_one_row);
        if known.is_empty() && !decided.for_one_row {
            known = constants(proto, framework, feeds, &pending, true);
            decided.for_one_row = !known.is_empty();
        }
        let Some(graph) = proto.graph.as_mut().filter(|_| !known.is_empty()) else { break };
        let before = decided.conditions.len();
        take_branches(graph, &known, &mut decided.conditions);
        if decided.conditions.len() == before {
            break;
        }
    }
    if decided.conditions.is_empty() {
        decided.for_one_row = false;
    }
    decided
}

/// Conditions of the graph's own `If`s that no other of them leads to.
fn pending(graph: &GraphProto) -> Vec<String> {
    let mut undecided: std::collections::HashSet<&str> = std::collections::HashSet::new();
    let mut pending = Vec::new();
    for node in &graph.node {
        let depends = node.input.iter().any(|input| undecided.contains(input.as_str()));
        let is_if = node.op_type == "If";
        if let (true, false, Some(condition)) = (is_if, depends, node.input.first())
            && !pending.contains(condition)
        {
            pending.push(condition.clone());
        }
        if is_if || depends {
            undecided.extend(node.output.iter().map(String::as_str));
        }
    }
    pending
}

/// Those of `conditions` that are known, with their values. One that cannot even be analysed is not known.
fn constants(
    proto: &ModelProto,
    framework: &Onnx,
    feeds: &[Feed],
    conditions: &[String],
    one_row: bool,
) -> HashMap<String, bool> {
    match analysed(proto, framework, feeds, conditions, one_row) {
        Ok(known) => known,
        // One may spoil it for the others.
        Err(_) if conditions.len() > 1 => conditions
            .iter()
            .filter_map(|one| analysed(proto, framework, feeds, std::slice::from_ref(one), one_row).ok())
            .flatten()
            .collect(),
        Err(_) => HashMap::new(),
    }
}

fn analysed(
    proto: &ModelProto,
    framework: &Onnx,
    feeds: &[Feed],
    conditions: &[String],
    one_row: bool,
) -> TractResult<HashMap<String, bool>> {
    let mut part = super::graph::part(proto, conditions);
    // tract looks outputs up by name without a doubt that they are there.
    let made = part.graph.as_ref().is_some_and(|graph| conditions.iter().all(|name| makes(graph, name)));
    ensure!(made, "nothing makes a condition");
    super::graph::forget_node_names(&mut part);
    let mut model = framework.parse(&part, None)?.model;
    let rows: TDim = if one_row { 1.to_dim() } else { model.symbols.new_with_prefix("rows").to_dim() };
    let inputs: TVec<OutletId> = model.input_outlets()?.into();
    for (at, outlet) in inputs.iter().enumerate() {
        let name = &model.node(outlet.node).name;
        if let Some(feed) = feeds.iter().find(|feed| feed.model_input == *name) {
            let mut shape: TVec<TDim> = tvec![rows.clone()];
            let datum_type = if feed.is_text { String::datum_type() } else { f32::datum_type() };
            shape.extend(feed.row_shape.iter().map(ToDim::to_dim));
            model.set_input_fact(at, InferenceFact::dt_shape(datum_type, shape))?;
        }
    }
    let model = model.into_typed()?.into_decluttered()?;
    let mut known = HashMap::new();
    for (condition, outlet) in conditions.iter().zip(model.output_outlets()?) {
        if let Some(value) = &model.outlet_fact(*outlet)?.konst
            && let Ok(value) = value.cast_to::<bool>()
            && let Some(value) = value.try_as_plain_ram()?.as_slice::<bool>()?.first()
        {
            known.insert(condition.clone(), *value);
        }
    }
    Ok(known)
}

fn makes(graph: &GraphProto, name: &String) -> bool {
    graph.node.iter().any(|node| node.output.contains(name))
        || graph.initializer.iter().any(|tensor| tensor.name == *name)
        || graph.input.iter().any(|input| input.name == *name)
}

/// Puts the branch taken in the place of every `If` whose condition is `known`.
fn take_branches(graph: &mut GraphProto, known: &HashMap<String, bool>, decided: &mut Vec<String>) {
    let mut nodes = Vec::with_capacity(graph.node.len());
    for mut node in std::mem::take(&mut graph.node) {
        let taken = match node.input.first().and_then(|condition| known.get(condition)) {
            Some(value) if node.op_type == "If" => branch(&mut node, *value),
            Some(_) | None => None,
        };
        let Some(branch) = taken else {
            nodes.push(node);
            continue;
        };
        decided.push(node.input.first().cloned().unwrap_or_default());
        inline(branch, &node, &mut nodes, &mut graph.initializer);
    }
    graph.node = nodes;
}

/// The branch for `value`, where it makes as many values as the node says.
fn branch(node: &mut NodeProto, value: bool) -> Option<GraphProto> {
    let name = if value { "then_branch" } else { "else_branch" };
    let attribute = node.attribute.iter_mut().find(|attribute| attribute.name == name)?;
    let fits = attribute.g.as_ref().is_some_and(|graph| graph.output.len() == node.output.len());
    if fits { attribute.g.take() } else { None }
}

/// Adds the nodes and weights of `branch` under names that nothing else has, and gives its outputs the node's names.
fn inline(
    branch: GraphProto,
    node: &NodeProto,
    nodes: &mut Vec<NodeProto>,
    weights: &mut Vec<tract_onnx::pb::TensorProto>,
) {
    let Some(prefix) = node.output.first() else { return };
    let own = branch.node.iter().flat_map(|inner| &inner.output);
    let own = own.chain(branch.initializer.iter().map(|tensor| &tensor.name));
    let names: HashMap<String, String> = own
        .filter(|name| !name.is_empty())
        .map(|name| (name.clone(), format!("{prefix}/taken/{name}")))
        .collect();
    let renamed = |name: &String| names.get(name).unwrap_or(name).clone();
    weights.extend(branch.initializer.into_iter().map(|mut tensor| {
        tensor.name = renamed(&tensor.name);
        tensor
    }));
    nodes.extend(branch.node.into_iter().map(|mut inner| {
        inner.output = inner.output.iter().map(renamed).collect();
        rename_read(&mut inner, &names);
        inner
    }));
    for (made, wanted) in branch.output.iter().zip(&node.output) {
        if !wanted.is_empty() {
            nodes.push(NodeProto {
                op_type: "Identity".into(),
                input: vec![renamed(&made.name)],
                output: vec![wanted.clone()],
                ..NodeProto::default()
            });
        }
    }
}

/// Renames what `node` reads, in nested graphs too.
fn rename_read(node: &mut NodeProto, names: &HashMap<String, String>) {
    let rename = |name: &mut String| {
        if let Some(new) = names.get(name) {
            name.clone_from(new);
        }
    };
    node.input.iter_mut().for_each(rename);
    for attribute in &mut node.attribute {
        for graph in attribute.g.iter_mut().chain(&mut attribute.graphs) {
            graph.output.iter_mut().for_each(|output| rename(&mut output.name));
            graph.node.iter_mut().for_each(|inner| rename_read(inner, names));
        }
    }
}

#[cfg(test)]
#[path = "branches_tests.rs"]
mod tests;
