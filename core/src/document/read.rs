//! From a tree to typed values: keys, types, words.
//!
//! Reading never stops at a fault: a value that cannot be read is stood in for, so that everything else is read and checked too. The stand-in
//! is never seen, because the document is then refused.

mod ipvs;
mod service;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::fault::{Fault, Faults, nearest};
use super::{Value, limits, schema};
use crate::model::{
    Attach, Auth, Check, CheckKind, Checksum, Coexist, Connections, Discovery, DnsRecord,
    DnsSource, Document, Failback, FileSource, Fleet, Garp, NoQuorum, Peers, Pool, PoolSource, Vip,
    Vrrp, VrrpVersion, text,
};

/// Reads the whole document; it may be used only if there is no fault.
pub(super) fn document(value: &Value) -> (Document, Vec<Fault>) {
    let mut faults = Faults::default();
    let mut map = Map::open(At { path: String::new(), value }, &schema::DOCUMENT, &mut faults);
    let fleet = map.required("fleet", fleet).unwrap_or_default();
    // What keeps connections by itself is then the default of every service.
    let hash_by_default = fleet.ipvs.connections == Connections::Keep && fleet.ipvs.sync.is_none();
    let document = Document {
        fleet,
        vips: map.list("vips", vip),
        pools: map.list("pools", pool),
        services: map.list("services", |at, faults| service::service(at, hash_by_default, faults)),
    };
    (document, faults.0)
}

fn fleet(at: At<'_>, faults: &mut Faults) -> Fleet {
    let mut map = Map::open(at, &schema::FLEET, faults);
    Fleet {
        name: map.required("name", string).unwrap_or_default(),
        no_quorum: map.word("no_quorum", &NO_QUORUM).unwrap_or_default(),
        failback: failback(&mut map),
        ipvs: map.optional("ipvs", ipvs::ipvs).unwrap_or_default(),
    }
}

fn failback(map: &mut Map<'_, '_>) -> Failback {
    let word = map.word("failback", &FAILBACK);
    let delay = map.optional("failback_delay", duration);
    let [_, delayed, immediate] = Failback::WORDS;
    if word == Some(delayed) {
        return Failback::Delayed(delay.unwrap_or(Failback::DELAY));
    }
    // A word that cannot be read may have been that one.
    if map.has("failback_delay") && (word.is_some() || !map.has("failback")) {
        map.refuse(
            "failback_delay",
            "only `failback: delayed` waits for a span",
            "set `failback: delayed`, or leave it out",
        );
    }
    if word == Some(immediate) { Failback::Immediate } else { Failback::Never }
}

fn vip(at: At<'_>, faults: &mut Faults) -> Vip {
    let mut map = Map::open(at, &schema::VIP, faults);
    let name = map.required("name", string).unwrap_or_default();
    let mut addresses =
        map.required("addresses", |at, faults| list(at, faults, address)).unwrap_or_default();
    let excluded = map.list("excluded", address);
    addresses.extend(&excluded);
    Vip {
        name,
        addresses,
        excluded: excluded.len(),
        interface: map.required("interface", string).unwrap_or_default(),
        attach: map.word("attach", &ATTACH).unwrap_or_default(),
        preference: map.list("preference", string),
        garp: map.optional("garp", garp).unwrap_or_default(),
        vrrp: map.required("vrrp", vrrp).unwrap_or_else(|| Vrrp {
            vrid: 0,
            version: VrrpVersion::default(),
            advert_interval: ADVERT_INTERVAL,
            priority: PRIORITY,
            auth: None,
            checksum: Checksum::default(),
            coexist: Coexist::default(),
            peers: Peers::default(),
        }),
        arbiters: map.list("arbiters", address),
    }
}

fn garp(at: At<'_>, faults: &mut Faults) -> Garp {
    let mut map = Map::open(at, &schema::GARP, faults);
    let default = Garp::default();
    Garp {
        repeat: map.optional("repeat", number(&limits::GARP_REPEAT)).unwrap_or(default.repeat),
        refresh: map.optional("refresh", duration).unwrap_or(default.refresh),
        interval: map.optional("interval", duration).unwrap_or(default.interval),
    }
}

