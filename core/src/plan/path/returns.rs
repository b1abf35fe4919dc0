//! The way back of translated connections.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use super::tunnels::{because, unneeded};
use super::{Ours, PathAction, PathDiff, Paths};
use crate::model::Protocol;
use crate::plan::{Action, Observed, Op};

/// Routing tables of our own: one for each VIP group that is a gateway.
pub const TABLES: RangeInclusive<u32> = 7400..=8399;

/// Priority of our policy rules: after the table `local` (0), before `main` (32766).
pub const PRIORITY: u32 = 7400;

/// Answers of one service of one real server look up a table of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// The real server's address: what answers come from.
    pub source: IpAddr,
    /// Transport protocol.
    pub protocol: Protocol,
    /// The lowest port that answers come from.
    pub first: u16,
    /// The highest.
    pub last: u16,
    /// Of [`TABLES`].
    pub table: u32,
}

/// The default route of a table of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// Of [`TABLES`]. IPv4 and IPv6 have tables of their own.
    pub table: u32,
    /// The inside VIP.
    pub gateway: IpAddr,
}

impl std::fmt::Display for Rule {
    /// As `ip rule` has it: `from 192.0.2.3 ipproto tcp sport 80 lookup 7400`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "from {} ipproto {} sport {}", self.source, self.protocol.name(), self.first)?;
        if self.last != self.first {
            write!(f, "-{}", self.last)?;
        }
        write!(f, " lookup {}", self.table)
    }
}

impl std::fmt::Display for Route {
    /// As `ip route` has it: `default via 192.0.2.1 table 7400`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "default via {} table {}", self.gateway, self.table)
    }
}

/// Whether answers need that way: not on the machine that holds the gateway itself, where they pass the director anyway. There the kernel would
/// not even take the route, and one that is left from before would lead nowhere.
fn applies(observed: &Observed, wanted: &Paths, ipv6: bool, table: u32) -> bool {
    let route =
        wanted.routes.iter().find(|route| (route.table, route.gateway.is_ipv6()) == (table, ipv6));
    route.is_some_and(|route| !is_local(observed, route.gateway))
}

fn is_local(observed: &Observed, address: IpAddr) -> bool {
    observed.addresses.iter().any(|seen| seen.address == address)
}

pub(super) fn diff(
    out: &mut PathDiff,
    observed: &Observed,
    wanted: &Paths,
    ours: &Ours,
    source: &str,
) {
    let seen = &observed.paths;
    let route_wanted =
        |route: &Route| wanted.routes.contains(route) && !is_local(observed, route.gateway);
    let rule_wanted = |rule: &Rule| {
        wanted.rules.contains(rule) && applies(observed, wanted, rule.source.is_ipv6(), rule.table)
    };
    let mut removals = Vec::new();
    // Rules go before the routes that they lead to, and come after them.
    for (rule, marked) in seen.rules.iter().filter(|(rule, _)| !rule_wanted(rule)) {
        if *marked || ours.rules.contains(rule) {
            out.record.rules.insert(*rule);
            removals.push(unneeded(PathAction::RemoveRule(*rule), source));
        }
    }
    for (route, marked) in seen.routes.iter().filter(|(route, _)| !route_wanted(route)) {
        if *marked || ours.routes.contains(route) {
            out.record.routes.insert(*route);
            let op = unneeded(PathAction::RemoveRoute(*route), source);
            // Another gateway in the same table has to make room first.
            let replaced = wanted.routes.iter().any(|other| {
                other.table == route.table
                    && other.gateway.is_ipv6() == route.gateway.is_ipv6()
                    && route_wanted(other)
            });
            if replaced { out.prepare.push(op) } else { removals.push(op) }
        }
    }
    for route in wanted.routes.iter().filter(|route| route_wanted(route)) {
        if !seen.routes.contains_key(route) {
            out.prepare.push(Op {
                action: Action::Path(PathAction::AddRoute(*route)),
                reason: because(ours.routes.contains(route), source),
            });
        }
        out.record.routes.insert(*route);
        out.settled.routes.insert(*route);
    }
    for rule in wanted.rules.iter().filter(|rule| rule_wanted(rule)) {
        if !seen.rules.contains_key(rule) {
            out.prepare.push(Op {
                action: Action::Path(PathAction::AddRule(*rule)),
                reason: because(ours.rules.contains(rule), source),
            });
        }
        out.record.rules.insert(*rule);
        out.settled.rules.insert(*rule);
    }
    out.clear.splice(0..0, removals);
}

/// Why answers would not go back through the director, in one line.
pub(super) fn fault(observed: &Observed, wanted: &Paths) -> Option<String> {
    let applies = |ipv6, table| applies(observed, wanted, ipv6, table);
    for route in &wanted.routes {
        if applies(route.gateway.is_ipv6(), route.table)
            && !observed.paths.routes.contains_key(route)
        {
            return Some(format!("no way back through the director: route {route} is not there"));
        }
    }
    for rule in &wanted.rules {
        if applies(rule.source.is_ipv6(), rule.table) && !observed.paths.rules.contains_key(rule) {
            let at = SocketAddr::new(rule.source, rule.first);
            return Some(format!(
                "answers from {at} do not go back through the director: rule {rule} is not there"
            ));
        }
    }
    None
}
