//! IPVS, byte for byte as ipvsadm 1.31 prints it with `-n`, blanks at the ends of lines included.

pub(crate) mod config;
mod connections;
mod number;
mod order;
mod save;
mod tree;

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lvsmesh_core::plan::ServiceSpec;
use lvsmesh_proto::v1::{IpvsDestination, IpvsService, IpvsStatistics, ListIpvsResponse};

pub(crate) use connections::{connection_tree, connections};
pub(crate) use save::save;
pub(crate) use tree::tree;

use number::counter;
use order::{compare_destinations, compare_services, sorted};

/// `IP_VS_SVC_F_SCHED1` to `3` of `<linux/ip_vs.h>`: what they mean depends on the scheduler.
const SCHEDULER_FLAGS: [u32; 3] = [0x8, 0x10, 0x20];

/// Which columns a listing has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// `ipvsadm -Ln`.
    Table,
    /// `ipvsadm -Ln --thresholds`.
    Thresholds,
    /// `ipvsadm -Ln --persistent-conn`.
    PersistentConnections,
    /// `ipvsadm -Ln --tun-info`.
    Tunnels,
    /// `ipvsadm -Ln --stats`; with `--exact` if `exact`.
    Statistics { exact: bool },
    /// `ipvsadm -Ln --rate`; with `--exact` if `exact`.
    Rates { exact: bool },
}

impl View {
    /// The two lines that name the columns.
    const fn headings(self) -> &'static str {
        match self {
            Self::Table => {
                "Prot LocalAddress:Port Scheduler Flags\n  \
                 -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n"
            }
            Self::Thresholds => {
                "Prot LocalAddress:Port            Uthreshold Lthreshold ActiveConn InActConn \n  \
                 -> RemoteAddress:Port\n"
            }
            Self::PersistentConnections => {
                "Prot LocalAddress:Port            Weight    PersistConn ActiveConn InActConn \n  \
                 -> RemoteAddress:Port\n"
            }
            Self::Tunnels => {
                "Prot LocalAddress:Port Scheduler Flags\n  \
                 -> RemoteAddress:Port           Forward TunnelInfo    Weight ActiveConn InActConn\n"
            }
            Self::Statistics { .. } => {
                "Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes\n  \
                 -> RemoteAddress:Port\n"
            }
            Self::Rates { .. } => {
                "Prot LocalAddress:Port                 CPS    InPPS   OutPPS    InBPS   OutBPS\n  \
                 -> RemoteAddress:Port\n"
            }
        }
    }

    /// The numbers of a line of counters; `None` in a view without.
    fn counters(self, counted: Option<&IpvsStatistics>) -> Option<String> {
        let counted = counted.copied().unwrap_or_default();
        let (numbers, exact) = match self {
            Self::Statistics { exact } => (
                [
                    counted.connections,
                    counted.packets_in,
                    counted.packets_out,
                    counted.bytes_in,
                    counted.bytes_out,
                ],
                exact,
            ),
            Self::Rates { exact } => (
                [
                    counted.connections_per_second,
                    counted.packets_in_per_second,
                    counted.packets_out_per_second,
                    counted.bytes_in_per_second,
                    counted.bytes_out_per_second,
                ],
                exact,
            ),
            Self::Table | Self::Thresholds | Self::PersistentConnections | Self::Tunnels => {
                return None;
            }
        };
        Some(numbers.map(|number| counter(number, exact)).concat())
    }
}

/// The whole listing.
pub(crate) fn listing(table: &ListIpvsResponse, view: View) -> String {
    let mut text = format!(
        "IP Virtual Server version {} (size={})\n{}",
        table.version,
        table.connection_table_size,
        view.headings()
    );
    for service in sorted(&table.services, compare_services) {
        text += &service_line(service, view);
        for destination in sorted(&service.destinations, compare_destinations) {
            text += &destination_line(destination, view);
        }
    }
    text
}

fn service_line(service: &IpvsService, view: View) -> String {
    let (protocol, name) = if service.mark == 0 {
        let protocol = match service.protocol {
            6 => "TCP ",
            17 => "UDP ",
            132 => "SCTP",
            _ => "??? ",
        };
        (protocol, endpoint(&service.address, service.port))
    } else {
        // ipvsadm prints marks as signed numbers.
        let family = if service.ipv6 { " IPv6" } else { "" };
        ("FWM ", format!("{}{family}", service.mark.cast_signed()))
    };
    match view.counters(service.statistics.as_ref()) {
        Some(counters) => format!("{protocol} {name:<28}{counters}\n"),
        None => format!("{protocol} {name} {}\n", settings(service)),
    }
}