fn vrrp(at: At<'_>, faults: &mut Faults) -> Vrrp {
    let mut map = Map::open(at, &schema::VRRP, faults);
    Vrrp {
        vrid: map.required("vrid", number(&limits::VRID)).unwrap_or_default(),
        version: map.optional("version", version).unwrap_or_default(),
        advert_interval: map.optional("advert_interval", duration).unwrap_or(ADVERT_INTERVAL),
        priority: map.optional("priority", number(&limits::PRIORITY)).unwrap_or(PRIORITY),
        auth: map.optional("auth", auth),
        checksum: map.word("checksum", &CHECKSUM).unwrap_or_default(),
        coexist: map.word("coexist", &COEXIST).unwrap_or_default(),
        peers: peers(&mut map),
    }
}

fn peers(map: &mut Map<'_, '_>) -> Peers {
    let unicast = map.word("peers", &PEERS).unwrap_or_default() == Peers::WORDS[1];
    let listed = map.list("unicast_peers", address);
    if unicast {
        return Peers::Unicast(listed);
    }
    if map.has("unicast_peers") {
        map.refuse(
            "unicast_peers",
            "adverts go to everybody on the segment",
            "set `peers: unicast`, or leave it out",
        );
    }
    Peers::Multicast
}

fn version(at: At<'_>, faults: &mut Faults) -> VrrpVersion {
    let path = at.path.clone();
    match number::<u64>(&limits::VRRP_VERSION)(at, faults) {
        2 => VrrpVersion::V2,
        3 => VrrpVersion::V3,
        other => {
            let unread = faults.0.last().is_some_and(|last| last.path == path);
            if !unread {
                faults.add(&path, limits_message(other, &limits::VRRP_VERSION));
            }
            VrrpVersion::default()
        }
    }
}

fn auth(at: At<'_>, faults: &mut Faults) -> Auth {
    let mut map = Map::open(at, &schema::AUTH, faults);
    Auth::Pass(map.required("pass", secret).unwrap_or_default())
}

fn pool(at: At<'_>, faults: &mut Faults) -> Pool {
    let mut map = Map::open(at, &schema::POOL, faults);
    let name = map.required("name", string).unwrap_or_default();
    let listed = map.optional("real_servers", |at, faults| list(at, faults, service::real_server));
    let found = map.optional("discovery", discovery);
    let source = match (listed, found) {
        (Some(_), Some(_)) => {
            let path = map.path("discovery");
            map.faults.hint(
                &path,
                "a pool has either listed real servers or a source",
                "leave out `discovery` or `real_servers`",
            );
            PoolSource::Listed(Vec::new())
        }
        (None, Some(Some(found))) => PoolSource::Discovery(found),
        (Some(listed), None) => PoolSource::Listed(listed),
        (None, Some(None)) => PoolSource::Listed(Vec::new()),
        (None, None) => {
            map.missing("real_servers", "`discovery` may be there instead; an empty pool has `[]`");
            PoolSource::Listed(Vec::new())
        }
    };
    Pool {
        name,
        source,
        check: map.optional("check", check),
        min_healthy: map.optional("min_healthy", number(&limits::MIN_HEALTHY)).unwrap_or_default(),
    }
}

fn discovery(at: At<'_>, faults: &mut Faults) -> Option<Discovery> {
    let path = at.path.clone();
    let is_map = matches!(at.value, Value::Map(_));
    let mut map = Map::open(at, &schema::DISCOVERY, faults);
    let file = map.optional("file", file_source).map(Discovery::File);
    let dns = map.optional("dns", dns_source).map(Discovery::Dns);
    if is_map && file.is_some() == dns.is_some() {
        faults.hint(&path, "a pool has exactly one source", "name either `file` or `dns`");
    }
    file.or(dns)
}

fn file_source(at: At<'_>, faults: &mut Faults) -> FileSource {
    let mut map = Map::open(at, &schema::FILE_SOURCE, faults);
    FileSource {
        path: map.required("path", string).unwrap_or_default(),
        interval: map.optional("interval", duration).unwrap_or(SOURCE_INTERVAL),
    }
}

fn dns_source(at: At<'_>, faults: &mut Faults) -> DnsSource {
    let mut map = Map::open(at, &schema::DNS_SOURCE, faults);
    DnsSource {
        name: map.required("name", string).unwrap_or_default(),
        record: map
            .required("record", |at, faults| word(at, faults, &DNS_RECORD))
            .flatten()
            .unwrap_or(DnsRecord::Srv),
        port: map.optional("port", number(&limits::PORT)),
        weight: map.optional("weight", number(&limits::WEIGHT)).unwrap_or(WEIGHT),
        servers: map.list("servers", dns_server),
        interval: map.optional("interval", duration).unwrap_or(SOURCE_INTERVAL),
    }
}

