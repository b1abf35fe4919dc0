//! What can go wrong between this process and the kernel.

use std::process::Command;
use std::time::Duration;

use lvsmesh_core::plan::marks::TABLE;
use lvsmesh_core::plan::path::{PathAction, TunnelKind};
use lvsmesh_core::plan::{Action, ServiceKey};
pub use nix::errno::Errno;

/// A request to the kernel that did not succeed.
///
/// `Display` says what was tried, and on what; `source` says why, as the kernel has it; [`hint`](Self::hint) what an operator can do.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The kernel refused.
    #[error("cannot {operation} {object}")]
    Refused {
        /// What was tried: `add service`, `read`, `open`.
        operation: &'static str,
        /// On what: `TCP 192.0.2.1:80`, `192.0.2.1/32 on lo`.
        object: String,
        /// The kernel's reason.
        #[source]
        errno: Errno,
    },
    /// The kernel has no IPVS.
    #[error("this kernel has no IPVS: it knows no generic netlink family `IPVS`")]
    IpvsMissing,
    /// No answer.
    #[error("cannot {operation} {object}: no answer from the kernel within {after:?}")]
    TimedOut {
        /// What was tried.
        operation: &'static str,
        /// On what.
        object: String,
        /// How long was waited.
        after: Duration,
    },
    /// The answer changed under every attempt to read it whole.
    #[error("cannot {operation} {object}: it changed during each of {attempts} readings")]
    Unsteady {
        /// What was tried.
        operation: &'static str,
        /// On what.
        object: String,
        /// How many times.
        attempts: u32,
    },
    /// A program that talks to the kernel for us failed; nothing was done.
    #[error("cannot {operation} {object}: {program}: {said}")]
    Program {
        /// What was tried.
        operation: &'static str,
        /// On what.
        object: String,
        /// The program's name.
        program: &'static str,
        /// The first line of its complaint.
        said: String,
    },
    /// An answer that makes no sense.
    #[error("cannot {operation} {object}: the kernel's answer is not understood: {detail}")]
    Malformed {
        /// What was tried.
        operation: &'static str,
        /// On what.
        object: String,
        /// What is wrong with it.
        detail: String,
    },
}

impl KernelError {
    pub(crate) fn refused(
        operation: &'static str,
        object: impl Into<String>,
        errno: Errno,
    ) -> Self {
        Self::Refused { operation, object: object.into(), errno }
    }

    /// For errors of the standard library, which carry an errno whenever they come from a system call.
    pub(crate) fn io(
        operation: &'static str,
        object: impl Into<String>,
        error: &std::io::Error,
    ) -> Self {
        match error.raw_os_error() {
            Some(code) => Self::refused(operation, object, Errno::from_raw(code)),
            None => Self::Malformed { operation, object: object.into(), detail: error.to_string() },
        }
    }

    /// The kernel's error number, if it gave one.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            Self::IpvsMissing => Some(Errno::ENOENT),
            Self::TimedOut { .. }
            | Self::Unsteady { .. }
            | Self::Malformed { .. }
            | Self::Program { .. } => None,
        }
    }

    /// Whether the kernel may have done what was asked: its answer was lost, late or not understood. Otherwise it did nothing.
    #[must_use]
    pub fn is_uncertain(&self) -> bool {
        match self {
            Self::Refused { errno, .. } => *errno == Errno::ENOBUFS,
            Self::IpvsMissing | Self::Program { .. } => false,
            Self::TimedOut { .. } | Self::Unsteady { .. } | Self::Malformed { .. } => true,
        }
    }

    /// What an operator can do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Refused { operation, object, errno } => refusal_hint(operation, object, *errno),
            Self::IpvsMissing => Some(
                "load the module with `modprobe ip_vs`; a kernel without it needs CONFIG_IP_VS (Debian: install linux-image-amd64 and \
                 boot it), and a container needs it loaded on its host"
                    .into(),
            ),
            Self::TimedOut { .. } => Some(
                "the kernel may be holding its network lock (RTNL) for a long operation; `dmesg` and `cat /proc/locks` may tell".into(),
            ),
            Self::Unsteady { .. } => Some("something else keeps changing it; the next round reads again".into()),
            Self::Malformed { .. } | Self::Program { .. } => None,
        }
    }
}

