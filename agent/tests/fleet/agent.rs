//! Agents as child processes, each with an address and directories of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU8, Ordering};

use lvsmesh_proto::v1::control_client::ControlClient;
use lvsmesh_proto::v1::{StatusRequest, StatusResponse};
use rcgen::string::Ia5String;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixDatagram};
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::PATIENCE;

/// A directory for agents, and the authority that vouches for them.
pub(crate) struct Fleet {
    name: String,
    dir: TempDir,
    authority: Option<Authority>,
    /// Held while its agents run.
    turn: Option<MutexGuard<'static, ()>>,
}

/// One fleet at a time: many agents on few cores wait for each other longer than a lease lasts.
static TURN: Mutex<()> = Mutex::const_new(());

/// Whom a client is, and whom it trusts; PEM.
#[derive(Clone)]
pub(crate) struct Client {
    authority: String,
    certificate: String,
    key: String,
}

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Fleet {
    pub(crate) async fn new(purpose: &str) -> Self {
        let turn = TURN.lock().await;
        let mut fleet = Self::idle(purpose);
        fleet.turn = Some(turn);
        fleet
    }

    pub(crate) async fn with_certificates() -> Self {
        let mut fleet = Self::new("tls").await;
        fleet.authority = Some(Authority::new());
        fleet
    }

    /// Another fleet of the same name, of which nothing runs: whom its authority vouches for.
    pub(crate) fn stranger() -> Client {
        let mut fleet = Self::idle("stranger");
        fleet.authority = Some(Authority::new());
        fleet.operator("ada")
    }

    fn idle(purpose: &str) -> Self {
        let dir = tempfile::Builder::new().prefix(&format!("lm-{purpose}-")).tempdir().unwrap();
        Self { name: "web".to_owned(), dir, authority: None, turn: None }
    }

    /// Starts the fleet with an agent, which then runs.
    pub(crate) async fn first(&self, name: &str, roles: &[&str]) -> Agent {
        let mut agent = self.agent(name, roles);
        agent.succeed(&["init", "--fleet", &self.name]).await;
        agent.run().await;
        agent
    }

    /// An agent that joined by way of another, and runs.
    pub(crate) async fn joined(&self, name: &str, roles: &[&str], by: &Agent) -> Agent {
        let mut agent = self.agent(name, roles);
        agent.join(by).await;
        agent.run().await;
        agent
    }

    /// An agent that is configured, and in no fleet.
    pub(crate) fn agent(&self, name: &str, roles: &[&str]) -> Agent {
        self.machine(name, name, roles)
    }

    /// Another machine with the configuration of a node and a copy of its disk, which must not change meanwhile.
    pub(crate) fn copied(&self, name: &str, roles: &[&str], of: &Agent) -> Agent {
        assert!(of.child.is_none(), "a log that is being written cannot be copied");
        let copy = self.machine(&format!("{name}-copy"), name, roles);
        let data = copy.dir.join("data");
        std::fs::create_dir(&data).unwrap();
        for file in std::fs::read_dir(of.dir.join("data")).unwrap().flatten() {
            std::fs::copy(file.path(), data.join(file.file_name())).unwrap();
        }
        copy
    }

    /// An agent of that name on a machine of its own.
    pub(crate) fn machine(&self, dir: &str, name: &str, roles: &[&str]) -> Agent {
        let dir = self.dir.path().join(dir);
        std::fs::create_dir(&dir).unwrap();
        let address = unused_address();
        let tls = match &self.authority {
            None => String::new(),
            Some(_) => {
                let client = self.issue(&format!("spiffe://{}/node/{name}", self.name));
                let file = |file: &str, text: &str| {
                    let path = dir.join(file);
                    std::fs::write(&path, text).unwrap();
                    path
                };
                let (ca, cert, key) = (
                    file("ca.pem", &client.authority),
                    file("cert.pem", &client.certificate),
                    file("key.pem", &client.key),
                );
                format!("[tls]\nca = {ca:?}\ncert = {cert:?}\nkey = {key:?}\n")
            }
        };
        let config = format!(
            "name = \"{name}\"\nroles = {roles:?}\naddresses = [\"{address}\"]\n\
             data_dir = {:?}\nrun_dir = {:?}\n\
             [listen]\ngrpc = \"{address}:7400\"\nlease = \"{address}:7401\"\nmetrics = \"{address}:7402\"\n\
             [beat]\nprofile = \"wan\"\n{tls}",
            dir.join("data"),
            dir.join("run"),
        );
        std::fs::write(dir.join("agent.toml"), config).unwrap();
        Agent {
            dir,
            address,
            client: self.authority.is_some().then(|| self.operator("test")),
            child: None,
        }
    }

    pub(crate) fn operator(&self, name: &str) -> Client {
        self.issue(&format!("spiffe://{}/operator/{name}", self.name))
    }

    fn issue(&self, uri: &str) -> Client {
        let authority = self.authority.as_ref().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![
            SanType::URI(Ia5String::try_from(uri).unwrap()),
            SanType::DnsName(Ia5String::try_from("lvsmesh").unwrap()),
        ];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &authority.issuer).unwrap().pem();
        Client { authority: authority.pem.clone(), certificate, key: key.serialize_pem() }
    }
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }
}

