//! A document becomes the keepalived.conf of one director, for version 2.2.7 and later.

use std::fmt::Write as _;
use std::net::IpAddr;

use lvsmesh_core::document::limits;
use lvsmesh_core::model::{
    Auth, Check, CheckKind, Checksum, Document, Encapsulation, Failback, Forwarding, Garp, Listen,
    Peers, Pool, PoolSource, Protocol, RealServer, SchedulerFlag, Service, TunnelChecksum, Vip,
    VrrpVersion,
};

use super::Exported;

/// The configuration of that director; `None`: of the one that is preferred most.
pub(crate) fn export(document: &Document, node: Option<&str>) -> Exported {
    let node = node.or_else(|| {
        document.vips.iter().flat_map(|vip| &vip.preference).next().map(String::as_str)
    });
    let mut out = Writer::default();
    out.globals(document, node);
    for vip in &document.vips {
        out.instance(document, vip, node);
    }
    for service in &document.services {
        let (Some(vip), Some(pool)) = (document.vip(&service.vip), document.pool(&service.pool))
        else {
            continue;
        };
        match &service.listen {
            Listen::Port { protocol, port } => {
                for &address in &vip.addresses {
                    let head = match port {
                        0 => format!("virtual_server {address}"),
                        port => format!("virtual_server {address} {port}"),
                    };
                    out.service(&head, Some(*protocol), address.is_ipv6(), service, pool);
                }
            }
            Listen::Mark { mark, marking } => {
                if marking.is_some() {
                    out.note(format!(
                        "service {}: keepalived marks no packets: rules of the firewall must",
                        service.name
                    ));
                }
                let ipv6 = vip.addresses.iter().any(IpAddr::is_ipv6);
                out.service(&format!("virtual_server fwmark {mark}"), None, ipv6, service, pool);
            }
        }
    }
    for vip in document.vips.iter().filter(|vip| !vip.arbiters.is_empty()) {
        out.note(format!("VIP group {}: keepalived asks no arbiters", vip.name));
    }
    for pool in &document.pools {
        if pool.min_healthy > 0 {
            out.note(format!("pool {}: keepalived has no min_healthy", pool.name));
        }
    }
    out.finish()
}

/// Lines at their depth, and what they cannot say.
#[derive(Debug, Default)]
struct Writer {
    text: String,
    depth: usize,
    notes: Vec<String>,
}

impl Writer {
    fn line(&mut self, line: impl std::fmt::Display) {
        let depth = self.depth * 4;
        // Writing to a string cannot fail.
        let _ok = writeln!(self.text, "{:depth$}{line}", "");
    }

    fn block(&mut self, head: impl std::fmt::Display, inside: impl FnOnce(&mut Self)) {
        self.line(format_args!("{head} {{"));
        self.depth += 1;
        inside(self);
        self.depth -= 1;
        self.line("}");
        if self.depth == 0 {
            self.text.push('\n');
        }
    }

    fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    fn finish(self) -> Exported {
        let mut text = "# Written by lvsctl export keepalived.\n".to_owned();
        for note in &self.notes {
            text += &format!("# {note}\n");
        }
        text += "\n";
        text += self.text.trim_end();
        Exported { text: text + "\n", notes: self.notes }
    }

    fn globals(&mut self, document: &Document, node: Option<&str>) {
        self.block("global_defs", |out| {
            if let Some(node) = node {
                out.line(format_args!("router_id {node}"));
            }
            let pace = document.vips.iter().map(|vip| vip.garp.interval).max();
            if let Some(pace) = pace.filter(|pace| !pace.is_zero()) {
                out.line(format_args!("vrrp_garp_interval {}", seconds(pace)));
                out.line(format_args!("vrrp_gna_interval {}", seconds(pace)));
            }
            let ipvs = &document.fleet.ipvs;
            let timeouts = [
                ("tcp", ipvs.timeouts.tcp),
                ("tcpfin", ipvs.timeouts.tcp_fin),
                ("udp", ipvs.timeouts.udp),
            ];
            let said: Vec<String> = timeouts
                .into_iter()
                .filter_map(|(word, span)| Some(format!("{word} {}", span?.as_secs())))
                .collect();
            if !said.is_empty() {
                out.line(format_args!("lvs_timeouts {}", said.join(" ")));
            }
            if let Some(sync) = &ipvs.sync {
                let lvsmesh_core::model::Sync { interface, id, group, port, ttl, maxlen } = sync;
                let instance = document.vips.first().map(|vip| vip.name.as_str());
                let inst = instance.map(|name| format!(" inst {name}")).unwrap_or_default();
                let maxlen = maxlen.map(|length| format!(" maxlen {length}")).unwrap_or_default();
                out.line(format_args!(
                    "lvs_sync_daemon {interface}{inst} id {id}{maxlen} port {port} ttl {ttl} group {group}"
                ));
            }
        });
    }

