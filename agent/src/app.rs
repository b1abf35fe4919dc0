//! Builds the parts, joins them, and takes them down in reverse.
//!
//! *In*: `agent.toml` and the data directory. *Out*: a running agent, until SIGTERM or SIGINT. Starting and stopping change nothing in the
//! kernel, except what a lease that is given up takes with it.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use lvsmesh_core::model::{Member, Role};
use lvsmesh_kernel::ipvs::Ipvs;
use lvsmesh_kernel::{KernelError, Linux};
use nix::sys::statfs::{FsType, TMPFS_MAGIC, statfs};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout};

use crate::api::context::Context;
use crate::api::status::chain;
use crate::api::{Api, ServerError};
use crate::belonging::{self, Belonging};
use crate::bootstrap::{self, BootstrapError};
use crate::config::Config;
use crate::failback::{self, FailbackHandle};
use crate::guard::{self, Guard};
use crate::identity::{Identity, IdentityError};
use crate::lease::{self, Demotion, LeaseStartError, LeaseThreadConfig, Order};
use crate::links::Links;
use crate::owned::{OwnedError, OwnerRecord};
use crate::raft::transport::{Origin, Transport};
use crate::raft::{self, Applied, RaftConfig, RaftError};
use crate::reconcile::{self, NodeReport, Reconciler};
use crate::roster::Roster;
use crate::seen::{self, Seen};
use crate::telemetry::Telemetry;
use crate::telemetry::metrics::{self, Sources};
use crate::telemetry::page::{Page, PageError};
use crate::tls::{Connector, Credentials};
use crate::writes::{Pace, Writes};
use crate::{discovery, duties, handover, health, report, standing};

/// A guard of an earlier agent has this long to finish.
const OLD_GUARD: Duration = Duration::from_secs(5);
/// A leader that stops has this long to hand over.
const HANDOVER: Duration = Duration::from_secs(4);
/// What was asked to stop has this long, before it is left to the end of the process.
const STOP: Duration = Duration::from_secs(3);

