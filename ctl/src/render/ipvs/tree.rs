//! A table for programs. The names are those of the messages in `control.proto`.

use lvsmesh_core::document::Value;
use lvsmesh_proto::v1::{IpvsDestination, IpvsService, IpvsStatistics, ListIpvsResponse};

use super::order::{compare_destinations, compare_services, sorted};
use crate::tree::{map, number};

/// All of it, whatever the view: a program picks for itself.
pub(crate) fn tree(table: &ListIpvsResponse) -> Value {
    let services = sorted(&table.services, compare_services);
    map([
        ("node", text(&table.node)),
        ("version", text(&table.version)),
        ("connection_table_size", number(table.connection_table_size)),
        ("services", Value::List(services.into_iter().map(service).collect())),
    ])
}

fn service(service: &IpvsService) -> Value {
    let destinations = sorted(&service.destinations, compare_destinations);
    map([
        ("protocol", number(service.protocol)),
        ("address", text(&service.address)),
        ("port", number(service.port)),
        ("mark", number(service.mark)),
        ("ipv6", Value::Bool(service.ipv6)),
        ("scheduler", text(&service.scheduler)),
        ("flags", number(service.flags)),
        ("timeout", number(service.timeout)),
        ("netmask", number(service.netmask)),
        ("engine", text(&service.engine)),
        ("destinations", Value::List(destinations.into_iter().map(destination).collect())),
        ("owned", Value::Bool(service.owned)),
        ("statistics", statistics(service.statistics.as_ref())),
    ])
}

fn destination(destination: &IpvsDestination) -> Value {
    map([
        ("address", text(&destination.address)),
        ("port", number(destination.port)),
        ("method", number(destination.method)),
        ("weight", number(destination.weight)),
        ("active", number(destination.active)),
        ("inactive", number(destination.inactive)),
        ("persistent", number(destination.persistent)),
        ("connections", number(destination.connections)),
        ("upper_threshold", number(destination.upper_threshold)),
        ("lower_threshold", number(destination.lower_threshold)),
        ("tunnel_type", number(destination.tunnel_type)),
        ("tunnel_port", number(destination.tunnel_port)),
        ("tunnel_flags", number(destination.tunnel_flags)),
        ("statistics", statistics(destination.statistics.as_ref())),
    ])
}

fn statistics(counted: Option<&IpvsStatistics>) -> Value {
    let Some(counted) = counted else { return Value::Null };
    map([
        ("connections", number(counted.connections)),
        ("packets_in", number(counted.packets_in)),
        ("packets_out", number(counted.packets_out)),
        ("bytes_in", number(counted.bytes_in)),
        ("bytes_out", number(counted.bytes_out)),
        ("connections_per_second", number(counted.connections_per_second)),
        ("packets_in_per_second", number(counted.packets_in_per_second)),
        ("packets_out_per_second", number(counted.packets_out_per_second)),
        ("bytes_in_per_second", number(counted.bytes_in_per_second)),
        ("bytes_out_per_second", number(counted.bytes_out_per_second)),
    ])
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}
