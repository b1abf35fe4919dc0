//! The thread itself: wait, feed the machine, do what it says.
//!
//! Everything that is sent or put on an interface leaves through here, and the lease is asked, with the clock just read, before each of them.
//! Nothing here waits for a disk, a name, a script or another thread.

mod groups;
mod without;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::mpsc::TryRecvError;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lvsmesh_core::lease::wire::{MAX_LEN, Speaker};
use lvsmesh_core::lease::{
    Effect, Effects, Input, Lease, LeaseConfig, Loss, Message, Span, Standing, Timing,
};
use lvsmesh_core::model::NodeId;
use lvsmesh_core::time::{Mono, nanos};
use lvsmesh_core::vrrp::fallback;
use lvsmesh_kernel::route_socket::RouteSocket;
use lvsmesh_kernel::wait::{self, PollFd, PollFlags};
use tokio::sync::watch;

use super::clock::Clock;
use super::gate::Gates;
use super::group::{Group, Tools, Without};
use super::promise::{Bound, FILE, PromiseRecord};
use super::realtime::{self, Favoured};
use super::seal::{Refusal, Seal};
use super::{
    Counters, LeaseHandle, LeaseReceiver, LeaseStartError, LeaseThreadConfig, Order, Outlook,
    Tenure,
};
use crate::guard::{Credentials, Guard, Page};
use crate::raft::{RaftHandle, Verdict};

/// Datagrams that are read at one go, so that a flood of them cannot keep the thread from what is due.
const AT_ONCE: usize = 64;

/// At least this often the thread looks at suspends, interfaces and foreign masters that have fallen silent.
const LOOK: Duration = Duration::from_secs(1);

/// An operator may remove the gate with what it hangs on. No netlink event tells this thread.
const RENEW: Duration = Duration::from_secs(30);

/// A deadline in the past twice in a row, with nothing to read, is a fault; at real-time priority it would stop the machine.
const BREATH: Duration = Duration::from_millis(1);

/// Where verdicts go.
pub(super) type Tell = Box<dyn Fn(Verdict) + Send>;

pub(super) fn spawn(
    config: LeaseThreadConfig,
    receiver: LeaseReceiver,
    raft: RaftHandle,
) -> Result<(LeaseHandle, JoinHandle<()>), LeaseStartError> {
    start(config, receiver, Box::new(move |verdict| raft.verdict(verdict)))
}

pub(super) fn start(
    config: LeaseThreadConfig,
    receiver: LeaseReceiver,
    tell: Tell,
) -> Result<(LeaseHandle, JoinHandle<()>), LeaseStartError> {
    let system = |what| move |source: io::Error| LeaseStartError::System { what, source };
    let (tenure, tenure_seen) = watch::channel(Tenure::None);
    let (outlook, outlook_seen) = watch::channel(Outlook::default());
    let inputs = config.inputs.clone();
    let asks = config.realtime;
    let thread = Thread::new(config, receiver, tell, tenure, outlook)?;
    let favoured = Favoured::default();
    let handle = LeaseHandle {
        inputs,
        favoured: favoured.clone(),
        tenure: tenure_seen,
        outlook: outlook_seen,
        counters: Arc::clone(&thread.counters),
    };
    let joined = std::thread::Builder::new()
        .name("lease".to_owned())
        .spawn(move || {
            realtime::come_first();
            if asks {
                realtime::ask(&favoured);
            }
            thread.run();
        })
        .map_err(system("thread"))?;
    Ok((handle, joined))
}

struct Thread {
    lease: Lease,
    timing: Timing,
    effects: Effects,
    clock: Clock,
    seal: Seal,
    socket: UdpSocket,
    receiver: LeaseReceiver,
    tell: Tell,
    tenure: watch::Sender<Tenure>,
    outlook: watch::Sender<Outlook>,
    counters: Arc<Counters>,
    record: PromiseRecord,
    peers: BTreeMap<NodeId, SocketAddr>,
    voters: BTreeSet<NodeId>,
    members: BTreeSet<IpAddr>,
    /// The addresses of each other director.
    directors: Vec<BTreeSet<IpAddr>>,
    groups: Vec<Group>,
    /// When the last announcement went out on an interface.
    announced: BTreeMap<u32, Mono>,
    routes: RouteSocket,
    gates: Gates,
    guard: Option<Guard>,
    /// Where the guard sees that this thread is alive, and what there is to relinquish if it is not.
    page: Option<Page>,
    /// What is done without a lease.
    without: Without,
    /// As the rest of the agent says it.
    standing: Standing,
    /// As the lease machine has it: who holds without a lease is to get the next one.
    told: Standing,
    /// Of what is held, or about to be, without a lease.
    unleased_epoch: Option<u64>,
    /// Claimed, and not released.
    holding: bool,
    /// That is under a lease.
    leased: bool,
    /// The tenure that is held and not said yet.
    unsaid: Option<u64>,
    /// An earlier run may have left VIPs.
    leftovers: bool,
    /// When to look at what makes no noise.
    look_at: Mono,
    /// When to look whether the gate is still where it was put.
    renew_at: Mono,
    /// Since when the thread is to end.
    stopping: Option<Mono>,
    /// As the lease machine has it.
    release_margin: Duration,
    /// Turns in a row that came too early for anything to do.
    restless: bool,
    done: bool,
}

