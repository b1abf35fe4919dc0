//! The guard: a process of its own that cleans up after a dead agent, ends a hung one first, and frees the voters for its successor.
//!
//! The agent tells it over a pipe what it holds *before* it puts that into the kernel, and writes into a shared page what changes with every HOLD. A
//! holder whose lease thread makes no turn for as long as a lease lasts has none any more: the guard kills it, after that time where an address is in the kernel and
//! after a second where the agent answers itself, and waits for its end, however long that takes. Once the agent's last thread can do nothing any more, the guard removes the VIP addresses, says goodbye to VRRP backups, relinquishes, removes on
//! a dual-role node the services of the VIPs, and exits. What it says can only ever release: see `docs/adr/0006-fences.md`. It never restarts the
//! agent.

mod lock;
mod page;
mod process;
mod protocol;

pub use page::Page;
pub use process::{GuardFault, main};
pub use protocol::{Credentials, Goodbye, Line, Vip};

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lvsmesh_core::plan::ServiceKey;

/// Name of the lock file below the run directory. A guard holds it for as long as it may still touch the kernel.
pub const LOCK: &str = "guard.lock";

/// The agent's end: what is held, and the pipe.
///
/// Cheap to clone. Writing is a few bytes into a pipe and never waits for the guard: a full pipe counts as a dead guard.
#[derive(Clone, Debug)]
pub struct Guard {
    state: Arc<Mutex<State>>,
    page: Page,
}

#[derive(Debug)]
struct State {
    run_dir: PathBuf,
    program: PathBuf,
    running: Option<(Child, ChildStdin)>,
    credentials: Option<Credentials>,
    peers: BTreeSet<SocketAddr>,
    watching: bool,
    goodbyes: BTreeMap<String, Vec<Goodbye>>,
    vips: BTreeSet<Vip>,
    services: BTreeSet<ServiceKey>,
    gates: BTreeSet<u32>,
    /// Locked: see [`lock::show_life`].
    _life: File,
}

impl Guard {
    /// Starts a guard, which takes the lock below `run_dir` and waits.
    ///
    /// `program` is run with the arguments `guard RUN_DIR`; the agent passes its own executable.
    ///
    /// # Errors
    ///
    /// If the shared page cannot be made, the lock that shows this process's life not be taken, or the process not be started.
    pub fn start(program: PathBuf, run_dir: PathBuf) -> io::Result<Self> {
        let page = Page::create(&run_dir)?;
        let life = lock::show_life(&run_dir)?;
        let mut state = State {
            _life: life,
            run_dir,
            program,
            running: None,
            credentials: None,
            peers: BTreeSet::new(),
            watching: false,
            goodbyes: BTreeMap::new(),
            vips: BTreeSet::new(),
            services: BTreeSet::new(),
            gates: BTreeSet::new(),
        };
        state.start()?;
        Ok(Self { state: Arc::new(Mutex::new(state)), page })
    }

    /// What the guard sees at every moment.
    #[must_use]
    pub fn page(&self) -> Page {
        self.page
    }

    /// Says how to speak for this node. Without it the guard does not relinquish.
    pub fn empower(&self, credentials: Credentials) {
        let mut state = self.locked();
        state.tell(Line::Lease(credentials.clone()));
        state.credentials = Some(credentials);
    }

    /// Says where the voters' lease sockets are.
    pub fn peers(&self, peers: BTreeSet<SocketAddr>) {
        let mut state = self.locked();
        for gone in state.peers.difference(&peers).copied().collect::<Vec<_>>() {
            state.tell(Line::Unpeer(gone));
        }
        for new in peers.difference(&state.peers).copied().collect::<Vec<_>>() {
            state.tell(Line::Peer(new));
        }
        state.peers = peers;
    }

    /// Says that the VIPs are claimed, after the page does: a guard looks for a standstill from here on, for as long as the page says so.
    pub fn watch(&self) {
        let mut state = self.locked();
        state.watching = true;
        state.tell(Line::Watch);
    }

    /// Says that a group is announced, and how that is taken back; what was said of it before is void.
    pub fn announced(&self, group: &str, goodbyes: Vec<Goodbye>) {
        self.quiet(group);
        let mut state = self.locked();
        for goodbye in &goodbyes {
            state.tell(Line::Goodbye(goodbye.clone()));
        }
        state.goodbyes.insert(group.to_owned(), goodbyes);
    }

    /// Says that a group is not announced any more.
    pub fn quiet(&self, group: &str) {
        let mut state = self.locked();
        if state.goodbyes.remove(group).is_some() {
            state.tell(Line::Quiet(group.to_owned()));
        }
    }

    /// Says that these addresses may be in the kernel from here on.
    pub fn hold(&self, vips: impl IntoIterator<Item = Vip>) {
        let mut state = self.locked();
        for vip in vips {
            if state.vips.insert(vip) {
                state.tell(Line::Hold(vip));
            }
        }
    }

