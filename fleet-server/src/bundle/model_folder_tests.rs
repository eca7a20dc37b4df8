//! A model folder is read, or refused with the place named.

use super::*;

const TOML: &str = r#"
model = "m"
version = "1"
owner = "us"
description = "A model."
[lineage]
git_commit = "7786e8ac997ca744434e1fdce93dff193855135c"
schema_version = "1"
[[inputs]]
name = "x"
datatype = "FP32"
shape = [-1, 2]
features = ["a", "b"]
[[outputs]]
name = "class"
datatype = "INT64"
shape = [-1]
[prediction]
class = "class"
classes = 2
[golden]
relative = 1e-4
absolute = 1e-5
"#;

const PIPELINE: &str = r#"{
  "pre": [{"op": "feed", "input": "x", "model_input": "x"}],
  "post": [{"op": "take", "model_output": "y", "output": "y"},
           {"op": "argmax", "from": "y", "output": "class"}]
}"#;

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("folder");
    for (name, text) in [
        ("serin.toml", TOML),
        ("model.onnx", "not looked at here"),
        ("labels.txt", "no\nyes\n"),
        ("pipeline.json", PIPELINE),
        ("golden.ndjson", "{\"inputs\":{\"x\":[1,2]},\"outputs\":{\"class\":[1]}}\n"),
        ("reference.csv", "a,b\n1,2\n3,\n"),
        ("card.md", "# m\n"),
    ] {
        std::fs::write(folder.path().join(name), text).expect("written");
    }
    folder
}

/// What is said about the folder when `from` in `file` is replaced by `to`.
fn refusal(file: &str, from: &str, to: &str) -> String {
    let folder = folder();
    let path = folder.path().join(file);
    let text = std::fs::read_to_string(&path).expect("there");
    assert!(text.contains(from), "{from}");
    std::fs::write(&path, text.replacen(from, to, 1)).expect("written");
    ModelFolder::read(folder.path()).expect_err(to).to_string()
}

#[test]
fn a_folder_in_order_becomes_a_manifest_with_its_digests() {
    let folder = folder();
    let read = ModelFolder::read(folder.path()).expect("in order");
    let manifest = read.manifest(UNMEASURED, b"profile", None).expect("consistent");
    assert_eq!(manifest.id().to_string(), "m@1");
    assert_eq!(manifest.lineage.weights, Digest::of(b"not looked at here"));
    assert_eq!(manifest.lineage.data, Digest::of(b"a,b\n1,2\n3,\n"));
    assert_eq!(manifest.runtime.as_str(), RUNTIME);
    assert_eq!(read.reference.len(), 2);
}

#[test]
fn all_missing_files_are_named_at_once() {
    let folder = folder();
    for name in ["card.md", "golden.ndjson"] {
        std::fs::remove_file(folder.path().join(name)).expect("there");
    }
    let error = ModelFolder::read(folder.path()).expect_err("incomplete").to_string();
    assert!(error.contains("card.md, golden.ndjson missing"), "{error}");
}

#[test]
fn an_unknown_key_is_named_with_its_line() {
    let error = refusal("serin.toml", "owner =", "ownr =");
    assert!(error.contains("ownr") && error.contains("line 4"), "{error}");
    let error = refusal("serin.toml", "schema_version =", "schema =");
    assert!(error.contains("schema") && error.contains("line 8"), "{error}");
}

#[test]
fn what_contradicts_itself_is_said() {
    for (file, from, to, says) in [
        ("serin.toml", "classes = 2", "classes = 0", "prediction.classes"),
        ("serin.toml", "7786e8ac", "main", "lineage.git_commit"),
        ("serin.toml", "\"us\"", "\"\"", "owner must be"),
        (
            "serin.toml",
            "features = [\"a\", \"b\"]",
            "features = [\"a\"]",
            "1 features are named for 2 values",
        ),
        ("serin.toml", "absolute = 1e-5", "absolute = nan", "finite"),
        ("serin.toml", "description = \"A model.\"", "", "description"),
        ("pipeline.json", "\"input\": \"x\"", "\"input\": \"z\"", "no input z"),
        ("pipeline.json", "\"op\": \"argmax\"", "\"op\": \"exec\"", "exec"),
        ("golden.ndjson", "[1,2]", "[1]", "golden.ndjson, line 1"),
        ("reference.csv", "a,b", "b,a", "a is next, not \"b\""),
    ] {
        let error = refusal(file, from, to);
        assert!(error.contains(says), "{to}: {error}");
    }
    let nameless = refusal("serin.toml", "features = [\"a\", \"b\"]", "");
    assert!(nameless.contains("reference.csv"), "{nameless}");
}

#[test]
fn declared_digests_must_be_those_of_the_files() {
    for (key, file) in [("weights", "model.onnx"), ("data", "reference.csv")] {
        let digest = Digest::of(b"something else");
        let error = refusal(
            "serin.toml",
            "schema_version = \"1\"",
            &format!("schema_version = \"1\"\n{key} = \"{digest}\""),
        );
        assert!(error.contains(&format!("lineage.{key} is {digest}, but {file}")), "{error}");
    }
}

#[test]
fn a_text_that_is_none_is_refused() {
    let folder = folder();
    std::fs::write(folder.path().join("card.md"), [0xff, 0xfe]).expect("written");
    let error = ModelFolder::read(folder.path()).expect_err("not text").to_string();
    assert!(error.contains("card.md: not UTF-8"), "{error}");
}

