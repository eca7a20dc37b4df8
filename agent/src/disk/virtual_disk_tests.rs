//! What survives a cut, and what does not.

use super::*;
use crate::disk::seam::{FileError, Files, if_there};
use proptest::prelude::*;

fn disk() -> (VirtualDisk, Files) {
    let disk = VirtualDisk::new(ByteCount::from_mib(1));
    let files = Files::on(disk.clone());
    files.create_dir(Path::new("/d")).and_then(|()| files.sync_dir(Path::new("/"))).expect("a folder");
    (disk, files)
}

fn write(files: &Files, path: &str, bytes: &[u8], synced: bool) {
    let mut file = files.create(Path::new(path)).expect("created");
    file.append(bytes).expect("written");
    if synced {
        file.sync().expect("synced");
    }
}

fn read(files: &Files, path: &str) -> Option<Vec<u8>> {
    if_there(files.read_at_most(Path::new(path), 1000)).expect("readable")
}

fn dir(files: &Files) {
    files.sync_dir(Path::new("/d")).expect("synced");
}

#[test]
fn bytes_and_names_are_durable_apart() {
    let (disk, files) = disk();
    write(&files, "/d/both", b"1", true);
    dir(&files);
    write(&files, "/d/bytes", b"2", true);
    write(&files, "/d/none", b"3", false);
    for (loss, left) in [
        (Loss::Nothing, [Some("1"), Some("2"), Some("3")]),
        (Loss::Bytes, [Some("1"), Some("2"), Some("")]),
        (Loss::Everything, [Some("1"), None, None]),
    ] {
        let after = disk.copy();
        after.power_on(loss);
        let files = Files::on(after);
        let found = ["/d/both", "/d/bytes", "/d/none"].map(|path| read(&files, path));
        assert_eq!(found, left.map(|text| text.map(|text| text.as_bytes().to_vec())), "{loss:?}");
    }
}

#[test]
fn a_rename_is_whole_and_needs_its_directory_synced() {
    let (disk, files) = disk();
    write(&files, "/d/old", b"old", true);
    write(&files, "/d/new", b"new", true);
    dir(&files);
    files.rename(Path::new("/d/new"), Path::new("/d/old")).expect("renamed");
    let before = disk.copy();
    before.power_on(Loss::Everything);
    let before = Files::on(before);
    assert_eq!(
        (read(&before, "/d/old"), read(&before, "/d/new")),
        (Some(b"old".into()), Some(b"new".into()))
    );
    dir(&files);
    disk.power_on(Loss::Everything);
    assert_eq!((read(&files, "/d/old"), read(&files, "/d/new")), (Some(b"new".into()), None));
}

#[test]
fn what_was_overwritten_and_not_synced_may_be_back() {
    let (disk, files) = disk();
    write(&files, "/d/f", b"before", true);
    dir(&files);
    write(&files, "/d/f", b"after", false);
    assert_eq!(read(&files, "/d/f"), Some(b"after".into()));
    disk.power_on(Loss::Everything);
    assert_eq!(read(&files, "/d/f"), Some(b"before".into()));
}

#[test]
fn a_cut_stops_everything_until_the_power_is_back() {
    let (disk, files) = disk();
    disk.expect(Trouble { at: disk.log().len() + 1, kind: TroubleKind::Torn });
    let mut file = files.create(Path::new("/d/f")).expect("before the cut");
    file.append(b"12345678").expect_err("cut");
    assert!(!disk.is_powered());
    files.create(Path::new("/d/g")).expect_err("no power");
    disk.power_on(Loss::Nothing);
    assert_eq!(read(&files, "/d/f"), Some(b"1234".into()));
}

#[test]
fn faults_come_once_or_stay() {
    let (disk, files) = disk();
    let next = disk.log().len();
    disk.expect(Trouble { at: next, kind: TroubleKind::Once(Fault::NoSpace) });
    let full = |result: Result<(), FileError>| result.expect_err("full").source.kind();
    assert_eq!(full(files.create(Path::new("/d/f")).map(drop)), io::ErrorKind::StorageFull);
    write(&files, "/d/f", b"1", true);
    disk.expect(Trouble { at: 0, kind: TroubleKind::FromNowOn(Fault::ReadOnly) });
    assert_eq!(full(files.remove(Path::new("/d/f"))), io::ErrorKind::ReadOnlyFilesystem);
    assert_eq!(read(&files, "/d/f"), Some(b"1".into()), "reading goes on");
    disk.repair();
    files.remove(Path::new("/d/f")).expect("writable");
}

#[test]
fn links_directories_and_space_behave_as_elsewhere() {
    let (disk, files) = disk();
    let path = Path::new;
    write(&files, "/d/f", &[7; 1000], true);
    files.link(path("/d/f"), path("/d/g")).expect("linked");
    assert_eq!(files.examine(path("/d/g")).expect("there").links, 2);
    assert_eq!(files.free_space(path("/d")).expect("known").0, (1 << 20) - 1000);
    files.link(path("/d/f"), path("/d/g")).expect_err("taken");
    files.remove_dir(path("/d")).expect_err("not empty");
    files.remove(path("/d")).expect_err("a directory");
    files.create_dir(path("/e")).expect("made");
    files.rename(path("/d"), path("/e")).expect("an empty directory is replaced");
    assert_eq!(files.list(path("/e")).expect("listed").len(), 2);
    files.open(path("/d/f")).expect_err("moved");
    let mut file = files.create(path("/e/big")).expect("created");
    let error = file.append(&vec![0; 1 << 20]).expect_err("no room");
    assert_eq!(error.source.kind(), io::ErrorKind::StorageFull);
    assert_eq!(disk.peek(path("/e/g")).expect("there").len(), 1000);
}

proptest! {
    /// What was synced with its directory is there after any cut.
    #[test]
    fn what_is_durable_stays(seed: u64, later in prop::collection::vec((0..3_u8, 0..4_u8), 0..20)) {
        let (disk, files) = disk();
        write(&files, "/d/kept", b"kept", true);
        dir(&files);
        for (what, which) in later {
            let (path, other) = (format!("/d/{which}"), format!("/d/{}", which + 1));
            let _ = match what {
                0 => { write(&files, &path, path.as_bytes(), which == 1); Ok(()) }
                1 => files.rename(Path::new(&path), Path::new(&other)),
                _ => files.remove(Path::new(&path)),
            };
        }
        disk.power_on(Loss::Some(seed));
        prop_assert_eq!(read(&files, "/d/kept"), Some(b"kept".into()));
        // And what is left can be used.
        for entry in files.list(Path::new("/d")).expect("listed") {
            files.remove(&Path::new("/d").join(entry.name)).expect("removed");
        }
    }
}
