//! Network namespaces without names: each lives as long as its descriptor, so nothing is left behind by a test that dies.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Child, Command};
use std::sync::Arc;
use std::thread::JoinHandle;

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A network namespace.
#[derive(Clone, Debug)]
pub struct Namespace {
    file: Arc<File>,
    inode: u64,
}

impl Namespace {
    /// Makes an empty one: nothing but a `lo` that is down.
    ///
    /// # Errors
    ///
    /// Without CAP_SYS_ADMIN.
    pub fn new() -> io::Result<Self> {
        // Only the thread that calls unshare moves; it ends here, and the descriptor keeps the namespace.
        let file = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        })
        .join()
        .map_err(|_| io::Error::other("the thread that makes a namespace panicked"))??;
        let inode = file.metadata()?.ino();
        Ok(Self { file: Arc::new(file), inode })
    }

    fn enter(&self) {
        setns(&*self.file, CloneFlags::CLONE_NEWNET)
            .expect("root may enter a network namespace that it made");
    }

    /// Hands out the descriptor, for requests that name a namespace by it.
    pub fn with_descriptor<T>(&self, work: impl FnOnce(&File) -> T) -> T {
        work(&self.file)
    }

    /// Runs `work` on a thread inside and returns what it returns; a panic inside goes on outside.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    self.enter();
                    work()
                })
                .join()
        });
        inside.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Starts a thread inside.
    pub fn thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let namespace = self.clone();
        std::thread::spawn(move || {
            namespace.enter();
            work()
        })
    }

    /// Starts a program inside.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn start(&self, command: &mut Command) -> io::Result<Child> {
        // A child starts in the namespace of the thread that forks it.
        self.inside(|| command.spawn())
    }

    /// The processes that are inside now, this one's threads not counted.
    #[must_use]
    pub fn processes(&self) -> Vec<Pid> {
        let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
        entries
            .filter_map(Result::ok)
            .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
            .filter(|pid| {
                std::fs::metadata(format!("/proc/{pid}/ns/net"))
                    .is_ok_and(|file| file.ino() == self.inode)
            })
            .map(Pid::from_raw)
            .filter(|pid| *pid != nix::unistd::getpid())
            .collect()
    }

    /// Kills every process that is inside, until none is.
    pub fn clear(&self) {
        for _ in 0..50 {
            let inside = self.processes();
            if inside.is_empty() {
                return;
            }
            for pid in inside {
                // It may have ended since it was listed.
                let _gone = kill(pid, Signal::SIGKILL);
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

/// Threads are not processes, but the one that a test runs in may itself have been moved: says whether root's rights are there at all.
#[must_use]
pub fn permitted() -> bool {
    nix::unistd::geteuid().is_root()
}
