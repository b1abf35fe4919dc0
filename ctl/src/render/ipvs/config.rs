//! `ipvsadm -L --timeout` and `ipvsadm -L --daemon`.

use lvsmesh_core::document::Value;
use lvsmesh_proto::v1::{GetIpvsConfigResponse, IpvsDaemon};

use crate::tree::{map, number};

/// One line.
pub(crate) fn timeouts(config: &GetIpvsConfigResponse) -> String {
    let timeouts = config.timeouts.unwrap_or_default();
    format!("Timeout (tcp tcpfin udp): {} {} {}\n", timeouts.tcp, timeouts.tcp_fin, timeouts.udp)
}

/// One line a daemon; nothing if none runs.
pub(crate) fn daemons(config: &GetIpvsConfigResponse) -> String {
    config.daemons.iter().map(daemon).collect()
}

fn daemon(daemon: &IpvsDaemon) -> String {
    let mut text = format!(
        "{} sync daemon (mcast={}, syncid={}",
        daemon.role, daemon.interface, daemon.sync_id
    );
    // What old kernels do not say is left out.
    if daemon.max_length != 0 {
        text += &format!(", maxlen={}", daemon.max_length);
    }
    if !daemon.group.is_empty() {
        text += &format!(", group={}", daemon.group);
    }
    if daemon.port != 0 {
        text += &format!(", port={}", daemon.port);
    }
    if daemon.ttl != 0 {
        text += &format!(", ttl={}", daemon.ttl);
    }
    text + ")\n"
}

/// The names are those of `IpvsConnectionTimeouts` in `control.proto`.
pub(crate) fn timeouts_tree(config: &GetIpvsConfigResponse) -> Value {
    let timeouts = config.timeouts.unwrap_or_default();
    map([
        ("node", Value::Text(config.node.clone())),
        ("tcp", number(timeouts.tcp)),
        ("tcp_fin", number(timeouts.tcp_fin)),
        ("udp", number(timeouts.udp)),
    ])
}

/// The names are those of `IpvsDaemon` in `control.proto`.
pub(crate) fn daemons_tree(config: &GetIpvsConfigResponse) -> Value {
    let text = |text: &str| Value::Text(text.to_owned());
    let daemon = |daemon: &IpvsDaemon| {
        map([
            ("role", text(&daemon.role)),
            ("interface", text(&daemon.interface)),
            ("sync_id", number(daemon.sync_id)),
            ("max_length", number(daemon.max_length)),
            ("group", text(&daemon.group)),
            ("port", number(daemon.port)),
            ("ttl", number(daemon.ttl)),
        ])
    };
    map([
        ("node", text(&config.node)),
        ("daemons", Value::List(config.daemons.iter().map(daemon).collect())),
    ])
}

#[cfg(test)]
mod tests {
    use lvsmesh_proto::v1::IpvsConnectionTimeouts;

    use super::*;

    fn master() -> IpvsDaemon {
        IpvsDaemon {
            role: "master".into(),
            interface: "e0".into(),
            sync_id: 5,
            max_length: 1472,
            group: "224.0.0.81".into(),
            port: 8848,
            ttl: 1,
        }
    }

    /// Of ipvsadm 1.31 on Linux 6.1.
    #[test]
    fn the_lines_are_ipvsadms() {
        let backup = IpvsDaemon {
            role: "backup".into(),
            max_length: 1400,
            group: "ff02::81".into(),
            port: 8849,
            ttl: 3,
            ..master()
        };
        let config = GetIpvsConfigResponse {
            node: "lvs-1".into(),
            timeouts: Some(IpvsConnectionTimeouts { tcp: 900, tcp_fin: 120, udp: 300 }),
            daemons: vec![master(), backup],
        };
        assert_eq!(timeouts(&config), "Timeout (tcp tcpfin udp): 900 120 300\n");
        assert_eq!(
            daemons(&config),
            "master sync daemon (mcast=e0, syncid=5, maxlen=1472, group=224.0.0.81, port=8848, ttl=1)\n\
             backup sync daemon (mcast=e0, syncid=5, maxlen=1400, group=ff02::81, port=8849, ttl=3)\n"
        );
        assert_eq!(daemons(&GetIpvsConfigResponse::default()), "");
    }

    #[test]
    fn what_an_old_kernel_does_not_say_is_left_out() {
        let old = IpvsDaemon { max_length: 0, group: String::new(), port: 0, ttl: 0, ..master() };
        assert_eq!(daemon(&old), "master sync daemon (mcast=e0, syncid=5)\n");
    }
}
