//! A VIP group in the hands of the lease thread: attached or not, silent for a foreign master or not.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd as _, BorrowedFd};

use lvsmesh_core::lease::Lease;
use lvsmesh_core::model::Vip;
use lvsmesh_core::time::Mono;
use lvsmesh_core::vrrp::coexist::{Coexist, Effect, Foreign as Heard, Input, State};
use lvsmesh_core::vrrp::{Advert, TTL};
use lvsmesh_kernel::route_socket::{PreparedAddress, RouteSocket};
use tokio::sync::watch;

use super::clock::Clock;
use super::counters::Counters;
use super::responder::Responder;
use super::schedule::Schedule;
use super::segment::{Segment, resolve};
use super::{Foreign, Outlook};
use crate::guard::Guard;

/// The longest advert that is read: 255 IPv6 addresses, or 255 of IPv4 behind the longest IP header.
const LONGEST: usize = 8 + 255 * 16;

/// Adverts that are read at one go, so that a flood of them cannot keep the thread from its own.
const AT_ONCE: usize = 32;

/// Questions that are looked at in one go, for the same reason.
const ANSWERS_AT_ONCE: usize = 32;

/// What a group needs to act.
pub(super) struct Tools<'a> {
    pub(super) lease: &'a Lease,
    pub(super) clock: &'a Clock,
    pub(super) routes: &'a mut RouteSocket,
    pub(super) counters: &'a Counters,
    pub(super) guard: Option<&'a Guard>,
    pub(super) outlook: &'a watch::Sender<Outlook>,
}

impl Tools<'_> {
    /// The clock is read and the lease is asked, here and nowhere earlier.
    fn may_emit(&self) -> bool {
        let may = self.lease.may_emit(self.clock.now());
        if !may {
            self.counters.withheld.add();
        }
        may
    }

    /// Takes an address off its interface. No question to the lease: this is always allowed. Those who watch for changes made by others are
    /// told first.
    fn remove(&mut self, address: &mut PreparedAddress) {
        let vip = address.address();
        self.outlook.send_if_modified(|outlook| outlook.attached.remove(&vip));
        if let Err(error) = self.routes.release(address) {
            // Its lifetime ends soon.
            tracing::error!(%vip, %error, "a VIP could not be removed");
        }
    }
}

/// One group.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) vip: Vip,
    /// `Err`: why there is none, in one line.
    segment: Result<Segment, String>,
    coexist: Coexist,
    /// While the VIP is attached.
    schedule: Option<Schedule>,
    /// Foreign masters that were logged.
    logged: BTreeSet<IpAddr>,
    /// The last error of an emission, so that one that persists is logged once.
    trouble: Option<String>,
}

