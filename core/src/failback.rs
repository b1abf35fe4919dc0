//! When the VIPs move back to a director that is preferred to their holder.
//!
//! *In*: looks at the preferred directors, made by the holder; what became of its moves; what operators asked for. *Out*: whether to move, and
//! else what is waited for. The holder alone decides, and by nothing but what it has seen in its present tenure, except that a director which came
//! back in vain is tried less and less often.
//!
//! A move that an operator asked for is not undone: until the holder changes, a director is moved to only once it was unfit.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use crate::lease::wire::fleet_hash;
use crate::model::{Failback, NodeId};
use crate::time::Mono;

/// Between two looks, as far as the caller can help it.
pub const LOOK: Duration = Duration::from_millis(500);
/// Who was not looked at for this long may have been anything meanwhile: that it was fit all the time is not known.
pub const BLIND: Duration = Duration::from_secs(5);
/// A director that was given the VIPs and has lost them to the same holder within this was given them in vain.
pub const RELAPSE: Duration = Duration::from_secs(60);
/// After the first vain move; doubled after each further one.
pub const FIRST_PAUSE: Duration = Duration::from_secs(10);
/// The longest pause.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(640);
/// An operator's move that was announced has this long to give this node the VIPs.
pub const ANNOUNCED: Duration = Duration::from_secs(20);

/// What was seen of one preferred director.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight {
    /// Which.
    pub node: NodeId,
    /// Which run of its agent answered; 0 if none did. Another run than before is no uninterrupted fitness.
    pub run: u64,
    /// Whether it could hold now, or why not.
    pub fit: Result<(), String>,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: the policy asks for none, or nobody is preferred.
    Stay,
    /// Not yet.
    Wait(Waiting),
    /// Compare connections with that director's, and say with [`Machine::compared`] what came out.
    Compare(NodeId),
    /// Move the VIPs there, and say with [`Machine::moved`] or [`Machine::failed`] what became of it.
    Move(NodeId),
}

/// What a move waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Where the VIPs would go.
    pub to: NodeId,
    /// What is missing.
    pub until: Until,
}

/// What is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Until {
    /// It could not hold, for this reason.
    Fit(String),
    /// It must be fit for so much longer.
    Proven(Duration),
    /// It does not know enough of the holder's connections.
    Synchronised(String),
    /// An operator moved the VIPs here while it was fit: until it was unfit once, or an operator moves them.
    Operator,
    /// It had the VIPs in vain; it is tried again after this.
    Pause(Duration),
}

/// What is known of one preferred director.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Candidate {
    run: u64,
    /// Since the first of an uninterrupted row of looks at which it was fit; and how many there were.
    fit: Option<(Mono, u32)>,
    seen: Mono,
}

/// Vain moves to one director.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Vain {
    pause: Duration,
    until: Mono,
}

/// The decisions of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    tenure: Option<u64>,
    /// When an operator's move to this node was announced, while it did not hold.
    announced: Option<Mono>,
    /// The present tenure was an operator's wish.
    asked_for: bool,
    /// Who was unfit since.
    freed: BTreeSet<NodeId>,
    candidates: BTreeMap<NodeId, Candidate>,
    vain: BTreeMap<NodeId, Vain>,
    /// The last move that succeeded, until it is known to have lasted.
    given: Option<(NodeId, Mono)>,
}

impl Machine {
    /// An operator wants this node to hold: it is about to be given the VIPs, or has them already.
    pub fn announce(&mut self, now: Mono) {
        match self.tenure {
            Some(_) => self.ask_for(),
            None => self.announced = Some(now),
        }
    }

    /// This node does not hold.
    pub fn released(&mut self) {
        self.tenure = None;
        self.asked_for = false;
        self.freed.clear();
        self.candidates.clear();
    }

    /// This node holds in that tenure, and sees that of the directors that are preferred to it, the most preferred first. `synchronised`: a
    /// synchronisation daemon runs, so that there is something to compare.
    pub fn look(
        &mut self,
        now: Mono,
        policy: Failback,
        tenure: u64,
        sights: &[Sight],
        synchronised: bool,
    ) -> Verdict {
        if self.tenure != Some(tenure) {
            self.begin(now, tenure);
        }
        self.note(now, sights);
        if policy == Failback::Never {
            return Verdict::Stay;
        }
        // The first that is fit and not tired: a better one that is still being proven is waited for, so that the VIPs move once.
        let ready = |sight: &&Sight| sight.fit.is_ok() && self.pause(now, sight.node).is_none();
        let Some(sight) = sights.iter().find(ready).or(sights.first()) else {
            return Verdict::Stay;
        };
        let to = sight.node;
        if let Err(reason) = &sight.fit {
            return wait(to, Until::Fit(reason.clone()));
        }
        if self.asked_for && !self.freed.contains(&to) {
            return wait(to, Until::Operator);
        }
        if let Some(pause) = self.pause(now, to) {
            return wait(to, Until::Pause(pause));
        }
        let (since, looks) = self.candidates.get(&to).and_then(|seen| seen.fit).unwrap_or((now, 1));
        match policy {
            Failback::Never => Verdict::Stay,
            Failback::Immediate if looks < 2 => wait(to, Until::Proven(LOOK)),
            Failback::Immediate => Verdict::Move(to),
            Failback::Delayed(delay) => {
                let left = delay.saturating_sub(now.since(since));
                if !left.is_zero() {
                    wait(to, Until::Proven(left))
                } else if synchronised {
                    Verdict::Compare(to)
                } else {
                    Verdict::Move(to)
                }
            }
        }
    }

