//! Lines of `ipvsadm -S` and `lvsctl ipvs save`, read.
//!
//! *In*: text, one command a line. *Out*: services with their destinations, or every fault with its line. Only `-A` and `-a` are taken:
//! what else `ipvsadm -R` would do, a saved table does not say. Names of hosts and ports are refused: what they mean differs between machines.

use std::net::{IpAddr, Ipv4Addr};

use lvsmesh_core::plan::ServiceSpec;
use lvsmesh_proto::v1::{IpvsDestination, IpvsService};

#[cfg(test)]
mod tests;

/// `ipvsadm -p` without a number (1.31).
const PERSISTENCE: u32 = 360;
/// What the kernel takes for weights and thresholds at most.
const HIGHEST: u32 = i32::MAX.cast_unsigned();

/// Reads a saved table.
///
/// # Errors
///
/// Every fault, as `line 3: …`.
pub(crate) fn read(text: &str) -> Result<Vec<IpvsService>, Vec<String>> {
    let (mut services, mut faults) = (Vec::new(), Vec::new());
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if !line.is_empty()
            && !line.starts_with('#')
            && let Err(fault) = read_line(line, &mut services)
        {
            faults.push(format!("line {number}: {fault}"));
        }
    }
    if faults.is_empty() { Ok(services) } else { Err(faults) }
}

/// Reads what names a service: `-t 192.0.2.1:80`, `-f 8 -6`.
pub(crate) fn named(text: &str) -> Result<IpvsService, String> {
    let options = Options::read(text.split_ascii_whitespace().collect())?;
    options.only(&IDENTITY)?;
    identity(&options)
}

/// Reads one line into the services of those before it.
pub(crate) fn read_line(line: &str, services: &mut Vec<IpvsService>) -> Result<(), String> {
    let mut words: Words = line.split_ascii_whitespace().collect();
    let command = words.next().unwrap_or_default();
    match command.as_str() {
        "-A" | "--add-service" => {
            let service = service(&Options::read(words)?)?;
            if services.iter().any(|other| same(other, &service)) {
                return Err("this service was added above".to_owned());
            }
            services.push(service);
        }
        "-a" | "--add-server" => {
            let options = Options::read(words)?;
            let named = identity(&options)?;
            let service = services
                .iter_mut()
                .find(|other| same(other, &named))
                .ok_or("its service was not added above")?;
            let destination = destination(&options, service)?;
            let is_there = |other: &IpvsDestination| {
                (&other.address, other.port) == (&destination.address, destination.port)
            };
            if service.destinations.iter().any(is_there) {
                return Err("this real server was added to the service above".to_owned());
            }
            service.destinations.push(destination);
        }
        other => return Err(format!("only -A and -a can be restored, not `{other}`")),
    }
    Ok(())
}

fn same(a: &IpvsService, b: &IpvsService) -> bool {
    (a.protocol, &a.address, a.port, a.mark, a.ipv6)
        == (b.protocol, &b.address, b.port, b.mark, b.ipv6)
}

/// What is left of a line, last word first.
struct Words(Vec<String>);

impl Words {
    fn next(&mut self) -> Option<String> {
        self.0.pop()
    }

    fn next_if(&mut self, wanted: impl FnOnce(&str) -> bool) -> Option<String> {
        if self.0.last().is_some_and(|word| wanted(word)) { self.0.pop() } else { None }
    }
}

impl<'a> FromIterator<&'a str> for Words {
    fn from_iter<I: IntoIterator<Item = &'a str>>(words: I) -> Self {
        let mut words: Vec<String> = words.into_iter().map(ToOwned::to_owned).collect();
        words.reverse();
        Self(words)
    }
}

