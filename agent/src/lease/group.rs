//! A VIP group in the hands of the lease thread: attached or not, silent for a foreign master or not.

mod claim;
mod view;
mod without;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use lvsmesh_core::lease::Lease;
use lvsmesh_core::model::{Vip, Vrrp};
use lvsmesh_core::time::Mono;
use lvsmesh_core::vrrp::coexist::{Coexist, Effect, Foreign as Heard, Input, State};
use lvsmesh_core::vrrp::fallback::{self, Fallback};
use lvsmesh_core::vrrp::{Advert, TTL};
use lvsmesh_kernel::route_socket::{PreparedAddress, RouteSocket};
use tokio::sync::watch;

use self::view::Hex;
pub(super) use self::without::Without;
use super::Outlook;
use super::clock::Clock;
use super::counters::Counters;
use super::gate::{Armed, Gates};
use super::heard::{Oddities, Reason};
use super::responder::Responder;
use super::schedule::Schedule;
use super::segment::{Said, Segment, Sighting, resolve};
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
    pub(super) gates: &'a mut Gates,
    pub(super) counters: &'a Counters,
    pub(super) guard: Option<&'a Guard>,
    pub(super) outlook: &'a watch::Sender<Outlook>,
    /// When the last announcement went out on an interface.
    pub(super) announced: &'a mut BTreeMap<u32, Mono>,
}

