"""Trains small estimators on scikit-learn's bundled data sets and exports them: estimators.py FOLDER."""

import pathlib
import sys
import warnings

warnings.filterwarnings("ignore")

import lightgbm
import numpy
import xgboost
from onnx import TensorProto
from onnxmltools import convert_lightgbm, convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType as MltoolsFloat
from skl2onnx import to_onnx
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, Int64TensorType
from sklearn import (
    calibration, cluster, compose, datasets, decomposition, discriminant_analysis, ensemble, feature_selection,
    gaussian_process, impute, linear_model, mixture, multiclass, multioutput, naive_bayes, neighbors,
    neural_network, pipeline, preprocessing, svm, tree,
)

import operators
import plain_operators
import rewrites
from onnx_cases import write

ROWS = 24
OPSETS = {"": 18, "ai.onnx.ml": 3}


def data(load):
    features, target = load(return_X_y=True)
    shuffled = numpy.random.default_rng(7).permutation(len(features))
    return features[shuffled].astype(numpy.float32), target[shuffled]


IRIS, BREAST, DIABETES = map(data, (datasets.load_iris, datasets.load_breast_cancer, datasets.load_diabetes))
DIGITS = tuple(part[:400] for part in data(datasets.load_digits))
NAMED = (IRIS[0], numpy.array(["setosa", "versicolor", "virginica"])[IRIS[1]])
BREAST_NAMED = (BREAST[0], numpy.array(["malignant", "benign"])[BREAST[1]])
CATEGORIES = (numpy.round(IRIS[0]), IRIS[1])
# Where scores of raw features are differences of large sums, rounding shows; scaled ones have none.
SCALED = (preprocessing.StandardScaler().fit_transform(BREAST[0]).astype(numpy.float32), BREAST[1])


def with_gaps(features, share=0.1):
    features = features.copy()
    features[numpy.random.default_rng(3).random(features.shape) < share] = numpy.nan
    return features


GAPS = (with_gaps(IRIS[0]), IRIS[1])
DIABETES_GAPS = (with_gaps(DIABETES[0]), DIABETES[1])
DOUBLED = (DIABETES[0], numpy.stack([DIABETES[1], -DIABETES[1]], axis=1))
BASE = lambda: linear_model.LogisticRegression(max_iter=300)


