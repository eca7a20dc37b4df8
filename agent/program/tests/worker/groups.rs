//! Memory groups, on a kernel that hands them out: `make memory-groups` runs these in a machine of their own.

use std::sync::Arc;

use serin_agent::worker::group::Delegated;

use super::*;

/// The group that the kernel charges a process's memory to.
fn group_of(pid: u32) -> PathBuf {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("a process");
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/")).expect("one tree for all");
    Path::new("/sys/fs/cgroup").join(path)
}

fn number(group: &Path, file: &str) -> u64 {
    let text = fs::read_to_string(group.join(file)).expect("a group");
    text.trim().parse().expect("a number")
}

#[tokio::test]
#[ignore = "needs a part of the tree of groups: make memory-groups"]
async fn a_worker_lives_in_a_group_of_its_own_and_its_end_there_is_told_as_the_memory_limit() {
    let groups = Delegated::find().map(Arc::new).expect("a part of the tree is delegated to this process");
    let release = unpack("digits/v1");
    let (_, golden) = parts(release.path());
    let spec = || WorkerSpec { groups: Some(Arc::clone(&groups)), ..spec(release.path()) };
    let worker = Worker::start(spec()).await.expect("loads");
    let group = group_of(worker.pid());
    let name = group.file_name().and_then(|name| name.to_str()).expect("a name");
    assert!(name.starts_with("worker-"), "{}", group.display());
    assert_ne!(group_of(std::process::id()), group);
    // What releases state is private memory; beside it a worker has 32 MiB for what the kernel charges it with.
    assert_eq!(number(&group, "memory.max"), (16 + 32) << 20);
    let charged = number(&group, "memory.current");
    assert!(charged > 64 << 10, "{charged} bytes");
    let (inputs, body) = request(&golden, 3);
    worker.infer(inputs.clone(), body.clone()).await.expect("answers within its group");

    // The kernel cannot keep it below this.
    fs::write(group.join("memory.max"), "65536").expect("ours");
    let death = timeout(Duration::from_mins(1), worker.death()).await.expect("it ends");
    assert_eq!(death, Some(WorkerDeath::MemoryLimit));
    drop(worker);

    // What is left of the group is gone at the next start of an agent at the latest, and others are not held by it.
    let worker = Worker::start(spec()).await.expect("loads");
    worker.infer(inputs, body).await.expect("answers");
    worker.stop().await;
    drop(worker);
    Delegated::find().expect("still delegated");
    assert!(!group.exists());
}