/// Why the agent does not run, or does not run any longer.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// Who this node is.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Its certificates.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// What is replicated.
    #[error(transparent)]
    Raft(#[from] RaftError),
    /// The lease.
    #[error(transparent)]
    Lease(#[from] LeaseStartError),
    /// The gRPC server.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// Prometheus' page.
    #[error(transparent)]
    Page(#[from] PageError),
    /// The way to the kernel.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The record of what is ours.
    #[error(transparent)]
    Owned(#[from] OwnedError),
    /// Something of the system.
    #[error("cannot {doing}")]
    System {
        /// What.
        doing: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A part ended that should not.
    #[error("{part} ended unexpectedly")]
    Ended {
        /// Which.
        part: &'static str,
    },
}

impl AppError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Identity(error) => error.hint(),
            Self::Bootstrap(error) => error.hint(),
            Self::Raft(error) => error.hint(),
            Self::Kernel(error) => error.hint(),
            Self::Owned(error) => Some(error.hint()),
            Self::Server(_) | Self::Page(_) | Self::Lease(_) => {
                Some("does another agent run on this machine? Each needs addresses and directories of its own".to_owned())
            }
            Self::System { .. } | Self::Ended { .. } => None,
        }
    }
}

/// Runs the agent until it is asked to stop.
///
/// # Errors
///
/// If it cannot start, or a part of it failed without which the rest would do harm.
pub async fn run(config: Config, insecure: bool, telemetry: &Telemetry) -> Result<(), AppError> {
    let identity = Identity::load(&config.data_dir, &config.name)?;
    let credentials = bootstrap::credentials(&config, insecure)?;
    if let Some(credentials) = &credentials {
        credentials.check_fleet(&identity.fleet).map_err(BootstrapError::from)?;
    }
    let mut signals = Signals::register()?;
    let parts = Parts::start(&config, Arc::new(identity), credentials, telemetry).await?;
    let context = parts.context.clone();
    tracing::info!(
        node = config.name,
        fleet = context.identity.fleet,
        id = %context.identity.id,
        grpc = %config.listen.grpc,
        revision = context.raft.state.borrow().state.revision(),
        "ready"
    );
    notify(&[NotifyState::Ready]);
    parts.run_until(signals.stop()).await
}

/// A task that ended: its name, and how.
type Ended = (&'static str, Result<(), AppError>);

/// Everything that runs.
struct Parts {
    context: Context,
    shutdown: watch::Sender<bool>,
    /// Tasks that end when `shutdown` turns true; none of them ends before.
    tasks: JoinSet<Ended>,
    raft: JoinHandle<Result<(), RaftError>>,
    lease: JoinHandle<()>,
    guard: Option<Guard>,
}

impl Parts {
    async fn start(
        config: &Config,
        identity: Arc<Identity>,
        credentials: Option<Credentials>,
        telemetry: &Telemetry,
    ) -> Result<Self, AppError> {
        // What another program may have is taken first: nothing has to be undone then.
        let api = Api::bind(config.listen.grpc).await?;
        let page = Page::bind(config.listen.metrics).await?;
        let kernel = Linux::open()?;
        if config.roles.contains(&Role::Director) {
            warn_without_ipvs().await;
        }
        make_run_dir(&config.run_dir)?;
        let seen = Seen::open(&config.run_dir, &identity.fleet, identity.id)
            .map_err(system("open the record of what was applied"))?;
        let guard = start_guard(config).await?;

        let connector =
            credentials.as_ref().map_or_else(Connector::insecure, Credentials::connector);
        let (inputs, receiver) = lease::queue().map_err(system("make the lease thread's queue"))?;
        let incarnation = draw_incarnation()?;
        let origin = Origin {
            own: identity.id,
            fleet: identity.fleet.clone(),
            incarnation,
            epoch: identity.epoch,
        };
        let (outbox, transport) = raft::transport::transport(origin, connector.clone());
        let log = bootstrap::log_path(&config.data_dir);
        let (raft, raft_thread) =
            raft::spawn(&RaftConfig { log, priority: 0 }, inputs.clone(), outbox)?;
        let links = Links::new(connector);
        let pace = Pace::from(&config.beat.timing);
        let belonging = Belonging::new(raft.clone());
        // Before the lease thread, without which nobody campaigns.
        let state = raft.state.borrow().state.clone();
        let place = config.advertise.grpc;
        let copy = belonging::precheck(&links, &identity, incarnation, &state, place, pace.answer);
        if let Some(outcast) = copy.await {
            belonging.cast_out(&outcast);
        }
        let member = state.member(identity.id).cloned();
        let lease_config = LeaseThreadConfig {
            own: identity.id,
            fleet: identity.fleet.clone(),
            term: raft.status.borrow().term,
            listen: config.listen.lease,
            key: identity.lease_key.clone(),
            timing: config.beat.timing,
            run_dir: config.run_dir.clone(),
            voted_before: raft.voted_before,
            realtime: config.beat.realtime,
            gate: config.beat.gate,
            guard: guard.clone(),
            inputs,
        };
        let demotion = Demotion::register().map_err(system("listen for signals"))?;
        let (lease, lease_thread) = lease::spawn(lease_config, receiver, raft.clone())?;

        let (shutdown, stop) = watch::channel(false);
        let (report, report_seen) = watch::channel(NodeReport::default());
        let context = Context {
            writes: Writes::new(raft.clone(), links.clone(), pace, belonging.clone()),
            incarnation,
            roster: Roster::default(),
            belonging,
            failback: FailbackHandle::default(),
            pace,
            identity,
            raft,
            lease,
            report: report_seen,
            links,
            owned: OwnerRecord::below(&config.data_dir),
            differences: differences(config, member.as_ref()),
            shutdown: stop,
        };
        let mut tasks = JoinSet::new();
        let priority = demotion.run(
            context.lease.favoured.clone(),
            Arc::clone(&context.lease.counters),
            shutdown.subscribe(),
        );
        Spawner(&mut tasks).part("the lease thread's priority", priority);
        let sources = Sources {
            raft: context.raft.clone(),
            lease: context.lease.clone(),
            report: context.report.clone(),
            belonging: context.belonging.clone(),
            node: config.name.clone(),
        };
        if let Some(meter) = telemetry.meter() {
            metrics::export(&meter, &sources);
        }
        let mut parts =
            Self { context, shutdown, tasks, raft: raft_thread, lease: lease_thread, guard };
        parts.start_tasks(api, page, sources, credentials, transport, kernel, report, seen);
        Ok(parts)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "each is one part, made by the caller, that becomes a task"
    )]
    fn start_tasks(
        &mut self,
        api: Api,
        page: Page,
        sources: Sources,
        credentials: Option<Credentials>,
        transport: Transport,
        kernel: Linux,
        report: watch::Sender<NodeReport>,
        seen: Seen,
    ) {
        let context = self.context.clone();
        let stop = || self.shutdown.subscribe();
        let (links, links_seen) = watch::channel(reconcile::Links::default());
        let (news, news_seen) = mpsc::channel(reconcile::NEWS);
        let (onward, handed_on) = watch::channel(Applied::default());
        let reconciler = Reconciler {
            own: context.identity.id,
            kernel,
            record: context.owned.clone(),
            applied: handed_on,
            links: links_seen,
            news: news_seen,
            lease: context.lease.clone(),
            guard: self.guard.clone(),
            report,
        };
        let raft = context.raft.clone();
        let mut spawn = Spawner(&mut self.tasks);
        spawn.part("the transport", transport.run(raft.clone(), stop()));
        let older = seen::run(seen, raft.state.clone(), onward, stop());
        spawn.part("the memory of what was applied", older);
        spawn.part("the kernel's news", reconcile::monitor(links, news, stop()));
        spawn.fallible("the reconciler", reconcile::run(reconciler, stop()));
        let standing = standing::run(
            context.identity.id,
            raft.clone(),
            context.report.clone(),
            context.lease.clone(),
            stop(),
        );
        spawn.part("the standing", standing);
        spawn.part("the probes", health::run(raft.clone(), stop()));
        spawn.part("the discovery", discovery::run(raft, stop()));
        spawn.part("the membership duty", duties::run(context.clone(), stop()));
        spawn.part("the question whether this is a node", belonging::run(context.clone(), stop()));
        spawn.part("the report", report::run(context.clone(), stop()));
        spawn.part("the failback", failback::run(context.clone(), stop()));
        spawn.part("the metrics page", page.serve(sources, stop()));
        let turns = Arc::clone(&context.lease.counters);
        spawn.part("the watchdog", watchdog(move || turns.turns.get(), stop()));
        if let Some(guard) = self.guard.clone() {
            spawn.part("the guard's keeper", tend(guard, stop()));
        }
        let api = async move { api.serve(context, credentials.as_ref()).await };
        spawn.fallible("the gRPC server", api);
    }

    /// Waits for `asked`, or for a part to fail, and takes everything down in reverse.
    async fn run_until(
        mut self,
        asked: impl Future<Output = &'static str>,
    ) -> Result<(), AppError> {
        let mut threads = tokio::time::interval(Duration::from_millis(500));
        tokio::pin!(asked);
        let outcome = loop {
            tokio::select! {
                biased;
                signal = &mut asked => {
                    tracing::info!(signal, "stopping");
                    break Ok(());
                }
                ended = self.tasks.join_next() => break Err(why_ended(ended)),
                _ = threads.tick() => {
                    if self.raft.is_finished() || self.lease.is_finished() {
                        let part = if self.lease.is_finished() { "the lease thread" } else { "the raft thread" };
                        break Err(AppError::Ended { part });
                    }
                }
            }
        };
        notify(&[NotifyState::Stopping]);
        let thread = self.stop().await;
        // The raft thread's own words say more than that it ended.
        match outcome {
            Err(AppError::Ended { .. }) => thread.and(outcome),
            outcome => outcome.and(thread),
        }
    }

    /// The lease first, while those who take it over can still be talked to; what it needs to let go properly last.
    async fn stop(mut self) -> Result<(), AppError> {
        handover::before_stop(&self.context, Instant::now() + HANDOVER).await;
        self.context.lease.inputs.order(Order::Stop);
        let let_go = join("the lease thread", self.lease).await.is_some();
        self.shutdown.send_replace(true);
        let drained = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(STOP, drained).await.is_err() {
            tracing::warn!("not every task ended in time");
            self.tasks.shutdown().await;
        }
        self.context.raft.shutdown();
        let outcome = join("the raft thread", self.raft).await;
        // Without that word it finds the agent dead, and removes what the thread may have left.
        if let Some(guard) = self.guard.filter(|_| let_go) {
            // It waits for the process to exit.
            drop(tokio::task::spawn_blocking(move || guard.done()).await);
        }
        outcome.unwrap_or(Ok(())).map_err(AppError::from)
    }
}

/// Starts tasks that answer with their name.
struct Spawner<'a>(&'a mut JoinSet<Ended>);

