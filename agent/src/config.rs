//! `agent.toml` as types.
//!
//! *In*: the file. *Out*: a [`Config`] in which every value is usable as it stands, or every fault of the file with its key and its limit.

mod beat;
mod section;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use lvsmesh_core::model::{NodeName, Role};

pub use beat::Beat;
use section::Section;

/// The commented file that `--print-default-config` prints.
pub const DEFAULT: &str = include_str!("../../deploy/config/agent.toml");

/// Where the file is looked for unless `--config` says otherwise.
pub const PATH: &str = "/etc/lvsmesh/agent.toml";

const DEFAULT_GRPC: &str = "0.0.0.0:7400";
const DEFAULT_LEASE: &str = "0.0.0.0:7401";
const DEFAULT_METRICS: &str = "127.0.0.1:7402";

/// What one machine's agent must know about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The node's name.
    pub name: NodeName,
    /// At least one.
    pub roles: BTreeSet<Role>,
    /// At least one; the first is advertised.
    pub addresses: Vec<IpAddr>,
    /// Identity and Raft log.
    pub data_dir: PathBuf,
    /// What need not survive a reboot.
    pub run_dir: PathBuf,
    /// Where the agent listens.
    pub listen: Listen,
    /// Where others reach it.
    pub advertise: Advertise,
    /// Certificates; without them the agent needs `--insecure`.
    pub tls: Option<TlsFiles>,
    /// The lease's timing and scheduling.
    pub beat: Beat,
    /// Logs, traces, metrics.
    pub telemetry: Telemetry,
}

/// Where the agent listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Clients and peers, TCP.
    pub grpc: SocketAddr,
    /// The lease, UDP.
    pub lease: SocketAddr,
    /// Prometheus' page, TCP.
    pub metrics: SocketAddr,
}

/// Where others reach the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertise {
    /// Clients and peers.
    pub grpc: SocketAddr,
    /// The lease.
    pub lease: SocketAddr,
}

/// PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate authority of the fleet.
    pub ca: PathBuf,
    /// This node's certificate, with intermediates after it.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Logs, traces, metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telemetry {
    /// An OTLP receiver over gRPC.
    pub otlp_endpoint: Option<String>,
    /// Directives of what is logged.
    pub log: String,
    /// How.
    pub log_format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is no TOML.
    #[error("{} is not valid TOML", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// The file asks for what cannot be.
    #[error("{} has {} {}:{}", path.display(), faults.len(), if faults.len() == 1 { "fault" } else { "faults" }, lines(faults))]
    Faults {
        /// The file.
        path: PathBuf,
        /// All of them, in no particular order.
        faults: Vec<Fault>,
    },
}

impl ConfigError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Read { path, .. } => Some(format!(
                "`lvs-agent --print-default-config > {}` writes one to start from; --config names another",
                path.display()
            )),
            Self::Syntax { .. } => None,
            Self::Faults { .. } => {
                Some("`lvs-agent --print-default-config` explains every key".to_owned())
            }
        }
    }
}

/// One thing that is wrong with the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Dotted: `listen.grpc`.
    pub key: String,
    /// What is wrong, with the value and the limit.
    pub message: String,
}

fn lines(faults: &[Fault]) -> String {
    faults.iter().map(|fault| format!("\n  {}: {}", fault.key, fault.message)).collect()
}

