//! What belongs to IPVS as a whole and not to a service: connection timeouts, the daemons that synchronise connections between directors,
//! and the counters' zero.

use std::net::IpAddr;

use lvsmesh_core::plan::ServiceKey;

use super::codec::{self, Attributes, config as layout};
use super::socket::Failure;
use super::{Command, Ipvs, error};
use crate::error::{KernelError, Named};

/// How long an idle connection is remembered, in seconds: at most `INT_MAX / HZ`, which is 2147483 where the kernel ticks 1000 times a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timeouts {
    /// An established TCP connection. The kernel starts with 900.
    pub tcp: u32,
    /// A TCP connection that was closed by one side. The kernel starts with 120.
    pub tcp_fin: u32,
    /// UDP. The kernel starts with 300.
    pub udp: u32,
}

/// `IP_VS_STATE_*`: which half of the synchronisation a daemon does. One of each may run in a network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SyncRole {
    /// 1: tells others of this kernel's connections.
    Master,
    /// 2: takes in what a master tells.
    Backup,
}

impl std::fmt::Display for SyncRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Master => "master",
            Self::Backup => "backup",
        })
    }
}

/// A daemon that synchronises connections.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SyncDaemon {
    /// Which half.
    pub role: SyncRole,
    /// The interface whose multicast it uses; at most 15 bytes.
    pub interface: String,
    /// 0 to 255. A backup takes what comes with its own id, and everything if its own is 0.
    pub sync_id: u32,
    /// Bytes of one message. To start: 0 lets the kernel choose (1472 for a master on IPv4, for a backup by the interface's MTU), and what is
    /// too little or too much it raises or lowers. As listed: what it chose; 0 from kernels before Linux 4.3, which do not say.
    pub max_length: u16,
    /// The multicast group. To start: `None` is 224.0.0.81, and kernels before Linux 4.3 know no other. As listed: `None` only from those.
    pub group: Option<IpAddr>,
    /// UDP port. To start: 0 is 8848. As listed: 0 only from kernels before Linux 4.3.
    pub port: u16,
    /// Hops. To start: 0 is 1. As listed: 0 only from kernels before Linux 4.3.
    pub ttl: u8,
}

impl Ipvs {
    /// Reads the connection timeouts of this network namespace.
    ///
    /// # Errors
    ///
    /// If the request is refused or unanswered. `ENOENT`: the module was unloaded since; open anew.
    pub async fn timeouts(&mut self) -> Result<Timeouts, KernelError> {
        const OPERATION: &str = "read";
        const OBJECT: &str = "IPVS timeouts";

        let request = self.request(Command::GetConfig, Attributes::new());
        let answers = self.socket.ask(&request).await.map_err(|f| error(OPERATION, OBJECT, f))?;
        match answers.first() {
            Some(answer) => {
                layout::decode_timeouts(answer).map_err(|f| error(OPERATION, OBJECT, f.into()))
            }
            None => {
                let detail = Failure::Malformed("it is empty".into());
                Err(error(OPERATION, OBJECT, detail))
            }
        }
    }

    /// Sets the connection timeouts of this network namespace, for connections that change their state from then on. One that is 0 stays as
    /// it is.
    ///
    /// # Errors
    ///
    /// `EINVAL` if one is above `INT_MAX / HZ`; none is changed then.
    pub async fn set_timeouts(&mut self, timeouts: Timeouts) -> Result<(), KernelError> {
        let request = self.request(Command::SetConfig, layout::encode_timeouts(timeouts));
        let answer = self.socket.ask(&request).await;
        answer.map(drop).map_err(|failure| error("set", "IPVS timeouts", failure))
    }

    /// Lists the running daemons of this network namespace, the master first: at most one of each role.
    ///
    /// # Errors
    ///
    /// If the request is refused or unanswered. `ENOENT`: the module was unloaded since; open anew.
    pub async fn daemons(&mut self) -> Result<Vec<SyncDaemon>, KernelError> {
        const OPERATION: &str = "list";
        const OBJECT: &str = "IPVS sync daemons";

        let request = self.request(Command::GetDaemon, Attributes::new());
        let answers = self.socket.list(&request).await.map_err(|f| error(OPERATION, OBJECT, f))?;
        answers
            .iter()
            .map(layout::decode_daemon)
            .collect::<Result<_, _>>()
            .map_err(|malformed| error(OPERATION, OBJECT, malformed.into()))
    }

    /// Starts a daemon. What a running one does cannot be changed: stop it first.
    ///
    /// # Errors
    ///
    /// `EEXIST` if one of that role runs; `ENODEV` without such an interface; `EINVAL` if the group is no multicast address or the interface
    /// has no address to send from, and as long as there is a destination of another family than its service (the protocol cannot carry
    /// those connections); `ERANGE` for a name of more than 15 bytes.
    pub async fn start_daemon(&mut self, daemon: &SyncDaemon) -> Result<(), KernelError> {
        let object = format!("{} sync daemon on {}", daemon.role, daemon.interface);
        let request = self.request(Command::NewDaemon, layout::encode_daemon(daemon));
        let answer = self.socket.ask(&request).await;
        answer.map(drop).map_err(|failure| error("start", &object, failure))
    }

    /// Stops the daemon of that role and waits for its end.
    ///
    /// # Errors
    ///
    /// `ESRCH` if none runs.
    pub async fn stop_daemon(&mut self, role: SyncRole) -> Result<(), KernelError> {
        let object = format!("{role} sync daemon");
        let request = self.request(Command::DelDaemon, layout::encode_role(role));
        let answer = self.socket.ask(&request).await;
        answer.map(drop).map_err(|failure| error("stop", &object, failure))
    }

    /// Sets the counters of a service and its destinations to zero; `None`: those of all services, and the totals. Connections stay.
    ///
    /// # Errors
    ///
    /// `ESRCH` if there is no such service.
    pub async fn zero(&mut self, service: Option<ServiceKey>) -> Result<(), KernelError> {
        let (object, attributes) = match service {
            Some(key) => (format!("counters of {}", Named(key)), codec::encode_service(key, None)),
            None => ("counters of all services".to_owned(), Attributes::new()),
        };
        let request = self.request(Command::Zero, attributes);
        let answer = self.socket.ask(&request).await;
        answer.map(drop).map_err(|failure| error("zero", &object, failure))
    }
}
