//! The guard's own side: reads lines and looks at the page until the agent is gone, then cleans up and frees the voters.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::mem::ManuallyDrop;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lvsmesh_core::lease::Message;
use lvsmesh_core::lease::wire::{MAX_LEN, Speaker};
use lvsmesh_core::plan::{Action, ServiceKey};
use lvsmesh_core::time::{Mono, nanos};
use lvsmesh_kernel::clock::raw_now;
use lvsmesh_kernel::gate::Program;
use lvsmesh_kernel::raw::{
    ProcessHandle, VrrpSocket, VrrpSocketV6, favour, lock_memory, real_time,
};
use lvsmesh_kernel::route_socket::{PreparedAddress, RouteSocket};
use lvsmesh_kernel::wait::{self, PollFd, PollFlags};
use lvsmesh_kernel::{Errno, Kernel, KernelError, Linux, chain};
use nix::sys::signal::{SigSet, Signal};

use super::lock::{outlive, take_lock};
use super::page::{LOOKS, Page, Standstill};
use super::protocol::{Credentials, Goodbye};
use super::{LOCK, Line, Vip};
use crate::lease::Seal;

/// How long a new guard waits for an old one: it has only to clean up.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often the voters are told; a datagram may get lost, and what is lost costs time alone.
const TIMES: usize = 3;

/// Between those.
const PAUSE: Duration = Duration::from_millis(2);