impl Spawner<'_> {
    fn part(&mut self, name: &'static str, part: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(async move {
            part.await;
            (name, Ok(()))
        });
    }

    fn fallible<E: Into<AppError>>(
        &mut self,
        name: &'static str,
        part: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        self.0.spawn(async move { (name, part.await.map_err(Into::into)) });
    }
}

fn why_ended(ended: Option<Result<Ended, JoinError>>) -> AppError {
    match ended {
        Some(Ok((_, Err(error)))) => error,
        Some(Ok((part, Ok(())))) => AppError::Ended { part },
        Some(Err(error)) => AppError::System {
            doing: "go on after a panic".to_owned(),
            source: io::Error::other(error),
        },
        None => AppError::Ended { part: "everything" },
    }
}

/// Waits for a thread, without blocking the runtime that others still need; `None` if it does not end in time or panicked.
async fn join<T: Send + 'static>(part: &'static str, thread: JoinHandle<T>) -> Option<T> {
    let joined = timeout(STOP, tokio::task::spawn_blocking(move || thread.join())).await;
    match joined {
        Ok(Ok(Ok(value))) => Some(value),
        Ok(Ok(Err(_)) | Err(_)) => {
            tracing::error!(part, "it panicked");
            None
        }
        Err(_) => {
            tracing::warn!(part, "it did not end in time");
            None
        }
    }
}