impl Drop for Fleet {
    /// A test that fails shows what its agents had to say, before the directory goes.
    fn drop(&mut self) {
        drop(self.turn.take());
        if !std::thread::panicking() {
            return;
        }
        for node in std::fs::read_dir(self.dir.path()).into_iter().flatten().flatten() {
            let log = std::fs::read_to_string(node.path().join("log")).unwrap_or_default();
            println!("--- {}\n{log}", node.path().display());
        }
    }
}

impl Client {
    /// Shows its own certificate, but trusts whom the other trusts.
    pub(crate) fn trusting(self, other: &Self) -> Self {
        Self { authority: other.authority.clone(), ..self }
    }
}

/// All of 127/8 is loopback: each agent of each test process gets an address of its own, and needs no free port.
fn unused_address() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    // 127.0.x.x is left to others.
    Ipv4Addr::new(127, high | 0x80, low, NEXT.fetch_add(1, Ordering::Relaxed))
}

/// One agent, running or not.
pub(crate) struct Agent {
    dir: PathBuf,
    address: Ipv4Addr,
    client: Option<Client>,
    child: Option<Child>,
}

impl Agent {
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lvs-agent"));
        command.args(arguments).arg("--config").arg(self.dir.join("agent.toml"));
        command.stdin(Stdio::null()).env_clear().kill_on_drop(true);
        command
    }

    async fn succeed(&self, arguments: &[&str]) {
        let mut command = self.command(arguments);
        if self.client.is_none() {
            command.arg("--insecure");
        }
        let output = timeout(PATIENCE, command.output()).await.unwrap().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {text}");
    }

    pub(crate) async fn join(&self, by: &Self) {
        self.succeed(&["join", &by.address.to_string()]).await;
    }

    /// Starts it, and returns when it says to systemd that it is ready.
    pub(crate) async fn run(&mut self) {
        let path = self.dir.join("notify");
        drop(std::fs::remove_file(&path));
        let socket = UnixDatagram::bind(&path).unwrap();
        let log =
            std::fs::File::options().create(true).append(true).open(self.dir.join("log")).unwrap();
        let mut command = self.command(&["run"]);
        if self.client.is_none() {
            command.arg("--insecure");
        }
        let mut child = command.env("NOTIFY_SOCKET", &path).stderr(log).spawn().unwrap();
        let ready = async {
            let mut buffer = [0; 256];
            let length = socket.recv(&mut buffer).await.unwrap();
            assert_eq!(&buffer[..length], b"READY=1\n");
        };
        tokio::select! {
            answer = timeout(PATIENCE, ready) => answer.expect("not ready in time"),
            status = child.wait() => panic!("{}: {status:?}\n{}", self.dir.display(), self.log()),
        }
        self.child = Some(child);
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.start_kill().unwrap();
        // Reaped before anything else is done: its ports are free then.
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(child.wait()))
            .unwrap();
    }

    /// SIGTERM, and an orderly end.
    pub(crate) async fn stop(&mut self) {
        let mut child = self.child.take().unwrap();
        let id = i32::try_from(child.id().unwrap()).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), nix::sys::signal::SIGTERM).unwrap();
        let status = timeout(PATIENCE, child.wait()).await.unwrap().unwrap();
        assert!(status.success(), "{status}\n{}", self.log());
    }

    /// Writes zeroes over the beginning of its log.
    pub(crate) fn damage_log(&self) {
        let path = self.dir.join("data/raft.redb");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[..512].fill(0);
        std::fs::write(&path, bytes).unwrap();
    }

    pub(crate) fn empty_disk(&self) {
        std::fs::remove_dir_all(self.dir.join("data")).unwrap();
    }

    pub(crate) fn control(&self) -> ControlClient<Channel> {
        control(self, self.client.as_ref())
    }

    /// Watches the status until it is as wanted.
    pub(crate) async fn until(
        &self,
        what: &str,
        wanted: impl Fn(&StatusResponse) -> bool,
    ) -> StatusResponse {
        let mut last = None;
        let watch = async {
            let mut stream = self.control().watch(StatusRequest {}).await.unwrap().into_inner();
            loop {
                let status = stream.message().await.unwrap().expect("the agent stopped");
                if wanted(&status) {
                    return status;
                }
                last = Some(status);
            }
        };
        match timeout(PATIENCE, watch).await {
            Ok(status) => status,
            Err(_) => panic!("{what}: not in time; last seen: {last:#?}\n{}", self.log()),
        }
    }

    /// The metrics page, with its head.
    pub(crate) async fn metrics(&self) -> String {
        let mut stream = TcpStream::connect((self.address, 7402)).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).await.unwrap();
        page
    }
}

/// A channel to an agent, as whoever it may be.
pub(crate) fn channel(agent: &Agent, client: Option<&Client>) -> Channel {
    let address = SocketAddr::from((agent.address, 7400));
    let scheme = if client.is_some() { "https" } else { "http" };
    let endpoint = Endpoint::from_shared(format!("{scheme}://{address}")).unwrap();
    match client {
        None => endpoint,
        Some(client) => {
            let tls = ClientTlsConfig::new()
                .domain_name("lvsmesh")
                .ca_certificate(Certificate::from_pem(&client.authority))
                .identity(Identity::from_pem(&client.certificate, &client.key));
            endpoint.tls_config(tls).unwrap()
        }
    }
    .connect_lazy()
}

/// What operators ask, as whoever it may be.
pub(crate) fn control(agent: &Agent, client: Option<&Client>) -> ControlClient<Channel> {
    ControlClient::new(channel(agent, client))
}