impl Tools<'_> {
    /// The clock is read, and the lease is asked or what holds in its place, here and nowhere earlier. What the kernel goes by is made to agree.
    fn may_emit(&self, fallback: &Fallback, armed: Option<&Armed>) -> bool {
        let until = self.until(fallback);
        match (until, armed) {
            (Some(until), Some(armed)) => self.gates.open(armed, until),
            (Some(_), None) => {}
            (None, _) => self.counters.withheld.add(),
        }
        until.is_some()
    }

    /// Until when anything may be sent, if nothing happens; `None`: not even now.
    fn until(&self, fallback: &Fallback) -> Option<Mono> {
        /// Without a lease nobody counts on its end. It is held for as long as this thread turns, which it does at least every half lease.
        const UNLEASED: Duration = Duration::from_secs(2);
        if self.clock.was_suspended() {
            // The next turn says so to all.
            return None;
        }
        let now = self.clock.now();
        if self.lease.may_emit(now) {
            return self.lease.lease_until();
        }
        fallback.may_emit(now).then(|| now.after(UNLEASED))
    }

    /// Takes an address off its interface. No question to the lease: this is always allowed. Those who watch for changes made by others are
    /// told first. Says whether it is gone.
    fn remove(&mut self, address: &mut PreparedAddress) -> bool {
        let vip = address.address();
        self.outlook.send_if_modified(|outlook| outlook.attached.remove(&vip));
        match self.routes.release(address) {
            Ok(()) => true,
            Err(error) => {
                // Its lifetime ends soon.
                tracing::error!(%vip, %error, "a VIP could not be removed");
                false
            }
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
    /// What it does without a lease.
    fallback: Fallback,
    /// Whoever advertises will have been heard by then.
    heard_by: Mono,
    /// While the VIP is attached.
    schedule: Option<Schedule>,
    /// While there is a gate, and the VIP is attached or could not be taken off.
    armed: Option<Armed>,
    /// An announcement is under way: the address that is next, and when its turn is.
    announcing: Option<(usize, Mono)>,
    /// Foreign masters that were logged.
    logged: BTreeSet<IpAddr>,
    /// Members that adverts over IPv6 have come from.
    kin: BTreeSet<IpAddr>,
    /// Adverts that are not as they should be.
    oddities: Oddities,
    /// Who said last that it has one of the addresses.
    sighting: Option<Sighting>,
    /// The last error of an emission, so that one that persists is logged once.
    trouble: Option<String>,
}

impl Group {
    pub(super) fn new(
        vip: Vip,
        vips: &BTreeSet<IpAddr>,
        directors: &[BTreeSet<IpAddr>],
        without: &Without,
        now: Mono,
    ) -> Self {
        let segment = resolve(&vip, vips, without.policy)
            .and_then(|interface| Segment::open(&vip, interface, directors));
        let source = segment
            .as_ref()
            .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |segment| segment.interface.source);
        let Vrrp { coexist, priority, version, advert_interval, .. } = vip.vrrp;
        let coexist = Coexist::new(coexist, priority, version, advert_interval, source);
        let mut group = Self {
            heard_by: now.after(advert_interval * 6 / 5),
            fallback: Fallback::new(without.terms(&vip, segment.as_ref().ok()), now),
            vip,
            segment,
            coexist,
            schedule: None,
            armed: None,
            announcing: None,
            logged: BTreeSet::new(),
            kin: BTreeSet::new(),
            oddities: Oddities::default(),
            sighting: None,
            trouble: None,
        };
        let _ = group.fallback.step(now, fallback::Input::Fit(without.fit));
        group
    }

    /// The fleet's directors, or their addresses, are others.
    pub(super) fn address(&mut self, directors: &[BTreeSet<IpAddr>], guard: Option<&Guard>) {
        let Ok(segment) = &mut self.segment else { return };
        segment.address(&self.vip, directors);
        if self.schedule.is_some()
            && let Some(guard) = guard
        {
            guard.announced(&self.vip.name, segment.farewell(&self.vip));
        }
    }

    /// Whether the interface is another one than it was, or one where there was none.
    pub(super) fn is_outdated(&self, vips: &BTreeSet<IpAddr>, without: &Without) -> bool {
        match (&self.segment, resolve(&self.vip, vips, without.policy)) {
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
        segment.into_iter().flat_map(Segment::sockets).chain(questions)
    }

    /// Whether a claim waits for answers to a question.
    pub(super) fn is_checking(&self) -> bool {
        self.coexist.state() == State::Checking
    }

    pub(super) fn is_attached(&self) -> bool {
        self.schedule.is_some()
    }

    /// The next moment at which there is something to do.
    pub(super) fn deadline(&self) -> Option<Mono> {
        let announcing = self.announcing.map(|(_, at)| at);
        let emission =
            self.schedule.as_ref().map(|schedule| schedule.deadline(announcing.is_some()));
        let announcing = announcing.filter(|_| emission.is_some());
        let machines = [self.coexist.deadline(), self.fallback.deadline()];
        [emission, announcing].into_iter().chain(machines).flatten().min()
    }

    /// The lease is held: claims, unless a foreign master is in the way.
    pub(super) fn acquired(&mut self, alone: bool, tools: &mut Tools<'_>) {
        let now = tools.clock.now();
        let held = self.fallback.is_master();
        if held {
            self.coexist.goes_on();
        }
        let _ = self.fallback.step(now, fallback::Input::Lease);
        if let Ok(segment) = &mut self.segment {
            segment.speak_as(&self.vip, self.vip.vrrp.priority);
        }
        let turn = self.coexist.step(now, Input::Acquired { alone });
        if held && turn != Some(Effect::Claim) {
            self.detach(tools);
        }
        self.turn(turn, tools);
        let foreign = self.coexist.foreign(now).is_some_and(|foreign| !foreign.member);
        if foreign && matches!(self.coexist.state(), State::Yielding | State::Contesting) {
            let state = self.coexist.state().name();
            tracing::warn!(vip = %self.vip.name, state, "a foreign VRRP master is heard; the lease is held in silence");
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

    /// Time has passed: a foreign master that is silent long enough is gone. Says whether it stands otherwise than before.
    pub(super) fn wake(&mut self, tools: &mut Tools<'_>) -> bool {
        let now = tools.clock.now();
        let before = self.coexist.state();
        if self.coexist.deadline().is_some_and(|deadline| deadline <= now) {
            let turn = self.coexist.step(now, Input::Timer);
            self.turn(turn, tools);
        }
        let held = self.fallback.state();
        self.without(fallback::Input::Timer, tools);
        self.emit(tools);
        self.coexist.state() != before || self.fallback.state() != held
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
        if self.fallback.is_master() && !self.fallback.may_emit(tools.clock.now()) {
            // What is due stays so until the segment has been listened to, in the next turn.
            return;
        }
        let due = schedule.take(tools.clock.now(), self.announcing.is_some());
        let mut trouble = None;
        if due.refresh {
            // Never due where the agent answers.
            for address in &mut segment.addresses {
                if !tools.may_emit(&self.fallback, self.armed.as_ref()) {
                    return;
                }
                match tools.routes.claim(address) {
                    Ok(()) => tools.counters.address_refreshes.add(),
                    Err(error) => trouble = Some(format!("adding {}: {error}", address.address())),
                }
            }
        }
        if due.advert {
            if !tools.may_emit(&self.fallback, self.armed.as_ref()) {
                return;
            }
            match segment.advertise() {
                Ok(()) => tools.counters.adverts_sent.add(),
                Err(error) => trouble = Some(format!("sending an advert: {error}")),
            }
        }
        if due.announcement {
            self.announcing = Some((0, tools.clock.now()));
        }
        let announced = self.announcing.is_some_and(|(_, at)| at <= tools.clock.now());
        if announced && let Some(fault) = self.announce(tools) {
            trouble = Some(fault);
        }
        if due == super::schedule::Due::default() && !announced {
            return;
        }
        if let Some(trouble) = &trouble {
            self.complain(trouble, tools);
        }
        self.trouble = trouble;
    }

    /// Goes on with the announcement that is under way, as far as the pace of its interface lets it; says what went wrong.
    fn announce(&mut self, tools: &mut Tools<'_>) -> Option<String> {
        let Ok(segment) = &self.segment else { return None };
        let pace = self.vip.garp.interval;
        let mut trouble = None;
        while let Some((index, _)) = self.announcing.take() {
            let Some(address) = segment.addresses.get(index) else { break };
            let now = tools.clock.now();
            let last = tools.announced.get(&segment.interface.index);
            let free = last.map_or(now, |last| last.after(pace));
            if !pace.is_zero() && free > now {
                self.announcing = Some((index, free));
                break;
            }
            if !tools.may_emit(&self.fallback, self.armed.as_ref()) {
                break;
            }
            match segment.announce(index) {
                Ok(()) => tools.counters.garps_sent.add(),
                Err(error) => trouble = Some(format!("announcing {}: {error}", address.address())),
            }
            tools.announced.insert(segment.interface.index, now);
            self.announcing = Some((index + 1, now));
        }
        trouble
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
                    if !tools.may_emit(&self.fallback, self.armed.as_ref()) {
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
        let sighted = self.look_around(tools);
        let heard = self.hear(members, tools);
        self.fallback.listened(tools.clock.now());
        heard || sighted
    }

    /// What others say by ARP and neighbour discovery.
    fn look_around(&mut self, tools: &mut Tools<'_>) -> bool {
        let mut news = false;
        for _ in 0..AT_ONCE {
            let Ok(segment) = &self.segment else { return news };
            let Some(said) = segment.sighted() else { return news };
            let sighting = match said {
                Said::Vip(sighting) => sighting,
                Said::Arbiter => {
                    self.without(fallback::Input::Arbiter, tools);
                    continue;
                }
            };
            tools.counters.sightings.add();
            news |= self.sighting != Some(sighting);
            self.sighting = Some(sighting);
            let turn = self.coexist.step(tools.clock.now(), Input::Sighted);
            if turn.is_some() {
                let Sighting { address, mac } = sighting;
                tracing::warn!(vip = %self.vip.name, %address, mac = %Hex(mac), "another machine says that it has a VIP; saying again that it is here");
            }
            self.turn(turn, tools);
            self.without(fallback::Input::Sighted, tools);
        }
        news
    }

    fn hear(&mut self, members: &BTreeSet<IpAddr>, tools: &mut Tools<'_>) -> bool {
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
            let (source, ttl) = (heard.source, heard.ttl);
            // Another virtual router on the same segment.
            let another = heard.payload.get(1).is_some_and(|vrid| *vrid != self.vip.vrrp.vrid);
            if another || source == segment.interface.source {
                continue;
            }
            if members.contains(&source) || self.kin.contains(&source) {
                let decoded = Advert::decode(heard.payload, source, heard.destination);
                if self.heard_a_member(source, decoded.ok().map(|received| received.advert), tools)
                {
                    continue;
                }
            }
            news = true;
            // A router that is named may be further away, as with keepalived's unicast peers.
            if ttl != TTL && !self.vip.vrrp.peers.listed().contains(&source) {
                self.odd(source, Reason::Ttl, &format!("TTL {ttl} instead of {TTL}"), tools);
                continue;
            }
            match Advert::decode(heard.payload, source, heard.destination) {
                Ok(received) if source.is_ipv6() && self.is_a_members(source, &received.advert) => {
                    self.coexist.doubt();
                    self.without_heard(&received.advert, source, tools);
                }
                Ok(received) => {
                    if let Some((reason, text)) = Advert::of(&self.vip).mismatch(&received.advert) {
                        self.odd(source, reason.into(), &text, tools);
                    }
                    self.heard(Heard::of(&received.advert, source), tools);
                    self.without_heard(&received.advert, source, tools);
                }
                Err(error) => self.odd(source, Reason::Malformed, &error.to_string(), tools),
            }
        }
        news
    }

    /// Counts an advert that is not as it should be, and shows it.
    fn odd(&mut self, source: IpAddr, reason: Reason, text: &str, tools: &Tools<'_>) {
        tools.counters.odd_adverts(reason).add();
        if self.oddities.note(tools.clock.now(), source, reason, text) {
            tracing::warn!(vip = %self.vip.name, %source, reason = reason.name(), text, "an advert is not as it should be");
        }
    }

    /// Whether an advert over IPv6 is a member's, as far as that can be told: it says what this node would say, and this node does not hold.
    ///
    /// Adverts over IPv6 come from link-local addresses, which no configuration lists. A foreign router that says the very same is noticed
    /// as soon as this node holds, because then no member says anything; and before that its kernel answers whoever asks for the addresses.
    fn is_a_members(&mut self, source: IpAddr, advert: &Advert) -> bool {
        if !matches!(self.coexist.state(), State::NoLease | State::Checking) {
            return false;
        }
        let own = Advert::of(&self.vip);
        if *advert == own || *advert == own.goodbye() {
            if self.kin.len() < AT_ONCE {
                self.kin.insert(source);
            }
            return true;
        }
        // A new configuration does not reach all members in the same moment.
        self.kin.contains(&source)
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
            Some(Effect::Ask { advert }) => self.ask(advert, tools),
        }
    }

    /// Asks who has the addresses that adverts name, all of which a foreign master has or none.
    fn ask(&mut self, advert: bool, tools: &mut Tools<'_>) {
        let Ok(segment) = &self.segment else { return };
        if advert && tools.may_emit(&self.fallback, self.armed.as_ref()) {
            match segment.advertise() {
                Ok(()) => tools.counters.adverts_sent.add(),
                Err(error) => {
                    tracing::debug!(vip = %self.vip.name, %error, "an advert was not sent");
                }
            }
        }
        for address in self.vip.advertised() {
            if !tools.may_emit(&self.fallback, self.armed.as_ref()) {
                return;
            }
            if let Err(error) = segment.ask(*address) {
                tracing::debug!(vip = %self.vip.name, %address, %error, "a question was not sent");
            }
        }
    }
}
