//! The reference deployment: two directors, two realservers on three machines, and a client.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::agent::{Agent, Settings};
use crate::ctl::{Lvsctl, Status};
use crate::document::{CLIENT, Document, FLEET, LVS_1, LVS_2, RS_1, VIP};
use crate::lab::{Lab, Node};
use crate::pki::Authority;
use crate::{link, pace};

/// A fleet on a lab of its own.
#[derive(Debug)]
pub struct Fleet {
    // Before the lab, which kills what is left when it goes.
    agents: BTreeMap<String, Agent>,
    /// lvsctl on the client's machine, with an operator's certificate.
    pub ctl: Lvsctl,
    /// Its machines.
    pub lab: Lab,
}

/// What may differ between fleets.
#[derive(Clone, Debug)]
pub struct Options {
    /// Lease timing, a profile's name or P in milliseconds; [`pace::profile`] unless a test says otherwise.
    pub profile: String,
    /// An OTLP receiver.
    pub otlp: Option<String>,
    /// Real-time priority for leases and guards.
    pub realtime: bool,
    /// The kernel keeps the lease's end.
    pub gate: bool,
    /// The second director is a director alone.
    pub pure: bool,
    /// There is no third node.
    pub two: bool,
    /// Where the agents' programs are; `None`: those of this build.
    pub release: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            profile: pace::profile().to_owned(),
            otlp: None,
            realtime: false,
            gate: true,
            pure: false,
            two: false,
            release: None,
        }
    }
}

/// The machines of the reference deployment, the client last.
#[must_use]
pub fn machines() -> Lab {
    Lab::new(&[LVS_1, LVS_2, RS_1, CLIENT])
}

const ROLES: [(&str, &[&str]); 3] =
    [(LVS_1.0, &["director"]), (LVS_2.0, &["director", "realserver"]), (RS_1.0, &["realserver"])];

impl Fleet {
    /// Brings the reference deployment up: `init` on the first director, `join` on the others, everybody a voter.
    #[must_use]
    pub fn start() -> Self {
        Self::start_on(machines(), &Options::default())
    }

    /// As [`Self::start`], on machines that are there already.
    #[must_use]
    pub fn start_on(lab: Lab, options: &Options) -> Self {
        let authority = Authority::new(FLEET);
        let mut agents = BTreeMap::new();
        let nodes = if options.two { &ROLES[..2] } else { &ROLES[..] };
        for (name, roles) in nodes {
            let roles = if options.pure { &roles[..1] } else { roles };
            let settings = Settings {
                roles: roles.to_vec(),
                tls: Some(authority.node(&lab.directory(name), name)),
                profile: options.profile.clone(),
                realtime: options.realtime,
                gate: options.gate,
                otlp: options.otlp.clone(),
            };
            let mut agent = Agent::new(&lab, lab.node(name), &settings);
            agent.install(options.release.as_deref());
            agents.insert((*name).to_owned(), agent);
        }
        let directory = lab.directory(CLIENT.0);
        let ctl = Lvsctl {
            namespace: lab.node(CLIENT.0).namespace.clone(),
            endpoints: [LVS_1, LVS_2, RS_1]
                .iter()
                .filter(|(name, _)| agents.contains_key(*name))
                .map(|(_, address)| format!("{address}:7400"))
                .collect(),
            identity: Some(authority.operator(&directory, "ops")),
            directory,
            otlp: options.otlp.clone(),
        };
        let mut fleet = Self { agents, ctl, lab };
        fleet.agent(LVS_1.0).init(FLEET);
        fleet.agent_mut(LVS_1.0).start();
        for (name, _) in &nodes[1..] {
            fleet.agent(name).join(&format!("{}:7400", LVS_1.1));
            fleet.agent_mut(name).start();
        }
        fleet.until("all nodes vote", Duration::from_secs(30), |status| {
            let voting = |name: &(&str, &[&str])| {
                status.node(name.0).is_some_and(|node| node.reachable && node.raft != "learner")
            };
            status.quorum && nodes.iter().all(voting)
        });
        fleet
    }

    /// Prints the status and what every agent has logged, for whoever looks for the cause of something.
    pub fn tell_all(&self) {
        pace::note(&format!("--- status\n{}", self.ctl.run(&["status", "-o", "json"]).out));
        for name in self.names() {
            pace::note(&format!("--- log of {name}\n{}", self.agent(&name).logged()));
        }
    }

    /// An agent by its node's name.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[must_use]
    pub fn agent(&self, name: &str) -> &Agent {
        self.agents.get(name).unwrap_or_else(|| panic!("the fleet has no node {name}"))
    }

    /// An agent by its node's name.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn agent_mut(&mut self, name: &str) -> &mut Agent {
        self.agents.get_mut(name).unwrap_or_else(|| panic!("the fleet has no node {name}"))
    }

    /// All agents' node names.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.agents.keys().cloned().collect()
    }

    /// The client's machine.
    #[must_use]
    pub fn client(&self) -> &Node {
        self.lab.node(CLIENT.0)
    }

    /// Waits for a status of which something holds, and returns it.
    ///
    /// # Panics
    ///
    /// If none comes within `span` (scaled); shows the last.
    pub fn until(
        &self,
        what: &str,
        span: Duration,
        mut holds: impl FnMut(&Status) -> bool,
    ) -> Status {
        let mut last = None;
        let found = pace::within(span, || {
            last = self.ctl.status();
            last.clone().filter(&mut holds)
        });
        found.unwrap_or_else(|| {
            panic!("not within {:?}: {what}; the status is {last:#?}", pace::scaled(span))
        })
    }

    /// Applies a document and expects success.
    pub fn apply(&self, document: &Document) {
        let _printed = self.ctl.apply(&document.yaml(), &["-m", "the lab's"]).succeeded();
    }

    /// Nodes whose kernel has the VIP on `eth0`.
    #[must_use]
    pub fn attached(&self) -> Vec<String> {
        self.having(VIP)
    }

    /// Nodes whose kernel has that address on `eth0`.
    #[must_use]
    pub fn having(&self, address: impl Into<IpAddr>) -> Vec<String> {
        let address = address.into();
        let nodes = self
            .agents
            .keys()
            .filter(|name| link::has_address(&self.lab.node(name).namespace, "eth0", address));
        nodes.cloned().collect()
    }

    /// Waits until exactly one node, and that one, has the VIP.
    pub fn held_by(&self, name: &str) {
        pace::eventually(&format!("{name} alone holds the VIP"), Duration::from_secs(20), || {
            (self.attached() == [name]).then_some(())
        });
    }

    /// Waits until exactly one node has the VIP, and returns its name.
    pub fn holder(&self) -> String {
        pace::eventually("one node alone holds the VIP", Duration::from_secs(20), || {
            match self.attached().as_slice() {
                [name] => Some(name.clone()),
                _ => None,
            }
        })
    }

    /// Waits until every node has applied the same revision and its kernel matches it; returns that revision.
    pub fn converged(&self) -> u64 {
        let status = self.until(
            "every node has the same revision in its kernel",
            Duration::from_secs(30),
            |status| {
                status.nodes.len() == self.agents.len()
                    && status.nodes.iter().all(|node| {
                        node.reachable && node.converged && node.revision == status.revision
                    })
            },
        );
        status.revision
    }

    /// Kills an agent with SIGKILL; returns when.
    pub fn kill(&mut self, name: &str) -> Instant {
        let at = Instant::now();
        self.agent_mut(name).end(Signal::SIGKILL);
        at
    }
}