    fn instance(&mut self, document: &Document, vip: &Vip, node: Option<&str>) {
        let rank = vip.preference.iter().position(|name| Some(name.as_str()) == node);
        let rank = rank.unwrap_or(vip.preference.len());
        let step = u8::try_from(rank).unwrap_or(u8::MAX);
        let vrrp = &vip.vrrp;
        if vrrp.checksum == Checksum::Plain && vrrp.version == VrrpVersion::V3 {
            self.note(format!("VIP group {}: from 2.2.8 on, add v3_checksum_as_v2", vip.name));
        }
        self.block(format_args!("vrrp_instance {}", vip.name), |out| {
            out.line("state BACKUP");
            match document.fleet.failback {
                Failback::Never => out.line("nopreempt"),
                Failback::Delayed(delay) => {
                    // `preempt_delay`: 0 to 1000 (keepalived.conf(5)).
                    let seconds = delay.as_secs().clamp(1, 1000);
                    out.line(format_args!("preempt_delay {seconds}"));
                }
                Failback::Immediate => {}
            }
            out.line(format_args!("interface {}", vip.interface));
            out.line(format_args!("virtual_router_id {}", vrrp.vrid));
            out.line(format_args!("priority {}", vrrp.priority.saturating_sub(step).max(1)));
            out.line(format_args!("version {}", vrrp.version.number()));
            out.line(format_args!("advert_int {}", seconds(vrrp.advert_interval)));
            if let Some(Auth::Pass(pass)) = &vrrp.auth {
                out.block("authentication", |out| {
                    out.line("auth_type PASS");
                    out.line(format_args!("auth_pass {}", quoted(pass)));
                });
            }
            out.announcements(vip);
            let (named, unnamed) = vip.addresses.split_at(vip.advertised().len());
            for (word, addresses) in
                [("virtual_ipaddress", named), ("virtual_ipaddress_excluded", unnamed)]
            {
                if addresses.is_empty() {
                    continue;
                }
                out.block(word, |out| {
                    for address in addresses {
                        let prefix = if address.is_ipv4() { 32 } else { 128 };
                        out.line(format_args!("{address}/{prefix}"));
                    }
                });
            }
        });
    }

    /// To whom and how often an instance says where its addresses are.
    fn announcements(&mut self, vip: &Vip) {
        if let Peers::Unicast(listed) = &vip.vrrp.peers {
            self.note(format!(
                "VIP group {}: add the addresses of the other directors to unicast_peer",
                vip.name
            ));
            self.block("unicast_peer", |out| {
                for peer in listed {
                    out.line(peer);
                }
            });
        }
        let (garp, default) = (vip.garp, Garp::default());
        if (garp.repeat, garp.refresh) != (default.repeat, default.refresh) {
            self.line(format_args!("garp_master_repeat {}", garp.repeat));
            self.line("garp_master_delay 0");
            self.line(format_args!("garp_master_refresh {}", seconds(garp.refresh)));
        }
    }

