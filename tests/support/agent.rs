//! One `lvs-agent` on one machine of a lab.

use std::fmt::Write as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::lab::{Lab, Node};
use crate::netns::Namespace;
use crate::pace;
use crate::pki::Files;
use crate::process::{Process, program};

/// What an agent's configuration says, besides its machine's address and directories.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `director`, `realserver`.
    pub roles: Vec<&'static str>,
    /// Certificates; none: `--insecure`.
    pub tls: Option<Files>,
    /// Lease timing: a profile's name, or P in milliseconds, or P, L and the beat, as in `60/47/5`.
    pub profile: String,
    /// Real-time priority for the lease thread and the guard.
    pub realtime: bool,
    /// The kernel keeps the lease's end, where it can.
    pub gate: bool,
    /// An OTLP receiver.
    pub otlp: Option<String>,
}

/// An agent that may be started, killed and started again; it is killed with its lab.
#[derive(Debug)]
pub struct Agent {
    /// Its node's name.
    pub name: String,
    namespace: Namespace,
    directory: PathBuf,
    run: PathBuf,
    secure: bool,
    release: Option<PathBuf>,
    process: Option<Process>,
}

impl Agent {
    /// Writes the configuration; starts nothing.
    ///
    /// # Panics
    ///
    /// If it cannot be written.
    #[must_use]
    pub fn new(lab: &Lab, node: &Node, settings: &Settings) -> Self {
        let directory = lab.directory(&node.name);
        let agent = Self {
            name: node.name.clone(),
            namespace: node.namespace.clone(),
            directory,
            run: lab.run_directory(&node.name),
            secure: settings.tls.is_some(),
            release: None,
            process: None,
        };
        let text = agent.configuration(node, settings);
        std::fs::write(agent.config(), text).expect("the lab's directory is writable");
        agent
    }

    fn configuration(&self, node: &Node, settings: &Settings) -> String {
        let mut text = format!(
            "name = {:?}\nroles = {:?}\naddresses = [{:?}]\ndata_dir = {:?}\nrun_dir = {:?}\n",
            node.name,
            settings.roles,
            node.address.to_string(),
            self.data(),
            self.run,
        );
        if let Some(files) = &settings.tls {
            let Files { ca, cert, key } = files;
            let _infallible =
                write!(text, "\n[tls]\nca = {ca:?}\ncert = {cert:?}\nkey = {key:?}\n");
        }
        let (profile, realtime) = (&settings.profile, settings.realtime);
        let spans: Vec<_> = profile.split('/').map_while(|span| span.parse::<u64>().ok()).collect();
        let timing = match spans[..] {
            [promise] => format!("promise_ms = {promise}"),
            [promise, lease, beat] => {
                format!("promise_ms = {promise}\nlease_ms = {lease}\nbeat_ms = {beat}")
            }
            _ => format!("profile = {profile:?}"),
        };
        let _infallible = write!(text, "\n[beat]\n{timing}\nrealtime = {realtime}\n");
        if !settings.gate {
            text.push_str("gate = false\n");
        }
        let log = std::env::var("LVSMESH_LOG").unwrap_or_else(|_| "info".to_owned());
        let _infallible = write!(text, "\n[telemetry]\nlog = {log:?}\n");
        if let Some(endpoint) = &settings.otlp {
            let _infallible = writeln!(text, "otlp_endpoint = {endpoint:?}");
        }
        text
    }

    /// From its next start on, runs the programs of that directory; `None`: those of this build.
    pub fn install(&mut self, release: Option<&Path>) {
        self.release = release.map(Path::to_owned);
    }

