//! keepalived, the incumbent.

use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use super::start;
use crate::lab::{Lab, Node};
use crate::pace;
use crate::process::Process;

/// A real keepalived, backup for the reference deployment's virtual router.
#[derive(Debug)]
pub struct Keepalived {
    process: Process,
}

impl Keepalived {
    /// Starts it with priority 100 on a machine that is no part of the fleet.
    ///
    /// # Panics
    ///
    /// If it cannot be started: the package is missing.
    #[must_use]
    pub fn backup(
        lab: &Lab,
        node: &Node,
        version: u8,
        advert_interval: &str,
        vips: &[IpAddr],
    ) -> Self {
        let prefix = |vip: &IpAddr| if vip.is_ipv4() { 32 } else { 128 };
        let vips: String = vips.iter().map(|vip| format!("    {vip}/{}\n", prefix(vip))).collect();
        let directory = lab.directory(&node.name);
        let authentication = if version == 2 {
            "  authentication {\n    auth_type PASS\n    auth_pass 1111\n  }\n"
        } else {
            ""
        };
        let config = format!(
            "global_defs {{\n  vrrp_version {version}\n  vrrp_garp_master_refresh 0\n}}\nvrrp_instance web {{\n  state BACKUP\n  \
             interface eth0\n  virtual_router_id 51\n  priority 100\n  advert_int {advert_interval}\n{authentication}  \
             virtual_ipaddress {{\n{vips}  }}\n}}\n"
        );
        let file = directory.join("keepalived.conf");
        std::fs::write(&file, config).expect("the lab's directory is writable");
        let mut command = Command::new("keepalived");
        command
            .args(["--dont-fork", "--log-console", "--log-detail", "--vrrp", "--use-file"])
            .arg(file);
        command
            .arg("--pid")
            .arg(directory.join("keepalived.pid"))
            .arg("--vrrp_pid")
            .arg(directory.join("vrrp.pid"));
        Self { process: start(node, "keepalived", &mut command, directory.join("keepalived.log")) }
    }

    /// The states that it has entered, oldest first: `BACKUP`, `MASTER`, `FAULT`.
    #[must_use]
    pub fn states(&self) -> Vec<String> {
        let output = self.process.output();
        let state = |line: &str| {
            Some(line.split_once("Entering ")?.1.split_whitespace().next()?.to_owned())
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
