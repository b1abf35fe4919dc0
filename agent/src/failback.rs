//! Moves the VIPs back to a director that is preferred to this one, as `fleet.failback` has it.
//!
//! *In*: the tenure, the applied state, and what preferred directors say of themselves. *Out*: planned moves, and what is waited for. What it all
//! means is decided in [`lvsmesh_core::failback`]; here it is asked, compared and carried out, by the holder alone.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use lvsmesh_core::failback::{self as core, LOOK, Machine, Sample, Sight, Until, Verdict, Waiting};
use lvsmesh_core::model::{Failback, Member};
use lvsmesh_core::placement;
use lvsmesh_core::plan::SyncRole;
use lvsmesh_core::state::State;
use lvsmesh_kernel::KernelError;
use lvsmesh_kernel::clock::raw_now;
use lvsmesh_kernel::ipvs::{Connections, Ipvs};
use lvsmesh_proto::internal::v1::{CompareRequest, CompareResponse, SelfResponse};
use lvsmesh_proto::v1::FailbackStatus;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::api::context::Context;
use crate::api::status::{chain, one_line};
use crate::handover::{self, Wish};
use crate::lease::Tenure;

/// A move that is not done by then was in vain.
const MOVE: Duration = Duration::from_secs(10);
/// Between two comparisons: each reads every connection of two nodes.
const COMPARE: Duration = Duration::from_secs(5);
/// A node with millions of connections needs a second or two to read them.
const COMPARISON: Duration = Duration::from_secs(20);

/// What the rest of the agent sees of the move back.
#[derive(Clone, Debug, Default)]
pub struct FailbackHandle {
    /// How often operators asked for this node.
    wishes: watch::Sender<u64>,
    shown: watch::Sender<Option<FailbackStatus>>,
}

impl FailbackHandle {
    /// An operator wants this node to hold.
    pub fn announce(&self) {
        self.wishes.send_modify(|wishes| *wishes += 1);
    }

    /// What is waited for; nothing on a node that does not hold.
    #[must_use]
    pub fn shown(&self) -> Option<FailbackStatus> {
        self.shown.borrow().clone()
    }

    fn show(&self, shown: Option<FailbackStatus>) {
        self.shown.send_replace(shown);
    }
}

/// Runs until `shutdown` turns true.
pub async fn run(context: Context, mut shutdown: watch::Receiver<bool>) {
    tokio::select! {
        biased;
        _ = shutdown.wait_for(|stop| *stop) => {}
        () = watch_over(&context) => {}
    }
    context.failback.show(None);
}

async fn watch_over(context: &Context) {
    let mut wishes = context.failback.wishes.subscribe();
    let mut tenure = context.lease.tenure.clone();
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut guide = Guide::default();
    let mut heard = 0;
    loop {
        tokio::select! {
            biased;
            changed = wishes.changed() => if changed.is_err() { return },
            changed = tenure.changed() => if changed.is_err() { return },
            _ = looks.tick() => {}
        }
        // Before the look at a tenure that it may be about.
        let wished = *wishes.borrow_and_update();
        if wished > heard {
            heard = wished;
            guide.machine.announce(raw_now());
        }
        guide.turn(context).await;
    }
}

/// One look after another.
#[derive(Debug, Default)]
struct Guide {
    machine: Machine,
    /// What the last comparison came to, and when.
    compared: Option<(Instant, Member, Result<(), String>)>,
}

