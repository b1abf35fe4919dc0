//! What belongs to IPVS as a whole: timeouts and the synchronisation daemon, as they are and as they should be give operations.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{Action, Op, Owned, Raised};

/// Which connections a timeout is for (`IPVS_CMD_ATTR_TIMEOUT_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timeout {
    /// Established TCP connections. The kernel starts with 900 s.
    Tcp,
    /// TCP connections closed by one side. The kernel starts with 120 s.
    TcpFin,
    /// UDP. The kernel starts with 300 s.
    Udp,
}

impl Timeout {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::TcpFin, Self::Udp];

    /// The document's word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::TcpFin => "tcp_fin",
            Self::Udp => "udp",
        }
    }
}

/// How long an idle connection is remembered, in seconds: at most `INT_MAX / HZ`, which is 2147483 where the kernel ticks 1000 times a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timeouts {
    /// An established TCP connection.
    pub tcp: u32,
    /// A TCP connection that was closed by one side.
    pub tcp_fin: u32,
    /// UDP.
    pub udp: u32,
}

impl Timeouts {
    /// One of them.
    #[must_use]
    pub const fn get(&self, which: Timeout) -> u32 {
        match which {
            Timeout::Tcp => self.tcp,
            Timeout::TcpFin => self.tcp_fin,
            Timeout::Udp => self.udp,
        }
    }

    /// One of them, to be changed.
    pub const fn get_mut(&mut self, which: Timeout) -> &mut u32 {
        match which {
            Timeout::Tcp => &mut self.tcp,
            Timeout::TcpFin => &mut self.tcp_fin,
            Timeout::Udp => &mut self.udp,
        }
    }
}

/// `IP_VS_STATE_*`: which half of the synchronisation a daemon does. One of each may run in a network namespace; lvsmesh never runs both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SyncRole {
    /// 1: tells others of this kernel's connections.
    Master,
    /// 2: takes in what a master tells.
    Backup,
}

impl std::fmt::Display for SyncRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Master => "master",
            Self::Backup => "backup",
        })
    }
}

/// A daemon that synchronises connections.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SyncDaemon {
    /// Which half.
    pub role: SyncRole,
    /// The interface whose multicast it uses; at most 15 bytes.
    pub interface: String,
    /// 0 to 255. A backup takes what comes with its own id, and everything if its own is 0.
    pub sync_id: u32,
    /// Bytes of one message. To start: 0 lets the kernel choose (1472 for a master on IPv4, for a backup by the interface's MTU), and what is
    /// too little or too much it raises or lowers. As listed: what it chose; 0 from kernels before Linux 4.3, which do not say.
    pub max_length: u16,
    /// The multicast group. To start: `None` is 224.0.0.81, and kernels before Linux 4.3 know no other. As listed: `None` only from those.
    pub group: Option<IpAddr>,
    /// UDP port. To start: 0 is 8848. As listed: 0 only from kernels before Linux 4.3.
    pub port: u16,
    /// Hops. To start: 0 is 1. As listed: 0 only from kernels before Linux 4.3.
    pub ttl: u8,
}

impl SyncDaemon {
    /// Whether a running daemon does what this one is to do. The length is left out: the kernel fits it to the interface.
    fn is_served_by(&self, running: &Self) -> bool {
        let same = |wanted: &Self| Self { max_length: running.max_length, ..wanted.clone() };
        *running == same(self)
    }
}

impl std::fmt::Display for SyncDaemon {
    /// `backup on eth0, id 7, 224.0.0.81 port 8848`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} on {}, id {}", self.role, self.interface, self.sync_id)?;
        if let Some(group) = self.group {
            write!(f, ", {group} port {}", self.port)?;
        }
        Ok(())
    }
}

/// What was read of IPVS as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Globals {
    /// All three.
    pub timeouts: Timeouts,
    /// The running daemons, at most one of each role.
    pub daemons: Vec<SyncDaemon>,
}

/// What is wanted of IPVS as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WantedGlobals {
    /// Timeouts in seconds; what is not named stays as it is.
    pub timeouts: BTreeMap<Timeout, u32>,
    /// The daemon that is to run; `None`: none of ours.
    pub daemon: Option<SyncDaemon>,
}

/// What has to be done about IPVS as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GlobalsDiff {
    /// Timeouts set or given back.
    pub timeouts: Vec<Op>,
    /// Daemons stopped; only then others are started.
    pub stops: Vec<Op>,
    /// Daemons started.
    pub starts: Vec<Op>,
    /// Timeouts that are ours before the first operation.
    pub record_timeouts: BTreeMap<Timeout, Raised>,
    /// Timeouts that are ours after the last one.
    pub settled_timeouts: BTreeMap<Timeout, Raised>,
    /// Daemons that are ours before the first operation.
    pub record_daemons: BTreeSet<SyncDaemon>,
    /// Daemons that are ours after the last one.
    pub settled_daemons: BTreeSet<SyncDaemon>,
    /// What is wanted and cannot be done, each with the reason.
    pub withheld: Vec<String>,
}

