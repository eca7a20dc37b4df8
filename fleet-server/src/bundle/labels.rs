//! Whether `labels.txt` names every class that is looked up in it: a device that meets one without a line answers an
//! error, which nobody sees before that class comes up.

use serin_protocol::golden::Golden;
use serin_protocol::manifest::PredictionSpec;
use serin_protocol::pipeline::{Pipeline, PostStep};

use super::model_folder::ModelFolderError;

/// Checks the lines of `labels`, which is text, against the number of classes declared and against the classes in the
/// golden vectors.
///
/// # Errors
/// How many lines there are and how many are needed, and why.
pub(super) fn check(
    labels: &[u8],
    pipeline: &Pipeline,
    prediction: Option<&PredictionSpec>,
    golden: &Golden,
) -> Result<(), ModelFolderError> {
    // A device counts empty lines at the end too, and no class is theirs.
    let lines = String::from_utf8_lossy(labels).trim_end().lines().count();
    let class = prediction.and_then(PredictionSpec::class);
    for step in &pipeline.post {
        let PostStep::Labels { from, .. } = step else { continue };
        if let Some(class) = class.filter(|class| class.class == *from && class.classes > lines) {
            return Err(ModelFolderError::Invalid(format!(
                "labels.txt has {lines} lines, and serin.toml declares {} classes of {from}: it names one class a line",
                class.classes
            )));
        }
        if let Some(class) = class.filter(|class| class.class == *from && class.classes < lines) {
            return Err(ModelFolderError::Invalid(format!(
                "labels.txt has {lines} lines, and serin.toml declares {} classes of {from}: with more lines than classes every label may be \
                 another's; it names one class a line, the first one class 0",
                class.classes
            )));
        }
        let given = golden.cases.iter().flat_map(|case| &case.outputs).filter(|output| output.name == *from);
        let most = given.flat_map(|output| &output.values).copied().fold(-1.0, f32::max);
        // Class numbers are small, and exact.
        if most >= lines as f32 {
            return Err(ModelFolderError::Invalid(format!(
                "labels.txt has {lines} lines, and golden.ndjson has class {most} in {from}, which is the one of line {}",
                most + 1.0
            )));
        }
    }
    Ok(())
}