    /// Its `agent.toml`.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.directory.join("agent.toml")
    }

    /// Its data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    fn log(&self) -> PathBuf {
        self.directory.join("agent.log")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let name = "lvs-agent";
        let file =
            self.release.as_ref().map_or_else(|| program(name), |release| release.join(name));
        let mut command = Command::new(file);
        command.args(arguments).arg("--config").arg(self.config());
        if !self.secure {
            command.arg("--insecure");
        }
        command
    }

    /// Runs `lvs-agent ARGUMENTS --config …` to its end.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    #[must_use]
    pub fn once(&self, arguments: &[&str]) -> Output {
        self.namespace
            .inside(|| self.command(arguments).output())
            .expect("the agent's program can be started")
    }

    /// As [`Self::once`], and expects success.
    ///
    /// # Panics
    ///
    /// If it fails; says what it printed.
    pub fn succeed(&self, arguments: &[&str]) {
        let output = self.once(arguments);
        assert!(
            output.status.success(),
            "lvs-agent {arguments:?} on {}: {}\n{}",
            self.name,
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Makes this node the first of a fleet.
    pub fn init(&self, fleet: &str) {
        self.succeed(&["init", "--fleet", fleet]);
    }

    /// Adds this node to the fleet of the agent at `address`.
    pub fn join(&self, address: &str) {
        self.succeed(&["join", address]);
    }

    /// Starts `lvs-agent run` and waits until it says that it is ready, as systemd would.
    ///
    /// # Panics
    ///
    /// If it is not ready within 30 s (scaled), or ends.
    pub fn start(&mut self) {
        let notify = self.directory.join("notify");
        // Of an earlier start.
        let _absent = std::fs::remove_file(&notify);
        let socket = UnixDatagram::bind(&notify).expect("the lab's directory is writable");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("the timeout is not zero");
        let mut command = self.command(&["run"]);
        command.env("NOTIFY_SOCKET", &notify);
        let process = Process::start(
            &self.namespace,
            &format!("lvs-agent of {}", self.name),
            &mut command,
            &self.log(),
        );
        let mut process = process.unwrap_or_else(|error| panic!("{error}"));
        let mut buffer = [0_u8; 1024];
        let ready = pace::within(Duration::from_secs(30), || {
            if let Some(status) = process.ended() {
                return Some(Err(status));
            }
            let length = socket.recv(&mut buffer).ok()?;
            let said = String::from_utf8_lossy(&buffer[..length]);
            said.lines().any(|line| line == "READY=1").then_some(Ok(()))
        });
        match ready {
            Some(Ok(())) => self.process = Some(process),
            Some(Err(status)) => {
                panic!("lvs-agent run on {} ended: {status}\n{}", self.name, process.output())
            }
            None => {
                panic!("lvs-agent run on {} is not ready in time\n{}", self.name, process.output())
            }
        }
    }

    /// The running agent.
    ///
    /// # Panics
    ///
    /// If it was not started, or was ended by [`Self::end`].
    #[must_use]
    pub fn process(&self) -> &Process {
        self.process.as_ref().unwrap_or_else(|| panic!("the agent of {} does not run", self.name))
    }

    /// Whether it was started and not ended.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.process.is_some()
    }

    /// Sends a signal and waits for the end.
    pub fn end(&mut self, signal: Signal) -> ExitStatus {
        let mut process = self
            .process
            .take()
            .unwrap_or_else(|| panic!("the agent of {} does not run", self.name));
        process.end(signal)
    }

    /// Ends it cleanly and starts it again.
    pub fn restart(&mut self) {
        self.end(Signal::SIGTERM);
        self.start();
    }

    /// Starts it again if it was started and has ended by itself, or by its guard; says whether it had.
    pub fn start_again_if_ended(&mut self) -> bool {
        let ended = self.process.as_mut().is_some_and(|process| process.ended().is_some());
        if ended {
            self.process = None;
            self.start();
        }
        ended
    }

    /// Takes its disk away: identity, log, records.
    ///
    /// # Panics
    ///
    /// If it runs.
    pub fn lose_disk(&self) {
        assert!(!self.runs(), "an agent must be down before its disk is taken away");
        for directory in [self.data(), self.run.clone()] {
            if directory.exists() {
                std::fs::remove_dir_all(&directory).expect("the lab's directory is writable");
            }
        }
    }

    /// Everything that it has logged.
    #[must_use]
    pub fn logged(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// Where its files are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}