/// Lists what makes timeouts and daemon as wanted, and gives back what is no longer wanted.
///
/// A daemon that somebody else started is never stopped: it may be keepalived's. Without an observation nothing is done, and what is recorded
/// stays so.
#[must_use]
pub fn diff(
    observed: Option<&Globals>,
    wanted: &WantedGlobals,
    owned: &Owned,
    source: &str,
) -> GlobalsDiff {
    let Some(observed) = observed else {
        return GlobalsDiff {
            record_timeouts: owned.timeouts.clone(),
            settled_timeouts: owned.timeouts.clone(),
            record_daemons: owned.daemons.clone(),
            settled_daemons: owned.daemons.clone(),
            ..GlobalsDiff::default()
        };
    };
    let mut out = GlobalsDiff::default();
    timeouts(&mut out, &observed.timeouts, &wanted.timeouts, owned, source);
    daemons(&mut out, &observed.daemons, wanted.daemon.as_ref(), owned, source);
    out
}

fn timeouts(
    out: &mut GlobalsDiff,
    observed: &Timeouts,
    wanted: &BTreeMap<Timeout, u32>,
    owned: &Owned,
    source: &str,
) {
    for (&which, &seconds) in wanted {
        let have = observed.get(which);
        let recorded = owned.timeouts.get(&which).copied();
        let record = if have == seconds {
            recorded
        } else {
            out.timeouts.push(Op {
                action: Action::SetTimeout { which, seconds },
                reason: format!("is {have} s, {source} wants {seconds} s"),
            });
            let before = recorded.map_or(i64::from(have), |raised| raised.before);
            Some(Raised { before, ours: seconds.into() })
        };
        if let Some(record) = record {
            out.record_timeouts.insert(which, record);
            out.settled_timeouts.insert(which, record);
        }
    }
    for (&which, &raised) in owned.timeouts.iter().filter(|(which, _)| !wanted.contains_key(which))
    {
        let back = u32::try_from(raised.before).unwrap_or_default();
        // If it is another by now, somebody chose it since. 0 leaves it as it is, and cannot be set.
        if i64::from(observed.get(which)) == raised.ours && raised.before != raised.ours && back > 0
        {
            out.record_timeouts.insert(which, raised);
            out.timeouts.push(Op {
                action: Action::SetTimeout { which, seconds: back },
                reason: format!("was {back} s before, not asked for by {source}"),
            });
        }
    }
}

fn daemons(
    out: &mut GlobalsDiff,
    running: &[SyncDaemon],
    wanted: Option<&SyncDaemon>,
    owned: &Owned,
    source: &str,
) {
    let ours = |daemon: &SyncDaemon| owned.daemons.iter().any(|our| our.is_served_by(daemon));
    let mut foreign = None;
    let mut stands = false;
    for daemon in running {
        let fits = wanted.is_some_and(|wanted| {
            let length = wanted.max_length == 0
                || wanted.max_length == daemon.max_length
                || owned.daemons.contains(wanted);
            length && wanted.is_served_by(daemon)
        });
        if fits {
            stands = true;
        } else if ours(daemon) {
            out.record_daemons
                .extend(owned.daemons.iter().filter(|our| our.is_served_by(daemon)).cloned());
            out.stops.push(Op {
                action: Action::StopDaemon(daemon.role),
                reason: match wanted {
                    Some(wanted) => format!("it is {daemon}; {source} wants {wanted}"),
                    None => format!("{source} wants no synchronisation daemon"),
                },
            });
        } else {
            foreign = Some(daemon);
        }
    }
    let Some(wanted) = wanted else { return };
    if let Some(foreign) = foreign {
        out.withheld.push(format!(
            "the synchronisation daemon ({wanted}) does not run: one that lvsmesh did not start does ({foreign}); stop it with `ipvsadm --stop-daemon {}`",
            foreign.role
        ));
        if stands {
            out.record_daemons.insert(wanted.clone());
            out.settled_daemons.insert(wanted.clone());
        }
        return;
    }
    out.record_daemons.insert(wanted.clone());
    out.settled_daemons.insert(wanted.clone());
    if !stands {
        out.starts.push(Op {
            action: Action::StartDaemon(wanted.clone()),
            reason: if owned.daemons.contains(wanted) {
                "recorded as ours, but gone from the kernel".into()
            } else {
                format!("{source} wants it")
            },
        });
    }
}

#[cfg(test)]
mod tests;
