//! A live IPVS table, as an agent reads it, becomes a document.

use std::net::SocketAddr;
use std::sync::Arc;

use lvsmesh_core::model::{Encapsulation, Protocol, TunnelChecksum};
use lvsmesh_core::plan::{Destination, Method, ServiceKey, ServiceSpec};
use lvsmesh_proto::v1;

use super::Import;
use super::assemble::{Names, assemble};
use super::fates::Fates;
use super::report::{Fate, Place, Report};
use super::table::{Row, draft};
use crate::render::ipvs::save;

/// Makes a document of a node's table. The report's lines are the rules that make the table.
pub(crate) fn import(table: &v1::ListIpvsResponse, names: &Names) -> Import {
    let file: Arc<str> = table.node.as_str().into();
    let mut fates = Fates::default();
    let mut report = Report::default();
    let mut rows = Vec::new();
    let mut lines: Vec<String> = vec![String::new()];
    for service in &table.services {
        let origin = lines.len();
        lines.push(rule(service, None));
        let mut destinations = Vec::new();
        for destination in &service.destinations {
            destinations.push(lines.len());
            lines.push(rule(service, Some(destination)));
        }
        match row(service, origin, &destinations) {
            Ok(row) => rows.push(row),
            Err(why) => {
                for line in [origin].into_iter().chain(destinations) {
                    fates.unsupported(line, why.clone());
                }
            }
        }
    }
    let document = assemble(draft(&rows, &mut fates), names, &mut fates, &mut report);
    for (number, line) in lines.into_iter().enumerate().skip(1) {
        let (fate, note) = fates.get(number).unwrap_or((Fate::Taken, ""));
        report.add(Place::new(&file, number), line, fate, note);
    }
    Import { document, report }
}

/// The rule that makes a service, or one of its destinations.
fn rule(service: &v1::IpvsService, destination: Option<&v1::IpvsDestination>) -> String {
    let service = v1::IpvsService {
        destinations: destination.cloned().into_iter().collect(),
        ..service.clone()
    };
    let table = v1::ListIpvsResponse { services: vec![service], ..Default::default() };
    let (text, unsaid) = save(&table, false);
    let mut lines = text.lines().map(str::to_owned);
    let first = lines.next().unwrap_or_default();
    match destination {
        None => first,
        Some(_) => lines.next().or_else(|| unsaid.into_iter().next()).unwrap_or_default(),
    }
}

/// One service, with the lines that it and its destinations come from; the error is one line.
pub(super) fn row(
    service: &v1::IpvsService,
    origin: usize,
    lines: &[usize],
) -> Result<Row, String> {
    let key = key(service)?;
    let spec = ServiceSpec {
        scheduler: service.scheduler.clone(),
        flags: service.flags,
        timeout: service.timeout,
        netmask: service.netmask,
        engine: (!service.engine.is_empty()).then(|| service.engine.clone()),
    };
    let mut destinations = Vec::new();
    for (destination, &line) in service.destinations.iter().zip(lines) {
        let (at, made) = read(destination)?;
        destinations.push((at, made, line));
    }
    Ok(Row { key, spec, origin, destinations })
}

fn key(service: &v1::IpvsService) -> Result<ServiceKey, String> {
    if service.mark != 0 {
        return Ok(ServiceKey::Mark { ipv6: service.ipv6, mark: service.mark });
    }
    let number = |protocol: &Protocol| u32::from(protocol.number()) == service.protocol;
    let protocol = Protocol::ALL
        .into_iter()
        .find(number)
        .ok_or_else(|| format!("no protocol {}", service.protocol))?;
    let text = &service.address;
    let address = text.parse().map_err(|_| format!("`{text}` is no address"))?;
    Ok(ServiceKey::Address { protocol, address, port: port(service.port)? })
}

fn port(number: u32) -> Result<u16, String> {
    u16::try_from(number).map_err(|_| format!("no port {number}"))
}

fn read(destination: &v1::IpvsDestination) -> Result<(SocketAddr, Destination), String> {
    let text = &destination.address;
    let address = text.parse().map_err(|_| format!("`{text}` is no address"))?;
    let method = match destination.method {
        0 => Method::Masq,
        1 => Method::Local,
        2 => Method::Tunnel(encapsulation(destination)?),
        3 => Method::Route,
        4 => Method::Bypass,
        other => return Err(format!("no forwarding method {other}")),
    };
    let made = Destination {
        weight: destination.weight,
        method,
        upper: destination.upper_threshold,
        lower: destination.lower_threshold,
    };
    Ok((SocketAddr::new(address, port(destination.port)?), made))
}

fn encapsulation(destination: &v1::IpvsDestination) -> Result<Encapsulation, String> {
    let checksum = match destination.tunnel_flags {
        0 => TunnelChecksum::None,
        1 => TunnelChecksum::Csum,
        2 => TunnelChecksum::Remcsum,
        other => return Err(format!("no tunnel flags {other:#x}")),
    };
    match destination.tunnel_type {
        0 => Ok(Encapsulation::Ipip),
        1 => Ok(Encapsulation::Gue { port: port(destination.tunnel_port)?, checksum }),
        2 => Ok(Encapsulation::Gre { checksum }),
        other => Err(format!("no tunnel type {other}")),
    }
}

#[cfg(test)]
mod tests;