fn check(at: At<'_>, faults: &mut Faults) -> Check {
    let mut map = Map::open(at, &schema::CHECK, faults);
    Check {
        kind: map
            .required("kind", |at, faults| word(at, faults, &CHECK_KIND))
            .flatten()
            .unwrap_or(CheckKind::Tcp),
        port: map.optional("port", number(&limits::PORT)),
        interval: map.optional("interval", duration).unwrap_or(CHECK_INTERVAL),
        timeout: map.optional("timeout", duration).unwrap_or(CHECK_TIMEOUT),
        retries: map.optional("retries", number(&limits::RETRIES)).unwrap_or(CHECK_RETRIES),
        delay_before_retry: map
            .optional("delay_before_retry", duration)
            .unwrap_or(CHECK_RETRY_DELAY),
    }
}

const ADVERT_INTERVAL: Duration = Duration::from_secs(1);
const PRIORITY: u8 = 200;
const WEIGHT: u32 = 1;
const SOURCE_INTERVAL: Duration = Duration::from_secs(5);
const CHECK_INTERVAL: Duration = Duration::from_secs(6);
const CHECK_TIMEOUT: Duration = Duration::from_secs(3);
const CHECK_RETRIES: u32 = 3;
const CHECK_RETRY_DELAY: Duration = Duration::from_secs(3);
/// Stands in for an address that cannot be read.
const NO_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// The words that a key takes.
struct Words<T: 'static> {
    /// What one is called: `no NOUN "wlcc"`.
    noun: &'static str,
    all: &'static [T],
    name: fn(T) -> &'static str,
    /// Words that are refused by name until what they ask for is built.
    planned: &'static [&'static str],
}

static NO_QUORUM: Words<NoQuorum> =
    Words { noun: "no-quorum policy", all: &NoQuorum::ALL, name: NoQuorum::name, planned: &[] };
static FAILBACK: Words<&'static str> = Words {
    noun: "failback policy",
    all: &Failback::WORDS,
    name: std::convert::identity,
    planned: &[],
};
static ATTACH: Words<Attach> =
    Words { noun: "way to attach", all: &Attach::ALL, name: Attach::name, planned: &[] };
static CHECKSUM: Words<Checksum> =
    Words { noun: "checksum", all: &Checksum::ALL, name: Checksum::name, planned: &[] };
static COEXIST: Words<Coexist> =
    Words { noun: "coexist policy", all: &Coexist::ALL, name: Coexist::name, planned: &[] };
static PEERS: Words<&'static str> = Words {
    noun: "kind of VRRP peers",
    all: &Peers::WORDS,
    name: std::convert::identity,
    planned: &[],
};
static DNS_RECORD: Words<DnsRecord> =
    Words { noun: "DNS record type", all: &DnsRecord::ALL, name: DnsRecord::name, planned: &[] };
static CHECK_KIND: Words<CheckKind> =
    Words { noun: "check", all: &CheckKind::ALL, name: CheckKind::name, planned: &[] };
/// A value and where it stands.
struct At<'a> {
    path: String,
    value: &'a Value,
}

/// A map that is being read.
struct Map<'a, 'f> {
    path: String,
    entries: &'a [(String, Value)],
    /// Whether it is a map at all; otherwise that is reported already and missing keys are not.
    open: bool,
    object: &'static schema::Object,
    faults: &'f mut Faults,
}

impl<'a, 'f> Map<'a, 'f> {
    /// Reports what is no map, and each key that is unknown, not supported yet, or there twice.
    fn open(at: At<'a>, object: &'static schema::Object, faults: &'f mut Faults) -> Self {
        let Value::Map(entries) = at.value else {
            wrong_type(&at, "a map", faults);
            return Self { path: at.path, entries: &[], open: false, object, faults };
        };
        let map = Self { path: at.path, entries, open: true, object, faults };
        for (index, (key, _)) in entries.iter().enumerate() {
            let path = map.path(key);
            if entries[..index].iter().any(|(other, _)| other == key) {
                map.faults.add(&path, "the key is there twice");
            } else if object.planned.contains(&key.as_str()) {
                map.faults.hint(&path, format!("`{key}` is not supported yet"), "leave it out");
            } else if !object.keys.contains(&key.as_str()) {
                map.faults.hint(&path, "no such key", suggest(key, object.keys));
            }
        }
        map
    }

