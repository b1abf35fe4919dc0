//! A program in a namespace, with its output in a file.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::netns::Namespace;
use crate::pace::within;

/// A running program; killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program inside a namespace; what it prints is added to `log`.
    ///
    /// # Errors
    ///
    /// If the log cannot be written or the program cannot be started; names both.
    pub fn start(
        namespace: &Namespace,
        name: &str,
        command: &mut Command,
        log: &Path,
    ) -> io::Result<Self> {
        let context = |error: io::Error| {
            io::Error::new(
                error.kind(),
                format!("start {name} with its log in {}: {error}", log.display()),
            )
        };
        let output = File::options().create(true).append(true).open(log).map_err(context)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = namespace.start(command).map_err(context)?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a process id fits"))
    }

    /// Sends a signal.
    ///
    /// # Panics
    ///
    /// If it has ended and was waited for.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal)
            .unwrap_or_else(|error| panic!("send {signal} to {}: {error}", self.name));
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends a signal and waits for the end.
    ///
    /// # Panics
    ///
    /// If it does not end within 20 s (scaled).
    pub fn end(&mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        self.wait(Duration::from_secs(20))
    }

    /// Waits for the end.
    ///
    /// # Panics
    ///
    /// If it does not come within `span` (scaled).
    pub fn wait(&mut self, span: Duration) -> ExitStatus {
        match within(span, || self.ended()) {
            Some(status) => status,
            None => panic!("{} (pid {}) does not end", self.name, self.child.id()),
        }
    }

    /// Everything it has printed since its log was made.
    #[must_use]
    pub fn output(&self) -> String {
        std::fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none() {
            // A stopped process is killed all the same.
            let _gone = self.child.kill();
            let _reaped = self.child.wait();
        }
    }
}

/// A program of this project, which Cargo builds beside the test programs.
///
/// # Panics
///
/// If it was not built.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let here = std::env::current_exe().expect("a running program has a file");
    let directories = here.ancestors().skip(1).take(2).map(Path::to_owned);
    let given = std::env::var_os("LVSMESH_PROGRAMS").map(PathBuf::from);
    given
        .into_iter()
        .chain(directories)
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
        .unwrap_or_else(|| {
            panic!("{name} is not beside {}: run `cargo build --workspace` first", here.display())
        })
}

/// Where `tests/upgrade/build` has put the programs of the previous release.
///
/// # Panics
///
/// If it has not been run.
#[must_use]
pub fn previous_release() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are in the tree");
    let directory = root.join("target/previous");
    assert!(
        directory.join("lvs-agent").is_file(),
        "{} has no lvs-agent: run tests/upgrade/build first",
        directory.display()
    );
    directory
}