impl Guide {
    async fn turn(&mut self, context: &Context) {
        // Who holds without a quorum can move nothing, and what it sees meanwhile is no ground for a move.
        let unleased = context.lease.outlook.borrow().unleased.is_some();
        let tenure = Some(*context.lease.tenure.borrow()).filter(|_| !unleased);
        let Some(Tenure::Holding { epoch }) = tenure else {
            self.machine.released();
            self.compared = None;
            context.failback.show(None);
            return;
        };
        let state = context.raft.state.borrow().state.clone();
        let policy = state.document().fleet.failback;
        let preferred: Vec<Member> = match policy {
            // Nobody needs to be asked.
            Failback::Never => vec![],
            Failback::Delayed(_) | Failback::Immediate => {
                placement::preferred(&state, context.identity.id).into_iter().cloned().collect()
            }
        };
        let commit = context.raft.status.borrow().commit;
        let answers = join_all(preferred.iter().map(|member| handover::fit(context, member))).await;
        let seen: Vec<Seen> = preferred
            .into_iter()
            .zip(answers)
            .map(|(member, answer)| Seen { member, answer })
            .collect();
        let sights: Vec<Sight> = seen.iter().map(Seen::sight).collect();
        let synchronised = state.document().fleet.ipvs.sync.is_some();
        let now = raw_now();
        let verdict = self.machine.look(now, policy, epoch, &sights, synchronised);
        let of = |id| seen.iter().find(|seen| seen.member.id == id);
        let verdict = match verdict {
            Verdict::Move(to) | Verdict::Compare(to) => {
                match of(to).map(|seen| seen.behind(context, &state, commit)) {
                    Some(Some(reason)) => Verdict::Wait(Waiting { to, until: Until::Fit(reason) }),
                    Some(None) | None => verdict,
                }
            }
            Verdict::Stay | Verdict::Wait(_) => verdict,
        };
        let verdict = match verdict {
            Verdict::Compare(to) => match of(to) {
                Some(seen) => {
                    let outcome = self.compare(context, &seen.member).await;
                    self.machine.compared(to, outcome)
                }
                None => Verdict::Stay,
            },
            Verdict::Stay | Verdict::Wait(_) | Verdict::Move(_) => verdict,
        };
        match verdict {
            Verdict::Move(to) => {
                if let Some(seen) = of(to) {
                    self.give(context, &seen.member).await;
                }
            }
            Verdict::Wait(waiting) => {
                let status = of(waiting.to).map(|seen| status(&seen.member.name, &waiting.until));
                context.failback.show(status);
            }
            Verdict::Stay | Verdict::Compare(_) => context.failback.show(None),
        }
    }

    async fn give(&mut self, context: &Context, to: &Member) {
        let name = &to.name;
        tracing::info!(to = name, "moving the VIPs back");
        let moving =
            FailbackStatus { to: name.clone(), waits_for: "move".into(), ..Default::default() };
        context.failback.show(Some(moving));
        match handover::to(context, name, Instant::now() + MOVE, Wish::Failback).await {
            Ok(moved) => {
                tracing::info!(to = name, epoch = moved.epoch, "the VIPs are back");
                self.machine.moved(to.id, raw_now());
            }
            Err(error) => {
                tracing::warn!(
                    to = name,
                    error = chain(&error),
                    "the VIPs could not be moved back"
                );
                self.machine.failed(to.id, raw_now());
            }
        }
        context.failback.show(None);
    }

    /// Compares connections, or remembers what that came to a moment ago.
    async fn compare(&mut self, context: &Context, with: &Member) -> Result<(), String> {
        if let Some((at, member, outcome)) = &self.compared
            && member.id == with.id
            && at.elapsed() < COMPARE
        {
            return outcome.clone();
        }
        let outcome = knows(context, with).await;
        self.compared = Some((Instant::now(), with.clone(), outcome.clone()));
        outcome
    }
}

/// A preferred director, and what it said of itself or why it could not hold.
struct Seen {
    member: Member,
    answer: Result<SelfResponse, String>,
}

impl Seen {
    fn sight(&self) -> Sight {
        Sight {
            node: self.member.id,
            run: self.answer.as_ref().map_or(0, |answer| answer.incarnation),
            fit: self.answer.as_ref().map(|_| ()).map_err(Clone::clone),
        }
    }

    /// What it lacks for a move now, which is no reason to begin its span anew: each change of the desired state has it lag for a moment.
    fn behind(&self, context: &Context, state: &State, commit: u64) -> Option<String> {
        let matched = context.raft.status.borrow().matched.get(&self.member.id).copied();
        if matched.is_none_or(|matched| matched < commit) {
            return Some(format!("its log lags behind entry {commit}"));
        }
        let revision = state.revision();
        let said = self.answer.as_ref().ok().and_then(|answer| answer.status.as_ref());
        let converged = said.is_some_and(|said| said.converged && said.revision >= revision);
        (!converged).then(|| format!("its kernel is not as revision {revision} has it"))
    }
}

