//! Firewall marks, through the `nft` program (Debian: `nftables`): one table of our own, read as JSON (libnftables-json(5)) and replaced in one
//! transaction (nft(8), "Atomic rule replacement").
//!
//! The program and not netlink, because what a rule looks like in the kernel is a little program for its virtual machine, which `nft` puts
//! together and takes apart; and marks change rarely. The program runs in the network namespace of the thread that starts it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::process::{Output, Stdio};

use lvsmesh_core::model::{PortRange, Protocol};
use lvsmesh_core::plan::marks::{MarkRule, Marks, Seen, TABLE};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::TIMEOUT;
use crate::error::KernelError;

const PROGRAM: &str = "nft";
const CHAIN: &str = "prerouting";
/// `NF_IP_PRI_MANGLE` (include/uapi/linux/netfilter_ipv4.h).
const PRIORITY: i64 = -150;

/// Reads the table.
pub(crate) async fn observe() -> Result<Seen, KernelError> {
    const OPERATION: &str = "read nftables table";

    let answer = run(OPERATION, &["--json", "list", "table", "inet", TABLE], "").await?;
    let Some(output) = answer else { return Ok(Seen::Unable(missing())) };
    if !output.status.success() {
        let said = said(&output);
        // ENOENT, as the program words it.
        return Ok(match said.contains("No such file or directory") {
            true => Seen::Absent,
            false => Seen::Unable(format!("nft says: {said}")),
        });
    }
    let list: Value = serde_json::from_slice(&output.stdout).map_err(|error| {
        let (object, detail) = (format!("inet {TABLE}"), error.to_string());
        KernelError::Malformed { operation: OPERATION, object, detail }
    })?;
    Ok(Seen::Present { rules: rules(&list) })
}

/// Replaces the table.
pub(crate) async fn set(marks: &Marks) -> Result<(), KernelError> {
    change("set nftables table", &script(marks)).await
}

/// Deletes the table.
pub(crate) async fn clear() -> Result<(), KernelError> {
    change("remove nftables table", &format!("delete table inet {TABLE}\n")).await
}

async fn change(operation: &'static str, script: &str) -> Result<(), KernelError> {
    let object = format!("inet {TABLE}");
    let failed = |said| KernelError::Program { operation, object, program: PROGRAM, said };
    match run(operation, &["--file", "-"], script).await? {
        Some(output) if output.status.success() => Ok(()),
        Some(output) => Err(failed(said(&output))),
        None => Err(failed(missing())),
    }
}

/// Runs the program; `None` if there is none.
async fn run(
    operation: &'static str,
    arguments: &[&str],
    input: &str,
) -> Result<Option<Output>, KernelError> {
    let object = || format!("inet {TABLE}");
    let failed = |error: &std::io::Error| KernelError::io(operation, object(), error);
    let started = Command::new(PROGRAM)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut child = match started {
        Ok(child) => child,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(&error)),
    };
    let pipe = child.stdin.take();
    let work = async {
        if let Some(mut pipe) = pipe {
            pipe.write_all(input.as_bytes()).await?;
        }
        child.wait_with_output().await
    };
    match tokio::time::timeout(TIMEOUT, work).await {
        Ok(Ok(output)) => Ok(Some(output)),
        Ok(Err(error)) => Err(failed(&error)),
        Err(_) => Err(KernelError::TimedOut { operation, object: object(), after: TIMEOUT }),
    }
}

fn missing() -> String {
    "there is no program `nft` in the path (Debian: install nftables)".to_owned()
}

/// The first line of what the program complained about.
fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("nothing");
    line.trim().trim_start_matches("Error: ").to_owned()
}

/// A script that leaves nothing else in the table, whether there was one or not.
fn script(marks: &Marks) -> String {
    let mut text =
        format!("add table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n");
    text.push_str(
        "  chain prerouting {\n    type filter hook prerouting priority mangle; policy accept;\n",
    );
    for MarkRule { mark, addresses, protocol, ports } in marks {
        let version = if addresses.iter().all(IpAddr::is_ipv6) { "ip6" } else { "ip" };
        let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        let ports: Vec<_> = ports.iter().map(ToString::to_string).collect();
        writeln!(
            text,
            "    {version} daddr {{ {} }} {} dport {{ {} }} meta mark set {mark}",
            addresses.join(", "),
            protocol.name(),
            ports.join(", ")
        )
        .expect("text takes everything");
    }
    text.push_str("  }\n}\n");
    text
}

