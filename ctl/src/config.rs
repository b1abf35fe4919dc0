//! Whom to ask and as whom: flags and environment first, then `~/.config/lvsmesh/config.yaml`, then this machine's agent.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::args::Connection;
use crate::failure::{Exit, Failure};

/// The port of an agent that names none.
const PORT: u16 = 7400;

/// Whom to ask and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// `HOST:PORT`, at least one, to be tried in this order.
    pub(crate) endpoints: Vec<String>,
    pub(crate) security: Security,
}

/// How agents know who asks, and the other way round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Security {
    /// Mutual TLS from PEM files.
    Tls { ca: PathBuf, cert: PathBuf, key: PathBuf },
    /// Nobody knows.
    Insecure,
}

/// The file's form.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    endpoints: Vec<String>,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    insecure: bool,
}

/// Puts flags, environment and the file below `home` together.
pub(crate) fn load(connection: &Connection, home: Option<&Path>) -> Result<Config, Failure> {
    let path = home.map(|home| home.join(".config/lvsmesh/config.yaml"));
    let file = path.as_deref().map_or_else(|| Ok(File::default()), read)?;
    Ok(Config {
        endpoints: endpoints(connection, &file)?,
        security: security(connection, file, path.as_deref())?,
    })
}

fn read(path: &Path) -> Result<File, Failure> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(File::default()),
        Err(error) => {
            let message = format!("cannot read {}: {error}", path.display());
            return Err(Failure::new(Exit::Failed, message));
        }
    };
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(&text, options).map_err(|error| {
        Failure::usage(format!("{}: {}", path.display(), error.without_snippet()))
            .hint("its keys are endpoints, ca, cert, key and insecure")
    })
}

fn endpoints(connection: &Connection, file: &File) -> Result<Vec<String>, Failure> {
    let given = if !connection.endpoint.is_empty() {
        &connection.endpoint
    } else if !connection.endpoints.is_empty() {
        &connection.endpoints
    } else {
        &file.endpoints
    };
    if given.is_empty() {
        return Ok(vec![format!("127.0.0.1:{PORT}")]);
    }
    given.iter().map(|text| endpoint(text)).collect()
}

/// `HOST`, `HOST:PORT`, `192.0.2.1`, `2001:db8::1` and `[2001:db8::1]:7400` all name an agent.
fn endpoint(text: &str) -> Result<String, Failure> {
    let text = text.trim();
    if let Ok(address) = text.parse::<std::net::IpAddr>() {
        return Ok(std::net::SocketAddr::new(address, PORT).to_string());
    }
    let whole = match text.rsplit_once(':') {
        Some((host, port))
            if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) =>
        {
            text.to_owned()
        }
        None if !text.is_empty() => format!("{text}:{PORT}"),
        Some(_) | None => String::new(),
    };
    let valid =
        !whole.is_empty() && format!("http://{whole}").parse::<tonic::transport::Uri>().is_ok();
    if valid && !text.contains('/') {
        Ok(whole)
    } else {
        Err(Failure::usage(format!("endpoint `{text}` is not HOST, HOST:PORT or [IPv6]:PORT")))
    }
}

fn security(connection: &Connection, file: File, path: Option<&Path>) -> Result<Security, Failure> {
    if connection.insecure {
        return Ok(Security::Insecure);
    }
    let flags = &connection.tls;
    if flags.ca.is_none() && flags.cert.is_none() && flags.key.is_none() && file.insecure {
        return Ok(Security::Insecure);
    }
    // A relative path in the file is relative to the file: it means the same wherever the command is run.
    let base = path.and_then(Path::parent).unwrap_or(Path::new("")).to_owned();
    let pick = |flag: &Option<PathBuf>, file: Option<PathBuf>| {
        flag.clone().or_else(|| file.map(|file| base.join(file)))
    };
    let ca = pick(&flags.ca, file.ca);
    let cert = pick(&flags.cert, file.cert);
    let key = pick(&flags.key, file.key);
    match (ca, cert, key) {
        (Some(ca), Some(cert), Some(key)) => Ok(Security::Tls { ca, cert, key }),
        (ca, cert, key) => {
            let missing: Vec<&str> = [("--ca", ca), ("--cert", cert), ("--key", key)]
                .into_iter()
                .filter_map(|(flag, file)| file.is_none().then_some(flag))
                .collect();
            Err(Failure::usage(format!("agents want to know who asks: {} missing", missing.join(", "))).hint(
                "give an operator's certificate, or --insecure for a fleet that runs without certificates",
            ))
        }
    }
}

#[cfg(test)]
mod tests;