    /// What a comparison of connections came to: nothing against a move, or why not to.
    #[must_use]
    pub fn compared(&self, to: NodeId, outcome: Result<(), String>) -> Verdict {
        match outcome {
            Ok(()) => Verdict::Move(to),
            Err(reason) => wait(to, Until::Synchronised(reason)),
        }
    }

    /// The VIPs are there.
    pub fn moved(&mut self, to: NodeId, now: Mono) {
        self.given = Some((to, now));
    }

    /// They are not.
    pub fn failed(&mut self, to: NodeId, now: Mono) {
        let pause = match self.vain.get(&to) {
            Some(vain) => (vain.pause * 2).min(LONGEST_PAUSE),
            None => FIRST_PAUSE,
        };
        self.vain.insert(to, Vain { pause, until: now.after(pause) });
        // What it was before the attempt says nothing about what it is after.
        self.candidates.remove(&to);
    }

    fn begin(&mut self, now: Mono, tenure: u64) {
        self.released();
        self.tenure = Some(tenure);
        if self.announced.take().is_some_and(|at| now.since(at) <= ANNOUNCED) {
            self.ask_for();
        }
        if let Some((to, at)) = self.given.take() {
            // An operator may take back what the policy gave; that is nobody's failure.
            if now.since(at) <= RELAPSE && !self.asked_for {
                self.failed(to, now);
            } else if now.since(at) > RELAPSE {
                self.vain.remove(&to);
            }
        }
    }

    fn ask_for(&mut self) {
        self.asked_for = true;
        self.freed.clear();
    }

    fn note(&mut self, now: Mono, sights: &[Sight]) {
        self.candidates.retain(|node, _| sights.iter().any(|sight| sight.node == *node));
        for sight in sights {
            let before = self.candidates.get(&sight.node);
            let known = before.filter(|before| before.run == sight.run);
            let other_run = before.is_some_and(|before| before.run != sight.run);
            if sight.fit.is_err() || other_run {
                self.freed.insert(sight.node);
            }
            let fit = sight.fit.is_ok().then(|| {
                let row = known.filter(|known| now.since(known.seen) <= BLIND);
                let (since, looks) = row.and_then(|known| known.fit).unwrap_or((now, 0));
                (since, looks.saturating_add(1))
            });
            self.candidates.insert(sight.node, Candidate { run: sight.run, fit, seen: now });
        }
    }

    fn pause(&self, now: Mono, node: NodeId) -> Option<Duration> {
        let left = self.vain.get(&node)?.until.remaining(now);
        (!left.is_zero()).then_some(left)
    }
}

/// Connections that are compared: all of them up to this many, else as many of them, drawn by their digests.
pub const SAMPLE: usize = 1024;

/// Which of a holder's connections are compared, drawn while they are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample(BTreeSet<u64>);

impl Sample {
    /// Takes one more into account. The lowest digests stay: of connections that come twice, and on directors that know the same ones, the same.
    pub fn take(&mut self, digest: u64) {
        self.0.insert(digest);
        if self.0.len() > SAMPLE {
            self.0.pop_last();
        }
    }

    /// What was drawn, by rising digest.
    #[must_use]
    pub fn digests(&self) -> Vec<u64> {
        self.0.iter().copied().collect()
    }
}

/// What stands for a connection in a comparison; the same on every director and in every version.
#[must_use]
pub fn digest(protocol: &str, client: SocketAddr, virtual_address: SocketAddr) -> u64 {
    fleet_hash(&format!("{protocol} {client} {virtual_address}"))
}

/// Whether a director that knows so many of the holder's established connections has caught up: nineteen of twenty. The daemon sends a
/// connection from its third packet on, up to two seconds late, so that a few of those that come and go are always missing.
///
/// # Errors
///
/// How many it knows, if they are too few.
pub fn enough(known: usize, asked: usize) -> Result<(), String> {
    if known * 20 >= asked * 19 {
        return Ok(());
    }
    let of = if asked == SAMPLE { format!("{asked} sampled") } else { asked.to_string() };
    Err(format!("it knows {known} of {of} established connections, and needs 19 of 20"))
}

fn wait(to: NodeId, until: Until) -> Verdict {
    Verdict::Wait(Waiting { to, until })
}

#[cfg(test)]
mod tests;
