//! Moving the VIPs to another director: asked for by an operator, or because the holder's agent stops.
//!
//! *In*: a target, or none in particular. *Out*: the VIPs on the target, with the wire silent in between for as short as the lease allows. Runs
//! on the leader, which is the holder if anybody is.

use std::time::Duration;

use lvsmesh_core::lease::Input;
use lvsmesh_core::model::{Member, NodeId};
use lvsmesh_core::placement;
use lvsmesh_proto::internal::v1::{AnnounceRequest, SelfResponse};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::api::context::Context;
use crate::api::status::{CallError, one_line};
use crate::lease::Tenure;

/// A target whose log lags may take this long to catch up: it is not elected before.
const CATCH_UP: Duration = Duration::from_secs(2);
/// The lease thread answers within milliseconds.
const ABDICATION: Duration = Duration::from_secs(2);
/// How often the target is asked whether it holds.
const POLL: Duration = Duration::from_millis(50);
/// At most this is kept back for finding out where the VIPs are, and for saying so. Under `wan` a node that does not answer is waited for four times as long,
/// but a call of ten seconds must not give the move itself the two that are left then.
const REPORT: Duration = Duration::from_millis(1500);
/// Of that, for the answer's way back.
const WAY_BACK: Duration = Duration::from_millis(250);

/// What was moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Name of the node that held before, empty if none did.
    pub from: String,
    /// Name of the holder.
    pub to: String,
    /// Its tenure.
    pub epoch: u64,
}

/// Who wants the VIPs to move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// An operator: the target is told, so that it does not give them back by itself.
    Operator,
    /// The fleet's policy.
    Failback,
}

/// Moves the VIPs to the director of that name; with an empty name, to the most preferred one that could hold them and does not.
///
/// # Errors
///
/// If this node does not lead, there is no such node, it cannot hold the VIPs (then nothing was changed), or it does not hold them in time.
pub async fn to(
    context: &Context,
    name: &str,
    deadline: Instant,
    wish: Wish,
) -> Result<Moved, CallError> {
    if !context.raft.status.borrow().leading {
        return Err(CallError::NotLeader);
    }
    let started = Instant::now();
    let from = match *context.lease.tenure.borrow() {
        Tenure::Holding { .. } | Tenure::Preparing { .. } => context.identity.name.clone(),
        Tenure::None => String::new(),
    };
    let target = match name {
        "" => best(context).await?,
        name => named(context, name).await?,
    };
    if target.name == from {
        announce(context, &target, wish).await;
        // It may still be about to.
        return arrived(context, from, &target, started, deadline).await;
    }
    catch_up(context, &target, deadline.min(started + CATCH_UP)).await?;
    announce(context, &target, wish).await;
    if target.id == context.identity.id {
        // Leads without holding, and may: the lease follows by itself.
        return arrived(context, from, &target, started, deadline).await;
    }
    stand_down(context, target.id).await;
    arrived(context, from, &target, started, deadline).await
}

/// Gives leadership and lease to whoever can take them, because this agent stops. Bounded by `deadline`; the process ends in either case, and
/// a lease that was not handed over runs out.
pub async fn before_stop(context: &Context, deadline: Instant) {
    if !context.raft.status.borrow().leading {
        return;
    }
    let successor = match timeout_at(deadline, best(context)).await {
        Ok(Ok(member)) => Some(member),
        // Nobody can hold: then somebody should lead all the same.
        Ok(Err(_)) | Err(_) => voter(context),
    };
    let Some(successor) = successor else { return };
    tracing::info!(to = successor.name, "handing over before stopping");
    let handover = async {
        if catch_up(context, &successor, deadline).await.is_ok() {
            stand_down(context, successor.id).await;
            let mut status = context.raft.status.clone();
            // An error says that the raft thread is gone, and leads no more.
            drop(status.wait_for(|status| !status.leading).await);
        }
    };
    if timeout_at(deadline, handover).await.is_err() {
        tracing::warn!(to = successor.name, "the successor did not take over in time");
    }
}

/// Gives up the lease, and Raft's leadership to that voter. The lease thread says all of it, in an order that nobody can come between: silence on
/// the wire, RELINQUISH, and then the word to Raft to hand over, which needs a leader that still leads.
pub(crate) async fn stand_down(context: &Context, successor: NodeId) {
    context.lease.inputs.send(Input::Abdicate { successor: Some(successor) });
    let mut tenure = context.lease.tenure.clone();
    let silent = tenure.wait_for(|tenure| *tenure == Tenure::None);
    if timeout_at(Instant::now() + ABDICATION, silent).await.is_err() {
        tracing::warn!("the lease was not given up in time; it runs out by itself");
    }
}

/// Tells the target that it is an operator who wants it to hold. One that does not hear it holds all the same, and may give the VIPs back.
async fn announce(context: &Context, target: &Member, wish: Wish) {
    if wish != Wish::Operator {
        return;
    }
    if target.id == context.identity.id {
        context.failback.announce();
        return;
    }
    let mut peer = context.links.peer(target.grpc);
    let told = timeout(context.pace.answer, peer.announce(AnnounceRequest {})).await;
    let reason = match told {
        Ok(Ok(_)) => return,
        Ok(Err(status)) => one_line(&status),
        Err(_) => "no answer in time".to_owned(),
    };
    tracing::warn!(to = target.name, reason, "it does not know that an operator asked for it");
}

