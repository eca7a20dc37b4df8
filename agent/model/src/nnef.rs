//! The second form of a model: what is left after parsing, fixing shapes and simplifying, in tract's own form, which
//! loads without doing all that again. It is bound to the version that wrote it.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use tract_nnef::internal::Nnef;
use tract_onnx::WithOnnx as _;
use tract_onnx::tract_core::ops::logic::IfThenElse;
use tract_onnx::tract_core::ops::scan::Scan;
use tract_onnx::tract_hir::internal::{Framework as _, TractResult, TypedModel, bail};

/// The version that writes and reads it; a test compares it with what is linked.
pub const RUNTIME: &str = "tract-0.23.9";

fn framework() -> Nnef {
    tract_nnef::nnef().with_tract_resource().with_onnx()
}

/// Writes a decluttered model, whose inputs are fed in the order of its outlets. Equal models give equal bytes.
pub fn write(mut model: TypedModel) -> TractResult<Vec<u8>> {
    // What tools noted in it is of no use to anybody who runs it.
    model.properties.clear();
    model.outlet_labels.clear();
    // Names of ONNX may hold anything, and nobody looks for a node by its name here.
    name_by_number(&mut model, "n")?;
    framework().write_to_tar_with_config(&model, Vec::new(), false, true)
}

fn name_by_number(model: &mut TypedModel, prefix: &str) -> TractResult<()> {
    for node in model.nodes_mut() {
        node.name = format!("{prefix}{}", node.id);
        let inner = format!("{}b", node.name);
        if let Some(scan) = node.op_as_mut::<Scan>() {
            name_by_number(&mut scan.body, &inner)?;
        } else if node.op_is::<IfThenElse>() {
            bail!("it has branches");
        }
    }
    Ok(())
}

/// Reads what [`write`] wrote. `between` is called between its steps.
pub(crate) fn read(path: &Path, between: fn()) -> TractResult<TypedModel> {
    let framework = framework();
    between();
    let proto = framework.proto_model_for_read(&mut BufReader::new(File::open(path)?))?;
    between();
    framework.model_for_proto_model(&proto)
}
