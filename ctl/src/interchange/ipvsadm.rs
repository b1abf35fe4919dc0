//! What `ipvsadm -Sn` prints and `ipvsadm -R` takes: ipvsadm(8), version 1.31.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use lvsmesh_core::model::{Encapsulation, Protocol, SchedulerFlag, TunnelChecksum};
use lvsmesh_core::plan::{Destination, Method, ServiceKey, ServiceSpec};

use super::Import;
use super::assemble::{Names, assemble};
use super::fates::Fates;
use super::report::{Fate, Place, Report};
use super::table::{Row, draft, each_client, is_ipv6};

/// ipvsadm's persistence where none is said, in seconds.
const PERSISTENCE: u32 = 300;

/// Reads rules and makes a document of them.
pub(crate) fn import(name: &str, text: &str, names: &Names) -> Import {
    let file: Arc<str> = name.into();
    let mut fates = Fates::default();
    let rows = rows(text, &mut fates);
    let mut report = Report::default();
    let document = assemble(draft(&rows, &mut fates), names, &mut fates, &mut report);
    for (number, line) in lines(text) {
        let (fate, note) = fates.get(number).unwrap_or((Fate::Taken, ""));
        report.add(Place::new(&file, number), line, fate, note);
    }
    Import { document, report }
}

/// Lines with rules, from 1.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let numbered = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    numbered.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// The services of some rules. What cannot be read is said of its line, and left out.
pub(crate) fn rows(text: &str, fates: &mut Fates) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for (number, line) in lines(text) {
        let known = |key: ServiceKey| rows.iter().position(|row| row.key == key);
        match rule(line) {
            Err(why) => fates.wrong(number, why),
            Ok(Rule::Service(key, spec)) => match known(key) {
                Some(_) => fates.wrong(number, format!("{key} is there already")),
                None => rows.push(Row { key, spec, origin: number, destinations: Vec::new() }),
            },
            Ok(Rule::Destination(key, at, destination)) => match known(key) {
                None => fates.wrong(number, format!("no rule before it makes the service {key}")),
                Some(index) if rows[index].destinations.iter().any(|(other, ..)| *other == at) => {
                    fates.wrong(number, format!("{at} is a real server of {key} already"));
                }
                Some(index) => rows[index].destinations.push((at, destination, number)),
            },
        }
    }
    rows
}

enum Rule {
    Service(ServiceKey, ServiceSpec),
    Destination(ServiceKey, SocketAddr, Destination),
}

/// Options of one rule, as far as they were said.
#[derive(Default)]
struct Options {
    /// `-A` or `-a`.
    server: Option<bool>,
    service: Option<(Option<Protocol>, String)>,
    ipv6: bool,
    scheduler: Option<String>,
    persistence: Option<u32>,
    netmask: Option<String>,
    engine: Option<String>,
    one_packet: bool,
    flags: Vec<String>,
    real_server: Option<String>,
    method: Option<char>,
    weight: Option<u32>,
    upper: Option<u32>,
    lower: Option<u32>,
    tunnel: Option<String>,
    tunnel_port: Option<u16>,
    checksum: TunnelChecksum,
}

fn rule(line: &str) -> Result<Rule, String> {
    let options = options(line)?;
    match options.server {
        Some(false) => service(&options).map(|(key, spec)| Rule::Service(key, spec)),
        Some(true) => destination(&options),
        None => Err("neither -A nor -a".to_owned()),
    }
}

fn options(line: &str) -> Result<Options, String> {
    let mut options = Options::default();
    // `--option=value` is `--option value`.
    let split = |word: &str| -> Vec<String> {
        match word.split_once('=') {
            Some((option, value)) if option.starts_with("--") => {
                vec![option.to_owned(), value.to_owned()]
            }
            Some(_) | None => vec![word.to_owned()],
        }
    };
    let words: Vec<String> = line.split_whitespace().flat_map(split).collect();
    let mut words = words.iter().map(String::as_str).peekable();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} has no value"));
        match word {
            "ipvsadm" => {}
            "-A" | "--add-service" => options.server = Some(false),
            "-a" | "--add-server" => options.server = Some(true),
            "-t" | "--tcp-service" => {
                options.service = Some((Some(Protocol::Tcp), value()?.to_owned()));
            }
            "-u" | "--udp-service" => {
                options.service = Some((Some(Protocol::Udp), value()?.to_owned()));
            }
            "--sctp-service" => {
                options.service = Some((Some(Protocol::Sctp), value()?.to_owned()));
            }
            "-f" | "--fwmark-service" => options.service = Some((None, value()?.to_owned())),
            "-6" | "--ipv6" => options.ipv6 = true,
            "-s" | "--scheduler" => options.scheduler = Some(value()?.to_owned()),
            "-p" | "--persistent" => {
                // Its value may be left out.
                let seconds = words.next_if(|word| !word.starts_with('-'));
                options.persistence = Some(match seconds {
                    Some(text) => number(word, text)?,
                    None => PERSISTENCE,
                });
            }
            "-M" | "--netmask" => options.netmask = Some(value()?.to_owned()),
            "--pe" => options.engine = Some(value()?.to_owned()),
            "-o" | "-O" | "--ops" => options.one_packet = true,
            "-b" | "--sched-flags" => {
                options.flags = value()?.split(',').map(str::to_owned).collect();
            }
            "-r" | "--real-server" => options.real_server = Some(value()?.to_owned()),
            "-g" | "--gatewaying" => options.method = Some('g'),
            "-m" | "--masquerading" => options.method = Some('m'),
            "-i" | "--ipip" => options.method = Some('i'),
            "-w" | "--weight" => options.weight = Some(number(word, value()?)?),
            "-x" | "--u-threshold" => options.upper = Some(number(word, value()?)?),
            "-y" | "--l-threshold" => options.lower = Some(number(word, value()?)?),
            "--tun-type" => options.tunnel = Some(value()?.to_owned()),
            "--tun-port" => options.tunnel_port = Some(number(word, value()?)?),
            "--tun-nocsum" => options.checksum = TunnelChecksum::None,
            "--tun-csum" => options.checksum = TunnelChecksum::Csum,
            "--tun-remcsum" => options.checksum = TunnelChecksum::Remcsum,
            other => return Err(format!("no option `{other}` of a rule")),
        }
    }
    Ok(options)
}