fn refusal_hint(operation: &str, object: &str, errno: Errno) -> Option<String> {
    // Errno has a hundred more values; each is its own message and needs no advice.
    #[expect(clippy::wildcard_enum_match_arm, reason = "an open set: the kernel's error numbers")]
    match errno {
        Errno::EPERM | Errno::EACCES => Some(
            "lvs-agent needs CAP_NET_ADMIN and CAP_NET_RAW in the machine's own user namespace, and a writable /proc/sys/net for sysctls"
                .into(),
        ),
        Errno::ENOENT if operation.ends_with("service") => Some(format!(
            "the kernel has no such scheduler or persistence engine: `modprobe` its module, ip_vs_NAME ({object})"
        )),
        Errno::EOPNOTSUPP if operation == ADD_TUNNEL => TunnelKind::ALL
            .into_iter()
            .find(|kind| object.contains(&format!("({} ", kind.name())))
            .map(missing_kind),
        Errno::ENOENT if operation == ADD_PORT => Some(
            "the kernel has no Foo-over-UDP: `modprobe fou`; it needs CONFIG_NET_FOU (Debian: linux-image-amd64 has it)".into(),
        ),
        Errno::EADDRINUSE if operation == ADD_PORT => {
            Some("another program has that UDP port; `ss -lun` shows it".into())
        }
        Errno::EEXIST if operation == ADD_TUNNEL => Some(
            "another device takes the same packets; `ip -d link show type KIND` shows it".into(),
        ),
        Errno::ENETUNREACH | Errno::EHOSTUNREACH if operation == ADD_ROUTE => Some(
            "the inside VIP, the service's `gateway`, must be an address of a network that this machine is on".into(),
        ),
        Errno::EEXIST | Errno::ESRCH => {
            Some("somebody else changed it since it was read; the next round reads again".into())
        }
        Errno::ENODEV => Some("the interface has gone; `ip link` lists those there are".into()),
        Errno::EROFS => Some("/proc/sys is mounted read-only, as in an unprivileged container".into()),
        _ => None,
    }
}

const ADD_TUNNEL: &str = "add tunnel";
const ADD_PORT: &str = "add GUE port";
const ADD_ROUTE: &str = "add route";

/// What gives a kernel that kind of tunnel device.
fn missing_kind(kind: TunnelKind) -> String {
    let (module, option) = match kind {
        TunnelKind::Ipip => ("ipip", "CONFIG_NET_IPIP"),
        TunnelKind::Sit => ("sit", "CONFIG_IPV6_SIT"),
        TunnelKind::Gre => ("ip_gre", "CONFIG_NET_IPGRE"),
        TunnelKind::Ip6tnl => ("ip6_tunnel", "CONFIG_IPV6_TUNNEL"),
        TunnelKind::Ip6gre => ("ip6_gre", "CONFIG_IPV6_GRE"),
    };
    format!(
        "the kernel has no such tunnels: `modprobe {module}`; it needs {option} (Debian: linux-image-amd64 has it), and a container needs it loaded on its host"
    )
}

/// The error for a kernel without IPVS, for those who found [`Observed::table`](lvsmesh_core::plan::Observed::table) empty and need it.
#[must_use]
pub fn ipvs_missing() -> KernelError {
    KernelError::IpvsMissing
}

/// Runs `modprobe ip_vs` and waits for it: for callers that want IPVS and may load modules (it needs CAP_SYS_MODULE).
///
/// Returning `Ok` does not promise IPVS: observe again.
///
/// # Errors
///
/// What `modprobe` wrote, or why it did not start, in one line.
pub fn load_ipvs() -> Result<(), String> {
    load_module("ip_vs")
}