/// `wlc persistent 50 mask 255.255.255.0`.
fn settings(service: &IpvsService) -> String {
    let mut text = service.scheduler.clone();
    let flags = scheduler_flags(&service.scheduler, service.flags);
    if !flags.is_empty() {
        text += &format!(" ({})", flags.join(","));
    }
    if service.flags & ServiceSpec::PERSISTENT != 0 {
        text += &format!(" persistent {}", service.timeout);
        if let Some(mask) = mask(service) {
            text += &format!(" mask {mask}");
        }
    }
    if !service.engine.is_empty() {
        text += &format!(" pe {}", service.engine);
    }
    if service.flags & ServiceSpec::ONE_PACKET != 0 {
        text += " ops";
    }
    text
}

/// The granularity of persistence, unless each client is taken by itself.
fn mask(service: &IpvsService) -> Option<String> {
    match service.ipv6 {
        true => (service.netmask != 128).then(|| service.netmask.to_string()),
        false => (service.netmask != u32::MAX).then(|| Ipv4Addr::from(service.netmask).to_string()),
    }
}

fn scheduler_flags(scheduler: &str, flags: u32) -> Vec<&'static str> {
    let names = match scheduler {
        "sh" => ["sh-fallback", "sh-port", "flag-3"],
        "mh" => ["mh-fallback", "mh-port", "flag-3"],
        _ => ["flag-1", "flag-2", "flag-3"],
    };
    let set = SCHEDULER_FLAGS.iter().zip(names).filter(|(flag, _)| flags & **flag != 0);
    set.map(|(_, name)| name).collect()
}

fn destination_line(destination: &IpvsDestination, view: View) -> String {
    let method = match destination.method {
        0 => "Masq",
        1 => "Local",
        2 => "Tunnel",
        3 => "Route",
        4 => "Bypass",
        _ => "????",
    };
    let mut text = format!("  -> {:<28}", endpoint(&destination.address, destination.port));
    let IpvsDestination { weight, upper_threshold, lower_threshold, persistent, .. } = destination;
    // Writing to a String does not fail.
    let _ = match view {
        View::Table => write!(text, " {method:<7} {weight:<6}"),
        View::Thresholds => write!(text, " {upper_threshold:<10} {lower_threshold:<10}"),
        View::PersistentConnections => write!(text, " {weight:<9} {persistent:<11}"),
        View::Tunnels => write!(text, " {method:<7} {:<13} {weight:<6}", tunnel(destination)),
        View::Statistics { .. } | View::Rates { .. } => Ok(()),
    };
    match view.counters(destination.statistics.as_ref()) {
        Some(counters) => text + &counters + "\n",
        None => {
            let IpvsDestination { active, inactive, .. } = destination;
            text + &format!(" {active:<10} {inactive:<10}\n")
        }
    }
}

/// `n/a`, `ipip`, `gue:6080:r+c`, `gre:-c`.
fn tunnel(destination: &IpvsDestination) -> String {
    // IP_VS_TUNNEL_ENCAP_FLAG_*
    let checksum = match destination.tunnel_flags {
        flags if flags & 1 != 0 => "+c",
        flags if flags & 2 != 0 => "r+c",
        _ => "-c",
    };
    match (destination.method, destination.tunnel_type) {
        (2, 0) => "ipip".to_owned(),
        (2, 1) => format!("gue:{}:{checksum}", destination.tunnel_port),
        (2, 2) => format!("gre:{checksum}"),
        (2, other) => format!("??? ({other})"),
        _ => "n/a".to_owned(),
    }
}

fn endpoint(address: &str, port: u32) -> String {
    match address.parse() {
        Ok(IpAddr::V6(address)) => format!("[{}]:{port}", six(address)),
        Ok(IpAddr::V4(_)) | Err(_) => format!("{address}:{port}"),
    }
}

/// As `inet_ntop`: an address below `::/96` ends in dots, as a mapped one does (RFC 4291 §2.5.5).
fn six(address: Ipv6Addr) -> String {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => {
            format!("::{}", Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)))
        }
        _ => address.to_string(),
    }
}

#[cfg(test)]
mod tests;