def grid():
    """Name, estimator, data, and tolerances where rounding differs by more than usual."""
    boosted = ensemble.HistGradientBoostingClassifier
    forest = ensemble.RandomForestClassifier
    yield "logistic_3", BASE(), IRIS
    yield "logistic_2", linear_model.LogisticRegression(max_iter=300), SCALED
    yield "logistic_names", BASE(), NAMED
    yield "logistic_names_2", BASE(), (SCALED[0], BREAST_NAMED[1])
    yield "sgd", linear_model.SGDClassifier(random_state=0), SCALED
    yield "sgd_log_loss", linear_model.SGDClassifier(loss="log_loss", random_state=0), IRIS, 1e-5, 1e-4
    yield "perceptron", linear_model.Perceptron(), IRIS, 1e-5, 1e-4
    yield "ridge_classifier", linear_model.RidgeClassifier(), IRIS
    yield "linear_discriminant", discriminant_analysis.LinearDiscriminantAnalysis(), IRIS
    yield "quadratic_discriminant", discriminant_analysis.QuadraticDiscriminantAnalysis(), IRIS, 1e-4, 1e-4
    yield "linear", linear_model.LinearRegression(), DIABETES
    yield "linear_2_targets", linear_model.LinearRegression(), DOUBLED
    yield "lasso", linear_model.Lasso(), DIABETES
    yield "elastic_net", linear_model.ElasticNet(), DIABETES
    yield "bayesian_ridge", linear_model.BayesianRidge(), DIABETES
    yield "huber", linear_model.HuberRegressor(), DIABETES
    yield "poisson", linear_model.PoissonRegressor(), DIABETES
    yield "gaussian_process", gaussian_process.GaussianProcessRegressor(alpha=0.1), tuple(p[:60] for p in IRIS), 1e-3, 1e-3
    yield "tree_3", tree.DecisionTreeClassifier(max_depth=4, random_state=0), IRIS
    yield "tree_2", tree.DecisionTreeClassifier(max_depth=4, random_state=0), BREAST
    yield "tree_names", tree.DecisionTreeClassifier(max_depth=4, random_state=0), NAMED
    yield "tree_names_2", tree.DecisionTreeClassifier(max_depth=4, random_state=0), BREAST_NAMED
    yield "tree_gaps", tree.DecisionTreeClassifier(max_depth=4, random_state=0), GAPS
    yield "tree_regressor", tree.DecisionTreeRegressor(max_depth=5, random_state=0), DIABETES
    yield "tree_2_targets", tree.DecisionTreeRegressor(max_depth=5, random_state=0), DOUBLED
    yield "random_forest_3", forest(20, random_state=0), IRIS
    yield "random_forest_2", forest(20, random_state=0), BREAST
    yield "random_forest_names", forest(20, random_state=0), BREAST_NAMED
    yield "random_forest_10", forest(30, random_state=0), DIGITS
    yield "random_forest_regressor", ensemble.RandomForestRegressor(20, random_state=0), DIABETES
    yield "extra_trees", ensemble.ExtraTreesClassifier(20, random_state=0), IRIS
    yield "extra_trees_regressor", ensemble.ExtraTreesRegressor(20, random_state=0), DIABETES
    yield "gradient_boosting_3", ensemble.GradientBoostingClassifier(n_estimators=20, random_state=0), IRIS
    yield "gradient_boosting_2", ensemble.GradientBoostingClassifier(n_estimators=20, random_state=0), BREAST
    yield "gradient_boosting_regressor", ensemble.GradientBoostingRegressor(n_estimators=30, random_state=0), DIABETES
    yield "hist_gradient_boosting_3", boosted(max_iter=20, random_state=0), IRIS
    yield "hist_gradient_boosting_2", boosted(max_iter=20, random_state=0), BREAST
    yield "hist_gradient_boosting_gaps", boosted(max_iter=20, random_state=0), GAPS
    yield "hist_gradient_boosting_regressor", ensemble.HistGradientBoostingRegressor(max_iter=20), DIABETES_GAPS
    yield "ada_boost", ensemble.AdaBoostClassifier(n_estimators=5, random_state=0), IRIS
    yield "ada_boost_regressor", ensemble.AdaBoostRegressor(n_estimators=5, random_state=0), DIABETES
    yield "bagging", ensemble.BaggingClassifier(n_estimators=4, random_state=0), IRIS
    yield "voting", ensemble.VotingClassifier([("a", BASE()), ("b", tree.DecisionTreeClassifier(max_depth=3))],
                                              voting="soft", flatten_transform=False), IRIS
    yield "stacking", ensemble.StackingClassifier([("a", BASE()), ("b", tree.DecisionTreeClassifier(max_depth=3))]), IRIS
    yield "isolation_forest", ensemble.IsolationForest(n_estimators=10, random_state=0), IRIS
    yield "svc_3", svm.SVC(), IRIS
    yield "svc_2", svm.SVC(), SCALED
    yield "svc_probability_3", svm.SVC(probability=True, random_state=0), IRIS, 1e-4, 1e-4
    yield "svc_probability_2", svm.SVC(probability=True, random_state=0), SCALED, 1e-4, 1e-4
    yield "svc_polynomial", svm.SVC(kernel="poly"), IRIS, 1e-4, 1e-4
    yield "svc_sigmoid_names", svm.SVC(kernel="sigmoid"), (SCALED[0], BREAST_NAMED[1])
    yield "svc_linear", svm.SVC(kernel="linear", probability=True, random_state=0), NAMED, 1e-4, 1e-4
    yield "nu_svc", svm.NuSVC(), IRIS
    yield "linear_svc_3", svm.LinearSVC(), IRIS
    yield "linear_svc_2", svm.LinearSVC(), SCALED
    yield "svr", svm.SVR(), DIABETES
    yield "nu_svr", svm.NuSVR(), DIABETES
    yield "linear_svr", svm.LinearSVR(), DIABETES
    yield "one_class_svm", svm.OneClassSVM(nu=0.3), IRIS, 1e-4, 1e-4
    yield "gaussian_naive_bayes", naive_bayes.GaussianNB(), IRIS, 1e-4, 1e-4
    yield "multinomial_naive_bayes", naive_bayes.MultinomialNB(), IRIS
    yield "bernoulli_naive_bayes", naive_bayes.BernoulliNB(binarize=2.0), IRIS
    yield "complement_naive_bayes", naive_bayes.ComplementNB(), IRIS
    # Likelihoods of 64 pixels, whose exponentials no float holds.
    yield "gaussian_naive_bayes_10", naive_bayes.GaussianNB(var_smoothing=0.1), DIGITS, 1e-3, 1e-3
    yield "multinomial_naive_bayes_10", naive_bayes.MultinomialNB(), DIGITS, 1e-3, 1e-3
    yield "complement_naive_bayes_10", naive_bayes.ComplementNB(), DIGITS, 1e-3, 1e-3
    yield "categorical_naive_bayes", naive_bayes.CategoricalNB(), CATEGORIES
    yield "neighbours", neighbors.KNeighborsClassifier(), IRIS
    yield "neighbours_regressor", neighbors.KNeighborsRegressor(), DIABETES
    yield "radius_neighbours_regressor", neighbors.RadiusNeighborsRegressor(3.0), DIABETES
    yield "perceptrons_3", neural_network.MLPClassifier((16,), max_iter=60, random_state=0), IRIS
    yield "perceptrons_2", neural_network.MLPClassifier((16, 8), max_iter=60, random_state=0), SCALED
    yield "perceptrons_regressor", neural_network.MLPRegressor(hidden_layer_sizes=(16,), max_iter=60, random_state=0), DIABETES
    yield "k_means", cluster.KMeans(3, n_init=1, random_state=0), IRIS, 1e-4, 1e-3
    yield "mini_batch_k_means", cluster.MiniBatchKMeans(3, n_init=1, random_state=0), IRIS, 1e-4, 1e-3
    yield "gaussian_mixture", mixture.GaussianMixture(3, random_state=0), IRIS, 1e-3, 1e-3
    yield "gaussian_mixture_10", mixture.GaussianMixture(10, covariance_type="diag", reg_covar=1.0, random_state=0), DIGITS, 1e-3, 1e-3
    yield "one_vs_rest", multiclass.OneVsRestClassifier(BASE()), IRIS
    yield "one_vs_one", multiclass.OneVsOneClassifier(BASE()), IRIS
    yield "calibrated", calibration.CalibratedClassifierCV(BASE()), IRIS
    yield "several_outputs", multioutput.MultiOutputRegressor(linear_model.LinearRegression()), DOUBLED
    yield from transformers()


