//! keepalived, the incumbent.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::start;
use crate::lab::{Lab, Node};
use crate::pace;
use crate::process::Process;

/// A real keepalived.
#[derive(Debug)]
pub struct Keepalived {
    process: Process,
    directory: PathBuf,
}

/// One `vrrp_instance` on `eth0`.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Its name.
    pub name: &'static str,
    /// Virtual router id.
    pub vrid: u8,
    /// 2 or 3.
    pub version: u8,
    /// 1 to 254.
    pub priority: u8,
    /// `advert_int`, in seconds.
    pub interval: &'static str,
    /// `auth_pass`; none: no authentication.
    pub pass: Option<&'static str>,
    /// `virtual_ipaddress`.
    pub vips: Vec<IpAddr>,
    /// `virtual_ipaddress_excluded`.
    pub excluded: Vec<IpAddr>,
    /// `unicast_src_ip` and `unicast_peer`; none: multicast.
    pub unicast: Option<(IpAddr, Vec<IpAddr>)>,
}

impl Instance {
    /// A backup for the reference deployment's virtual router: VRID 51, priority 100, version 2 with the password 1111, version 3 without.
    #[must_use]
    pub fn backup(version: u8, interval: &'static str, vips: &[IpAddr]) -> Self {
        Self {
            name: "web",
            vrid: 51,
            version,
            priority: 100,
            interval,
            pass: (version == 2).then_some("1111"),
            vips: vips.to_vec(),
            excluded: Vec::new(),
            unicast: None,
        }
    }

    fn text(&self) -> String {
        let Self { name, vrid, version, priority, interval, .. } = self;
        let mut text = format!(
            "vrrp_instance {name} {{\n  state BACKUP\n  interface eth0\n  virtual_router_id {vrid}\n  version {version}\n  priority {priority}\n  \
             advert_int {interval}\n"
        );
        let mut block = |word: &str, lines: &[String]| {
            if !lines.is_empty() {
                // Writing to a string cannot fail.
                let _ok = writeln!(text, "  {word} {{\n    {}\n  }}", lines.join("\n    "));
            }
        };
        if let Some(pass) = self.pass {
            block("authentication", &["auth_type PASS".into(), format!("auth_pass {pass}")]);
        }
        let prefix = |vip: &IpAddr| if vip.is_ipv4() { 32 } else { 128 };
        let vips = |vips: &[IpAddr]| -> Vec<String> {
            vips.iter().map(|vip| format!("{vip}/{}", prefix(vip))).collect()
        };
        block("virtual_ipaddress", &vips(&self.vips));
        block("virtual_ipaddress_excluded", &vips(&self.excluded));
        if let Some((source, peers)) = &self.unicast {
            let peers: Vec<String> = peers.iter().map(ToString::to_string).collect();
            block("unicast_peer", &peers);
            let _ok = writeln!(text, "  unicast_src_ip {source}");
        }
        text + "}\n"
    }
}

impl Keepalived {
    /// Starts it on a machine that is no part of the fleet, as a [backup](Instance::backup).
    #[must_use]
    pub fn backup(
        lab: &Lab,
        node: &Node,
        version: u8,
        interval: &'static str,
        vips: &[IpAddr],
    ) -> Self {
        Self::start(lab, node, &[Instance::backup(version, interval, vips)])
    }

    /// Starts it on a machine that is no part of the fleet.
    ///
    /// # Panics
    ///
    /// If it cannot be started: the package is missing.
    #[must_use]
    pub fn start(lab: &Lab, node: &Node, instances: &[Instance]) -> Self {
        Self::start_with(lab, node, instances, "")
    }

    /// As [`start`](Self::start), with more lines in `global_defs`.
    ///
    /// # Panics
    ///
    /// As for [`start`](Self::start).
    #[must_use]
    pub fn start_with(lab: &Lab, node: &Node, instances: &[Instance], globals: &str) -> Self {
        let directory = lab.directory(&node.name);
        let mut config = format!("global_defs {{\n  vrrp_garp_master_refresh 0\n{globals}}}\n");
        config.extend(instances.iter().map(Instance::text));
        let file = directory.join("keepalived.conf");
        std::fs::write(&file, config).expect("the lab's directory is writable");
        let log = directory.join("keepalived.log");
        // Of an earlier start. keepalived takes the files of one that was killed for one that runs.
        for file in ["keepalived.log", "keepalived.pid", "vrrp.pid"] {
            let _absent = std::fs::remove_file(directory.join(file));
        }
        let mut command = Command::new("keepalived");
        command
            .args(["--dont-fork", "--log-console", "--log-detail", "--vrrp", "--use-file"])
            .arg(file);
        command
            .arg("--pid")
            .arg(directory.join("keepalived.pid"))
            .arg("--vrrp_pid")
            .arg(directory.join("vrrp.pid"));
        Self { process: start(node, "keepalived", &mut command, log), directory }
    }

    /// Stops it cleanly, as `systemctl stop` does.
    pub fn stop(mut self) -> ExitStatus {
        self.process.end(Signal::SIGTERM)
    }

    /// Stops its VRRP process where it stands: its kernel goes on.
    ///
    /// # Panics
    ///
    /// If it does not run.
    pub fn freeze(&self) {
        kill(self.vrrp(), Signal::SIGSTOP).expect("it runs");
    }

    /// Kills both of its processes. The parent is stopped first, or it would start another VRRP process; and the VRRP process goes before the
    /// parent, whose end it would take for an order to end cleanly.
    ///
    /// # Panics
    ///
    /// If it does not run.
    pub fn kill(mut self) {
        self.process.signal(Signal::SIGSTOP);
        kill(self.vrrp(), Signal::SIGKILL).expect("it runs");
        self.process.end(Signal::SIGKILL);
    }

    fn vrrp(&self) -> Pid {
        let text = std::fs::read_to_string(self.directory.join("vrrp.pid"));
        let pid = text.ok().and_then(|text| text.trim().parse().ok());
        Pid::from_raw(pid.expect("keepalived's VRRP process has a pid"))
    }

    /// The states that it has entered, oldest first: `BACKUP`, `MASTER`, `FAULT`.
    #[must_use]
    pub fn states(&self) -> Vec<String> {
        self.states_of("web")
    }

    /// The same of one instance.
    #[must_use]
    pub fn states_of(&self, instance: &str) -> Vec<String> {
        let output = self.process.output();
        let state = |line: &str| {
            let (before, after) = line.split_once("Entering ")?;
            before.contains(&format!("({instance})")).then_some(())?;
            Some(after.split_whitespace().next()?.to_owned())
        };
        output.lines().filter_map(state).collect()
    }

    /// Waits until its newest state is this one.
    pub fn enters(&self, state: &str, span: Duration) {
        pace::eventually(
            &format!("keepalived enters {state}; it said {:?}", self.states()),
            span,
            || (self.states().last().map(String::as_str) == Some(state)).then_some(()),
        );
    }

    /// Everything it said.
    #[must_use]
    pub fn output(&self) -> String {
        self.process.output()
    }
}