/// Why a guard could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum GuardFault {
    /// The lock.
    #[error("taking {LOCK} failed")]
    Lock(#[source] io::Error),
    /// What the agent tells it.
    #[error("opening the agent's pipe failed")]
    Pipe(#[source] io::Error),
    /// The page that it shares with the agent.
    #[error("opening the page that is shared with the agent failed")]
    Page(#[source] io::Error),
    /// The socket that removes addresses.
    #[error("opening a netlink socket failed")]
    Socket(#[source] Errno),
    /// Waiting for the agent.
    #[error("waiting for the agent failed")]
    Wait(#[source] Errno),
    /// Something is still in the kernel.
    #[error("{0} objects of a dead agent could not be removed")]
    Left(usize),
}

/// Runs the guard until the agent is gone. Call it before any thread is started: the signals that it blocks are the thread's.
///
/// # Errors
///
/// If it cannot start, or cannot remove everything.
pub fn main(run_dir: &Path) -> Result<(), GuardFault> {
    let mut deaf = SigSet::empty();
    // systemd's watchdog sends SIGABRT to the agent's whole control group, and then the guard has something to do.
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGABRT] {
        deaf.add(signal);
    }
    if let Err(error) = deaf.thread_block() {
        tracing::warn!(%error, "the guard cannot block signals");
    }
    // Under memory pressure the agent goes first: only then is there something to do. Without the permission it is as likely as others.
    if let Err(error) = fs::write("/proc/self/oom_score_adj", "-1000") {
        tracing::debug!(%error, "the guard cannot protect itself from the OOM killer");
    }
    // What it does is due at once when its agent dies. Without the permission it waits for its turn.
    if let Err(error) = favour() {
        tracing::debug!(%error, "the guard is as likely to wait for the processor as any other process");
    }
    // Freed when this process is gone, with all that it has, and not before: the next agent takes what this one still has to.
    let _lock = ManuallyDrop::new(take_lock(run_dir, PATIENCE).map_err(GuardFault::Lock)?);
    let page = Page::open(run_dir).map_err(GuardFault::Page)?;
    let mut routes = RouteSocket::open().map_err(GuardFault::Socket)?;

    let mut watcher = Watcher { run_dir: Some(run_dir.to_owned()), ..Watcher::default() };
    // Without a buffer of its own: what is not in the pipe any more must have been heeded.
    let pipe = io::stdin().as_fd().try_clone_to_owned().map_err(GuardFault::Pipe)?;
    if watcher.outlive(&mut File::from(pipe), &page, &mut routes)? == Outcome::Released {
        return Ok(());
    }
    let Watcher { held, agent, .. } = watcher;
    tracing::warn!(
        vips = held.vips.len(),
        services = held.services.len(),
        "the agent died; removing what it held"
    );
    let mut left = remove_vips(&held, &mut routes);
    say_goodbye(&held);
    // A VIP that is still there is still answered for.
    if left == 0 {
        relinquish(&held, &page);
    }
    left += remove_services(&held.services);
    if left == 0 {
        remove_gates(&held, &mut routes);
    }
    if let Some(agent) = agent {
        // Its sockets may still be closing; who starts next, and waits for this guard, finds them gone.
        let mut ended = [PollFd::new(agent.as_fd(), PollFlags::POLLIN)];
        wait::until(&mut ended, None).map_err(GuardFault::Wait)?;
    }
    if left == 0 { Ok(()) } else { Err(GuardFault::Left(left)) }
}

/// How the agent ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// On purpose, and cleanly.
    Released,
    /// Otherwise.
    Died,
}

/// What the agent held when it was last heard.
#[derive(Debug, Default, PartialEq, Eq)]
struct Held {
    credentials: Option<Credentials>,
    peers: BTreeSet<SocketAddr>,
    vips: BTreeSet<Vip>,
    goodbyes: BTreeMap<(String, Option<IpAddr>), Goodbye>,
    services: BTreeSet<ServiceKey>,
    gates: BTreeSet<u32>,
}

impl Held {
    /// Whether the kernel answers for something without the agent, and for longer than a lease.
    fn is_answered_for(&self) -> bool {
        self.vips.iter().any(|vip| !self.gates.contains(&vip.ifindex))
    }
}

/// Follows one agent.
#[derive(Debug, Default)]
struct Watcher {
    held: Held,
    agent: Option<ProcessHandle>,
    /// The agent was killed by us.
    killed: bool,
    standstill: Standstill,
    /// The beginning of a line.
    rest: Vec<u8>,
    /// Where the agent shows its life, if it does.
    run_dir: Option<PathBuf>,
    /// Ends when the agent's life does, which is before its process has.
    life: Option<UnixStream>,
}

impl Watcher {
    /// Waits until the agent is gone or says that it is done.
    ///
    /// The pipe ends when the agent's last thread has let go of its file descriptors, but also when an agent that lives replaces its guard. So it
    /// is the process itself whose end is waited for, or the moment when none of its threads can do anything any more, for as long as it takes: an agent that
    /// cannot be killed, because it waits for a device in the kernel, may go on there, and nobody is told that it has stopped.
    fn outlive(
        &mut self,
        pipe: &mut (impl Read + AsFd),
        page: &Page,
        routes: &mut RouteSocket,
    ) -> Result<Outcome, GuardFault> {
        let mut ended = false;
        let mut look_at: Option<Mono> = None;
        loop {
            let looking = page.holding() && self.agent.is_some() && !self.killed;
            let interval =
                page.lease().filter(|_| looking).map(|lease| self.patience(lease) / LOOKS);
            // An interval that has become shorter counts from now on.
            look_at = interval.map(|interval| {
                let next = raw_now().after(interval);
                look_at.map_or(next, |at| at.min(next))
            });
            let (mut readable, mut gone) = (false, false);
            {
                let mut fds = Vec::with_capacity(3);
                if !ended {
                    fds.push(PollFd::new(pipe.as_fd(), PollFlags::POLLIN));
                }
                if let Some(agent) = &self.agent {
                    fds.push(PollFd::new(agent.as_fd(), PollFlags::POLLIN));
                }
                if let Some(life) = &self.life {
                    fds.push(PollFd::new(life.as_fd(), PollFlags::POLLIN));
                }
                wait::until(&mut fds, look_at).map_err(GuardFault::Wait)?;
                let ready = |fd: Option<&PollFd<'_>>| fd.is_some_and(|fd| fd.any() == Some(true));
                let mut fds = fds.iter();
                if !ended {
                    readable = ready(fds.next());
                }
                gone |= fds.any(|fd| ready(Some(fd)));
            }
            if readable {
                match self.read(pipe) {
                    Some(Outcome::Released) => return Ok(Outcome::Released),
                    Some(Outcome::Died) => ended = true,
                    None => {}
                }
            }
            if gone {
                // What it said last, if there is more of it than was just read. The end of the pipe may be a while off.
                while !ended && has_more(pipe)? {
                    match self.read(pipe) {
                        Some(Outcome::Released) => return Ok(Outcome::Released),
                        Some(Outcome::Died) => ended = true,
                        None => {}
                    }
                }
                return Ok(Outcome::Died);
            }
            if ended && self.agent.is_none() {
                // It died before its guard had looked at it.
                return Ok(Outcome::Died);
            }
            if look_at.is_some_and(|at| at <= raw_now()) {
                look_at = None;
                if self.standstill.look(page) {
                    self.kill(routes);
                }
            }
        }
    }

    /// How long the agent may stand still. An address in the kernel is answered for whether the agent lives or not, and must not be for longer than a lease of that
    /// length. Without one, or behind a gate, a standing agent is silent when its lease is over: there is time to tell one that hangs from one that waits for the processor.
    fn patience(&self, lease: Duration) -> Duration {
        /// Longer than a busy machine keeps a thread of nice -20 waiting.
        const SILENT: Duration = Duration::from_secs(1);
        if self.held.is_answered_for() { lease } else { lease.max(SILENT) }
    }

    /// Ends an agent that stands still. Its addresses go at once, before those who promised are free to elect another, and once more when it has
    /// ended: what it was about to do in the kernel may still happen.
    fn kill(&mut self, routes: &mut RouteSocket) {
        let Some(agent) = &self.agent else { return };
        tracing::error!(
            answers_without_it = self.held.is_answered_for(),
            "the agent holds the VIPs and its lease thread stands still; killing the agent"
        );
        if let Err(error) = agent.kill() {
            tracing::error!(%error, "the agent cannot be killed");
        }
        self.killed = true;
        remove_vips(&self.held, routes);
    }

    /// Reads what there is. `Died`: the pipe has ended.
    fn read(&mut self, pipe: &mut impl Read) -> Option<Outcome> {
        let mut buffer = [0; 4096];
        let length = match pipe.read(&mut buffer) {
            Ok(0) => return Some(Outcome::Died),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return None,
            Err(error) => {
                tracing::warn!(%error, "reading from the agent failed");
                return Some(Outcome::Died);
            }
        };
        self.rest.extend_from_slice(&buffer[..length]);
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let text = std::str::from_utf8(&line[..end]).unwrap_or_default();
            match text.parse() {
                Ok(Line::Done) => return Some(Outcome::Released),
                Ok(line) => self.heed(line),
                Err(_) => {
                    tracing::warn!("the guard was told something that it does not understand");
                }
            }
        }
        None
    }

    fn heed(&mut self, line: Line) {
        let held = &mut self.held;
        match line {
            Line::Agent(pid) => self.agent = open_parent(pid),
            Line::Lease(credentials) => {
                if credentials.realtime {
                    ask_for_realtime();
                }
                if let (None, Some(run_dir)) = (&self.life, &self.run_dir) {
                    self.life = follow(run_dir.clone(), credentials.realtime);
                }
                held.credentials = Some(credentials);
            }
            Line::Peer(address) => {
                held.peers.insert(address);
            }
            Line::Unpeer(address) => {
                held.peers.remove(&address);
            }
            Line::Hold(vip) => {
                held.vips.insert(vip);
            }
            Line::Drop(vip) => {
                held.vips.remove(&vip);
            }
            Line::Gate(ifindex) => {
                held.gates.insert(ifindex);
            }
            Line::Ungate(ifindex) => {
                held.gates.remove(&ifindex);
            }
            Line::Goodbye(goodbye) => {
                held.goodbyes.insert((goodbye.group.clone(), goodbye.to), goodbye);
            }
            Line::Quiet(group) => {
                held.goodbyes.retain(|(name, _), _| *name != group);
            }
            Line::Serve(key) => {
                held.services.insert(key);
            }
            Line::Unserve(key) => {
                held.services.remove(&key);
            }
            // That there was a line is all that it takes.
            Line::Watch | Line::Done => {}
        }
    }
}

/// Whether there is something to read, or the end.
fn has_more(pipe: &impl AsFd) -> Result<bool, GuardFault> {
    let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
    wait::until(&mut fds, Some(raw_now())).map(|ready| ready > 0).map_err(GuardFault::Wait)
}

/// Starts a thread that waits for the end of the agent's life; the stream ends with it. Without one, there is still the end of the process.
fn follow(run_dir: PathBuf, realtime: bool) -> Option<UnixStream> {
    let (seen, said) = UnixStream::pair()
        .map_err(|error| tracing::warn!(%error, "the guard follows the agent's process alone"))
        .ok()?;
    let wait = move || {
        if realtime {
            ask_for_realtime();
        }
        match outlive(&run_dir) {
            // The lock stays this process's.
            Ok(life) => std::mem::forget(life),
            Err(error) => {
                tracing::warn!(%error, "the guard follows the agent's process alone");
                // Nobody is to take this for the agent's end.
                std::mem::forget(said);
                return;
            }
        }
        drop(said);
    };
    match std::thread::Builder::new().name("life".to_owned()).spawn(wait) {
        Ok(_) => Some(seen),
        Err(error) => {
            tracing::warn!(%error, "the guard follows the agent's process alone");
            None
        }
    }
}

/// The parent, if it is still the process with that number: a number can be given to another once its process has ended, but this one's parent is then
/// another, too.
fn open_parent(pid: u32) -> Option<ProcessHandle> {
    let handle = ProcessHandle::open(pid);
    if u32::try_from(nix::unistd::getppid().as_raw()) != Ok(pid) {
        return None;
    }
    match handle {
        Ok(handle) => Some(handle),
        Err(error) => {
            tracing::error!(%error, "the agent cannot be followed; a hung one is not ended");
            None
        }
    }
}

/// As the lease thread, whose standstill it has to notice while others want the processor.
fn ask_for_realtime() {
    const PRIORITY: i32 = 10;
    /// Cleaning up a large table computes for longer than a lease thread's turn.
    const LIMIT: Duration = Duration::from_secs(5);

    if let Err(error) = real_time(PRIORITY, LIMIT, LIMIT) {
        tracing::warn!(%error, "no real-time priority for the guard");
    }
    if let Err(error) = lock_memory() {
        tracing::warn!(%error, "memory of the guard may be swapped out");
    }
}

/// Removes the addresses, which are what attracts traffic. Returns how many are left.
fn remove_vips(held: &Held, routes: &mut RouteSocket) -> usize {
    let mut left = 0;
    for &Vip { ifindex, address } in &held.vips {
        let mut prepared = PreparedAddress::new(ifindex, address, Duration::from_secs(1));
        if let Err(error) = routes.release(&mut prepared) {
            left += 1;
            tracing::error!(%address, ifindex, %error, "the guard could not remove a VIP");
        }
    }
    left
}

/// Takes the gates away, when there is nothing left that they would have to keep in: whoever puts a VIP on this machine by hand is to be heard.
fn remove_gates(held: &Held, routes: &mut RouteSocket) {
    for &ifindex in &held.gates {
        if let Err(error) = Program::detach(routes, ifindex) {
            tracing::error!(ifindex, %error, "the guard could not remove a gate");
        }
    }
}

/// Tells VRRP backups that are no members that nobody announces the VIPs any more.
fn say_goodbye(held: &Held) {
    for Goodbye { group, interface, ifindex, source, to, advert } in held.goodbyes.values() {
        let sent = match *source {
            IpAddr::V4(source) => {
                VrrpSocket::open(interface, *ifindex, Some(source)).map(|socket| match *to {
                    None => socket.send(advert),
                    Some(IpAddr::V4(router)) => socket.send_to(advert, router),
                    Some(IpAddr::V6(_)) => Err(Errno::EAFNOSUPPORT),
                })
            }
            IpAddr::V6(source) => {
                VrrpSocketV6::open(interface, *ifindex, source).map(|socket| match *to {
                    None => socket.send(advert),
                    Some(IpAddr::V6(router)) => socket.send_to(advert, router),
                    Some(IpAddr::V4(_)) => Err(Errno::EAFNOSUPPORT),
                })
            }
        };
        match sent {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(vip = group, %error, "the goodbye was not sent"),
            Err(error) => {
                tracing::debug!(vip = group, error = %chain(&error), "the goodbye was not sent");
            }
        }
    }
}

/// Frees the voters from what they promised the agent, up to the last HOLD that it can have sent. Of a tenure that is over already this says
/// nothing new, and of the next agent's it cannot speak: no run leads the term of an earlier one.
fn relinquish(held: &Held, page: &Page) {
    let (Some(credentials), Some((term, last_seq))) = (&held.credentials, page.tenure()) else {
        return;
    };
    let Credentials { own, fleet, key, .. } = credentials;
    // For people who read packets, as the agent's.
    let incarnation = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, nanos);
    let seal = Seal::new(fleet, *own, incarnation, key);
    let message = Message::Relinquish {
        group: 0,
        epoch: term,
        term,
        last_seq,
        successor: None,
        by: Speaker::Guard,
    };
    let mut buffer = [0; MAX_LEN];
    let length = seal.write(&message, &mut buffer);
    let v4 = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0));
    let v6 = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0));
    for time in 0..TIMES {
        if time > 0 {
            std::thread::sleep(PAUSE);
        }
        for peer in &held.peers {
            let socket = if peer.is_ipv4() { &v4 } else { &v6 };
            let sent = match socket {
                Ok(socket) => socket.send_to(&buffer[..length], peer).map(drop),
                Err(error) => Err(error.kind().into()),
            };
            if let Err(error) = sent {
                tracing::debug!(%peer, %error, "a voter was not told");
            }
        }
    }
    tracing::warn!(term, last_seq, voters = held.peers.len(), "relinquished for a dead agent");
}

