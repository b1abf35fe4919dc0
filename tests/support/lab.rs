//! Machines on one switch.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::capture::Capture;
use crate::netns::{self, Namespace};
use crate::pace::note;
use crate::{link, pace};

/// One machine: a namespace with `lo`, and an `eth0` that is plugged into the lab's switch.
#[derive(Debug)]
pub struct Node {
    /// Short, unique in the lab.
    pub name: String,
    /// Of `eth0`, with a /24.
    pub address: Ipv4Addr,
    /// Of `eth0`.
    pub mac: [u8; 6],
    /// Where its processes run.
    pub namespace: Namespace,
    /// Index of its port in the switch's namespace.
    pub port: u32,
}

/// Machines on one switch, and a directory for their files.
#[derive(Debug)]
pub struct Lab {
    switch: Namespace,
    nodes: Vec<Node>,
    directory: Option<TempDir>,
    /// On a tmpfs.
    memory: Option<TempDir>,
}

impl Lab {
    /// Makes a machine for each name and address.
    ///
    /// # Panics
    ///
    /// Without root's rights, or if the kernel refuses a part: there is no lab to test in then.
    #[must_use]
    pub fn new(machines: &[(&str, Ipv4Addr)]) -> Self {
        Self::build(machines, false)
    }

    /// As [`new`](Self::new), with IPv6: each machine has a link-local address and [`v6`] of its own, with a /64.
    #[must_use]
    pub fn dual_stack(machines: &[(&str, Ipv4Addr)]) -> Self {
        Self::build(machines, true)
    }

    fn build(machines: &[(&str, Ipv4Addr)], ipv6: bool) -> Self {
        assert!(netns::permitted(), "the lab needs root: it makes network namespaces");
        let switch = Namespace::new().expect("root may make a network namespace");
        quiet(&switch, false);
        let bridge = link::bridge(&switch);
        let node = |(number, (name, address)): (usize, &(&str, Ipv4Addr))| {
            let namespace = Namespace::new().expect("root may make a network namespace");
            quiet(&namespace, ipv6);
            let port = namespace.with_descriptor(|node| {
                link::plug_in(&switch, bridge, &format!("port{number}"), node.as_fd())
            });
            link::configure(&namespace, *address);
            if ipv6 {
                link::add_prefix(&namespace, v6(*address), 64);
            }
            Node {
                name: (*name).to_owned(),
                address: *address,
                mac: link::mac(&namespace),
                namespace,
                port,
            }
        };
        let nodes = machines.iter().enumerate().map(node).collect();
        let directory =
            TempDir::with_prefix("lvsmesh-lab-").expect("the temporary directory is writable");
        // Run directories are on a tmpfs, as `/run` is; what a container has as `/run` may be a disk.
        let memory = TempDir::with_prefix_in("lvsmesh-lab-", "/dev/shm").ok();
        Self { switch, nodes, directory: Some(directory), memory }
    }

    /// A machine by its name.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[must_use]
    pub fn node(&self, name: &str) -> &Node {
        self.nodes
            .iter()
            .find(|node| node.name == name)
            .unwrap_or_else(|| panic!("the lab has no node {name}"))
    }

    /// All machines.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The name of the machine behind a port of the switch.
    #[must_use]
    pub fn behind(&self, port: u32) -> Option<&str> {
        self.nodes.iter().find(|node| node.port == port).map(|node| node.name.as_str())
    }

    /// A directory for a machine's files; made if it is not there.
    #[must_use]
    pub fn directory(&self, node: &str) -> PathBuf {
        let root = self.directory.as_ref().expect("the directory goes when the lab does");
        let directory = root.path().join(node);
        std::fs::create_dir_all(&directory).expect("the temporary directory is writable");
        directory
    }

    /// A directory for what a machine has below `/run`; made if it is not there.
    #[must_use]
    pub fn run_directory(&self, node: &str) -> PathBuf {
        let Some(memory) = &self.memory else { return self.directory(node).join("run") };
        let directory = memory.path().join(node);
        std::fs::create_dir_all(&directory).expect("/dev/shm is writable");
        directory
    }