def transformers():
    onehot = preprocessing.OneHotEncoder(sparse_output=False, handle_unknown="ignore")
    yield "standard_scaler", preprocessing.StandardScaler(), IRIS
    yield "min_max_scaler", preprocessing.MinMaxScaler(), IRIS
    yield "max_abs_scaler", preprocessing.MaxAbsScaler(), IRIS
    yield "robust_scaler", preprocessing.RobustScaler(), IRIS
    for norm in ("l1", "l2", "max"):
        yield f"normalizer_{norm}", preprocessing.Normalizer(norm), IRIS
    yield "binarizer", preprocessing.Binarizer(threshold=2.0), IRIS
    yield "imputer", impute.SimpleImputer(), GAPS
    yield "polynomial_features", preprocessing.PolynomialFeatures(), IRIS
    bins = preprocessing.KBinsDiscretizer
    yield "bins_ordinal", bins(4, encode="ordinal", strategy="uniform"), IRIS
    yield "bins_one_hot", bins(4, encode="onehot-dense", strategy="uniform"), IRIS
    yield "one_hot", onehot, CATEGORIES
    yield "ordinal", preprocessing.OrdinalEncoder(), CATEGORIES
    yield "power", preprocessing.PowerTransformer(), IRIS, 1e-4, 1e-4
    yield "quantile", preprocessing.QuantileTransformer(n_quantiles=20), IRIS
    yield "principal_components", decomposition.PCA(2), IRIS
    yield "kernel_components", decomposition.KernelPCA(2, kernel="rbf"), IRIS, 1e-4, 1e-4
    yield "singular_values", decomposition.TruncatedSVD(2), IRIS
    yield "neighbour_imputer", impute.KNNImputer(), GAPS
    yield "best_features", feature_selection.SelectKBest(k=2), IRIS
    columns = compose.ColumnTransformer([("numbers", preprocessing.StandardScaler(), [0, 1]),
                                         ("kinds", onehot, [2, 3])])
    yield "columns", columns, CATEGORIES
    yield "columns_forest", pipeline.make_pipeline(columns, ensemble.RandomForestClassifier(10, random_state=0)), CATEGORIES
    yield "imputed_logistic", pipeline.make_pipeline(impute.SimpleImputer(), preprocessing.StandardScaler(), BASE()), GAPS
    yield "components_svc", pipeline.make_pipeline(preprocessing.StandardScaler(), decomposition.PCA(4), svm.SVC()), BREAST, 1e-4, 1e-4
    yield "union_tree", pipeline.make_pipeline(
        pipeline.make_union(preprocessing.StandardScaler(), decomposition.PCA(2)),
        tree.DecisionTreeClassifier(max_depth=4, random_state=0)), IRIS