/// An option's long name, its short one, and whether a value follows.
const OPTIONS: [(&str, &str, Value); 23] = [
    ("--tcp-service", "-t", Value::Needed),
    ("--udp-service", "-u", Value::Needed),
    ("--sctp-service", "", Value::Needed),
    ("--fwmark-service", "-f", Value::Needed),
    ("--ipv6", "-6", Value::None),
    ("--scheduler", "-s", Value::Needed),
    ("--persistent", "-p", Value::Number),
    ("--netmask", "-M", Value::Needed),
    ("--pe", "", Value::Needed),
    ("--sched-flags", "-b", Value::Needed),
    ("--ops", "-o", Value::None),
    ("--real-server", "-r", Value::Needed),
    ("--gatewaying", "-g", Value::None),
    ("--ipip", "-i", Value::None),
    ("--masquerading", "-m", Value::None),
    ("--weight", "-w", Value::Needed),
    ("--u-threshold", "-x", Value::Needed),
    ("--l-threshold", "-y", Value::Needed),
    ("--tun-type", "", Value::Needed),
    ("--tun-port", "", Value::Needed),
    ("--tun-nocsum", "", Value::None),
    ("--tun-csum", "", Value::None),
    ("--tun-remcsum", "", Value::None),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Value {
    None,
    Needed,
    /// Only if a number follows.
    Number,
}

/// The options of a line, by their long names.
struct Options(Vec<(&'static str, String)>);

impl Options {
    fn read(mut words: Words) -> Result<Self, String> {
        let mut options = Self(Vec::new());
        while let Some(word) = words.next() {
            let (name, attached) = match word.split_once('=') {
                Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
                Some(_) | None => (word.as_str(), None),
            };
            let known = OPTIONS
                .iter()
                .find(|(long, short, _)| *long == name || (!short.is_empty() && *short == name));
            let &(long, _, value) = known.ok_or_else(|| format!("no option `{word}`"))?;
            let value = match (value, attached) {
                (Value::None, None) => String::new(),
                (Value::None, Some(_)) => return Err(format!("{long} takes no value")),
                (Value::Needed | Value::Number, Some(value)) => value,
                (Value::Needed, None) => {
                    words.next().ok_or_else(|| format!("{word} needs a value"))?
                }
                (Value::Number, None) => words
                    .next_if(|word| word.bytes().all(|byte| byte.is_ascii_digit()))
                    .unwrap_or_default(),
            };
            if options.get(long).is_some() {
                return Err(format!("{long} comes twice"));
            }
            options.0.push((long, value));
        }
        Ok(options)
    }

    fn get(&self, long: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| *name == long).map(|(_, value)| value.as_str())
    }

    fn has(&self, long: &str) -> bool {
        self.get(long).is_some()
    }

    fn number(&self, long: &str, least: u32, most: u32) -> Result<Option<u32>, String> {
        let Some(text) = self.get(long) else { return Ok(None) };
        match text.parse() {
            Ok(number) if (least..=most).contains(&number) => Ok(Some(number)),
            Ok(_) | Err(_) => {
                Err(format!("{long}: `{text}` is not a number from {least} to {most}"))
            }
        }
    }

    /// Refuses what has no meaning here.
    fn only(&self, allowed: &[&str]) -> Result<(), String> {
        match self.0.iter().find(|(name, _)| !allowed.contains(name)) {
            Some((name, _)) => Err(format!("{name} has no place in this command")),
            None => Ok(()),
        }
    }
}

const IDENTITY: [&str; 5] =
    ["--tcp-service", "--udp-service", "--sctp-service", "--fwmark-service", "--ipv6"];

fn identity(options: &Options) -> Result<IpvsService, String> {
    let mut named = IDENTITY[..4].iter().filter(|name| options.has(name));
    let (Some(&kind), None) = (named.next(), named.next()) else {
        return Err("a service is named by one of -t, -u, --sctp-service and -f".to_owned());
    };
    if kind == "--fwmark-service" {
        let mark = options.number(kind, 1, u32::MAX)?.unwrap_or_default();
        return Ok(IpvsService { mark, ipv6: options.has("--ipv6"), ..IpvsService::default() });
    }
    if options.has("--ipv6") {
        return Err("-6 is for firewall marks: an address says its family".to_owned());
    }
    let text = options.get(kind).unwrap_or_default();
    let (address, port) = endpoint(text)?;
    Ok(IpvsService {
        protocol: match kind {
            "--udp-service" => 17,
            "--sctp-service" => 132,
            _ => 6,
        },
        address: address.to_string(),
        port: u32::from(port.ok_or_else(|| format!("`{text}` has no port"))?),
        ipv6: address.is_ipv6(),
        ..IpvsService::default()
    })
}

fn service(options: &Options) -> Result<IpvsService, String> {
    let service = identity(options)?;
    let own = ["--scheduler", "--persistent", "--netmask", "--pe", "--sched-flags", "--ops"];
    options.only(&[&IDENTITY[..], &own].concat())?;
    let scheduler = options.get("--scheduler").unwrap_or("wlc").to_owned();
    let mut flags = 0;
    for name in options.get("--sched-flags").iter().flat_map(|names| names.split(',')) {
        flags |= scheduler_flag(&scheduler, name)?;
    }
    let timeout = match options.get("--persistent") {
        None => None,
        Some("") => Some(PERSISTENCE),
        Some(_) => options.number("--persistent", 1, HIGHEST)?,
    };
    if timeout.is_some() {
        flags |= ServiceSpec::PERSISTENT;
    }
    if options.has("--ops") {
        flags |= ServiceSpec::ONE_PACKET;
    }
    Ok(IpvsService {
        flags,
        timeout: timeout.unwrap_or_default(),
        netmask: netmask(options, service.ipv6)?,
        engine: options.get("--pe").unwrap_or_default().to_owned(),
        scheduler,
        ..service
    })
}

fn netmask(options: &Options, ipv6: bool) -> Result<u32, String> {
    if ipv6 {
        return Ok(options.number("--netmask", 1, 128)?.unwrap_or(128));
    }
    let Some(text) = options.get("--netmask") else { return Ok(u32::MAX) };
    let mask: Result<Ipv4Addr, _> = text.parse();
    mask.map(Ipv4Addr::to_bits)
        .map_err(|_| format!("--netmask: `{text}` is not a mask such as 255.255.255.0"))
}

fn scheduler_flag(scheduler: &str, name: &str) -> Result<u32, String> {
    let own = match scheduler {
        "sh" => ["sh-fallback", "sh-port"],
        "mh" => ["mh-fallback", "mh-port"],
        _ => ["flag-1", "flag-2"],
    };
    match name {
        "flag-1" => Ok(0x8),
        "flag-2" => Ok(0x10),
        "flag-3" => Ok(0x20),
        name if name == own[0] => Ok(0x8),
        name if name == own[1] => Ok(0x10),
        name => Err(format!("--sched-flags: scheduler `{scheduler}` has no flag `{name}`")),
    }
}

fn destination(options: &Options, service: &IpvsService) -> Result<IpvsDestination, String> {
    #[rustfmt::skip]
    let own = [
        "--real-server", "--gatewaying", "--ipip", "--masquerading", "--weight", "--u-threshold", "--l-threshold",
        "--tun-type", "--tun-port", "--tun-nocsum", "--tun-csum", "--tun-remcsum",
    ];
    options.only(&[&IDENTITY[..], &own].concat())?;
    let text = options.get("--real-server").ok_or("a real server is named by -r")?;
    let (address, port) = endpoint(text)?;
    let methods = [("--masquerading", 0), ("--ipip", 2), ("--gatewaying", 3)];
    let mut chosen = methods.iter().filter(|(name, _)| options.has(name));
    let method = match (chosen.next(), chosen.next()) {
        (None, _) => 3,
        (Some((_, method)), None) => *method,
        (Some(_), Some(_)) => return Err("-g, -i and -m exclude each other".to_owned()),
    };
    if method != 2 && address.is_ipv6() != service.ipv6 {
        return Err("only a tunnel (-i) leads to another family than the service's".to_owned());
    }
    let (tunnel_type, tunnel_port, tunnel_flags) = tunnel(options, method == 2)?;
    Ok(IpvsDestination {
        address: address.to_string(),
        port: port.map_or(service.port, u32::from),
        method,
        weight: options.number("--weight", 0, HIGHEST)?.unwrap_or(1),
        upper_threshold: options.number("--u-threshold", 0, HIGHEST)?.unwrap_or_default(),
        lower_threshold: options.number("--l-threshold", 0, HIGHEST)?.unwrap_or_default(),
        tunnel_type,
        tunnel_port,
        tunnel_flags,
        ..IpvsDestination::default()
    })
}

/// Type, port and flags.
fn tunnel(options: &Options, is_tunnel: bool) -> Result<(u32, u32, u32), String> {
    let checksums = [("--tun-nocsum", 0), ("--tun-csum", 1), ("--tun-remcsum", 2)];
    let mut chosen = checksums.iter().filter(|(name, _)| options.has(name));
    let checksum = match (chosen.next(), chosen.next()) {
        (checksum, None) => checksum.copied(),
        (_, Some(_)) => return Err("only one of the --tun-…csum options makes sense".to_owned()),
    };
    let port = options.number("--tun-port", 1, 65_535)?;
    let name = options.get("--tun-type");
    if !is_tunnel {
        return match (name, port, checksum) {
            (None, None, None) => Ok((0, 0, 0)),
            _ => Err("the --tun-… options need -i".to_owned()),
        };
    }
    let flags = checksum.map_or(0, |(_, flags)| flags);
    match (name.unwrap_or("ipip"), port) {
        ("ipip", None) if checksum.is_none() => Ok((0, 0, 0)),
        ("ipip", _) => Err("an ipip tunnel has neither port nor checksum".to_owned()),
        ("gue", Some(port)) => Ok((1, port, flags)),
        ("gue", None) => Err("a gue tunnel needs --tun-port".to_owned()),
        ("gre", None) if flags != 2 => Ok((2, 0, flags)),
        ("gre", _) => Err("a gre tunnel has neither port nor remote checksum".to_owned()),
        (other, _) => Err(format!("--tun-type: `{other}` is none of ipip, gue and gre")),
    }
}

/// `192.0.2.1:80`, `192.0.2.1`, `[2001:db8::1]:80`.
fn endpoint(text: &str) -> Result<(IpAddr, Option<u16>), String> {
    let wrong =
        || format!("`{text}` is not an address with a port, as 192.0.2.1:80 or [2001:db8::1]:80");
    let (address, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, rest) = rest.split_once(']').ok_or_else(wrong)?;
            let port = match rest.strip_prefix(':') {
                Some(port) => Some(port),
                None if rest.is_empty() => None,
                None => return Err(wrong()),
            };
            (address.parse().map(IpAddr::V6).map_err(|_| wrong())?, port)
        }
        None => {
            let (address, port) = match text.split_once(':') {
                Some((address, port)) => (address, Some(port)),
                None => (text, None),
            };
            (address.parse().map(IpAddr::V4).map_err(|_| wrong())?, port)
        }
    };
    let port = port.map(str::parse).transpose().map_err(|_| wrong())?;
    Ok((address, port))
}