impl Thread {
    fn new(
        config: LeaseThreadConfig,
        receiver: LeaseReceiver,
        tell: Tell,
        tenure: watch::Sender<Tenure>,
        outlook: watch::Sender<Outlook>,
    ) -> Result<Self, LeaseStartError> {
        let system = |what| move |source: io::Error| LeaseStartError::System { what, source };
        let bind = |source| LeaseStartError::Bind { address: config.listen, source };
        let socket = UdpSocket::bind(config.listen).map_err(bind)?;
        socket.set_nonblocking(true).map_err(bind)?;
        let (record, left) = PromiseRecord::open(&config.run_dir).map_err(|source| {
            LeaseStartError::Promise { path: config.run_dir.join(FILE), source }
        })?;
        let clock = Clock::new().map_err(system("clock"))?;
        let routes =
            RouteSocket::open().map_err(io::Error::from).map_err(system("netlink socket"))?;
        let silent_until = match left {
            Some(bound) => bound.until,
            None if config.voted_before => clock.now().after(config.timing.promise_max),
            None => Mono(0),
        };
        if silent_until > clock.now() {
            let silence = silent_until.remaining(clock.now());
            tracing::info!(
                ?silence,
                "earlier promises may still run; this node votes for nobody until they end"
            );
        }
        // For people who read packets; no decision depends on it.
        let incarnation = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, nanos);
        if let Some(guard) = &config.guard {
            guard.empower(Credentials {
                own: config.own,
                fleet: config.fleet.clone(),
                key: config.key.clone(),
                realtime: config.realtime,
            });
        }
        Ok(Self {
            without: Without::unknown(config.timing.longest().promise),
            standing: Standing::default(),
            told: Standing::default(),
            unleased_epoch: None,
            leased: false,
            lease: Lease::new(
                LeaseConfig::new(config.own, config.timing, config.term),
                silent_until,
            ),
            timing: config.timing,
            effects: Effects::new(),
            look_at: clock.now(),
            renew_at: clock.now().after(RENEW),
            clock,
            seal: Seal::new(&config.fleet, config.own, incarnation, &config.key),
            socket,
            receiver,
            tell,
            tenure,
            outlook,
            counters: Arc::new(Counters::default()),
            record,
            peers: BTreeMap::new(),
            voters: BTreeSet::new(),
            page: config.guard.as_ref().map(Guard::page),
            members: BTreeSet::new(),
            directors: vec![],
            groups: vec![],
            announced: BTreeMap::new(),
            routes,
            gates: Gates::load(config.gate, &config.inputs),
            guard: config.guard,
            holding: false,
            unsaid: None,
            leftovers: left.is_some_and(|bound| bound.holding),
            stopping: None,
            release_margin: config.timing.release_margin,
            restless: false,
            done: false,
        })
    }

    fn run(mut self) {
        while !self.done {
            self.wait();
            self.turn();
        }
        // Whatever led here, nothing may stay.
        self.with_groups(Group::resign);
        self.let_go(false, false);
        self.with_groups(Group::retire);
        // What could not be taken off the interfaces stays silent.
        if self.groups.iter().all(|group| group.armed().is_none()) {
            self.gates.remove(self.guard.as_ref());
        }
    }

    /// Takes in everything there is, then does everything that is due.
    fn turn(&mut self) {
        self.counters.turns.add();
        if let Some(page) = self.page {
            page.turn();
        }
        if self.clock.jumped() {
            tracing::warn!("the machine was suspended; giving up the lease");
            self.step(Input::Suspended);
            self.with_groups(|group, tools| group.without(fallback::Input::Suspended, tools));
        }
        // A non-blocking read; it fails when somebody's wake-up was read with an earlier one.
        let _ = self.receiver.wake.read();
        loop {
            match self.receiver.queue.try_recv() {
                Ok(order) => self.obey(order),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    self.obey(Order::Stop);
                    break;
                }
            }
        }
        self.receive();
        self.step(Input::Timer);
        self.listen();
        // After everything that could say that another holds by now.
        self.with_groups(Group::answer);
        if self.lease.lease_until().is_some() {
            self.majority();
        }
        self.look();
        self.leave_time_to_release(&[]);
        self.wake();
        self.settle();
        self.prefer();
        self.with_groups(|group, tools| group.keep_open(tools));
        self.finish();
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Input(Input::Standing(standing)) => {
                self.standing = standing;
                self.prefer();
                self.tell_groups();
            }
            Order::Input(Input::TableReady { epoch }) => {
                self.table_without(epoch);
                self.step(Input::TableReady { epoch });
            }
            Order::Input(Input::LeaderHeard) => {
                self.step(Input::LeaderHeard);
                self.majority();
            }
            Order::Input(Input::Voters(voters)) => {
                self.voters.clone_from(&voters);
                self.introduce_voters();
                self.step(Input::Voters(voters));
                self.tell_groups();
            }
            Order::Input(input) => self.step(input),
            Order::WithoutQuorum(order) => self.allow(order),
            Order::Vips(vips) => self.replace(vips),
            Order::Peers(peers) => {
                self.peers = peers;
                self.introduce_voters();
            }
            Order::Gate { ifindex, outcome } => {
                self.gates.prepared(ifindex, outcome, self.guard.as_ref());
                self.with_groups(|group, tools| group.rearm(ifindex, tools));
                self.gates.vouch(ifindex, self.guard.as_ref());
                self.publish();
            }
            Order::Members(members) => self.members = members,
            Order::Directors(directors) => {
                for group in &mut self.groups {
                    group.address(&directors, self.guard.as_ref());
                }
                self.directors = directors;
                self.publish();
            }
            Order::Refresh => {
                self.look_at = self.clock.now();
                let now = self.clock.now();
                for group in &mut self.groups {
                    group.reassert(now);
                }
            }
            Order::Stop => {
                if self.stopping.is_none() {
                    self.stopping = Some(self.clock.now());
                    self.step(Input::Abdicate { successor: None });
                    self.with_groups(Group::resign);
                    self.tell_groups();
                }
            }
        }
    }

    /// Tells the guard whom it would have to tell.
    fn introduce_voters(&self) {
        let Some(guard) = &self.guard else { return };
        let voters = self.peers.iter().filter(|(id, _)| self.voters.contains(id));
        guard.peers(voters.map(|(_, address)| *address).collect());
    }

    fn receive(&mut self) {
        let mut buffer = [0; MAX_LEN + 1];
        for _ in 0..AT_ONCE {
            let length = match self.socket.recv_from(&mut buffer) {
                Ok((length, _)) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // ICMP's answers to earlier sends come as errors of later calls.
                Err(_) => continue,
            };
            match self.seal.read(&buffer[..length]) {
                Ok((from, message)) => {
                    self.counters.datagrams_received.add();
                    let promised = self.promised_to(from);
                    self.step(Input::Datagram { from, message });
                    if promised && let Message::Relinquish { term, by, .. } = message {
                        self.freed(from, term, by);
                    }
                }
                Err(Refusal::Stranger) => self.counters.auth_failures.add(),
                Err(Refusal::Malformed) => self.counters.malformed.add(),
            }
        }
    }

    /// Whether a promise to that node runs.
    fn promised_to(&self, node: NodeId) -> bool {
        let now = self.clock.now();
        self.lease.promise().is_some_and(|promise| promise.to == node && promise.until > now)
    }

    /// Takes note of a holder, or its guard, that has freed this voter before its promise ended.
    fn freed(&self, from: NodeId, term: u64, by: Speaker) {
        if self.promised_to(from) {
            return;
        }
        let guards = by == Speaker::Guard;
        tracing::info!(holder = %from, term, by_its_guard = guards, "a promise is void: its holder has stopped");
        self.counters.promises_voided.add();
        if guards {
            self.counters.promises_voided_by_guards.add();
        }
    }

    /// One step of the machine, and what it asks for.
    fn step(&mut self, input: Input) {
        let now = self.clock.now();
        let (until, bound_before) = (self.lease.lease_until(), self.lease.bound_until());
        // As it was when the lease ended, if it has.
        let before = self.lease.status(until.map_or(now, |until| until.min(now)));
        let mut effects = std::mem::take(&mut self.effects);
        self.lease.step(now, input, &mut effects);
        self.counters.lease_until.set(self.lease.lease_until());
        let status = self.lease.status(now);
        if let Some(page) = self.page {
            // Before a HOLD of this step is sent.
            // What is held beyond the end of a tenure is on its way out, or stays without a lease: by the last one's length, if anybody looks.
            if status.phase.is_some() || !self.holding {
                page.set_lease(status.in_force.lease);
            }
            page.set_tenure(status.phase.map(|_| (status.epoch, status.last_seq)));
        }
        self.say_span(before.span, status.span);
        // A lease that this step gave up binds until its addresses are gone, which is below.
        let bound = self.keep_bound(bound_before, self.holding);
        self.give_way(&effects);
        for effect in &effects {
            self.perform(*effect, (until, before.in_force), bound);
        }
        self.effects = effects;
    }

    /// Says that promises of another length are asked for.
    fn say_span(&self, before: Span, now: Span) {
        self.counters.promise.set(now.promise);
        if now != before {
            tracing::info!(promise = ?now.promise, lease = ?now.lease, beat = ?now.beat, before = ?before.promise, "asking for promises of another length");
        }
    }

    /// Puts what this node is bound by on record, before anybody is told of it.
    fn keep_bound(&mut self, at_least: Mono, holding: bool) -> bool {
        let bound = self.lease.bound_until().max(at_least);
        match self.record.keep(Bound { until: bound, holding: holding || self.leftovers }) {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(%error, "the promise record cannot be written; promising and voting nothing");
                false
            }
        }
    }

    /// The end of the lease before this step, and the span that was in force. `bound`: promises are on record.
    fn perform(&mut self, effect: Effect, (until, span): (Option<Mono>, Span), bound: bool) {
        match effect {
            Effect::Send { message: Message::Ack { .. }, .. } if !bound => {}
            Effect::Send { to, message } => self.send(to, &message),
            Effect::Pass(ticket) if !bound => (self.tell)(Verdict::Drop(ticket)),
            Effect::Pass(ticket) => (self.tell)(Verdict::Pass(ticket)),
            Effect::Drop(ticket) => (self.tell)(Verdict::Drop(ticket)),
            Effect::Campaign => (self.tell)(Verdict::Campaign),
            Effect::StepDown { term } => (self.tell)(Verdict::StepDown { term }),
            Effect::HandOver { term, to } => (self.tell)(Verdict::HandOver { term, to }),
            Effect::Prepare { epoch } => {
                tracing::info!(epoch, "the lease is won; putting the forwarding table in place");
                self.tenure.send_replace(Tenure::Preparing { epoch });
            }
            Effect::Claim { epoch, .. } => self.claim(epoch, bound),
            // Every emission asks the machine itself.
            Effect::Extend { .. } => {}
            Effect::Release { epoch, why } => {
                tracing::info!(epoch, ?why, held = self.holding, "the lease is over");
                let now = self.clock.now();
                let clean = why == Loss::Abdicated && until.is_some_and(|until| now < until);
                // Until then no promise behind the lease can have ended, so that nobody else was elected.
                let spare = span.longest_lease().saturating_sub(span.lease);
                let in_time = until.is_some_and(|until| now < until.after(spare));
                self.let_go(clean, why == Loss::Expired && in_time);
            }
        }
    }

    fn send(&mut self, to: NodeId, message: &Message) {
        let Some(address) = self.peers.get(&to) else { return };
        let mut buffer = [0; MAX_LEN];
        let length = self.seal.write(message, &mut buffer);
        // A datagram that cannot be sent is a lost one, which the protocol is made for.
        match self.socket.send_to(&buffer[..length], address) {
            Ok(_) => self.counters.datagrams_sent.add(),
            Err(error) => tracing::trace!(%to, %error, "a lease datagram was not sent"),
        }
    }

    fn claim(&mut self, epoch: u64, bound: bool) {
        // Without a record the next run would not know that it may have left VIPs. They still expire by themselves, so a claim is made.
        if bound {
            self.keep_bound(Mono(0), true);
        }
        self.set_holding(true);
        self.leased = true;
        self.counters.claims.add();
        let alone = self.is_alone();
        self.with_groups(|group, tools| group.acquired(alone, tools));
        self.unsaid = Some(epoch);
        self.publish();
        self.say_holding();
        tracing::info!(epoch, groups = self.groups.len(), "holding");
    }

    fn set_holding(&mut self, holding: bool) {
        self.holding = holding;
        if let Some(page) = self.page {
            page.set_holding(holding);
        }
        if let (true, Some(guard)) = (holding, &self.guard) {
            guard.watch();
        }
    }

    /// Says that this node holds, once no group waits for answers any more: who asked for a move then finds the VIPs there.
    fn say_holding(&mut self) {
        if !self.groups.iter().any(Group::is_checking)
            && let Some(epoch) = self.unsaid.take()
        {
            self.tenure.send_replace(Tenure::Holding { epoch });
        }
    }

    /// The lease is over. `orphaned`: for want of promises, and nobody else can have one yet.
    fn let_go(&mut self, goodbye: bool, orphaned: bool) {
        self.unsaid = None;
        if std::mem::take(&mut self.leased) {
            self.counters.releases.add();
            let members = std::mem::take(&mut self.members);
            self.with_groups(|group, tools| {
                if !(orphaned && group.expired(&members, tools)) {
                    group.lost(goodbye, tools);
                }
            });
            self.members = members;
        }
        // Last: on a dual-role node the table goes when this is seen, and the VIP must have gone before it.
        self.settle();
        self.publish();
    }

    fn with_groups(&mut self, mut act: impl FnMut(&mut Group, &mut Tools<'_>)) {
        let mut tools = Tools {
            lease: &self.lease,
            clock: &self.clock,
            routes: &mut self.routes,
            gates: &mut self.gates,
            counters: &self.counters,
            guard: self.guard.as_ref(),
            outlook: &self.outlook,
            announced: &mut self.announced,
        };
        for group in &mut self.groups {
            act(group, &mut tools);
        }
    }

    fn wake(&mut self) {
        let mut news = false;
        self.with_groups(|group, tools| news |= group.wake(tools));
        if news {
            self.publish();
        }
        self.say_holding();
    }

    fn listen(&mut self) {
        let members = std::mem::take(&mut self.members);
        let mut news = false;
        self.with_groups(|group, tools| news |= group.listen(&members, tools));
        self.members = members;
        if news {
            self.publish();
        }
    }

    fn publish(&mut self) {
        let now = self.clock.now();
        let mut seen = Outlook::default();
        for group in &self.groups {
            group.describe(now, &self.gates, &mut seen);
        }
        let faults: Vec<&str> = self.groups.iter().filter_map(Group::fault).collect();
        if !faults.is_empty() && faults.len() == self.groups.len() {
            seen.unusable = Some(faults.join("; "));
        }
        self.outlook.send_if_modified(|outlook| {
            let changed = *outlook != seen;
            *outlook = seen;
            changed
        });
    }

    /// Ends the thread once the voters have been told, or have been told often enough.
    fn finish(&mut self) {
        let Some(since) = self.stopping else { return };
        let told = self.timing.relinquish_every * u32::from(self.timing.relinquish_times);
        let over = self.clock.now() >= since.after(told);
        self.done = over || self.lease.deadline() == Mono(u64::MAX);
    }

    fn wait(&mut self) {
        let now = self.clock.now();
        let groups = self.groups.iter().filter_map(Group::deadline).min();
        let farewell = self.stopping.map(|since| since.after(self.timing.relinquish_every));
        // A holder without a lease has no beats. It turns all the same, or the guard takes it for one that hangs.
        let turn = self.holding.then(|| now.after(self.lease.status(now).in_force.lease / 2));
        let mut deadline =
            [Some(self.lease.deadline()), Some(self.look_at), groups, farewell, turn]
                .into_iter()
                .flatten()
                .min()
                .unwrap_or(now);
        let early = deadline <= now;
        if early && self.restless {
            deadline = now.after(BREATH);
        }

        let mut fds = vec![
            PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.receiver.wake.as_fd(), PollFlags::POLLIN),
        ];
        let sockets = self.groups.iter().flat_map(Group::sockets);
        fds.extend(sockets.map(|socket| PollFd::new(socket, PollFlags::POLLIN)));
        let ready = wait::until(&mut fds, Some(deadline)).unwrap_or_else(|error| {
            tracing::error!(%error, "waiting failed");
            std::thread::sleep(BREATH);
            0
        });
        self.restless = early && ready == 0;
    }
}