def scikit(folder, report):
    for name, estimator, (features, target), *tolerances in grid():
        rows = features[-ROWS:]
        try:
            estimator.fit(features, target)
            # Linear support vector machines have no probabilities to zip.
            is_classifier = hasattr(estimator, "classes_") and not isinstance(estimator, svm.LinearSVC)
            options = {id(estimator): {"zipmap": False}} if is_classifier else None
            model = to_onnx(estimator, rows[:1], options=options, target_opset=OPSETS)
            write(folder, name, model, {"X": rows}, *tolerances)
        except Exception as error:
            report(name, error)
    # As exported unless told otherwise: probabilities as maps.
    zipped = BASE().fit(*IRIS)
    write(folder, "zipped", to_onnx(zipped, IRIS[0][:1], target_opset=OPSETS), {"X": IRIS[0][-ROWS:]})
    leafy = tree.DecisionTreeClassifier(max_depth=3, random_state=0).fit(*IRIS)
    for option in ("decision_leaf", "decision_path"):
        try:
            model = to_onnx(leafy, IRIS[0][:1], options={id(leafy): {"zipmap": False, option: True}}, target_opset=OPSETS)
            write(folder, f"tree_{option}", model, {"X": IRIS[0][-ROWS:]})
        except Exception as error:
            report(f"tree_{option}", error)
    several = pipeline.make_pipeline(
        compose.ColumnTransformer([("a", preprocessing.StandardScaler(), [0]), ("b", preprocessing.MinMaxScaler(), [1, 2])]),
        linear_model.LinearRegression()).fit(DIABETES[0][:, :3], DIABETES[1])
    try:
        types = [("a", FloatTensorType([None, 1])), ("b", FloatTensorType([None, 2]))]
        model = to_onnx(several, initial_types=types, target_opset=OPSETS)
        write(folder, "several_inputs", model, {"a": DIABETES[0][-ROWS:, :1], "b": DIABETES[0][-ROWS:, 1:3]})
    except Exception as error:
        report("several_inputs", error)


