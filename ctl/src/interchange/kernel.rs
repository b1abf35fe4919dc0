//! A live IPVS table, as an agent reads it.

use std::net::SocketAddr;
use std::sync::Arc;

use lvsmesh_core::model::{Encapsulation, Protocol};
use lvsmesh_core::plan::{Destination, Method, ServiceKey, ServiceSpec};
use lvsmesh_proto::v1;

use super::Import;
use super::assemble::{Names, assemble};
use super::export::ipvsadm::rules;
use super::fates::Fates;
use super::report::{Fate, Place, Report};
use super::table::{Row, draft};

/// What the answer does not carry.
const UNTOLD: &str = "the agent does not say which kind of tunnel: ipip is taken";
const THRESHOLDS: &str =
    "the agent does not say connection thresholds: set upper_threshold and lower_threshold by hand";

/// Makes a document of a node's table. The report's lines are the rules that make the table, in its order.
pub(crate) fn import(table: &v1::ListIpvsResponse, names: &Names) -> Import {
    let file: Arc<str> = table.node.as_str().into();
    let mut fates = Fates::default();
    let mut report = Report::default();
    let mut rows = Vec::new();
    let mut lines: Vec<String> = vec![String::new()];
    for service in &table.services {
        match row(service, &mut lines, &mut fates) {
            Ok(row) => rows.push(row),
            Err(why) => report.remark(why),
        }
    }
    report.remark(THRESHOLDS);
    let document = assemble(draft(&rows, &mut fates), names, &mut fates, &mut report);
    for (number, line) in lines.into_iter().enumerate().skip(1) {
        let (fate, note) = fates.get(number).unwrap_or((Fate::Taken, ""));
        report.add(Place::new(&file, number), line, fate, note);
    }
    Import { document, report }
}

/// A service, whose rules are added to the lines.
fn row(
    service: &v1::IpvsService,
    lines: &mut Vec<String>,
    fates: &mut Fates,
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
    for destination in &service.destinations {
        let (at, made) = read(destination).map_err(|why| format!("{key}: {why}"))?;
        destinations.push((at, made));
    }
    let whole = lvsmesh_core::plan::VirtualService {
        spec: spec.clone(),
        destinations: destinations.iter().copied().collect(),
    };
    let first = lines.len();
    let text = rules(&[(key, whole)].into());
    lines.extend(text.lines().map(str::to_owned));
    destinations.sort_by_key(|(at, _)| *at);
    let destinations: Vec<_> = destinations
        .into_iter()
        .enumerate()
        .map(|(index, (at, destination))| (at, destination, first + 1 + index))
        .collect();
    for (_, Destination { method, .. }, line) in &destinations {
        if matches!(method, Method::Tunnel(_)) {
            fates.changed(*line, UNTOLD);
        }
    }
    Ok(Row { key, spec, origin: first, destinations })
}

fn key(service: &v1::IpvsService) -> Result<ServiceKey, String> {
    if service.mark != 0 {
        return Ok(ServiceKey::Mark { ipv6: service.ipv6, mark: service.mark });
    }
    let number = |protocol: &Protocol| u32::from(protocol.number()) == service.protocol;
    let protocol = Protocol::ALL
        .into_iter()
        .find(number)
        .ok_or_else(|| format!("a service of protocol {} is left out", service.protocol))?;
    let address = service
        .address
        .parse()
        .map_err(|_| format!("a service at `{}` is left out", service.address))?;
    let port =
        u16::try_from(service.port).map_err(|_| format!("port {} is left out", service.port))?;
    Ok(ServiceKey::Address { protocol, address, port })
}

fn read(destination: &v1::IpvsDestination) -> Result<(SocketAddr, Destination), String> {
    let text = &destination.address;
    let address = text.parse().map_err(|_| format!("`{text}` is no address"))?;
    let port =
        u16::try_from(destination.port).map_err(|_| format!("no port {}", destination.port))?;
    let method = match destination.method {
        0 => Method::Masq,
        1 => Method::Local,
        2 => Method::Tunnel(Encapsulation::Ipip),
        3 => Method::Route,
        4 => Method::Bypass,
        other => return Err(format!("no forwarding method {other}")),
    };
    let made = Destination { weight: destination.weight, method, upper: 0, lower: 0 };
    Ok((SocketAddr::new(address, port), made))
}

#[cfg(test)]
mod tests;