    fn path(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(At<'a>, &mut Faults) -> T,
    ) -> Option<T> {
        debug_assert!(self.object.keys.contains(&key), "{} has no key {key}", self.object.name);
        let (_, value) = self.entries.iter().find(|(other, _)| other == key)?;
        let at = At { path: self.path(key), value };
        Some(read(at, self.faults))
    }

    fn required<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(At<'a>, &mut Faults) -> T,
    ) -> Option<T> {
        let value = self.optional(key, read);
        if value.is_none() && self.open {
            let path = self.path(key);
            self.faults.add(&path, "is missing");
        }
        value
    }

    /// Whether the key is there, with whatever value.
    fn has(&self, key: &'static str) -> bool {
        debug_assert!(self.object.keys.contains(&key), "{} has no key {key}", self.object.name);
        self.entries.iter().any(|(other, _)| other == key)
    }

    /// Reports a key that can be read and must not be there, or not so.
    fn refuse(&mut self, key: &str, message: &str, hint: &str) {
        let path = self.path(key);
        self.faults.hint(&path, message, hint);
    }

    fn refuse_at(&mut self, path: &str, message: &str, hint: &str) {
        self.faults.hint(path, message, hint);
    }

    fn missing(&mut self, key: &str, hint: &str) {
        if self.open {
            let path = self.path(key);
            self.faults.hint(&path, "is missing", hint);
        }
    }

    /// A list that may be left out.
    fn list<T>(&mut self, key: &'static str, item: impl FnMut(At<'a>, &mut Faults) -> T) -> Vec<T> {
        self.optional(key, |at, faults| list(at, faults, item)).unwrap_or_default()
    }

    /// A word that may be left out; `None` too if it cannot be read.
    fn word<T: Copy>(&mut self, key: &'static str, words: &'static Words<T>) -> Option<T> {
        self.optional(key, |at, faults| word(at, faults, words)).flatten()
    }
}

fn list<'a, T>(
    at: At<'a>,
    faults: &mut Faults,
    mut item: impl FnMut(At<'a>, &mut Faults) -> T,
) -> Vec<T> {
    let Value::List(values) = at.value else {
        wrong_type(&at, "a list", faults);
        return Vec::new();
    };
    let at = |index| format!("{}[{index}]", at.path);
    values
        .iter()
        .enumerate()
        .map(|(index, value)| item(At { path: at(index), value }, faults))
        .collect()
}

fn word<T: Copy>(at: At<'_>, faults: &mut Faults, words: &'static Words<T>) -> Option<T> {
    let names = || words.all.iter().map(|&word| (words.name)(word));
    let Value::Text(given) = at.value else {
        wrong_type(&at, &format!("a {}", words.noun), faults);
        return None;
    };
    let found = words.all.iter().copied().find(|&word| (words.name)(word) == given);
    if found.is_none() && words.planned.contains(&given.as_str()) {
        let key = at.path.rsplit('.').next().unwrap_or_default();
        let usable: Vec<_> = names().map(|name| format!("`{name}`")).collect();
        faults.hint(
            &at.path,
            format!("{key} `{given}` is not supported yet"),
            format!("use {}", usable.join(" or ")),
        );
    } else if found.is_none() {
        let all: Vec<_> = names().collect();
        faults.hint(&at.path, format!("no {} {given:?}", words.noun), suggest(given, &all));
    }
    found
}