def doubles(folder, report):
    """Exported for rows of doubles: trees are then written in double precision, scores too."""
    forest = ensemble.RandomForestClassifier
    cases = [
        ("double_tree_3", tree.DecisionTreeClassifier(max_depth=4, random_state=0), IRIS),
        ("double_tree_regressor", tree.DecisionTreeRegressor(max_depth=5, random_state=0), DIABETES),
        ("double_tree_2_targets", tree.DecisionTreeRegressor(max_depth=5, random_state=0), DOUBLED),
        ("double_forest_3", forest(20, random_state=0), IRIS),
        ("double_forest_names", forest(20, random_state=0), BREAST_NAMED),
        ("double_forest_regressor", ensemble.RandomForestRegressor(20, random_state=0), DIABETES),
        ("double_hist_gradient_boosting_gaps", ensemble.HistGradientBoostingClassifier(max_iter=20, random_state=0), GAPS),
        ("double_scaled_forest", pipeline.make_pipeline(preprocessing.StandardScaler(), forest(10, random_state=0)), IRIS),
        ("double_logistic_3", BASE(), IRIS),
        ("double_linear", linear_model.LinearRegression(), DIABETES),
        ("double_svc_3", svm.SVC(), IRIS),
        ("double_logistic_2", BASE(), SCALED),
        ("double_one_vs_rest", multiclass.OneVsRestClassifier(BASE()), SCALED),
        ("double_perceptrons_2", neural_network.MLPClassifier((8,), max_iter=60, random_state=0), SCALED),
        ("double_perceptrons_3", neural_network.MLPClassifier((8,), max_iter=60, random_state=0), IRIS),
        ("double_stacking", ensemble.StackingClassifier([("a", BASE()), ("b", tree.DecisionTreeClassifier(max_depth=3))]), SCALED),
        ("double_bagging", ensemble.BaggingClassifier(BASE(), n_estimators=3, random_state=0), SCALED),
        ("double_sgd_log_loss", linear_model.SGDClassifier(loss="log_loss", random_state=0), SCALED),
        ("double_quantile", preprocessing.QuantileTransformer(n_quantiles=20), IRIS),
    ]
    for name, estimator, (features, target) in cases:
        try:
            # Not what single precision can hold: else both would compute the same.
            features = features.astype(numpy.float64) / 3
            estimator.fit(features, target)
            options = {id(estimator): {"zipmap": False}} if hasattr(estimator, "classes_") else None
            types = [("X", DoubleTensorType([None, features.shape[1]]))]
            model = to_onnx(estimator, initial_types=types, options=options, target_opset=OPSETS)
            made = {output: node.domain for node in model.graph.node for output in node.output}
            for output in model.graph.output:
                # Declared as doubles, although operators of trees make floats; onnxruntime refuses that.
                if made[output.name] == "ai.onnx.ml" and output.type.tensor_type.elem_type == TensorProto.DOUBLE:
                    output.type.tensor_type.elem_type = TensorProto.FLOAT
            write(folder, name, model, {"X": features[-ROWS:]})
        except Exception as error:
            report(name, error)


def boosters(folder, report):
    quiet = {"n_estimators": 20, "verbose": -1, "random_state": 0, "n_jobs": 1}
    cases = [
        ("lightgbm_3", lightgbm.LGBMClassifier(**quiet), IRIS),
        ("lightgbm_2", lightgbm.LGBMClassifier(**quiet), BREAST),
        ("lightgbm_gaps", lightgbm.LGBMClassifier(**quiet), GAPS),
        ("lightgbm_regressor", lightgbm.LGBMRegressor(**quiet), DIABETES),
        ("lightgbm_forest", lightgbm.LGBMRegressor(boosting_type="rf", bagging_freq=1, bagging_fraction=0.7, **quiet), DIABETES),
    ]
    plain = {"n_estimators": 20, "random_state": 0, "n_jobs": 1}
    cases += [
        ("xgboost_3", xgboost.XGBClassifier(**plain), IRIS),
        ("xgboost_2", xgboost.XGBClassifier(**plain), BREAST),
        ("xgboost_gaps", xgboost.XGBClassifier(**plain), GAPS),
        ("xgboost_regressor", xgboost.XGBRegressor(**plain), DIABETES),
        ("xgboost_forest", xgboost.XGBRFClassifier(**plain), BREAST),
        ("xgboost_poisson", xgboost.XGBRegressor(objective="count:poisson", **plain), DIABETES),
        ("xgboost_logistic", xgboost.XGBRegressor(objective="reg:logistic", **plain), BREAST),
    ]
    for name, model, (features, target) in cases:
        try:
            model.fit(features, target)
            types = [("X", MltoolsFloat([None, features.shape[1]]))]
            if name.startswith("lightgbm"):
                exported = convert_lightgbm(model, initial_types=types, target_opset=15, zipmap=name != "lightgbm_2")
            else:
                exported = convert_xgboost(model, initial_types=types, target_opset=15)
            write(folder, name, exported, {"X": features[-ROWS:]})
        except Exception as error:
            report(name, error)


