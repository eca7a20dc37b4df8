//! Operators that compute in the precision of their input. What that is a node does not say, and the model may not
//! either: it is known once types are.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::{GraphProto, tensor_proto, type_proto};
use tract_onnx::tract_hir::internal::{Arc, DatumType, TValue, TVec, Tensor, TractResult};

use super::kernel::{Form, Kernel, only};

/// The same operator in single and in double precision. Only the one that the input asks for stays.
pub(crate) struct EitherPrecision {
    single: Arc<dyn Kernel>,
    double: Arc<dyn Kernel>,
}

impl EitherPrecision {
    /// Of two kernels with one input.
    pub(crate) fn new(single: impl Kernel, double: impl Kernel) -> Self {
        Self { single: Arc::new(single), double: Arc::new(double) }
    }

    const fn of(&self, datum_type: DatumType) -> &Arc<dyn Kernel> {
        if matches!(datum_type, DatumType::F64) { &self.double } else { &self.single }
    }
}

impl Kernel for EitherPrecision {
    fn name(&self) -> &'static str {
        self.single.name()
    }

    fn forms(&self, inputs: &[Form]) -> TractResult<TVec<Form>> {
        self.of(only(inputs)?.0).forms(inputs)
    }

    fn settled(&self, inputs: &[Form]) -> TractResult<Option<Arc<dyn Kernel>>> {
        Ok(Some(Arc::clone(self.of(only(inputs)?.0))))
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        self.of(only(inputs)?.datum_type()).eval(inputs)
    }
}

/// Whether anything in the model may be of double precision; few models have any of it, and the others need not be
/// read for both.
pub(crate) fn may_be_double(context: &ParsingContext<'_>) -> bool {
    context.model.graph.as_ref().is_some_and(graph_may_be_double)
}

fn graph_may_be_double(graph: &GraphProto) -> bool {
    const DOUBLE: i32 = tensor_proto::DataType::Double as i32;
    let is_double = |input: &tract_onnx::pb::ValueInfoProto| match input.r#type.as_ref().map(|of| &of.value) {
        Some(Some(type_proto::Value::TensorType(tensor))) => tensor.elem_type == DOUBLE,
        _ => false,
    };
    let mut attributes = graph.node.iter().flat_map(|node| &node.attribute);
    graph.input.iter().any(is_double)
        || graph.initializer.iter().any(|tensor| tensor.data_type == DOUBLE)
        // A type that is made is named in an attribute, or is that of a value in one.
        || attributes.any(|attribute| {
            (matches!(attribute.name.as_str(), "to" | "dtype") && attribute.i == i64::from(DOUBLE))
                || attribute.t.as_ref().is_some_and(|tensor| tensor.data_type == DOUBLE)
                || attribute.g.as_ref().is_some_and(graph_may_be_double)
        })
}
