//! Files on the machine's own disk.

use super::*;

#[test]
fn a_missing_file_is_told_from_an_unreadable_one() {
    let dir = tempfile::tempdir().expect("tempdir");
    let files = Files::real();
    let missing = dir.path().join("missing");
    assert!(if_there(files.open(&missing)).expect("an answer").is_none());
    // A directory opens but cannot be read as a file.
    let error = if_there(files.read_at_most(dir.path(), 10)).expect_err("a directory");
    assert!(error.to_string().starts_with("cannot read /"), "{error}");
}

#[test]
fn reading_stops_just_past_the_limit() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("long");
    let files = Files::real();
    files.create(&path).and_then(|mut file| file.append(&[7; 100])).expect("written");
    assert_eq!(files.read_at_most(&path, 10).expect("read").len(), 11);
    assert_eq!(files.read_at_most(&path, 100).expect("read").len(), 100);
}

#[test]
fn a_tree_is_removed_whole_and_its_absence_is_fine() {
    let dir = tempfile::tempdir().expect("tempdir");
    let files = Files::real();
    let tree = dir.path().join("tree");
    files.create_dir(&tree.join("inner")).expect("created");
    files.create(&tree.join("inner/file")).expect("created");
    files.remove_tree(&tree).expect("removed");
    assert!(!tree.exists());
    files.remove_tree(&tree).expect("still fine");
}

#[test]
fn free_space_is_known() {
    let dir = tempfile::tempdir().expect("tempdir");
    assert!(Files::real().free_space(dir.path()).expect("statvfs").0 > 0);
}