/// `did you mean "wlc"?`, or all that there is.
fn suggest(given: &str, all: &[&'static str]) -> String {
    nearest(given, all.iter().copied()).map_or_else(
        || match all {
            [only] => format!("there is only `{only}`"),
            _ => format!("there are `{}`", all.join("`, `")),
        },
        |meant| format!("did you mean {meant:?}?"),
    )
}

fn string(at: At<'_>, faults: &mut Faults) -> String {
    match at.value {
        Value::Text(text) => text.clone(),
        Value::Integer(_) | Value::Float(_) | Value::Bool(_) => {
            faults.hint(
                &at.path,
                format!("expected text, found {}", at.value.describe()),
                "put it in quotes",
            );
            String::new()
        }
        Value::Null | Value::List(_) | Value::Map(_) => {
            wrong_type(&at, "text", faults);
            String::new()
        }
    }
}

/// As [`string`], without repeating the value in a fault.
fn secret(at: At<'_>, faults: &mut Faults) -> String {
    if let Value::Text(text) = at.value {
        return text.clone();
    }
    faults.hint(&at.path, "expected text", "put it in quotes");
    String::new()
}

/// Reads a whole number that fits its type; `range` is what the fault says if it does not.
fn number<T: TryFrom<i128> + Default>(
    range: &RangeInclusive<u64>,
) -> impl FnOnce(At<'_>, &mut Faults) -> T + use<'_, T> {
    move |at, faults| {
        let Value::Integer(number) = *at.value else {
            let quoted = matches!(at.value, Value::Text(text) if text.parse::<u64>().is_ok());
            let message = format!("expected a whole number, found {}", at.value.describe());
            if quoted {
                faults.hint(&at.path, message, "write it without quotes");
            } else {
                faults.add(&at.path, message);
            }
            return T::default();
        };
        T::try_from(number).unwrap_or_else(|_| {
            faults.add(&at.path, limits_message(number, range));
            T::default()
        })
    }
}

/// `70000 is outside 1 to 65535`.
fn limits_message(number: impl std::fmt::Display, range: &RangeInclusive<u64>) -> String {
    super::check::outside(number, range.start(), range.end())
}

fn duration(at: At<'_>, faults: &mut Faults) -> Duration {
    const HOW: &str = "write a whole number and a unit (ms, s, m, h), such as `6s` or `500ms`";
    match at.value {
        Value::Text(given) => text::parse_duration(given).unwrap_or_else(|| {
            faults.hint(&at.path, format!("{given:?} is not a duration"), HOW);
            Duration::ZERO
        }),
        Value::Integer(number) => {
            faults.hint(&at.path, format!("{number} has no unit"), HOW);
            Duration::ZERO
        }
        Value::Null | Value::Bool(_) | Value::Float(_) | Value::List(_) | Value::Map(_) => {
            wrong_type(&at, "a duration", faults);
            Duration::ZERO
        }
    }
}

fn address(at: At<'_>, faults: &mut Faults) -> IpAddr {
    let Value::Text(given) = at.value else {
        wrong_type(&at, "an IP address", faults);
        return NO_ADDRESS;
    };
    given.parse().unwrap_or_else(|_| {
        let message = format!("{given:?} is not an IP address");
        let bare = |separator| {
            given
                .split_once(separator)
                .is_some_and(|(address, _)| address.parse::<IpAddr>().is_ok())
        };
        if bare('/') {
            faults.hint(&at.path, message, "leave out the prefix length");
        } else if given.parse::<SocketAddr>().is_ok() {
            faults.hint(&at.path, message, "the port is a key of its own");
        } else {
            faults.add(&at.path, message);
        }
        NO_ADDRESS
    })
}

/// `192.0.2.53`, `192.0.2.53:5353`, `2001:db8::53`, `[2001:db8::53]:5353`.
fn dns_server(at: At<'_>, faults: &mut Faults) -> SocketAddr {
    const DNS: u16 = 53;
    let Value::Text(given) = at.value else {
        wrong_type(&at, "a DNS server's address", faults);
        return SocketAddr::new(NO_ADDRESS, DNS);
    };
    let with_port = || given.parse::<SocketAddr>().ok();
    let read = given.parse().ok().map(|address| SocketAddr::new(address, DNS)).or_else(with_port);
    read.unwrap_or_else(|| {
        faults.hint(
            &at.path,
            format!("{given:?} is not a DNS server's address"),
            "write `192.0.2.53` or `192.0.2.53:5353`",
        );
        SocketAddr::new(NO_ADDRESS, DNS)
    })
}

fn wrong_type(at: &At<'_>, expected: &str, faults: &mut Faults) {
    let message = format!("expected {expected}, found {}", at.value.describe());
    if matches!(at.value, Value::Null) && !at.path.is_empty() {
        faults.hint(&at.path, message, "leave out a key that has no value");
    } else {
        faults.add(&at.path, message);
    }
}
