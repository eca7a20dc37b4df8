//! tract's steps of simplifying and optimising a model, with calls in between: they have little code in common, so that a
//! process can give back the pages of the program that the last ones needed.

use tract_onnx::tract_core::optim::{Optimizer, OptimizerSession, TypedPass};
use tract_onnx::tract_hir::internal::{TractResult, TypedModel, TypedModelPatch};

/// Changes of the model between two calls within a step: few enough that their code does not pile up, and so many that
/// it hardly shows in the time (with 8 a network for images took a third longer to load).
const CHANGES: u32 = 64;

/// A step that calls from time to time.
#[derive(Clone, Debug)]
struct Interrupted {
    step: Box<dyn TypedPass>,
    between: fn(),
    /// Changes since the last call.
    changes: u32,
}

impl TypedPass for Interrupted {
    fn reset(&mut self) -> TractResult<()> {
        self.step.reset()
    }

    fn next(
        &mut self,
        session: &mut OptimizerSession<'_>,
        model: &TypedModel,
    ) -> TractResult<Option<TypedModelPatch>> {
        self.changes += 1;
        if self.changes > CHANGES {
            (self.between)();
            self.changes = 0;
        }
        self.step.next(session, model)
    }

    fn run_direct(&mut self, model: &mut TypedModel) -> TractResult<bool> {
        self.step.run_direct(model)
    }
}

fn interrupted(mut optimizer: Optimizer, between: fn()) -> Optimizer {
    let interrupted = |step| Box::new(Interrupted { step, between, changes: 0 }) as Box<dyn TypedPass>;
    optimizer.passes = optimizer.passes.drain(..).map(interrupted).collect();
    optimizer
}

/// Simplifies `model`.
pub(crate) fn declutter(model: &mut TypedModel, between: fn()) -> TractResult<()> {
    interrupted(Optimizer::declutter(), between).session().optimize(model)?;
    between();
    Ok(())
}

/// Fits it to this processor.
pub(crate) fn optimize(model: &mut TypedModel, between: fn()) -> TractResult<()> {
    model.optimize_with_session(&mut interrupted(Optimizer::codegen(), between).session())
}
