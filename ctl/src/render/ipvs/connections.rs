//! `ipvsadm -Lnc`.

use lvsmesh_core::document::Value;
use lvsmesh_proto::v1::IpvsConnection;

use super::endpoint;
use crate::tree::{map, number};

/// The whole listing, in the kernel's order. `engines`: with two more columns, as `ipvsadm -Lnc --persistent-conn`.
pub(crate) fn connections<'a>(
    connections: impl IntoIterator<Item = &'a IpvsConnection>,
    engines: bool,
) -> String {
    let more = if engines { "        pe name          pe_data" } else { "" };
    let mut text = format!(
        "IPVS connection entries\npro expire state       source             virtual            destination{more}\n"
    );
    for connection in connections {
        text += &line(connection, engines);
    }
    text
}

fn line(connection: &IpvsConnection, engines: bool) -> String {
    let seconds = connection.expires_seconds;
    let mut text = format!(
        "{:<3} {:<6} {:<11} {:<18} {:<18} {}",
        connection.protocol,
        format!("{:02}:{:02}", seconds / 60, seconds % 60),
        connection.state,
        endpoint(&connection.client_address, connection.client_port),
        endpoint(&connection.virtual_address, connection.virtual_port),
        {
            let destination =
                endpoint(&connection.destination_address, connection.destination_port);
            // Padded only if something follows; and that does only if the engine has given data.
            if engines && !connection.engine_data.is_empty() {
                format!("{destination:<16} {:<18} {}", connection.engine, connection.engine_data)
            } else {
                destination
            }
        },
    );
    text.push('\n');
    text
}

/// The names are those of `IpvsConnection` in `control.proto`.
pub(crate) fn connection_tree(connection: &IpvsConnection) -> Value {
    let text = |text: &str| Value::Text(text.to_owned());
    map([
        ("protocol", text(&connection.protocol)),
        ("client_address", text(&connection.client_address)),
        ("client_port", number(connection.client_port)),
        ("virtual_address", text(&connection.virtual_address)),
        ("virtual_port", number(connection.virtual_port)),
        ("destination_address", text(&connection.destination_address)),
        ("destination_port", number(connection.destination_port)),
        ("state", text(&connection.state)),
        ("expires_seconds", number(connection.expires_seconds)),
        ("engine", text(&connection.engine)),
        ("engine_data", text(&connection.engine_data)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(
        protocol: &str,
        state: &str,
        expires_seconds: u64,
        ends: [(&str, u32); 3],
    ) -> IpvsConnection {
        let [client, service, destination] = ends;
        IpvsConnection {
            protocol: protocol.into(),
            client_address: client.0.into(),
            client_port: client.1,
            virtual_address: service.0.into(),
            virtual_port: service.1,
            destination_address: destination.0.into(),
            destination_port: destination.1,
            state: state.into(),
            expires_seconds,
            ..IpvsConnection::default()
        }
    }

    /// Recorded from ipvsadm 1.31 (Debian 12) on 2026-11-27, which was given a file with these connections in place of the kernel's.
    #[test]
    fn connections_of_all_kinds_are_ipvsadms() {
        let (client, vip, real) = ("192.168.3.1", ("192.168.3.100", 80), ("192.168.3.3", 80));
        let six = ("2001:db8:1111:2222:3333:4444:5555:6666", 80);
        let call = IpvsConnection {
            engine: "sip".into(),
            engine_data: "1234567890@host".into(),
            ..connection(
                "UDP",
                "UDP",
                29,
                [("255.255.255.255", 65_535), ("192.168.3.100", 53), ("192.168.3.3", 53)],
            )
        };
        let all = [
            connection("TCP", "ESTABLISHED", 899, [(client, 42_194), vip, real]),
            connection("TCP", "FIN_WAIT", 119, [(client, 42_195), vip, real]),
            call,
            connection(
                "TCP",
                "NONE",
                36_000,
                [("192.168.3.0", 0), ("192.168.3.100", 0), ("192.168.3.3", 0)],
            ),
            connection("IP", "NONE", 49, [("192.168.3.0", 0), ("0.0.0.7", 0), ("192.168.3.3", 0)]),
            connection(
                "TCP",
                "ESTABLISHED",
                59,
                [("2001:db8::1", 42_194), ("2001:db8::100", 80), six],
            ),
            connection("SCTP", "ESTABLISHED", 6003, [(client, 42_195), vip, real]),
            connection("IPv6", "NONE", 4, [("2001:db8::1", 0), ("::7", 0), six]),
        ];
        let plain = "\
IPVS connection entries
pro expire state       source             virtual            destination
TCP 14:59  ESTABLISHED 192.168.3.1:42194  192.168.3.100:80   192.168.3.3:80
TCP 01:59  FIN_WAIT    192.168.3.1:42195  192.168.3.100:80   192.168.3.3:80
UDP 00:29  UDP         255.255.255.255:65535 192.168.3.100:53   192.168.3.3:53
TCP 600:00 NONE        192.168.3.0:0      192.168.3.100:0    192.168.3.3:0
IP  00:49  NONE        192.168.3.0:0      0.0.0.7:0          192.168.3.3:0
TCP 00:59  ESTABLISHED [2001:db8::1]:42194 [2001:db8::100]:80 [2001:db8:1111:2222:3333:4444:5555:6666]:80
SCTP 100:03 ESTABLISHED 192.168.3.1:42195  192.168.3.100:80   192.168.3.3:80
IPv6 00:04  NONE        [2001:db8::1]:0    [::7]:0            [2001:db8:1111:2222:3333:4444:5555:6666]:80
";
        assert_eq!(connections(&all, false), plain);
        let engines = plain
            .replacen("destination\n", "destination        pe name          pe_data\n", 1)
            .replacen("3.3:53\n", "3.3:53   sip                1234567890@host\n", 1);
        assert_eq!(connections(&all, true), engines);
    }
}
