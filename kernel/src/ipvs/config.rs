//! What belongs to IPVS as a whole and not to a service: connection timeouts, the daemons that synchronise connections between directors,
//! and the counters' zero.

use lvsmesh_core::plan::globals::Timeouts;
use lvsmesh_core::plan::{ServiceKey, SyncDaemon, SyncRole};

use super::codec::{self, Attributes, config as layout};
use super::socket::Failure;
use super::{Command, Ipvs, error};
use crate::error::{KernelError, Named};

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
    /// `EEXIST` if one of that role runs; `ENODEV` without such an interface; `EINVAL` if the group is no multicast address, for an interface's
    /// name of more than 15 bytes, and as long as there is a destination of another family than its service (the protocol cannot carry those
    /// connections).
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
