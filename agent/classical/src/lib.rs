//! The operators of `ai.onnx.ml`, which classical models are exported with: trees, linear models, support
//! vector machines, encoders. tract lacks most of them and is slow or wrong in some. A crate of its own, so that they
//! are compiled for speed in a program compiled for size. With them those of ONNX itself that tract gets wrong.
//!
//! | module | what lives there |
//! |---|---|
//! | `kernel`, `precision` | what an operator is here, and how it becomes one of tract's; in the precision of its input |
//! | `attributes` | attributes read and checked; a model file is untrusted |
//! | `scores` | class labels, and scores on their way to probabilities |
//! | `trees`, `layout`, `forest` | attributes checked to be trees; laid out as flat nodes; their descent |
//! | `tree_ensemble`, `tree_lists` | the operators of trees; the lists of version 5 |
//! | `linear`, `svm` | linear models; support vector machines |
//! | `scaling`, `encode`, `label_encoder`, `gather` | features scaled, encoded as columns and as others, picked and joined |
//! | `mended` | how an operator of ONNX itself that tract gets wrong is made of others of tract's |
//! | `reductions`, `activations`, `conversions`, `recurrent` | those operators: sums, functions, types, recurrent layers |
//!
//! What the specification leaves open is done as onnxruntime does it, because that is what exporters are
//! tested with, and what golden outputs come from. Specification: `ai.onnx.ml` versions 1 to 5,
//! <https://onnx.ai/onnx/operators/#ai-onnx-ml>.

mod activations;
mod attributes;
mod conversions;
mod encode;
mod forest;
mod gather;
mod kernel;
mod label_encoder;
mod layout;
mod leaf_weights;
mod linear;
mod mended;
mod precision;
mod recurrent;
mod reductions;
mod scaling;
mod scores;
mod svm;
mod tree_ensemble;
mod tree_lists;
mod trees;

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod mended_tests;

use tract_onnx::Onnx;

/// tract's ONNX operators with those of this module added, or put in place of tract's own.
pub fn framework() -> Onnx {
    let mut onnx = tract_onnx::onnx();
    let register = &mut onnx.op_register;
    register.insert("TreeEnsembleClassifier", tree_ensemble::classifier);
    register.insert("TreeEnsembleRegressor", tree_ensemble::regressor);
    register.insert("TreeEnsemble", tree_ensemble::ensemble);
    register.insert("LinearClassifier", linear::classifier);
    register.insert("LinearRegressor", linear::regressor);
    register.insert("SVMClassifier", svm::classifier);
    register.insert("SVMRegressor", svm::regressor);
    register.insert("Scaler", scaling::scaler);
    register.insert("Normalizer", scaling::normalizer);
    register.insert("Imputer", scaling::imputer);
    register.insert("Binarizer", scaling::binarizer);
    register.insert("OneHotEncoder", encode::one_hot);
    register.insert("LabelEncoder", label_encoder::labels);
    register.insert("CategoryMapper", label_encoder::mapper);
    register.insert("ArrayFeatureExtractor", gather::extractor);
    register.insert("FeatureVectorizer", gather::vectorizer);
    for name in ["ReduceLogSumExp", "ReduceSum", "ReduceMean", "ReduceL1", "ReduceSumSquare"] {
        register.insert(name, reductions::reduce);
    }
    for name in
        ["Sigmoid", "LeakyRelu", "HardSwish", "Swish", "Round", "Softplus", "Celu", "LogSoftmax", "Mul"]
    {
        register.insert(name, activations::function);
    }
    register.insert("Cast", conversions::cast);
    register.insert("IsNaN", conversions::is_no_number);
    register.insert("IsInf", conversions::is_no_number);
    register.insert("ConstantOfShape", conversions::constant_of_shape);
    for name in ["LSTM", "GRU", "RNN"] {
        register.insert(name, recurrent::recurrent);
    }
    onnx
}