impl Config {
    /// Reads and checks the file.
    ///
    /// # Errors
    ///
    /// If it cannot be read, is no TOML, or has faults: then all of them.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let table = text.parse::<toml::Table>().map_err(|source| ConfigError::Syntax {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        Self::from_table(table)
            .map_err(|faults| ConfigError::Faults { path: path.to_owned(), faults })
    }

    fn from_table(table: toml::Table) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let mut root = Section::root(table, &mut faults);
        let name = root.required("name", name);
        let roles = root.required("roles", roles);
        let addresses = root.required("addresses", addresses);
        let data_dir = root.or("data_dir", "/var/lib/lvsmesh", absolute);
        let run_dir = root.or("run_dir", "/run/lvsmesh", absolute);

        let mut section = root.section("listen");
        let grpc = section.or("grpc", DEFAULT_GRPC, listener);
        let lease = section.or("lease", DEFAULT_LEASE, listener);
        let metrics = section.or("metrics", DEFAULT_METRICS, listener);
        section.finish();

        let mut section = root.section("advertise");
        let advertised_grpc = section.optional("grpc", reachable);
        let advertised_lease = section.optional("lease", reachable);
        section.finish();

        let tls = root.subsection("tls").and_then(|mut section| {
            let ca = section.required("ca", absolute);
            let cert = section.required("cert", absolute);
            let key = section.required("key", absolute);
            section.finish();
            Some(TlsFiles { ca: ca?, cert: cert?, key: key? })
        });

        let beat = beat::read(root.section("beat"));

        let mut section = root.section("telemetry");
        let otlp_endpoint = section.optional("otlp_endpoint", endpoint);
        let log = section.or("log", "info", directives);
        let log_format = section.or("log_format", "text", log_format);
        section.finish();
        root.finish();

        let complete = || {
            let (addresses, grpc, lease): (Vec<IpAddr>, SocketAddr, SocketAddr) =
                (addresses?, grpc?, lease?);
            let first = *addresses.first()?;
            Some(Self {
                name: name?,
                roles: roles?,
                data_dir: data_dir?,
                run_dir: run_dir?,
                advertise: Advertise {
                    grpc: advertised_grpc.unwrap_or(SocketAddr::new(first, grpc.port())),
                    lease: advertised_lease.unwrap_or(SocketAddr::new(first, lease.port())),
                },
                listen: Listen { grpc, lease, metrics: metrics? },
                addresses,
                tls,
                beat: beat?,
                telemetry: Telemetry { otlp_endpoint, log: log?, log_format: log_format? },
            })
        };
        match complete() {
            Some(config) if faults.is_empty() => Ok(config),
            Some(_) | None => Err(faults),
        }
    }
}

// Each of the functions below turns one value into its type, or says what is wrong with it.

fn text(value: toml::Value) -> Result<String, String> {
    let found = value.type_str();
    value.try_into().map_err(|_| format!("expected text in quotes, found {found}"))
}

fn list(value: toml::Value) -> Result<Vec<String>, String> {
    let toml::Value::Array(values) = value else {
        return Err(format!("expected a list of texts, found {}", value.type_str()));
    };
    if values.is_empty() {
        return Err("the list is empty; at least one is needed".to_owned());
    }
    values.into_iter().map(text).collect()
}

fn boolean(value: toml::Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| format!("expected true or false, found {}", value.type_str()))
}

fn name(value: toml::Value) -> Result<NodeName, String> {
    let name = text(value)?;
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if !(1..=63).contains(&name.len()) {
        return Err(format!("`{name}` has {} characters; 1 to 63 are allowed", name.len()));
    }
    match name.bytes().all(allowed) {
        true => Ok(name),
        false => Err(format!("`{name}` has characters other than [a-z0-9-]")),
    }
}

fn roles(value: toml::Value) -> Result<BTreeSet<Role>, String> {
    let mut roles = BTreeSet::new();
    for word in list(value)? {
        let role = match word.as_str() {
            "director" => Role::Director,
            "realserver" => Role::RealServer,
            _ => {
                return Err(format!("no role `{word}`; there are \"director\" and \"realserver\""));
            }
        };
        if !roles.insert(role) {
            return Err(format!("`{word}` is listed twice"));
        }
    }
    Ok(roles)
}