#[test]
fn what_is_watched_and_when_devices_go_back_is_declared() {
    let folder = folder();
    let more = "
[watch]
categorical = [\"b\"]
[watch.segments]
feature = \"a\"
named = [{ name = \"low\", below = 2 }, { name = \"three\", values = [3] }]
[local_rollback]
errors = { share = \"5%\", requests = 200 }
collapse = { share = \"99.5%\", predictions = 500, for = \"10m\" }
";
    std::fs::write(folder.path().join("serin.toml"), format!("{TOML}{more}")).expect("written");
    let read = ModelFolder::read(folder.path()).expect("in order");
    let manifest = read.manifest(UNMEASURED, b"profile", None).expect("consistent");
    let policy = manifest.local_rollback.expect("declared");
    let collapse = policy.collapse.expect("declared");
    assert_eq!((collapse.share.0, collapse.predictions, collapse.hold.0), (9950, 500, 600_000));
    assert_eq!(policy.errors.expect("declared").share.0, 500);
    let profile = &read.watched.profile;
    assert!(profile.features[0].categories().is_none() && profile.features[1].categories().is_some());
    assert_eq!(profile.segments.iter().map(AsRef::as_ref).collect::<Vec<&str>>(), ["low", "three"]);
    let segments: Vec<u8> = read.watched.division().rows.iter().map(|segment| segment.0).collect();
    assert_eq!(segments, [1, 2]);
    for (from, to, says) in [
        ("[\"b\"]", "[\"c\"]", "watch.categorical: c"),
        ("feature = \"a\"", "feature = \"z\"", "watch.segments: z"),
        ("below = 2", "under = 2", "under"),
        ("\"5%\"", "\"105%\"", "105"),
        ("\"99.5%\"", "\"100%\"", "local_rollback.collapse"),
        ("\"10m\"", "\"10 parsecs\"", "parsecs"),
        ("\"10m\"", "\"8d\"", "7 days at most"),
    ] {
        let text = format!("{TOML}{more}");
        assert!(text.contains(from), "{from}");
        std::fs::write(folder.path().join("serin.toml"), text.replacen(from, to, 1)).expect("written");
        let error = ModelFolder::read(folder.path()).expect_err(to).to_string();
        assert!(error.contains(says), "{to}: {error}");
    }
}

#[test]
fn an_input_without_names_has_its_rows_in_another_form_than_csv() {
    let folder = folder();
    let text = TOML.replace("features = [\"a\", \"b\"]\n", "");
    std::fs::write(folder.path().join("serin.toml"), text).expect("written");
    std::fs::remove_file(folder.path().join("reference.csv")).expect("there");
    let error = ModelFolder::read(folder.path()).expect_err("none").to_string();
    assert!(error.contains("reference.csv missing") && error.contains(".npy"), "{error}");
    std::fs::write(folder.path().join("reference.ndjson"), "{\"x\": [1, 2]}\n{\"x\": [3, null]}\n")
        .expect("written");
    let read = ModelFolder::read(folder.path()).expect("in order");
    assert_eq!((read.reference.len(), read.watched.profile.features.len()), (2, 0));
}

#[test]
fn a_shape_that_is_none_is_named_before_what_has_it() {
    let said = refusal("serin.toml", "shape = [-1, 2]", "shape = [-1, -1]");
    assert!(said.contains("input x") && said.contains("positive and fixed, one is -1"), "{said}");
    let said = refusal("serin.toml", "shape = [-1, 2]", "shape = [2]");
    assert!(said.contains("must start with -1 (rows)"), "{said}");
    let said = refusal("serin.toml", "shape = [-1, 2]", "shape = [-1, 100000000]");
    assert!(said.contains("has more than 67108864 values"), "{said}");
}

#[test]
fn labels_without_a_line_for_every_class_are_refused() {
    let named = |labels: &str, classes: &str, class: &str| {
        let folder = folder();
        let write =
            |name: &str, text: String| std::fs::write(folder.path().join(name), text).expect("written");
        let outputs = "[[outputs]]\nname = \"label\"\ndatatype = \"BYTES\"\nshape = [-1]\n[prediction]";
        write("serin.toml", TOML.replace("[prediction]", outputs).replace("classes = 2", classes));
        let labelled = r#""output": "class"}, {"op": "labels", "from": "class", "output": "label"}]"#;
        write("pipeline.json", PIPELINE.replace(r#""output": "class"}]"#, labelled));
        write("golden.ndjson", format!("{{\"inputs\":{{\"x\":[1,2]}},\"outputs\":{{\"class\":[{class}]}}}}"));
        write("labels.txt", labels.into());
        ModelFolder::read(folder.path())
    };
    named("no\nyes\n", "classes = 2", "1").expect("fits");
    let said = named("no\n", "classes = 2", "0").expect_err("one line").to_string();
    assert!(said.contains("1 lines") && said.contains("2 classes of class"), "{said}");
    let said = named("no\n", "classes = 1", "1").expect_err("class 1").to_string();
    assert!(said.contains("has class 1 in class, which is the one of line 2"), "{said}");
    named("no\nyes\n\n", "classes = 2", "1").expect("an empty line at the end is no class");
    let said = named("background\nno\nyes\n", "classes = 2", "1").expect_err("one line too many").to_string();
    assert!(said.contains("3 lines") && said.contains("2 classes of class"), "{said}");
    // Nobody looks them up.
    let folder = folder();
    std::fs::write(folder.path().join("labels.txt"), "").expect("written");
    ModelFolder::read(folder.path()).expect("fits");
}

#[test]
fn a_mark_at_the_beginning_of_a_text_is_no_part_of_it() {
    let folder = folder();
    for name in ["labels.txt", "pipeline.json", "golden.ndjson", "serin.toml"] {
        let path = folder.path().join(name);
        let text = std::fs::read_to_string(&path).expect("there");
        std::fs::write(path, format!("\u{feff}{text}")).expect("written");
    }
    let read = ModelFolder::read(folder.path()).expect("read");
    assert_eq!(read.labels, b"no\nyes\n");
}
