//! FRR's vrrpd, another implementation of VRRP.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::unistd::{User, chown};
use tempfile::TempDir;

use super::start;
use crate::lab::Node;
use crate::pace;
use crate::process::Process;

/// A real vrrpd with the zebra that it needs, on `eth0` of a machine that is no part of the fleet; priority 100, VRID 51.
#[derive(Debug)]
pub struct Frr {
    family: &'static str,
    vrrpd: Process,
    _zebra: Process,
    _directory: TempDir,
}

fn run(node: &Node, arguments: &str) {
    let output = node
        .namespace
        .inside(|| Command::new("ip").args(arguments.split(' ')).output())
        .expect("iproute2 is installed");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {errors}");
}

impl Frr {
    /// Makes the virtual router's interface on a machine, as FRR's documentation asks for it: a macvlan with the virtual router's hardware
    /// address (RFC 9568 §7.3) and the VIP. The kernel answers for the VIP on that interface only.
    ///
    /// # Panics
    ///
    /// Without macvlan.
    pub fn prepare(node: &Node, vip: impl Into<IpAddr>) {
        let vip = vip.into();
        let (family, prefix) = if vip.is_ipv4() { (1, 32) } else { (2, 128) };
        run(node, "link add link eth0 name vrrp51 type macvlan mode bridge");
        run(node, &format!("link set vrrp51 address 00:00:5e:00:{family:02x}:33"));
        run(node, &format!("addr add {vip}/{prefix} dev vrrp51"));
        node.namespace.inside(|| {
            let file = "/proc/sys/net/ipv4/conf/all/arp_ignore";
            std::fs::write(file, "1").expect("root may write sysctls");
        });
        run(node, "link set vrrp51 up");
    }

    /// Starts it. `centiseconds`: the advert interval.
    ///
    /// # Panics
    ///
    /// If it cannot be started: the package is missing.
    #[must_use]
    pub fn start(node: &Node, version: u8, centiseconds: u16, vip: impl Into<IpAddr>) -> Self {
        let vip = vip.into();
        let (family, word) = if vip.is_ipv4() { ("IPv4", "ip") } else { ("IPv6", "ipv6") };
        // Its daemons give up root's rights, and write beside their sockets.
        let directory = TempDir::with_prefix("lvsmesh-frr-").expect("/tmp is writable");
        let path = directory.path();
        let user = User::from_name("frr").ok().flatten().expect("FRR's package makes its user");
        let milliseconds = u32::from(centiseconds) * 10;
        let config = path.join("vrrpd.conf");
        let text = format!(
            "log stdout\ninterface eth0\n vrrp 51 version {version}\n vrrp 51 priority 100\n vrrp 51 advertisement-interval {milliseconds}\n \
             vrrp 51 {word} {vip}\n"
        );
        std::fs::write(&config, text).expect("/tmp is writable");
        for path in [path, &config] {
            chown(path, Some(user.uid), Some(user.gid)).expect("root may give files away");
        }
        let zebra = daemon(node, path, "zebra", Path::new("/dev/null"));
        pace::eventually("zebra listens", Duration::from_secs(20), || {
            path.join("zserv.api").exists().then_some(())
        });
        let vrrpd = daemon(node, path, "vrrpd", &config);
        Self { family, vrrpd, _zebra: zebra, _directory: directory }
    }

    /// The states that its virtual router has entered, oldest first: `Backup`, `Master`.
    #[must_use]
    pub fn states(&self) -> Vec<String> {
        let output = self.vrrpd.output();
        let of = |line: &str| {
            let (before, state) = line.split_once(" -> ")?;
            before.contains(&format!("[{}]", self.family)).then(|| state.trim().to_owned())
        };
        output.lines().filter_map(of).collect()
    }

    /// Waits until its newest state is this one.
    pub fn enters(&self, state: &str, span: Duration) {
        pace::eventually(&format!("vrrpd enters {state}"), span, || {
            (self.states().last().map(String::as_str) == Some(state)).then_some(())
        });
    }

    /// Everything it said.
    #[must_use]
    pub fn output(&self) -> String {
        self.vrrpd.output()
    }
}

fn daemon(node: &Node, directory: &Path, name: &str, config: &Path) -> Process {
    let mut command = Command::new(format!("/usr/lib/frr/{name}"));
    command.arg("--config_file").arg(config);
    command.arg("--pid_file").arg(directory.join(format!("{name}.pid")));
    command.arg("--socket").arg(directory.join("zserv.api"));
    command.arg("--vty_socket").arg(directory);
    command.args(["--vty_addr", "127.0.0.1", "--vty_port", "0", "--log", "stdout"]);
    let log: PathBuf = directory.join(format!("{name}.log"));
    start(node, name, &mut command, log)
}