/// Runs `modprobe NAME` and waits for it.
pub(crate) fn load_module(name: &str) -> Result<(), String> {
    let output = Command::new("modprobe")
        .arg(name)
        .output()
        .map_err(|error| format!("cannot run `modprobe {name}`: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(format!("`modprobe {name}`: {}: {}", output.status, text.trim().replace('\n', "; ")))
}

/// Joins an error and its sources: `cannot add service TCP 192.0.2.1:80: EEXIST: File exists`.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(error.source(), |error| error.source())
        .fold(error.to_string(), |text, source| format!("{text}: {source}"))
}

/// An action in the words of [`KernelError`]: operation and object.
pub(crate) fn describe(action: &Action) -> (&'static str, String) {
    match action {
        Action::AddService(key, spec) => {
            ("add service", format!("{} {}", Named(*key), spec.scheduler))
        }
        Action::SetService(key, spec) => {
            ("set service", format!("{} {}", Named(*key), spec.scheduler))
        }
        Action::RemoveService(key) => ("remove service", Named(*key).to_string()),
        Action::AddDestination(key, real, _) => {
            ("add destination", format!("{real} of {}", Named(*key)))
        }
        Action::SetDestination(key, real, _) => {
            ("set destination", format!("{real} of {}", Named(*key)))
        }
        Action::RemoveDestination(key, real) => {
            ("remove destination", format!("{real} of {}", Named(*key)))
        }
        Action::AddAddress { interface, address } => {
            ("add address", format!("{address} on {interface}"))
        }
        Action::RemoveAddress { interface, address } => {
            ("remove address", format!("{address} on {interface}"))
        }
        Action::SetSysctl { name, value } => ("set sysctl", format!("{} to {value}", name.0)),
        Action::SetTimeout { which, seconds } => {
            ("set IPVS timeout", format!("{} to {seconds} s", which.name()))
        }
        Action::StartDaemon(daemon) => ("start sync daemon", daemon.to_string()),
        Action::StopDaemon(role) => ("stop sync daemon", role.to_string()),
        Action::SetMarks(_) => ("set nftables table", format!("inet {TABLE}")),
        Action::ClearMarks => ("remove nftables table", format!("inet {TABLE}")),
        Action::Path(action) => match action {
            PathAction::AddTunnel(tunnel) => (ADD_TUNNEL, tunnel.to_string()),
            PathAction::RaiseTunnel(name) => ("set up tunnel", name.clone()),
            PathAction::RemoveTunnel(name) => ("remove tunnel", name.clone()),
            PathAction::AddPort(port) => (ADD_PORT, port.to_string()),
            PathAction::RemovePort(port) => ("remove GUE port", port.to_string()),
            PathAction::AddRule(rule) => ("add rule", rule.to_string()),
            PathAction::RemoveRule(rule) => ("remove rule", rule.to_string()),
            PathAction::AddRoute(route) => (ADD_ROUTE, route.to_string()),
            PathAction::RemoveRoute(route) => ("remove route", route.to_string()),
        },
    }
}

/// A service as ipvsadm names it: `TCP 192.0.2.1:80`, `FWM 7`, `FWM 8 IPv6`.
pub(crate) struct Named(pub(crate) ServiceKey);

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use lvsmesh_core::model::Protocol;

        match self.0 {
            ServiceKey::Address { protocol, address, port } => {
                let protocol = match protocol {
                    Protocol::Tcp => "TCP",
                    Protocol::Udp => "UDP",
                    Protocol::Sctp => "SCTP",
                };
                write!(f, "{protocol} {}", std::net::SocketAddr::new(address, port))
            }
            ServiceKey::Mark { ipv6: false, mark } => write!(f, "FWM {mark}"),
            ServiceKey::Mark { ipv6: true, mark } => write!(f, "FWM {mark} IPv6"),
        }
    }
}

#[cfg(test)]
mod tests {
    use lvsmesh_core::plan::path::{GuePort, Tunnel};

    use super::*;

    #[test]
    fn an_error_names_operation_object_and_reason() {
        let key = ServiceKey::Address {
            protocol: lvsmesh_core::model::Protocol::Tcp,
            address: "192.0.2.1".parse().unwrap(),
            port: 80,
        };
        let (operation, object) = describe(&Action::RemoveService(key));
        let error = KernelError::refused(operation, object, Errno::ESRCH);
        assert_eq!(chain(&error), "cannot remove service TCP 192.0.2.1:80: ESRCH: No such process");
        assert_eq!(error.errno(), Some(Errno::ESRCH));
    }

    #[test]
    fn a_kernel_without_ipvs_is_told_apart_and_says_what_gives_it() {
        let error = ipvs_missing();
        let hint = error.hint().unwrap();
        for word in ["CONFIG_IP_VS", "modprobe ip_vs", "linux-image-amd64"] {
            assert!(hint.contains(word), "{word}: {hint}");
        }
    }

    #[test]
    fn a_missing_kind_of_tunnel_is_named_with_what_gives_it() {
        for (kind, word) in [
            (TunnelKind::Ipip, "modprobe ipip"),
            (TunnelKind::Sit, "CONFIG_IPV6_SIT"),
            (TunnelKind::Gre, "modprobe ip_gre"),
            (TunnelKind::Ip6tnl, "modprobe ip6_tunnel"),
            (TunnelKind::Ip6gre, "CONFIG_IPV6_GRE"),
        ] {
            let tunnel = Tunnel {
                kind,
                local: "192.0.2.3".parse().unwrap(),
                number: 1,
                checksum: false,
                ipv4: true,
                ipv6: false,
            };
            let (operation, object) = describe(&Action::Path(PathAction::AddTunnel(tunnel)));
            let hint = KernelError::refused(operation, object, Errno::EOPNOTSUPP).hint();
            assert!(hint.as_ref().is_some_and(|hint| hint.contains(word)), "{kind:?}: {hint:?}");
        }
        let port = GuePort { ipv6: false, port: 6080 };
        let (operation, object) = describe(&Action::Path(PathAction::AddPort(port)));
        let hint = KernelError::refused(operation, object, Errno::ENOENT).hint().unwrap();
        assert!(hint.contains("CONFIG_NET_FOU"), "{hint}");
    }

    #[test]
    fn marks_are_named_as_ipvsadm_names_them() {
        assert_eq!(Named(ServiceKey::Mark { ipv6: false, mark: 7 }).to_string(), "FWM 7");
        assert_eq!(Named(ServiceKey::Mark { ipv6: true, mark: 8 }).to_string(), "FWM 8 IPv6");
    }
}