/// The guard of an earlier agent on this machine may still be cleaning up after it; two at once would undo each other's work.
async fn start_guard(config: &Config) -> Result<Option<Guard>, AppError> {
    if !config.roles.contains(&Role::Director) {
        return Ok(None);
    }
    let run_dir = config.run_dir.clone();
    let old = run_dir.clone();
    let waited = tokio::task::spawn_blocking(move || guard::wait_for_old(&old, OLD_GUARD)).await;
    waited
        .unwrap_or_else(|error| Err(io::Error::other(error)))
        .map_err(system("wait for the guard of an earlier agent"))?;
    let program = std::env::current_exe().map_err(system("find this program's file"))?;
    let guard = Guard::start(program, run_dir).map_err(system("start the guard"))?;
    Ok(Some(guard))
}

/// Replaces a guard that died.
async fn tend(guard: Guard, mut shutdown: watch::Receiver<bool>) {
    let mut interval = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            biased;
            _ = shutdown.wait_for(|stop| *stop) => return,
            _ = interval.tick() => {
                if let Err(error) = guard.tend() {
                    tracing::error!(%error, "there is no guard: nothing cleans up if this agent dies");
                }
            }
        }
    }
}

/// Tells systemd that runtime and lease thread still turn, if it wants to know. `turns`: of the lease thread, which makes one a second at least.
async fn watchdog(turns: impl Fn() -> u64, mut shutdown: watch::Receiver<bool>) {
    let Some(patience) = sd_notify::watchdog_enabled() else {
        // An error says that nobody can ask us to stop any more, which asks us to stop.
        drop(shutdown.wait_for(|stop| *stop).await);
        return;
    };
    let mut interval = tokio::time::interval(patience / 2);
    let mut progress = Progress::default();
    loop {
        tokio::select! {
            biased;
            _ = shutdown.wait_for(|stop| *stop) => return,
            _ = interval.tick() => if progress.since_last(turns()) {
                notify(&[NotifyState::Watchdog]);
            } else {
                tracing::error!("the lease thread stands still; the watchdog is not told otherwise");
            },
        }
    }
}