/// Whether that director knows this one's connections.
async fn knows(context: &Context, with: &Member) -> Result<(), String> {
    let digests = tokio::task::spawn_blocking(established)
        .await
        .map_err(|error| error.to_string())?
        .map_err(|error| format!("the holder's connections cannot be read: {}", chain(&error)))?;
    let asked = digests.len();
    let mut peer = context.links.peer(with.grpc);
    let answer = match timeout(COMPARISON, peer.compare(CompareRequest { digests })).await {
        Ok(Ok(answer)) => answer.into_inner(),
        Ok(Err(status)) => {
            return Err(format!("its connections cannot be compared: {}", one_line(&status)));
        }
        Err(_) => return Err("its connections cannot be compared: no answer in time".to_owned()),
    };
    if !answer.receiving {
        return Err("no synchronisation daemon receives there".to_owned());
    }
    core::enough(usize::try_from(answer.known).unwrap_or(usize::MAX), asked)
}

/// A sample of the connections that a failover would break. Blocks.
fn established() -> Result<Vec<u64>, KernelError> {
    let mut sample = Sample::default();
    for connection in Connections::open()? {
        let connection = connection?;
        if connection.state == "ESTABLISHED" {
            let (client, address) = (connection.client, connection.virtual_address);
            sample.take(core::digest(&connection.protocol, client, address));
        }
    }
    Ok(sample.digests())
}

/// How many of these connections this node's IPVS knows.
///
/// # Errors
///
/// If the kernel has no IPVS, or does not say.
pub(crate) async fn compare(digests: BTreeSet<u64>) -> Result<CompareResponse, KernelError> {
    let daemons = Ipvs::open().await?.daemons().await?;
    let receiving = daemons.iter().any(|daemon| daemon.role == SyncRole::Backup);
    let known = tokio::task::spawn_blocking(move || known(digests)).await;
    let known = known.unwrap_or_else(|error| {
        tracing::error!(%error, "comparing connections panicked");
        Ok(0)
    })?;
    Ok(CompareResponse { known: u32::try_from(known).unwrap_or(u32::MAX), receiving })
}

fn known(mut digests: BTreeSet<u64>) -> Result<usize, KernelError> {
    let asked = digests.len();
    for connection in Connections::open()? {
        let connection = connection?;
        let (client, address) = (connection.client, connection.virtual_address);
        digests.remove(&core::digest(&connection.protocol, client, address));
    }
    Ok(asked - digests.len())
}

/// For people and programs.
fn status(to: &str, until: &Until) -> FailbackStatus {
    let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let (word, remaining_ms, reason) = match until {
        Until::Fit(reason) => ("fit", 0, reason.as_str()),
        Until::Proven(left) => ("time", millis(*left), ""),
        Until::Synchronised(reason) => ("connections", 0, reason.as_str()),
        Until::Operator => ("operator", 0, ""),
        Until::Pause(left) => ("pause", millis(*left), ""),
    };
    FailbackStatus {
        to: to.to_owned(),
        waits_for: word.to_owned(),
        remaining_ms,
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_waited_for_has_a_word_and_what_belongs_to_it() {
        let secs = Duration::from_secs;
        #[rustfmt::skip]
        let cases = [
            (Until::Fit("no carrier".into()),           ("fit", 0, "no carrier")),
            (Until::Proven(secs(42)),                   ("time", 42_000, "")),
            (Until::Synchronised("3 of 9".into()),      ("connections", 0, "3 of 9")),
            (Until::Operator,                           ("operator", 0, "")),
            (Until::Pause(secs(10)),                    ("pause", 10_000, "")),
        ];
        for (until, (word, remaining_ms, reason)) in cases {
            let said = status("lvs-1", &until);
            let expected = FailbackStatus {
                to: "lvs-1".into(),
                waits_for: word.into(),
                remaining_ms,
                reason: reason.into(),
            };
            assert_eq!(said, expected, "{until:?}");
        }
    }

    #[test]
    fn an_operators_wish_reaches_the_task() {
        let handle = FailbackHandle::default();
        let mut wishes = handle.wishes.subscribe();
        handle.clone().announce();
        assert!(wishes.has_changed().unwrap());
        assert_eq!(*wishes.borrow_and_update(), 1);
    }
}