/// Returns how many services are left.
fn remove_services(services: &BTreeSet<ServiceKey>) -> usize {
    if services.is_empty() {
        return 0;
    }
    try_to_remove(services).unwrap_or_else(|error| {
        tracing::error!(error = %chain(&error), "the guard could not reach IPVS");
        services.len()
    })
}

fn try_to_remove(services: &BTreeSet<ServiceKey>) -> Result<usize, KernelError> {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "the guard could not start a runtime");
            return Ok(services.len());
        }
    };
    runtime.block_on(async {
        let mut kernel = Linux::open()?;
        let removals: Vec<Action> =
            services.iter().map(|key| Action::RemoveService(*key)).collect();
        let mut left = 0;
        for outcome in kernel.perform_all(&removals.iter().collect::<Vec<_>>()).await {
            match outcome {
                // ESRCH: there is none, which is the aim.
                Err(error) if error.errno() != Some(Errno::ESRCH) => {
                    left += 1;
                    tracing::error!(error = %chain(&error), "the guard could not remove a service");
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(left)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vip(last: u8) -> Vip {
        Vip { ifindex: 3, address: IpAddr::from([192, 0, 2, last]) }
    }

    /// What is understood of these bytes, read in small pieces.
    fn told(text: &str) -> (Held, Option<Outcome>) {
        struct Pieces<'a>(&'a [u8]);
        impl Read for Pieces<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let length = buffer.len().min(5);
                self.0.read(&mut buffer[..length])
            }
        }
        let mut watcher = Watcher::default();
        let mut pipe = Pieces(text.as_bytes());
        let outcome = loop {
            if let Some(outcome) = watcher.read(&mut pipe) {
                break outcome;
            }
        };
        (watcher.held, Some(outcome))
    }

    #[test]
    fn a_standing_agent_has_a_lease_where_its_kernel_answers_and_otherwise_a_second() {
        let (lease, longer) = (Duration::from_millis(44), Duration::from_millis(1790));
        let mut watcher = Watcher::default();
        assert_eq!(watcher.patience(lease), Duration::from_secs(1));
        assert_eq!(watcher.patience(longer), longer);
        watcher.held.vips.insert(vip(1));
        assert_eq!(watcher.patience(lease), lease);
        watcher.heed(Line::Gate(3));
        assert_eq!(watcher.patience(lease), Duration::from_secs(1), "the gate is silent");
        watcher.held.vips.insert(Vip { ifindex: 4, ..vip(2) });
        assert_eq!(watcher.patience(lease), lease, "on the other interface it answers");
        watcher.heed(Line::Gate(4));
        watcher.heed(Line::Ungate(3));
        assert_eq!(watcher.patience(lease), lease);
    }

    #[test]
    fn what_is_held_at_the_end_is_what_was_held_and_not_dropped() {
        let (held, outcome) = told(
            "hold 3 192.0.2.1\nhold 3 192.0.2.2\nserve mark 4 7\ndrop 3 192.0.2.1\nserve mark 4 8\nunserve mark 4 7\n\
             peer 192.0.2.9:7401\npeer 192.0.2.8:7401\nunpeer 192.0.2.9:7401\n\
             goodbye a eth0 3 192.0.2.3 all 21\ngoodbye b eth0 3 192.0.2.3 all 22\n\
             goodbye a eth0 3 192.0.2.3 192.0.2.4 23\nquiet a\n\
             goodbye c eth0 3 192.0.2.3 192.0.2.4 24\ngoodbye c eth0 3 192.0.2.3 192.0.2.5 25\nwatch\n",
        );
        assert_eq!(outcome, Some(Outcome::Died));
        assert_eq!(held.vips, BTreeSet::from([vip(2)]));
        assert_eq!(held.services, BTreeSet::from([ServiceKey::Mark { ipv6: false, mark: 8 }]));
        assert_eq!(held.peers, BTreeSet::from(["192.0.2.8:7401".parse().unwrap()]));
        let adverts: Vec<_> = held.goodbyes.values().map(|goodbye| &goodbye.advert[..]).collect();
        assert_eq!(adverts, [[0x22], [0x24], [0x25]], "one group each, or to each router");
    }

    #[test]
    fn an_agent_that_ends_on_purpose_leaves_nothing_to_do() {
        assert_eq!(told("hold 3 192.0.2.1\ndone\n").1, Some(Outcome::Released));
    }

    #[test]
    fn what_is_not_understood_is_passed_over() {
        let (held, _) = told("hold 3 192.0.2.1\nfly\n\nhold 3 192.0.2.2\nhold 3 192.0");
        assert_eq!(held.vips, BTreeSet::from([vip(1), vip(2)]));
    }

    #[test]
    fn only_the_parent_is_followed() {
        let parent = u32::try_from(nix::unistd::getppid().as_raw()).unwrap();
        assert!(open_parent(parent).is_some());
        assert!(open_parent(std::process::id()).is_none());
    }
}