impl Group {
    pub(super) fn new(vip: Vip, vips: &BTreeSet<IpAddr>) -> Self {
        let segment = resolve(&vip, vips).and_then(|interface| Segment::open(&vip, interface));
        let source = segment
            .as_ref()
            .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |segment| segment.interface.source);
        let coexist = Coexist::new(vip.vrrp.priority, vip.vrrp.version, source);
        Self { vip, segment, coexist, schedule: None, logged: BTreeSet::new(), trouble: None }
    }

    /// Whether the interface is another one than it was, or one where there was none.
    pub(super) fn is_outdated(&self, vips: &BTreeSet<IpAddr>) -> bool {
        match (&self.segment, resolve(&self.vip, vips)) {
            (Ok(segment), Ok(interface)) => segment.interface != interface,
            // A group that cannot be claimed is tried again as a whole: its sockets may have been the trouble.
            (Err(_), Ok(_)) | (Ok(_), Err(_)) => true,
            (Err(known), Err(fault)) => *known != fault,
        }
    }

    pub(super) fn fault(&self) -> Option<&str> {
        self.segment.as_ref().err().map(String::as_str)
    }

    pub(super) fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let segment = self.segment.as_ref().ok();
        let responder = segment.filter(|_| self.is_attached()).and_then(|s| s.responder.as_ref());
        let questions = responder.into_iter().flat_map(Responder::sockets);
        segment.map(|segment| segment.vrrp.as_fd()).into_iter().chain(questions)
    }

    pub(super) fn is_attached(&self) -> bool {
        self.schedule.is_some()
    }

    /// The next moment at which there is something to do.
    pub(super) fn deadline(&self) -> Option<Mono> {
        let emission = self.schedule.as_ref().map(Schedule::deadline);
        emission.into_iter().chain(self.coexist.deadline()).min()
    }

    /// The lease is held: claims, unless a foreign master is in the way.
    pub(super) fn acquired(&mut self, tools: &mut Tools<'_>) {
        let turn = self.coexist.step(tools.clock.now(), Input::Acquired);
        self.turn(turn, tools);
        if self.coexist.state() == State::Yielding {
            tracing::warn!(vip = %self.vip.name, "a foreign VRRP master is heard; the lease is held in silence");
        }
    }

    /// The lease is lost or given up. `goodbye`: while it still runs, tell backups that are no members.
    pub(super) fn lost(&mut self, goodbye: bool, tools: &mut Tools<'_>) {
        if goodbye
            && self.is_attached()
            && let Ok(segment) = &mut self.segment
            && let Err(error) = segment.say_goodbye()
        {
            tracing::debug!(vip = %self.vip.name, %error, "the goodbye advert was not sent");
        }
        let _ = self.coexist.step(tools.clock.now(), Input::Lost);
        self.detach(tools);
    }

    /// Time has passed: a foreign master that is silent long enough is gone.
    pub(super) fn wake(&mut self, tools: &mut Tools<'_>) {
        let now = tools.clock.now();
        if self.coexist.deadline().is_some_and(|deadline| deadline <= now) {
            let turn = self.coexist.step(now, Input::Timer);
            self.turn(turn, tools);
        }
        self.emit(tools);
    }

    /// Everything is put back and said again now.
    pub(super) fn reassert(&mut self, now: Mono) {
        if let Some(schedule) = &mut self.schedule {
            schedule.reassert(now);
        }
    }

    /// Does what is due: address, advert, announcement, each under the lease.
    pub(super) fn emit(&mut self, tools: &mut Tools<'_>) {
        let (Some(schedule), Ok(segment)) = (&mut self.schedule, &mut self.segment) else { return };
        let due = schedule.take(tools.clock.now());
        let mut trouble = None;
        if due.refresh {
            // Never due where the agent answers.
            for address in &mut segment.addresses {
                if !tools.may_emit() {
                    return;
                }
                match tools.routes.claim(address) {
                    Ok(()) => tools.counters.address_refreshes.add(),
                    Err(error) => trouble = Some(format!("adding {}: {error}", address.address())),
                }
            }
        }
        if due.advert {
            if !tools.may_emit() {
                return;
            }
            match segment.advertise() {
                Ok(()) => tools.counters.adverts_sent.add(),
                Err(error) => trouble = Some(format!("sending an advert: {error}")),
            }
        }
        if due.announcement {
            for index in 0..segment.addresses.len() {
                if !tools.may_emit() {
                    return;
                }
                match segment.announce(index) {
                    Ok(()) => tools.counters.garps_sent.add(),
                    Err(error) => {
                        let vip = segment.addresses[index].address();
                        trouble = Some(format!("announcing {vip}: {error}"));
                    }
                }
            }
        }
        if due == super::schedule::Due::default() {
            return;
        }
        if let Some(trouble) = &trouble {
            self.complain(trouble, tools);
        }
        self.trouble = trouble;
    }

    /// Counts a failure, and logs it unless it is the one before over again.
    fn complain(&self, trouble: &str, tools: &Tools<'_>) {
        tools.counters.emission_errors.add();
        if self.trouble.as_deref() != Some(trouble) {
            tracing::error!(vip = %self.vip.name, interface = %self.vip.interface, error = %trouble, "a holder's emission failed");
        }
    }

    /// Answers who asks for the VIPs, each under the lease. What is still to be read then is read in the next turn.
    pub(super) fn answer(&mut self, tools: &mut Tools<'_>) {
        let (true, Ok(segment)) = (self.is_attached(), &self.segment) else { return };
        let Some(responder) = &segment.responder else { return };
        let mut budget = ANSWERS_AT_ONCE;
        let mut trouble = None;
        while budget > 0 {
            let sent = match responder.next(&mut budget) {
                Ok(None) => break,
                Ok(Some(answer)) => {
                    if !tools.may_emit() {
                        return;
                    }
                    responder.send(&answer)
                }
                Err(error) => Err(error),
            };
            match sent {
                Ok(()) => tools.counters.answers_sent.add(),
                Err(error) => trouble = Some(format!("answering for the VIPs: {error}")),
            }
        }
        if let Some(trouble) = trouble {
            self.complain(&trouble, tools);
            self.trouble = Some(trouble);
        }
    }

    /// Reads what was heard. Says whether the picture of foreign masters may have changed.
    pub(super) fn listen(&mut self, members: &BTreeSet<IpAddr>, tools: &mut Tools<'_>) -> bool {
        let mut buffer = [0; LONGEST];
        let mut news = false;
        for _ in 0..AT_ONCE {
            let Ok(segment) = &mut self.segment else { return news };
            let heard = match segment.vrrp.receive(&mut buffer) {
                Ok(Some(heard)) => heard,
                Ok(None) => return news,
                Err(error) => {
                    tracing::debug!(vip = %self.vip.name, %error, "reading adverts failed");
                    return news;
                }
            };
            let source = heard.source;
            if heard.ttl != TTL {
                tools.counters.malformed_adverts.add();
                continue;
            }
            if source == segment.interface.source || members.contains(&source) {
                continue;
            }
            match Advert::decode(heard.payload, source, heard.destination) {
                Ok(received) if received.advert.vrid == self.vip.vrrp.vrid => {
                    if source.is_ipv6() && self.is_a_members(&received.advert) {
                        continue;
                    }
                    self.heard(Heard::of(&received.advert, source), tools);
                    news = true;
                }
                // Another virtual router on the same segment.
                Ok(_) => {}
                Err(error) => {
                    tools.counters.malformed_adverts.add();
                    tracing::debug!(vip = %self.vip.name, %source, %error, "an advert could not be read");
                }
            }
        }
        news
    }

    /// Whether an advert over IPv6 is a member's, as far as that can be told: it says what this node would say, and this node does not hold.
    ///
    /// Adverts over IPv6 come from link-local addresses, which no configuration lists. A foreign router that says the very same is noticed
    /// as soon as this node holds, because then no member says anything.
    fn is_a_members(&self, advert: &Advert) -> bool {
        let own = Advert::of(&self.vip);
        self.coexist.state() == State::NoLease && (*advert == own || *advert == own.goodbye())
    }

    fn heard(&mut self, foreign: Heard, tools: &mut Tools<'_>) {
        tools.counters.foreign_adverts.add();
        if self.logged.insert(foreign.source) {
            tracing::warn!(
                vip = %self.vip.name,
                source = %foreign.source,
                priority = foreign.priority,
                "an advert of a router that is no member was heard"
            );
        }
        let turn = self.coexist.step(tools.clock.now(), Input::Heard(foreign));
        self.turn(turn, tools);
    }

    fn turn(&mut self, turn: Option<Effect>, tools: &mut Tools<'_>) {
        match turn {
            None => {}
            Some(Effect::Claim) => self.attach(tools),
            Some(Effect::Silence) => {
                tracing::warn!(vip = %self.vip.name, "a foreign VRRP master wins; keeping silent until it is gone");
                self.detach(tools);
            }
            Some(Effect::Reassert) => {
                self.reassert(tools.clock.now());
                self.emit(tools);
            }
        }
    }

    fn attach(&mut self, tools: &mut Tools<'_>) {
        let Ok(segment) = &self.segment else { return };
        // Before the kernel has them, and before it is said.
        if let Some(guard) = tools.guard {
            guard.hold(segment.held());
            guard.announced(segment.farewell(&self.vip));
        }
        let now = tools.clock.now();
        let refreshing = segment.responder.is_none();
        self.schedule = Some(Schedule::new(now, self.vip.vrrp.advert_interval, refreshing));
        if let Some(responder) = &segment.responder
            && let Err(error) = responder.listen()
        {
            let trouble = format!("listening for questions: {error}");
            self.complain(&trouble, tools);
            self.trouble = Some(trouble);
        }
        self.emit(tools);
    }

    fn detach(&mut self, tools: &mut Tools<'_>) {
        if self.schedule.take().is_none() {
            return;
        }
        if let Some(guard) = tools.guard {
            guard.quiet(&self.vip.name);
        }
        let responder = self.segment.as_ref().ok().and_then(|segment| segment.responder.as_ref());
        let Some(responder) = responder else { return self.clear(tools) };
        // Nobody is answered any more, whatever becomes of this: an unclaimed group looks at no question.
        if let Err(error) = responder.ignore() {
            tracing::debug!(vip = %self.vip.name, %error, "questions for the VIPs are still queued");
        }
        let vips = &self.vip.addresses;
        tools.outlook.send_if_modified(|outlook| {
            let before = outlook.answering.len();
            outlook.answering.retain(|address| !vips.contains(address));
            outlook.answering.len() != before
        });
    }

    /// Takes the group's addresses off its interface, whoever put them there.
    pub(super) fn clear(&mut self, tools: &mut Tools<'_>) {
        let Ok(segment) = &mut self.segment else { return };
        for address in &mut segment.addresses {
            tools.remove(address);
        }
        if let Some(guard) = tools.guard {
            guard.drop(segment.held());
        }
    }

    /// Takes the place of `old`, which is about to be dropped: addresses that both have stay where they are.
    pub(super) fn succeed(&mut self, old: &mut Self, tools: &mut Tools<'_>) {
        if !old.is_attached() {
            return;
        }
        if let (Ok(before), Ok(after)) = (&mut old.segment, &self.segment) {
            let kept: BTreeSet<_> = after.held().collect();
            let gone: Vec<_> = before.held().filter(|held| !kept.contains(held)).collect();
            for address in &mut before.addresses {
                if gone.iter().any(|gone| {
                    gone.ifindex == address.ifindex() && gone.address == address.address()
                }) {
                    tools.remove(address);
                }
            }
            if let Some(guard) = tools.guard {
                guard.drop(gone);
            }
            old.schedule = None;
        }
        old.detach(tools);
    }

    /// Adds what an operator should know.
    pub(super) fn describe(&self, now: Mono, outlook: &mut Outlook) {
        outlook.faults.extend(self.segment.as_ref().err().cloned());
        let trouble = self.trouble.as_ref().filter(|_| self.is_attached());
        outlook.faults.extend(trouble.map(|trouble| format!("vips/{}: {trouble}", self.vip.name)));
        if let Some(foreign) = self.coexist.foreign(now) {
            outlook.foreign.push(Foreign {
                vip: self.vip.name.clone(),
                source: foreign.source,
                priority: foreign.priority,
                yielding: self.coexist.state() == State::Yielding,
            });
        }
        if self.is_attached() {
            let by_agent = self.segment.as_ref().is_ok_and(|segment| segment.responder.is_some());
            let which = if by_agent { &mut outlook.answering } else { &mut outlook.attached };
            which.extend(&self.vip.addresses);
        }
    }
}