fn addresses(value: toml::Value) -> Result<Vec<IpAddr>, String> {
    let mut addresses = Vec::new();
    for text in list(value)? {
        let address = text.parse::<IpAddr>().map_err(|_| {
            format!("`{text}` is no address (an address has no port or prefix length)")
        })?;
        if address.is_unspecified() || address.is_multicast() {
            return Err(format!("`{address}` is no address of one machine"));
        }
        if addresses.contains(&address) {
            return Err(format!("`{address}` is listed twice"));
        }
        addresses.push(address);
    }
    Ok(addresses)
}

fn absolute(value: toml::Value) -> Result<PathBuf, String> {
    let path = PathBuf::from(text(value)?);
    match path.is_absolute() {
        true => Ok(path),
        false => Err(format!("`{}` is no absolute path", path.display())),
    }
}

fn listener(value: toml::Value) -> Result<SocketAddr, String> {
    let text = text(value)?;
    let address = text
        .parse::<SocketAddr>()
        .map_err(|_| format!("`{text}` is no ADDRESS:PORT, such as 0.0.0.0:7400 or [::]:7400"))?;
    match address.port() {
        0 => Err(format!("`{text}` has port 0; 1 to 65535 are allowed, since peers must know it")),
        _ => Ok(address),
    }
}

fn reachable(value: toml::Value) -> Result<SocketAddr, String> {
    let address = listener(value)?;
    match address.ip().is_unspecified() {
        true => Err(format!("`{address}` cannot be reached from another machine")),
        false => Ok(address),
    }
}

fn word(value: toml::Value, known: &[&str]) -> Result<String, String> {
    let word = text(value)?;
    match known.contains(&word.as_str()) {
        true => Ok(word),
        false => Err(format!("`{word}` is not one of {}", known.join(", "))),
    }
}

fn endpoint(value: toml::Value) -> Result<String, String> {
    let text = text(value)?;
    let uri = text.parse::<http::Uri>().map_err(|error| format!("`{text}` is no URL: {error}"))?;
    match (uri.scheme_str(), uri.authority()) {
        (Some("http"), Some(_)) => Ok(text),
        (Some("https"), Some(_)) => Err(format!(
            "`{text}` asks for TLS, which is not built yet; send to a collector on this machine and let it speak TLS"
        )),
        _ => Err(format!("`{text}` is not of the form http://HOST:PORT")),
    }
}

fn directives(value: toml::Value) -> Result<String, String> {
    let text = text(value)?;
    match tracing_subscriber::EnvFilter::try_new(&text) {
        Ok(_) => Ok(text),
        Err(error) => Err(format!("`{text}` is no log directive: {error}")),
    }
}