def categories(folder, report):
    """Splits by sets of categories, which are exported as chains of comparisons that share what follows."""
    draw = numpy.random.default_rng(0)
    features = numpy.stack([draw.integers(0, 12, 400), draw.normal(size=400), draw.integers(0, 70, 400)], 1).astype(numpy.float32)
    target = ((features[:, 0] % 3 == 1) ^ (features[:, 2] % 5 < 2)).astype(int)
    rows = numpy.vstack([features[-ROWS:], [[99, 0, 99], [-1, 0, -1], [numpy.nan, 0, numpy.nan], [1.5, 0, 2.5]]]).astype(numpy.float32)
    types = [("X", MltoolsFloat([None, 3]))]
    try:
        model = lightgbm.LGBMClassifier(n_estimators=20, verbose=-1, random_state=0, n_jobs=1)
        model.fit(features, target, categorical_feature=[0, 2])
        write(folder, "lightgbm_categories", convert_lightgbm(model, initial_types=types, target_opset=15, zipmap=False), {"X": rows})
        model = lightgbm.LGBMRegressor(n_estimators=20, verbose=-1, random_state=0, n_jobs=1)
        model.fit(features, target + features[:, 1], categorical_feature=[0, 2])
        write(folder, "lightgbm_categories_regressor", convert_lightgbm(model, initial_types=types, target_opset=15), {"X": rows})
    except Exception as error:
        report("lightgbm_categories", error)
    try:
        few = numpy.stack([features[:, 0] % 6, features[:, 1], features[:, 2] % 4], 1)
        model = xgboost.XGBClassifier(n_estimators=10, enable_categorical=True, feature_types=["c", "q", "c"], tree_method="hist", random_state=0, n_jobs=1)
        model.fit(few, target)
        write(folder, "xgboost_categories", convert_xgboost(model, initial_types=types, target_opset=15), {"X": few[-ROWS:]})
    except Exception as error:
        report("xgboost_categories", error)


def whole_numbers(folder, report):
    """Categories of 64 bits, of which one is another in 32."""
    known = numpy.array([[1, 7], [2, 8], [3, 9], [2**40 + 1, 2**33 + 7]])
    rows = numpy.vstack([known, [[2**32 + 1, 7], [1, 2**32 + 8], [2**40 + 2, 9]]])
    try:
        encoder = preprocessing.OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(known)
        types = [("X", Int64TensorType([None, 2]))]
        write(folder, "one_hot_int64", to_onnx(encoder, initial_types=types, target_opset=OPSETS), {"X": rows})
    except Exception as error:
        report("one_hot_int64", error)


def main():
    folder = pathlib.Path(sys.argv[1])
    unexported = []

    def report(name, error):
        unexported.append(f"{name}: {type(error).__name__}: {error}".split("\n")[0][:200])

    scikit(folder, report)
    doubles(folder, report)
    boosters(folder, report)
    categories(folder, report)
    whole_numbers(folder, report)
    operators.write_all(folder)
    rewrites.write_all(folder)
    plain_operators.write_all(folder)
    # What cannot be exported, or what onnxruntime itself cannot run, is the caller's to know.
    (folder / "unexported.txt").write_text("\n".join(unexported))


main()
