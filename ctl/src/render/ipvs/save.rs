//! A table as lines that `ipvsadm -R` and `lvsctl ipvs restore` read.
//!
//! As `ipvsadm -Sn` (1.31) prints it, and with what that leaves out: thresholds, and masks of services without persistence. Marks are
//! unsigned: ipvsadm prints those from 2^31 on as negative numbers, and does not read them back.

use lvsmesh_core::plan::ServiceSpec;
use lvsmesh_proto::v1::{IpvsDestination, IpvsService, ListIpvsResponse};

use super::order::{compare_destinations, compare_services, sorted};
use super::{endpoint, mask, scheduler_flags};

/// All services, or only those that lvsmesh did not make. The second half lists what these lines cannot say.
pub(crate) fn save(table: &ListIpvsResponse, only_foreign: bool) -> (String, Vec<String>) {
    let (mut text, mut unsaid) = (String::new(), Vec::new());
    let services = sorted(&table.services, compare_services);
    for service in services.into_iter().filter(|service| !(only_foreign && service.owned)) {
        let name = name(service);
        text += &format!("-A {name} {}\n", settings(service));
        for destination in sorted(&service.destinations, compare_destinations) {
            let real = endpoint(&destination.address, destination.port);
            match way(destination) {
                Ok(way) => text += &format!("-a {name} -r {real} {way}\n"),
                Err(reason) => unsaid.push(format!("{real} of {name}: {reason}")),
            }
        }
    }
    (text, unsaid)
}

/// `-t 192.0.2.1:80`, `-f 8 -6`.
fn name(service: &IpvsService) -> String {
    let option = match (service.mark, service.protocol) {
        (0, 17) => "-u",
        (0, 132) => "--sctp-service",
        (0, _) => "-t",
        (mark, _) => {
            return format!("-f {mark}{}", if service.ipv6 { " -6" } else { "" });
        }
    };
    format!("{option} {}", endpoint(&service.address, service.port))
}

fn settings(service: &IpvsService) -> String {
    let mut text = format!("-s {}", service.scheduler);
    let flags = scheduler_flags(&service.scheduler, service.flags);
    if !flags.is_empty() {
        text += &format!(" -b {}", flags.join(","));
    }
    if service.flags & ServiceSpec::PERSISTENT != 0 {
        text += &format!(" -p {}", service.timeout);
    }
    if let Some(mask) = mask(service) {
        text += &format!(" -M {mask}");
    }
    if !service.engine.is_empty() {
        text += &format!(" --pe {}", service.engine);
    }
    if service.flags & ServiceSpec::ONE_PACKET != 0 {
        text += " -o";
    }
    text
}

/// `-g -w 1 -x 1000 -y 800`; or why there are no words for it.
fn way(destination: &IpvsDestination) -> Result<String, String> {
    let method = match destination.method {
        0 => "-m",
        // The kernel finds out by itself that an address is its own.
        1 | 3 => "-g",
        2 => "-i",
        _ => return Err("ipvsadm has no option for its forwarding method".to_owned()),
    };
    let mut text = format!("{method} -w {}", destination.weight);
    if destination.method == 2 {
        text += &tunnel(destination)?;
    }
    if destination.upper_threshold != 0 {
        text += &format!(" -x {}", destination.upper_threshold);
    }
    if destination.lower_threshold != 0 {
        text += &format!(" -y {}", destination.lower_threshold);
    }
    Ok(text)
}

fn tunnel(destination: &IpvsDestination) -> Result<String, String> {
    let checksum = match destination.tunnel_flags {
        flags if flags & 1 != 0 => "--tun-csum",
        flags if flags & 2 != 0 => "--tun-remcsum",
        _ => "--tun-nocsum",
    };
    match destination.tunnel_type {
        0 => Ok(" --tun-type ipip".to_owned()),
        1 => Ok(format!(" --tun-type gue --tun-port {} {checksum}", destination.tunnel_port)),
        2 => Ok(format!(" --tun-type gre {checksum}")),
        other => Err(format!("ipvsadm has no option for its tunnel type, {other}")),
    }
}