/// The director of that name, if it could hold.
async fn named(context: &Context, name: &str) -> Result<Member, CallError> {
    let member = context
        .raft
        .state
        .borrow()
        .state
        .member_by_name(name)
        .cloned()
        .ok_or_else(|| CallError::UnknownNode { name: name.to_owned() })?;
    fit(context, &member)
        .await
        .map_err(|reason| CallError::Unfit { name: name.to_owned(), reason })?;
    Ok(member)
}

/// The most preferred other director that could hold.
async fn best(context: &Context) -> Result<Member, CallError> {
    let state = context.raft.state.borrow().state.clone();
    let mut others = state
        .members()
        .filter(|member| member.is_director() && member.id != context.identity.id)
        .cloned()
        .collect::<Vec<_>>();
    others.sort_by_key(|member| placement::standing(&state, member.id).0);
    let mut reasons = Vec::new();
    for member in others {
        match fit(context, &member).await {
            Ok(_) => return Ok(member),
            Err(reason) => reasons.push(format!("{}: {reason}", member.name)),
        }
    }
    let reason = if reasons.is_empty() { "there is none".to_owned() } else { reasons.join("; ") };
    Err(CallError::NobodyFit { reason })
}

/// A voter with the newest log, whether it may hold or not.
fn voter(context: &Context) -> Option<Member> {
    let status = context.raft.status.borrow().clone();
    let newest = status
        .voters
        .iter()
        .filter(|id| **id != status.id && status.heard.contains(id))
        .max_by_key(|id| status.matched.get(id).copied().unwrap_or(0))?;
    context.raft.state.borrow().state.member(*newest).cloned()
}

/// What that member says of itself, if it could hold.
///
/// # Errors
///
/// Why it could not.
pub(crate) async fn fit(context: &Context, member: &Member) -> Result<SelfResponse, String> {
    if !member.is_director() {
        return Err("it is no director".to_owned());
    }
    if !context.raft.status.borrow().voters.contains(&member.id) {
        return Err("it does not vote (yet)".to_owned());
    }
    let answer =
        context.ask(member).await.map_err(|reason| format!("it does not answer: {reason}"))?;
    match answer {
        SelfResponse { eligible: true, .. } => Ok(answer),
        SelfResponse { ineligible_reason, .. } => Err(ineligible_reason),
    }
}

/// Waits until the target's log has everything that is committed: it would not be elected before, and the wire would be silent for longer.
async fn catch_up(context: &Context, target: &Member, until: Instant) -> Result<(), CallError> {
    let mut status = context.raft.status.clone();
    let goal = status.borrow().commit;
    let caught_up = status.wait_for(|status| {
        status.id == target.id || status.matched.get(&target.id).is_some_and(|at| *at >= goal)
    });
    match timeout_at(until, caught_up).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) => Err(CallError::Stopping),
        Err(_) => Err(CallError::Unfit {
            name: target.name.clone(),
            reason: format!("its log lags behind entry {goal}"),
        }),
    }
}

/// Until when it is asked whether the target holds, of a call that was made at `started` and is given up by its caller at `deadline`.
fn patience(started: Instant, deadline: Instant) -> Instant {
    let time = deadline.saturating_duration_since(started);
    started + (time - REPORT.min(time / 4))
}

async fn arrived(
    context: &Context,
    from: String,
    target: &Member,
    started: Instant,
    deadline: Instant,
) -> Result<Moved, CallError> {
    let until = patience(started, deadline);
    let moved = |epoch| Moved { from: from.clone(), to: target.name.clone(), epoch };
    loop {
        // One that does not answer may not cost the time in which it could be said who holds.
        let asked = timeout_at(until, holding(context, target)).await;
        if let Ok(Some(epoch)) = asked {
            return Ok(moved(epoch));
        }
        let next = Instant::now() + POLL;
        if next < until {
            sleep_until(next).await;
            continue;
        }
        let holder = match timeout_at(deadline - WAY_BACK, context.answers()).await {
            Err(_) => "nobody has said in time that it holds them".to_owned(),
            Ok(answers) => {
                let mut holders = answers.iter().filter_map(|(id, answer)| {
                    let said = answer.as_ref().ok().filter(|answer| answer.holding)?;
                    Some((*id, said.epoch))
                });
                let state = context.raft.state.borrow().state.clone();
                match holders.next() {
                    // On a busy machine the last answer may be the first that came in time.
                    Some((id, epoch)) if id == target.id => return Ok(moved(epoch)),
                    other => other
                        .and_then(|(id, _)| state.member(id))
                        .map_or("nobody holds them".to_owned(), |member| {
                            format!("`{}` holds them", member.name)
                        }),
                }
            }
        };
        let waited_ms = started.elapsed().as_millis();
        return Err(CallError::NotMoved { to: target.name.clone(), waited_ms, holder });
    }
}

/// The member's tenure, if it says that it holds.
async fn holding(context: &Context, member: &Member) -> Option<u64> {
    context.ask(member).await.ok().filter(|answer| answer.holding).map(|answer| answer.epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_of_the_time_that_a_caller_has_is_for_the_move_itself() {
        let started = Instant::now();
        for (call, for_the_move) in [(10_000, 8_500), (60_000, 58_500), (2_000, 1_500), (0, 0)] {
            let until = patience(started, started + Duration::from_millis(call));
            assert_eq!(until - started, Duration::from_millis(for_the_move), "of {call} ms");
        }
        // A caller who has given up already.
        let until = patience(started, started.checked_sub(Duration::from_secs(1)).unwrap());
        assert_eq!(until, started);
    }
}