    /// Where this lab's files are.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.directory.as_ref().expect("the directory goes when the lab does").path()
    }

    /// Cuts a machine off at the switch: nothing comes or goes, and it still has its carrier, as with a switch that has failed.
    pub fn cut(&self, node: &str) {
        link::port_forwards(&self.switch, self.node(node).port, false);
    }

    /// Undoes [`Self::cut`].
    pub fn restore(&self, node: &str) {
        link::port_forwards(&self.switch, self.node(node).port, true);
    }

    /// Pulls a machine's cable: it loses its carrier.
    pub fn unplug(&self, node: &str) {
        link::set_up(&self.switch, self.node(node).port, false);
    }

    /// Undoes [`Self::unplug`].
    pub fn plug(&self, node: &str) {
        link::set_up(&self.switch, self.node(node).port, true);
    }

    /// Takes a machine's interface down, or up again, as an operator on it would.
    pub fn set_interface(&self, node: &str, up: bool) {
        link::set_own_up(&self.node(node).namespace, up);
    }

    /// Drops in the switch what would reach a machine (`deaf`), or what comes from it. The other way is open, and both ends have their carrier.
    /// One machine at a time.
    ///
    /// # Panics
    ///
    /// Without nftables and its bridge family (nft(8)).
    pub fn half_cut(&self, node: &str, deaf: bool) {
        let (side, port) = (if deaf { "oif" } else { "iif" }, self.node(node).port);
        self.filter(&format!(
            "add table bridge half\ndelete table bridge half\nadd table bridge half\n\
             add chain bridge half forward {{ type filter hook forward priority 0; }}\n\
             add rule bridge half forward {side} {port} drop\n"
        ));
    }

    /// Drops in the switch what a machine and others than `except` say to each other over TCP and UDP: agents do not hear each other, and all
    /// hear ARP and VRRP. One machine at a time.
    ///
    /// # Panics
    ///
    /// As [`Self::half_cut`].
    pub fn control_cut(&self, node: &str, except: Ipv4Addr) {
        let port = self.node(node).port;
        self.filter(&format!(
            "add table bridge half\ndelete table bridge half\nadd table bridge half\n\
             add chain bridge half forward {{ type filter hook forward priority 0; }}\n\
             add rule bridge half forward oif {port} ip saddr != {except} ip protocol {{ tcp, udp }} drop\n\
             add rule bridge half forward iif {port} ip daddr != {except} ip protocol {{ tcp, udp }} drop\n"
        ));
    }

    /// Undoes [`Self::half_cut`] and [`Self::control_cut`].
    pub fn mend(&self) {
        self.filter("delete table bridge half\n");
    }

    fn filter(&self, rules: &str) {
        let file = self.root().join("half.nft");
        std::fs::write(&file, rules).expect("the temporary directory is writable");
        let output = self.switch.inside(|| Command::new("nft").arg("-f").arg(&file).output());
        let output = output.expect("nft is there: tests/install lab");
        assert!(
            output.status.success(),
            "nft: {}\n{rules}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Starts recording ARP and VRRP frames as they enter the switch.
    #[must_use]
    pub fn capture(&self) -> Capture {
        Capture::start(
            &self.switch,
            self.nodes.iter().map(|node| (node.port, node.name.clone())).collect(),
        )
    }

    /// Whether this kernel has IPVS, loading its module if it is one.
    #[must_use]
    pub fn has_ipvs() -> bool {
        if Path::new("/proc/net/ip_vs").exists() {
            return true;
        }
        let loaded = Command::new("modprobe").args(["-q", "ip_vs"]).status();
        loaded.is_ok_and(|status| status.success()) && Path::new("/proc/net/ip_vs").exists()
    }

    /// Fails the test on a kernel without IPVS: a test that needs it never passes by being skipped.
    ///
    /// # Panics
    ///
    /// Without IPVS.
    pub fn require_ipvs() {
        assert!(
            Self::has_ipvs(),
            "this kernel has no IPVS (no module ip_vs): run the test in the virtual machine, tests/vm/boot"
        );
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            print_logs(self.root());
        }
        for node in &self.nodes {
            node.namespace.clear();
        }
        if std::env::var_os("LVSMESH_KEEP").is_some() {
            for directory in [self.directory.take(), self.memory.take()].into_iter().flatten() {
                note(&format!("kept: {}", directory.keep().display()));
            }
        }
    }
}

/// The IPv6 address of the machine with that IPv4 address, in a lab that has both.
#[must_use]
pub fn v6(address: Ipv4Addr) -> Ipv6Addr {
    let [.., last] = address.octets();
    Ipv6Addr::new(0xfd00, 3, 0, 0, 0, 0, 0, last.into())
}

/// Turns IPv6 off, whose address tests would put route events of their own between those that a test counts, or just its address tests and
/// its look-out for routers; and reverse-path filtering, which a machine may inherit from its host.
fn quiet(namespace: &Namespace, ipv6: bool) {
    let off = if ipv6 { "0" } else { "1" };
    namespace.inside(|| {
        for (name, value) in [
            ("ipv6/conf/all/disable_ipv6", off),
            ("ipv6/conf/default/disable_ipv6", off),
            ("ipv6/conf/all/accept_dad", "0"),
            ("ipv6/conf/default/accept_dad", "0"),
            ("ipv6/conf/default/accept_ra", "0"),
            ("ipv6/conf/default/router_solicitations", "0"),
            // Link-local addresses made of the hardware address (RFC 4291, appendix A), whatever the host's habit is.
            ("ipv6/conf/default/addr_gen_mode", "0"),
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
        ] {
            let file = Path::new("/proc/sys/net").join(name);
            if file.exists() {
                std::fs::write(&file, value)
                    .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            }
        }
    });
}

fn print_logs(root: &Path) {
    let Ok(nodes) = std::fs::read_dir(root) else { return };
    for node in nodes.filter_map(Result::ok) {
        let Ok(files) = std::fs::read_dir(node.path()) else { continue };
        for file in files
            .filter_map(Result::ok)
            .filter(|file| file.path().extension().is_some_and(|extension| extension == "log"))
        {
            let text = std::fs::read_to_string(file.path()).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let shown = if pace::slow() > 1 { 40 } else { 60 };
            note(&format!("--- the last lines of {}", file.path().display()));
            for line in lines.iter().skip(lines.len().saturating_sub(shown)) {
                note(line);
            }
        }
    }
}
