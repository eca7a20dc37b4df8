//! Packing with a device program that says what is to be said: the second form is kept and packed, and classes of
//! devices decide.

use super::*;
use std::os::unix::fs::PermissionsExt as _;

/// A copy of the digits that declares no prediction, and an order to pack it with a program that says `second`.
fn order(folder: &Path, second: bool) -> PackOrder {
    let model = folder.join("digits");
    fs::create_dir_all(&model).expect("made");
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/digits/v1");
    for entry in fs::read_dir(fixture).expect("listed") {
        let path = entry.expect("listed").path();
        fs::copy(&path, model.join(path.file_name().expect("a name"))).expect("copied");
    }
    let _ = fs::remove_file(model.join(measurements::FILE));
    let declaration = fs::read_to_string(model.join("serin.toml")).expect("read");
    let (before, rest) = declaration.split_once("[prediction]").expect("declared");
    let (_, golden) = rest.split_once("[golden]").expect("declared");
    fs::write(model.join("serin.toml"), format!("{before}[golden]{golden}")).expect("written");
    let (form, form_file) = if second {
        (r#"{"runtime":"tract-0.23.9","rows_at_once":16}"#, "printf 'the second form' > \"$4/model.nnef\"")
    } else {
        ("null", "")
    };
    let script = format!(
        "#!/bin/sh\n{form_file}\ncat <<'END'\n{{\"measured\":{{\"minimum_memory\":1,\"memory_limit\":40000000,\
         \"peak_resident\":3,\"latency_p50_micros\":4,\"latency_p99_micros\":5,\"load_micros\":6}},\"preparation\":\
         {{\"rewrites\":[\"an If\"],\"warnings\":[\"it is slow\"],\"nnef\":{form},\"nnef_because\":\"measured\"}}}}\nEND\n"
    );
    let program = folder.join("serin-agent");
    fs::write(&program, script).expect("written");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("owned");
    PackOrder {
        folder: model,
        output: folder.join("digits.serin"),
        program: Some(program),
        measurements: None,
        remeasure: false,
        targets: Vec::new(),
    }
}

#[test]
fn the_second_form_is_packed_kept_and_not_asked_for_again() {
    let folder = tempfile::tempdir().expect("folder");
    let mut order = order(folder.path(), true);
    let packed = pack(&order, &|_| ()).expect("packed");
    assert!(packed.measured_now);
    let manifest = &packed.opened.manifest;
    assert_eq!(manifest.nnef.as_ref().map(|form| form.runtime.as_str()), Some("tract-0.23.9"));
    let entry = manifest.entry(BundleFile::Nnef).expect("listed");
    assert_eq!((entry.size.0, packed.preparation.expect("told").rewrites), (15, vec!["an If".to_owned()]));
    assert_eq!(packed.warnings, ["it is slow"]);

    let bytes = fs::read(&order.output).expect("read");
    let program = order.program.replace(folder.path().join("absent"));
    assert!(!pack(&order, &|_| ()).expect("from what was kept").measured_now);
    assert_eq!(fs::read(&order.output).expect("read"), bytes);
    // What was kept is not what it was: measured anew.
    fs::write(order.folder.join("measured.nnef"), "something else").expect("written");
    assert!(matches!(pack(&order, &|_| ()), Err(PackError::Qualify(QualifyError::Run { .. }))));
    order.program = program;
    assert!(pack(&order, &|_| ()).expect("packed").measured_now);
    assert_eq!(fs::read(&order.output).expect("read"), bytes);
}

#[test]
fn golden_outputs_without_a_producer_are_doubted() {
    let folder = tempfile::tempdir().expect("folder");
    let order = order(folder.path(), false);
    let path = order.folder.join("serin.toml");
    let declaration = fs::read_to_string(&path).expect("read");
    let without: String = declaration.lines().filter(|line| !line.starts_with("producer")).fold(
        String::new(),
        |mut text, line| {
            text.push_str(line);
            text.push('\n');
            text
        },
    );
    for (text, word) in [
        (without.clone(), "producer"),
        (without.replace("[golden]", "[golden]\nproducer = 'tract 0.23'"), "tract 0.23"),
    ] {
        fs::write(&path, text).expect("written");
        let warnings = pack(&order, &|_| ()).expect("packed").warnings;
        assert!(warnings.iter().any(|warning| warning.contains(word)), "{warnings:?}");
    }
}

#[test]
fn steps_that_no_golden_case_proves_are_doubted() {
    let folder = tempfile::tempdir().expect("folder");
    let order = order(folder.path(), false);
    let path = order.folder.join("golden.ndjson");
    let lines = fs::read_to_string(&path).expect("read");
    let without: Vec<&str> = lines.lines().filter(|line| !line.contains("\"tensors\"")).collect();
    fs::write(&path, without.join("\n")).expect("written");
    let warnings = pack(&order, &|_| ()).expect("packed").warnings;
    let [slow, unproven] = warnings.as_slice() else { panic!("{warnings:?}") };
    assert_eq!(slow, "it is slow");
    assert!(unproven.contains("(missing, clip, affine)") && unproven.contains("\"x\": [...]"), "{unproven}");
}

#[test]
fn a_model_too_large_for_one_of_its_classes_is_not_packed() {
    let folder = tempfile::tempdir().expect("folder");
    let mut order = order(folder.path(), false);
    let file = folder.path().join("tiny.toml");
    let tiny = |memory: &str, flash: &str| {
        let text = format!(
            "class = 'tiny'\ntriple = 'armv7-unknown-linux-gnueabihf'\nmemory = '{memory}'\nflash = '{flash}'\n\
             cpu_features = []\nkernel = '4.19'\n"
        );
        fs::write(&file, text).expect("written");
    };
    order.targets = vec![file.display().to_string()];
    tiny("64MiB", "1GiB");
    let refused = pack(&order, &|_| ()).expect_err("too much memory");
    assert!(matches!(refused, PackError::Target(TargetError::Memory { .. })) && refused.hint().is_some());
    tiny("128MiB", "16KiB");
    let refused = pack(&order, &|_| ()).expect_err("too many bytes");
    assert!(matches!(refused, PackError::Target(TargetError::Flash { .. })), "{refused}");
    assert!(!order.output.exists());
    tiny("128MiB", "1GiB");
    let targets = pack(&order, &|_| ()).expect("packed").opened.manifest.targets;
    let shown: Vec<String> = targets.iter().map(ToString::to_string).collect();
    assert!(shown.iter().any(|target| target == "tiny (kernel 4.19)"), "{shown:?}");
    assert!(shown.iter().all(|target| target.contains("kernel")), "{shown:?}");
}

#[test]
fn a_class_that_nobody_described_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("folder");
    let mut order = order(folder.path(), false);
    let path = order.folder.join("serin.toml");
    let text = fs::read_to_string(&path).expect("read");
    let line = text.lines().find(|line| line.starts_with("targets")).expect("declared");
    fs::write(&path, text.replace(line, "targets = ['linux-x86_64', 'kiosk']")).expect("written");
    let refused = pack(&order, &|_| ()).expect_err("unknown");
    assert!(refused.to_string().contains("kiosk") && refused.hint().is_some(), "{refused}");
    assert!(!order.output.exists());
    let file = folder.path().join("kiosk.toml");
    let text = "class = 'kiosk'\ntriple = 'aarch64-unknown-linux-gnu'\nmemory = '1GiB'\nflash = '4GiB'\n\
                cpu_features = ['neon', 'dotprod']\nkernel = '5.15'\nkernel_features = ['landlock']\n";
    fs::write(&file, text).expect("written");
    order.targets = vec![file.display().to_string()];
    let targets = pack(&order, &|_| ()).expect("packed").opened.manifest.targets;
    let shown: Vec<String> = targets.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        ["linux-x86_64 (kernel 5.10, sse4.2, avx2)", "kiosk (kernel 5.15, neon, dotprod, landlock)"]
    );
}