/// The rules of a listed table, if they and their chain are of our form and there is nothing else.
fn rules(list: &Value) -> Option<Marks> {
    let mut marks = Marks::new();
    for item in list["nftables"].as_array()? {
        let (kind, object) = item.as_object()?.iter().next()?;
        match kind.as_str() {
            "metainfo" => {}
            "table" if object["flags"].is_null() => {}
            "chain" => {
                let same = object["name"] == CHAIN
                    && object["type"] == "filter"
                    && object["hook"] == "prerouting"
                    && object["prio"] == PRIORITY
                    && object["policy"] == "accept";
                same.then_some(())?;
            }
            "rule" if object["chain"] == CHAIN && object["comment"].is_null() => {
                marks.insert(rule(object["expr"].as_array()?)?);
            }
            _ => return None,
        }
    }
    Some(marks)
}

fn rule(expressions: &[Value]) -> Option<MarkRule> {
    let [addresses, ports, mark] = expressions else { return None };
    let (version, field, addresses) = matched(addresses)?;
    if !matches!(version, "ip" | "ip6") || field != "daddr" {
        return None;
    }
    let addresses: Option<BTreeSet<IpAddr>> =
        addresses.iter().map(|address| address.as_str()?.parse().ok()).collect();
    let (protocol, field, ports) = matched(ports)?;
    let protocol = Protocol::ALL.into_iter().find(|known| known.name() == protocol)?;
    if field != "dport" {
        return None;
    }
    let ports: Option<BTreeSet<PortRange>> = ports.into_iter().map(port_range).collect();
    let mark = &mark["mangle"];
    if mark["key"]["meta"]["key"] != "mark" {
        return None;
    }
    let mark = u32::try_from(mark["value"].as_u64()?).ok()?;
    Some(MarkRule { mark, addresses: addresses?, protocol, ports: ports? })
}

/// What is compared, as protocol and field, and with which values.
fn matched(expression: &Value) -> Option<(&str, &str, Vec<&Value>)> {
    let expression = &expression["match"];
    if !matches!(expression["op"].as_str()?, "==" | "in") {
        return None;
    }
    let payload = &expression["left"]["payload"];
    let right = &expression["right"];
    let values = match right["set"].as_array() {
        Some(set) => set.iter().collect(),
        None => vec![right],
    };
    Some((payload["protocol"].as_str()?, payload["field"].as_str()?, values))
}

fn port_range(value: &Value) -> Option<PortRange> {
    let port = |value: &Value| u16::try_from(value.as_u64()?).ok();
    match value["range"].as_array() {
        Some(range) => match range.as_slice() {
            [first, last] => Some(PortRange { first: port(first)?, last: port(last)? }),
            _ => None,
        },
        None => port(value).map(|port| PortRange { first: port, last: port }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks() -> Marks {
        let range = |first, last| PortRange { first, last };
        let rule = |mark, address: &str, protocol, ports: &[PortRange]| MarkRule {
            mark,
            addresses: [address.parse().unwrap()].into(),
            protocol,
            ports: ports.iter().copied().collect(),
        };
        Marks::from([
            rule(7, "192.0.2.1", Protocol::Tcp, &[range(80, 80), range(8000, 8099)]),
            rule(9, "2001:db8::1", Protocol::Udp, &[range(53, 53)]),
        ])
    }

    #[test]
    fn a_script_replaces_the_whole_table() {
        let expected = "\
add table inet lvsmesh
delete table inet lvsmesh
table inet lvsmesh {
  chain prerouting {
    type filter hook prerouting priority mangle; policy accept;
    ip daddr { 192.0.2.1 } tcp dport { 80, 8000-8099 } meta mark set 7
    ip6 daddr { 2001:db8::1 } udp dport { 53 } meta mark set 9
  }
}
";
        assert_eq!(script(&marks()), expected);
    }

    /// As nft 1.0.6 lists what the script above makes.
    const LISTED: &str = include_str!("nft/listed.json");

    #[test]
    fn a_listing_is_read_as_what_was_written() {
        let list: Value = serde_json::from_str(LISTED).unwrap();
        assert_eq!(rules(&list), Some(marks()));
    }

    #[test]
    fn what_others_changed_is_not_taken_for_ours() {
        for (from, to) in [
            ("\"prio\": -150", "\"prio\": -100"),
            ("\"policy\": \"accept\"", "\"policy\": \"drop\""),
            ("\"daddr\"", "\"saddr\""),
            ("\"dport\"", "\"sport\""),
            ("\"op\": \"==\"", "\"op\": \"!=\""),
            ("\"key\": \"mark\"", "\"key\": \"priority\""),
            ("{\"mangle\"", "{\"counter\": null}, {\"mangle\""),
            ("{\"rule\"", "{\"set\": {}}, {\"rule\""),
        ] {
            assert!(LISTED.contains(from), "{from}");
            let list: Value = serde_json::from_str(&LISTED.replacen(from, to, 1)).unwrap();
            assert_eq!(rules(&list), None, "{to}");
        }
    }
}
