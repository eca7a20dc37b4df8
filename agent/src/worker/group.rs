//! Memory groups of workers (cgroup v2), where a service manager has delegated a part of the tree to the agent: the
//! kernel then charges a worker with everything, its stack, its sockets and the files it maps included.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serin_protocol::ids::ByteCount;

/// Where the unified tree is mounted.
const MOUNT: &str = "/sys/fs/cgroup";
/// The agent's own group below the delegated one: a group that hands memory on to others may hold no process.
const SUPERVISOR: &str = "supervisor";
/// What a worker has beside its private writable memory, which is what releases state: pages of the program and its
/// libraries that it touches first, the model file while it is read, stack, socket buffers, page tables.
const BESIDE: u64 = 32 << 20;

/// A part of the tree in which the agent may make groups.
#[derive(Debug)]
pub struct Delegated {
    root: PathBuf,
    next: AtomicU64,
}

/// The group of one worker, removed with it.
#[derive(Debug)]
pub struct Group {
    path: PathBuf,
}

impl Delegated {
    /// The part that was delegated to this process, made ready; none where there is none.
    pub fn find() -> Option<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        Self::find_in(&own, Path::new(MOUNT))
    }

    /// As [`Self::find`], for a process whose `/proc/self/cgroup` reads `own`.
    fn find_in(own: &str, mount: &Path) -> Option<Self> {
        // The unified tree has number 0 and no controller's name.
        let path = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
        // An agent that was started again in the same group is in its leaf already.
        let path = Path::new(path);
        let path = if path.ends_with(SUPERVISOR) { path.parent()? } else { path };
        let root = mount.join(path);
        let controllers = fs::read_to_string(root.join("cgroup.controllers")).ok()?;
        if !controllers.split_whitespace().any(|name| name == "memory") {
            return None;
        }
        match prepare(&root) {
            Ok(()) => Some(Self { root, next: AtomicU64::new(0) }),
            Err(error) => {
                tracing::debug!(%error, group = %root.display(), "memory groups are not delegated");
                None
            }
        }
    }

    /// A group for a worker that may have `memory` bytes of private writable memory. It joins it itself.
    ///
    /// # Errors
    /// The kernel's.
    pub fn group(&self, memory: ByteCount) -> io::Result<Group> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.root.join(format!("worker-{}-{number}", std::process::id()));
        fs::create_dir(&path)?;
        let group = Group { path };
        let most = memory.0.saturating_add(BESIDE).to_string();
        fs::write(group.path.join("memory.max"), most)?;
        // What is over the limit ends; it is not swapped to a flash that wears out. Without swap there is no such file.
        let _ = fs::write(group.path.join("memory.swap.max"), "0");
        Ok(group)
    }
}

/// Makes a leaf for the agent, moves it there, and hands memory on to the groups beside that one.
fn prepare(root: &Path) -> io::Result<()> {
    let leaf = root.join(SUPERVISOR);
    match fs::create_dir(&leaf) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    fs::write(leaf.join("cgroup.procs"), std::process::id().to_string())?;
    fs::write(root.join("cgroup.subtree_control"), "+memory")?;
    // Of agents that were killed; one that still has a process stays.
    for entry in fs::read_dir(root)?.flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(b"worker-") {
            let _ = fs::remove_dir(entry.path());
        }
    }
    Ok(())
}

/// Joins the group at `path`: done by a worker, before it touches the model.
///
/// # Errors
/// The kernel's.
pub(super) fn join(path: &Path) -> io::Result<()> {
    fs::write(path.join("cgroup.procs"), "0")
}

impl Group {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the kernel ended a process of it for want of memory.
    pub fn ran_out(&self) -> bool {
        let events = fs::read_to_string(self.path.join("memory.events")).unwrap_or_default();
        let count = |line: &str| line.strip_prefix("oom_kill ")?.trim().parse::<u64>().ok();
        events.lines().find_map(count).is_some_and(|count| count > 0)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The process is reaped by now, or will be within a moment; then the next start of an agent removes it.
        let _ = fs::remove_dir(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree as the kernel shows it, with files where it would make them.
    fn tree(controllers: &str) -> (tempfile::TempDir, PathBuf) {
        let mount = tempfile::tempdir().expect("folder");
        let root = mount.path().join("system.slice/serin-agent.service");
        fs::create_dir_all(&root).expect("made");
        fs::write(root.join("cgroup.controllers"), controllers).expect("written");
        (mount, root)
    }

    const OWN: &str = "4:memory:/old\n0::/system.slice/serin-agent.service\n";

    #[test]
    fn a_delegated_part_is_made_ready_and_a_worker_gets_its_group() {
        let (mount, root) = tree("cpu memory pids\n");
        fs::create_dir(root.join("worker-1-0")).expect("left by another agent");
        let delegated = Delegated::find_in(OWN, mount.path()).expect("delegated");
        let read = |path: &str| fs::read_to_string(root.join(path)).expect("written");
        assert_eq!(read("supervisor/cgroup.procs"), std::process::id().to_string());
        assert_eq!(read("cgroup.subtree_control"), "+memory");
        assert!(!root.join("worker-1-0").exists());
        let group = delegated.group(ByteCount(1 << 20)).expect("made");
        let of_group = |file: &str| fs::read_to_string(group.path().join(file)).expect("written");
        assert_eq!(
            (of_group("memory.max"), of_group("memory.swap.max")),
            ((33 << 20).to_string(), "0".into())
        );
        join(group.path()).expect("joined");
        assert_eq!(of_group("cgroup.procs"), "0");
        assert!(!group.ran_out());
        fs::write(group.path().join("memory.events"), "low 0\noom 1\noom_kill 1\n").expect("written");
        assert!(group.ran_out());
        assert_ne!(delegated.group(ByteCount(1)).expect("made").path(), group.path());
        let again = Delegated::find_in("0::/system.slice/serin-agent.service/supervisor\n", mount.path());
        assert!(again.is_some_and(|again| again.root == root));
    }

    #[test]
    fn without_a_memory_controller_or_the_right_to_it_there_are_no_groups() {
        let (mount, _) = tree("cpu pids\n");
        assert!(Delegated::find_in(OWN, mount.path()).is_none());
        assert!(Delegated::find_in("4:memory:/only/the/old/kind\n", mount.path()).is_none());
        let (mount, root) = tree("memory\n");
        fs::write(root.join(SUPERVISOR), "no folder").expect("written");
        assert!(Delegated::find_in(OWN, mount.path()).is_none());
    }
}