/// Whether a count goes on.
#[derive(Debug, Default)]
struct Progress(Option<u64>);

impl Progress {
    fn since_last(&mut self, count: u64) -> bool {
        self.0.replace(count) != Some(count)
    }
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd cannot be told");
    }
}

/// A director whose kernel has no IPVS runs all the same: it votes, it may hold VIPs while there is no service, and a module may be loaded later.
async fn warn_without_ipvs() {
    if let Err(error) = Ipvs::open().await {
        let hint = error.hint().unwrap_or_default();
        tracing::warn!(error = chain(&error), hint, "this director cannot forward");
    }
}

/// A number that tells this run of the agent from every other.
fn draw_incarnation() -> Result<u64, AppError> {
    let drawn = getrandom::u64().map_err(|error| system("draw a random number")(error.into()))?;
    // 0 stands for "does not say".
    Ok(drawn.max(1))
}

fn make_run_dir(run_dir: &Path) -> Result<(), AppError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(run_dir)
        .map_err(system(format!("make run_dir {}", run_dir.display())))?;
    if !is_in_memory(run_dir) {
        tracing::warn!(
            run_dir = %run_dir.display(),
            "run_dir is not on a tmpfs: the lease thread writes there at every renewal, and a disk that is busy can cost it the lease; use a directory below /run"
        );
    }
    Ok(())
}

/// Whether what is written there waits for no disk. `true`, too, if that is not to be found out.
fn is_in_memory(directory: &Path) -> bool {
    /// Linux, `include/uapi/linux/magic.h`.
    const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);
    statfs(directory).map_or(true, |fs| [TMPFS_MAGIC, RAMFS_MAGIC].contains(&fs.filesystem_type()))
}

/// What was changed in `agent.toml` since the node was admitted has no effect until it joins again, and is easy to overlook.
fn differences(config: &Config, member: Option<&Member>) -> Arc<[String]> {
    let lines = member.map(|member| bootstrap::differences(config, member)).unwrap_or_default();
    for difference in &lines {
        tracing::warn!(difference, "agent.toml and the fleet disagree");
    }
    lines.into()
}

fn system(doing: impl Into<String>) -> impl FnOnce(io::Error) -> AppError {
    let doing = doing.into();
    move |source| AppError::System { doing, source }
}

/// What asks the agent to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn register() -> Result<Self, AppError> {
        let register = |kind| signal(kind).map_err(system("listen for signals"));
        Ok(Self {
            terminate: register(SignalKind::terminate())?,
            interrupt: register(SignalKind::interrupt())?,
        })
    }

    async fn stop(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_count_that_goes_on_is_progress() {
        let mut progress = Progress::default();
        assert!(progress.since_last(0), "nothing to compare with yet");
        assert!(!progress.since_last(0));
        assert!(progress.since_last(1));
        assert!(!progress.since_last(1));
    }

    #[test]
    fn a_run_directory_on_no_tmpfs_is_noticed() {
        assert!(is_in_memory(Path::new("/dev/shm")));
        assert!(!is_in_memory(Path::new("/proc")));
        assert!(is_in_memory(Path::new("/nowhere")), "nothing is said of what cannot be looked at");
    }
}