fn number<T: FromStr>(option: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{option}: `{text}` is no number that fits"))
}

fn key(options: &Options) -> Result<ServiceKey, String> {
    match &options.service {
        None => Err("no service: -t, -u, --sctp-service or -f".to_owned()),
        Some((None, text)) => match text.parse() {
            Ok(0) | Err(_) => Err(format!("`{text}` is no firewall mark")),
            Ok(mark) => Ok(ServiceKey::Mark { ipv6: options.ipv6, mark }),
        },
        Some((Some(protocol), text)) => {
            let (address, port) = endpoint(text)?;
            let port = port.unwrap_or_default();
            Ok(ServiceKey::Address { protocol: *protocol, address, port })
        }
    }
}

/// `192.0.2.1:80`, `[2001:db8::1]:80`, or without a port.
fn endpoint(text: &str) -> Result<(IpAddr, Option<u16>), String> {
    if let Ok(whole) = text.parse::<SocketAddr>() {
        return Ok((whole.ip(), Some(whole.port())));
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse()
        .map(|address| (address, None))
        .map_err(|_| format!("`{text}` is no address and port in numbers: print the rules with -n"))
}

fn service(options: &Options) -> Result<(ServiceKey, ServiceSpec), String> {
    let key = key(options)?;
    let ipv6 = is_ipv6(key);
    let mut flags = 0;
    if options.persistence.is_some() {
        flags |= ServiceSpec::PERSISTENT;
    }
    if options.one_packet {
        flags |= ServiceSpec::ONE_PACKET;
    }
    for name in &options.flags {
        let named = SchedulerFlag::ALL.into_iter().find(|flag| flag.name() == name);
        flags |= named.ok_or_else(|| format!("-b: no flag `{name}`"))?.bit();
    }
    let netmask = match &options.netmask {
        None => each_client(ipv6),
        Some(text) if ipv6 => number("-M", text)?,
        Some(text) => text
            .parse::<std::net::Ipv4Addr>()
            .map_err(|_| format!("-M: `{text}` is no netmask"))?
            .to_bits(),
    };
    let scheduler = options.scheduler.clone().unwrap_or_else(|| "wlc".to_owned());
    let timeout = options.persistence.unwrap_or_default();
    Ok((key, ServiceSpec { scheduler, flags, timeout, netmask, engine: options.engine.clone() }))
}

fn destination(options: &Options) -> Result<Rule, String> {
    let key = key(options)?;
    let text = options.real_server.as_deref().ok_or("no real server: -r")?;
    let (address, port) = endpoint(text)?;
    let method = match options.method {
        None | Some('g') => Method::Route,
        Some('m') => Method::Masq,
        Some(_) => Method::Tunnel(encapsulation(options)?),
    };
    let own = match key {
        ServiceKey::Address { port, .. } => Some(port),
        ServiceKey::Mark { .. } => None,
    };
    // Only translation changes ports: ipvsadm takes the service's.
    let port = match (own, method) {
        (Some(own), Method::Masq) => port.unwrap_or(own),
        (Some(own), _) => own,
        (None, _) => port.unwrap_or_default(),
    };
    let destination = Destination {
        weight: options.weight.unwrap_or(1),
        method,
        upper: options.upper.unwrap_or_default(),
        lower: options.lower.unwrap_or_default(),
    };
    Ok(Rule::Destination(key, SocketAddr::new(address, port), destination))
}

fn encapsulation(options: &Options) -> Result<Encapsulation, String> {
    let checksum = options.checksum;
    match options.tunnel.as_deref() {
        None | Some("ipip") => Ok(Encapsulation::Ipip),
        Some("gre") => Ok(Encapsulation::Gre { checksum }),
        Some("gue") => match options.tunnel_port {
            Some(port) => Ok(Encapsulation::Gue { port, checksum }),
            None => Err("a gue tunnel has a --tun-port".to_owned()),
        },
        Some(other) => Err(format!("--tun-type: no kind `{other}`")),
    }
}

#[cfg(test)]
mod tests;