fn log_format(value: toml::Value) -> Result<LogFormat, String> {
    match word(value, &["text", "json"])?.as_str() {
        "json" => Ok(LogFormat::Json),
        _ => Ok(LogFormat::Text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = r#"
        name = "node-1"
        roles = ["director"]
        addresses = ["192.0.2.1"]
    "#;

    fn table(text: &str) -> toml::Table {
        text.parse().unwrap()
    }

    fn parse(text: &str) -> Result<Config, Vec<Fault>> {
        Config::from_table(table(text))
    }

    /// The file with the comment sign taken off every line that shows a default.
    fn uncommented() -> String {
        DEFAULT
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(rest) if !rest.is_empty() && !rest.starts_with(' ') => rest,
                _ => line,
            })
            .map(|line| format!("{line}\n"))
            .collect()
    }

    #[test]
    fn the_printed_file_is_what_one_gets_without_it() {
        assert_eq!(parse(DEFAULT), parse(LEAST));
    }

    #[test]
    fn every_default_that_the_file_shows_is_the_default() {
        let shown = parse(&uncommented()).unwrap();
        let mut expected = parse(LEAST).unwrap();
        // The two that have no default show an example.
        expected.telemetry.otlp_endpoint = Some("http://127.0.0.1:4317".to_owned());
        expected.tls = Some(TlsFiles {
            ca: "/etc/lvsmesh/ca.pem".into(),
            cert: "/etc/lvsmesh/node.pem".into(),
            key: "/etc/lvsmesh/node.key".into(),
        });
        assert_eq!(shown, expected);
    }

    #[test]
    fn the_file_shows_every_key() {
        let mut keys = Vec::new();
        for (key, value) in table(&uncommented()) {
            match value.as_table() {
                Some(section) => keys.extend(section.keys().map(|inner| format!("{key}.{inner}"))),
                None => keys.push(key),
            }
        }
        // An empty file with one unknown key in each section names every key there is.
        let Err(faults) =
            parse("[advertise]\nx=1\n[beat]\nx=1\n[listen]\nx=1\n[telemetry]\nx=1\n[tls]\nx=1")
        else {
            panic!("unknown keys were taken");
        };
        let known = faults
            .iter()
            .filter_map(|fault| {
                let (_, known) = fault.message.split_once("there are ")?;
                let section = fault.key.strip_suffix("x")?;
                Some(known.split(", ").map(move |key| format!("{section}{key}")))
            })
            .flatten()
            .collect::<BTreeSet<_>>();
        assert_eq!(known.len(), 17, "{known:?}");
        for key in known {
            assert!(keys.contains(&key), "{key} is not in deploy/config/agent.toml");
        }
    }

    #[test]
    fn all_faults_are_told_each_with_key_value_and_limit() {
        let faults = parse(
            r#"
            name = "Node 1"
            roles = ["director", "boss"]
            addresses = ["192.0.2.1/24"]
            data_dir = "var"
            nmae = "x"
            [listen]
            grpc = "7400"
            lease = "0.0.0.0:0"
            metrics = 7402
            [advertise]
            grpc = "0.0.0.0:7400"
            [tls]
            ca = "/ca.pem"
            [beat]
            profile = "quick"
            realtime = "yes"
            [telemetry]
            otlp_endpoint = "collector:4317"
            log = "a=b=c"
            log_format = "xml"
            "#,
        )
        .unwrap_err();
        let error = ConfigError::Faults { path: "agent.toml".into(), faults };
        insta::assert_snapshot!(error, @r#"
        agent.toml has 16 faults:
          name: `Node 1` has characters other than [a-z0-9-]
          roles: no role `boss`; there are "director" and "realserver"
          addresses: `192.0.2.1/24` is no address (an address has no port or prefix length)
          data_dir: `var` is no absolute path
          listen.grpc: `7400` is no ADDRESS:PORT, such as 0.0.0.0:7400 or [::]:7400
          listen.lease: `0.0.0.0:0` has port 0; 1 to 65535 are allowed, since peers must know it
          listen.metrics: expected text in quotes, found integer
          advertise.grpc: `0.0.0.0:7400` cannot be reached from another machine
          tls.cert: is missing
          tls.key: is missing
          beat.profile: `quick` is not one of fast, default, relaxed, wan, adaptive
          beat.realtime: expected true or false, found string
          telemetry.otlp_endpoint: `collector:4317` is not of the form http://HOST:PORT
          telemetry.log: `a=b=c` is no log directive: error parsing level filter: expected one of "off", "error", "warn", "info", "debug", "trace", or a number 0-5
          telemetry.log_format: `xml` is not one of text, json
          nmae: no such key; there are name, roles, addresses, data_dir, run_dir, listen, advertise, tls, beat, telemetry
        "#);
    }

    #[test]
    fn what_is_missing_is_named() {
        let faults = parse("").unwrap_err();
        let keys = faults.iter().map(|fault| fault.key.as_str()).collect::<Vec<_>>();
        assert_eq!(keys, ["name", "roles", "addresses"]);
    }

    #[test]
    fn peers_are_told_the_first_address_and_the_listeners_port() {
        let config = parse(&format!("{LEAST}\n[listen]\ngrpc = \"0.0.0.0:8400\"")).unwrap();
        assert_eq!(config.advertise.grpc.to_string(), "192.0.2.1:8400");
        assert_eq!(config.advertise.lease.to_string(), "192.0.2.1:7401");
    }
}
