//! Every way of forwarding, with every scheduler that this kernel has, carries real connections to the servers that the scheduler promises.
//!
//! Four machines on one network: a client, a director, two real servers. The plans are those that agents would carry out ([`place`], `diff`,
//! the kernel crate); there are no agents, because starting a fleet for each combination would take hours on an emulated machine. That the
//! client is on the real servers' own network makes translation as hard as it can be: without its policy rules they would answer directly.

mod both_roles;
mod marked;
mod site;

use std::collections::BTreeSet;

use lvsmesh_core::model::{Encapsulation, Forwarding, Scheduler, TunnelChecksum};
use lvsmesh_tests::Lab;
use site::{Site, Way};

/// What a scheduler promises about two servers of equal weight, or of weights 1 and 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Promise {
    /// One after the other.
    Alternate,
    /// By weight, 1 to 3, exactly.
    Proportion,
    /// Open connections are spread evenly.
    Spread,
    /// One client and one VIP stay with one server.
    Same,
    /// The one of the highest weight gets all.
    Highest,
    /// The one of the highest weight, and when it has as many open connections as that, the other.
    Overflow,
}

fn promise(scheduler: Scheduler) -> Promise {
    match scheduler {
        Scheduler::Rr => Promise::Alternate,
        Scheduler::Wrr => Promise::Proportion,
        Scheduler::Lc | Scheduler::Wlc | Scheduler::Sed | Scheduler::Nq => Promise::Spread,
        Scheduler::Dh | Scheduler::Sh | Scheduler::Mh | Scheduler::Lblc | Scheduler::Lblcr => {
            Promise::Same
        }
        Scheduler::Fo => Promise::Highest,
        Scheduler::Ovf => Promise::Overflow,
    }
}

impl Promise {
    const fn weights(self) -> [u32; 2] {
        match self {
            Self::Alternate | Self::Spread | Self::Same => [1, 1],
            Self::Proportion | Self::Highest | Self::Overflow => [1, 3],
        }
    }

    /// How many connections are made, and whether all stay open until the last is.
    const fn connections(self) -> (usize, bool) {
        match self {
            Self::Alternate | Self::Same | Self::Highest => (4, false),
            Self::Proportion => (8, false),
            Self::Spread => (4, true),
            // Four on the one of weight 3, which takes a connection while it has at most three, and one on the other.
            Self::Overflow => (5, true),
        }
    }

    /// Checks who answered, by the server's number.
    fn holds(self, answers: &[usize]) -> bool {
        let of = |server| answers.iter().filter(|answer| **answer == server).count();
        match self {
            Self::Alternate => answers.windows(2).all(|pair| pair[0] != pair[1]),
            Self::Proportion => (of(0), of(1)) == (2, 6),
            Self::Spread => of(0) == of(1),
            Self::Same => answers.windows(2).all(|pair| pair[0] == pair[1]),
            Self::Highest => of(1) == answers.len(),
            Self::Overflow => answers.starts_with(&[1, 1, 1]) && answers.last() == Some(&0),
        }
    }
}

/// Runs all schedulers that the kernel has over one way of forwarding.
fn combinations(way: Way) {
    schedulers(way, |_| true);
}

/// Runs those of the kernel's schedulers that are `wanted` over one way of forwarding.
fn schedulers(way: Way, wanted: fn(Scheduler) -> bool) {
    Lab::require_ipvs();
    let mut site = Site::new(way);
    let mut offered = site.schedulers();
    offered.retain(|scheduler| wanted(*scheduler));
    assert!(offered.contains(&Scheduler::Rr), "the kernel has no scheduler at all: {offered:?}");
    let before = site.observe_all();
    let mut ran = Vec::new();
    for &scheduler in &offered {
        let promise = promise(scheduler);
        site.apply(scheduler, promise.weights());
        let (count, open) = promise.connections();
        let answers = site.answers(count, open).unwrap_or_else(|error| {
            let counters = site.counters();
            panic!("{} with {}: {error}\n{counters}", way.name(), scheduler.name());
        });
        assert!(
            promise.holds(&answers),
            "{} with {}: {promise:?} is promised, the servers that answered are {answers:?}",
            way.name(),
            scheduler.name()
        );
        lvsmesh_tests::pace::note(&format!("combination {} {}: ok", way.name(), scheduler.name()));
        ran.push(scheduler);
    }
    assert_eq!(ran, offered, "{}: every scheduler had its turn", way.name());
    site.leave();
    assert_eq!(site.observe_all(), before, "{}: the machines are as they were", way.name());
}

/// Two tests for each way, one for each way to attach VIPs; the list of them is compared with the model's below. How packets get to the director
/// has no part in which server it chooses, so all schedulers have their turn with one way to attach alone.
macro_rules! ways {
    ($($test:ident: $mode:ident $vip:literal over $real:literal;)*) => {
        $(#[test]
        fn $test() {
            combinations(Way::new(stringify!($mode), $vip == 6, $real == 6));
        })*

        /// The holder's agent answers for VIPs that every director has on `lo`.
        mod answered {
            use super::{Scheduler, Way, schedulers};

            $(#[test]
            fn $test() {
                let way = Way::new(stringify!($mode), $vip == 6, $real == 6).answered();
                schedulers(way, |scheduler| scheduler == Scheduler::Rr);
            })*
        }

        const WAYS: &[(&str, bool, bool)] = &[$((stringify!($mode), $vip == 6, $real == 6)),*];
    };
}

ways! {
    dr_v4: dr 4 over 4;
    dr_v6: dr 6 over 6;
    nat_v4: nat 4 over 4;
    nat_v6: nat 6 over 6;
    ipip_v4: ipip 4 over 4;
    ipip_v6: ipip 6 over 6;
    ipip_v6_in_v4: ipip 6 over 4;
    ipip_v4_in_v6: ipip 4 over 6;
    gue_v4: gue 4 over 4;
    gue_v6: gue 6 over 6;
    gue_v6_in_v4: gue 6 over 4;
    gue_v4_in_v6: gue 4 over 6;
    gre_v4: gre 4 over 4;
    gre_v6: gre 6 over 6;
    gre_v6_in_v4: gre 6 over 4;
    gre_v4_in_v6: gre 4 over 6;
}

/// Everything that the document can ask for is among the ways: each mode and encapsulation with each IP version, and through tunnels, where the
/// kernel allows it, one IP version in the other.
#[test]
fn no_way_of_forwarding_is_left_out() {
    let mut expected = BTreeSet::new();
    for mode in Forwarding::WORDS {
        let names: &[&str] = if mode == "tunnel" { &Encapsulation::WORDS } else { &[mode] };
        for &name in names {
            for vip in [false, true] {
                for real in [false, true] {
                    if vip == real || mode == "tunnel" {
                        expected.insert((name, vip, real));
                    }
                }
            }
        }
    }
    let have: BTreeSet<_> = WAYS.iter().copied().collect();
    assert_eq!(have, expected);
    assert_eq!(have.len(), WAYS.len(), "each once");
    for (name, vip, real) in WAYS {
        // Each is what its name says.
        match Way::new(name, *vip, *real).forwarding() {
            Forwarding::Dr => assert_eq!(*name, "dr"),
            Forwarding::Nat => assert_eq!(*name, "nat"),
            Forwarding::Tunnel(encapsulation) => assert_eq!(*name, encapsulation.name()),
        }
    }
}

/// IPv6 packets in UDP need a checksum; over IPv4 none is asked for, so that both are seen.
const fn checksum(outer_ipv6: bool) -> TunnelChecksum {
    if outer_ipv6 { TunnelChecksum::Csum } else { TunnelChecksum::None }
}