    fn service(
        &mut self,
        head: &str,
        protocol: Option<Protocol>,
        ipv6: bool,
        service: &Service,
        pool: &Pool,
    ) {
        let listed = match &pool.source {
            PoolSource::Listed(listed) if !listed.is_empty() => listed,
            PoolSource::Listed(_) | PoolSource::Discovery(_) => {
                self.note(format!(
                    "service {}: its real servers are found, and keepalived needs them listed",
                    service.name
                ));
                return;
            }
        };
        if service.gateway.is_some() {
            self.note(format!("service {}: the way back of answers is not set up", service.name));
        }
        self.block(head, |out| {
            out.line(format_args!("lvs_sched {}", service.scheduler.name()));
            for flag in &service.flags {
                out.line(SchedulerFlag::name(*flag));
            }
            out.line(format_args!("lvs_method {}", method(service.forwarding)));
            if let Some(protocol) = protocol {
                out.line(format_args!("protocol {}", protocol.name().to_uppercase()));
            } else if ipv6 {
                out.line("ip_family inet6");
            }
            out.persistence(service, ipv6);
            if service.one_packet {
                out.line("ops");
            }
            if let Some(check) = &pool.check {
                out.line(format_args!("delay_loop {}", seconds(check.interval)));
            }
            for real_server in listed {
                out.real_server(real_server, pool.check.as_ref());
            }
        });
    }

    fn persistence(&mut self, service: &Service, ipv6: bool) {
        let persistence = &service.persistence;
        if persistence.timeout.is_zero() {
            return;
        }
        self.line(format_args!("persistence_timeout {}", persistence.timeout.as_secs()));
        if ipv6 && persistence.prefix != 128 {
            self.line(format_args!("persistence_granularity {}", persistence.prefix));
        } else if !ipv6 && persistence.netmask != std::net::Ipv4Addr::BROADCAST {
            self.line(format_args!("persistence_granularity {}", persistence.netmask));
        }
        if let Some(engine) = persistence.engine {
            self.line(format_args!("persistence_engine {}", engine.name()));
        }
    }

    fn real_server(&mut self, real_server: &RealServer, check: Option<&Check>) {
        let RealServer { address, port, weight, upper_threshold, lower_threshold, forwarding } =
            real_server;
        let port = if *port == 0 { String::new() } else { format!(" {port}") };
        self.block(format_args!("real_server {address}{port}"), |out| {
            out.line(format_args!("weight {weight}"));
            if let Some(forwarding) = forwarding {
                out.line(format_args!("lvs_method {}", method(*forwarding)));
            }
            for (word, threshold) in
                [("uthreshold", upper_threshold), ("lthreshold", lower_threshold)]
            {
                if *threshold != 0 {
                    out.line(format_args!("{word} {threshold}"));
                }
            }
            if let Some(check) = check {
                match check.kind {
                    CheckKind::Tcp => out.block("TCP_CHECK", |out| out.tcp_check(check)),
                }
            }
        });
    }

    fn tcp_check(&mut self, check: &Check) {
        if let Some(port) = check.port {
            self.line(format_args!("connect_port {port}"));
        }
        self.line(format_args!("connect_timeout {}", seconds(check.timeout)));
        self.line(format_args!("retry {}", check.retries));
        self.line(format_args!("delay_before_retry {}", seconds(check.delay_before_retry)));
    }
}

/// keepalived's word for a method.
fn method(forwarding: Forwarding) -> String {
    let word = |checksum: TunnelChecksum| match checksum {
        TunnelChecksum::None => "nocsum",
        TunnelChecksum::Csum => "csum",
        TunnelChecksum::Remcsum => "remcsum",
    };
    match forwarding {
        Forwarding::Dr => "DR".to_owned(),
        Forwarding::Nat => "NAT".to_owned(),
        Forwarding::Tunnel(Encapsulation::Ipip) => "TUN".to_owned(),
        Forwarding::Tunnel(Encapsulation::Gue { port, checksum }) => {
            format!("TUN type gue port {port} {}", word(checksum))
        }
        Forwarding::Tunnel(Encapsulation::Gre { checksum }) => {
            format!("TUN type gre {}", word(checksum))
        }
    }
}

/// Seconds with as many decimals as are needed.
fn seconds(span: std::time::Duration) -> String {
    let (whole, millis) = (span.as_secs(), span.subsec_millis());
    if millis == 0 {
        return whole.to_string();
    }
    format!("{whole}.{millis:03}").trim_end_matches('0').to_owned()
}

/// A value that may have blanks or comment signs in it.
fn quoted(text: &str) -> String {
    debug_assert!(text.len() <= *limits::PASS.end(), "checked by the document's rules");
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@+=%,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{escaped}\"")
}