    /// Says that these addresses are no longer in the kernel.
    pub fn drop(&self, vips: impl IntoIterator<Item = Vip>) {
        let mut state = self.locked();
        for vip in vips {
            if state.vips.remove(&vip) {
                state.tell(Line::Drop(vip));
            }
        }
    }

    /// Says that the kernel itself keeps the lease's end on that interface.
    pub fn gate(&self, ifindex: u32) {
        let mut state = self.locked();
        if state.gates.insert(ifindex) {
            state.tell(Line::Gate(ifindex));
        }
    }

    /// Says that it does not any more.
    pub fn ungate(&self, ifindex: u32) {
        let mut state = self.locked();
        if state.gates.remove(&ifindex) {
            state.tell(Line::Ungate(ifindex));
        }
    }

    /// Says which services must not outlive this process: on a dual-role node those of VIPs that it holds, elsewhere none.
    pub fn serve(&self, services: &BTreeSet<ServiceKey>) {
        let mut state = self.locked();
        for key in state.services.difference(services).copied().collect::<Vec<_>>() {
            state.tell(Line::Unserve(key));
        }
        for key in services.difference(&state.services).copied().collect::<Vec<_>>() {
            state.tell(Line::Serve(key));
        }
        state.services.clone_from(services);
    }

    /// Starts another guard if this one has died, and tells it everything.
    ///
    /// # Errors
    ///
    /// If the process cannot be started; the next call tries again.
    pub fn tend(&self) -> io::Result<()> {
        let mut state = self.locked();
        if let Some((child, _)) = &mut state.running {
            let Some(status) = child.try_wait()? else { return Ok(()) };
            tracing::warn!(%status, "the guard process died; starting another");
        }
        state.start()
    }

    /// Lets the guard go without cleaning up, and waits for it. For an agent that has let go of everything itself.
    pub fn done(&self) {
        let mut state = self.locked();
        state.tell(Line::Done);
        if let Some((mut child, pipe)) = state.running.take() {
            drop(pipe);
            if let Err(error) = child.wait() {
                tracing::warn!(%error, "waiting for the guard process failed");
            }
        }
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way through a change that matters: a repeated line does no harm.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn start(&mut self) -> io::Result<()> {
        self.running = None;
        let mut child = Command::new(&self.program)
            .arg("guard")
            .arg(&self.run_dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // A terminal's ^C and a signal to the agent's group are not for the guard.
            .process_group(0)
            .spawn()?;
        let pipe = child.stdin.take().expect("it was asked for");
        nonblocking(&pipe)?;
        widen(&pipe);
        self.running = Some((child, pipe));
        self.tell(Line::Agent(std::process::id()));
        if let Some(credentials) = self.credentials.clone() {
            self.tell(Line::Lease(credentials));
        }
        for peer in self.peers.clone() {
            self.tell(Line::Peer(peer));
        }
        for ifindex in self.gates.clone() {
            self.tell(Line::Gate(ifindex));
        }
        for vip in self.vips.clone() {
            self.tell(Line::Hold(vip));
        }
        for goodbye in self.goodbyes.clone().into_values().flatten() {
            self.tell(Line::Goodbye(goodbye));
        }
        if self.watching {
            self.tell(Line::Watch);
        }
        for key in self.services.clone() {
            self.tell(Line::Serve(key));
        }
        Ok(())
    }

    /// A line is below `PIPE_BUF`, the longest being an advert of 20 IPv6 addresses in hexadecimal, so it is written whole or not at all (pipe(7)).
    fn tell(&mut self, line: Line) {
        let Some((child, pipe)) = &mut self.running else { return };
        if let Err(error) = pipe.write_all(format!("{line}\n").as_bytes()) {
            tracing::warn!(%error, "the guard process does not listen; it is replaced");
            // One that does not read would clean up with an old list: `tend` starts another.
            if let Err(error) = child.kill() {
                tracing::debug!(%error, "killing the guard failed");
            }
        }
    }
}

fn nonblocking(pipe: &ChildStdin) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};

    let flags = OFlag::from_bits_retain(fcntl(pipe, FcntlArg::F_GETFL)?);
    fcntl(pipe, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Makes room for the services of a large table at once: some thirty bytes each, and a full pipe counts as a dead guard. A megabyte is what
/// every process may ask for (`/proc/sys/fs/pipe-max-size`, pipe(7)).
fn widen(pipe: &ChildStdin) {
    use nix::fcntl::{FcntlArg, fcntl};

    const ROOM: i32 = 1 << 20;
    if let Err(error) = fcntl(pipe, FcntlArg::F_SETPIPE_SZ(ROOM)) {
        tracing::debug!(%error, "the guard's pipe keeps its size");
    }
}

/// Waits until no guard of an earlier agent may touch the kernel any more. Blocks the thread.
///
/// # Errors
///
/// If the lock file cannot be opened, or the old guard still has it after `patience` (kind `TimedOut`).
pub fn wait_for_old(run_dir: &Path, patience: Duration) -> io::Result<()> {
    lock::take_lock(run_dir, patience).map(drop)
}
