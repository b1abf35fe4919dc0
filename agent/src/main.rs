//! `lvs-agent`: the daemon of one machine, and the commands that put the machine into a fleet and take it out.

use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use lvsmesh_agent::api::status::chain;
use lvsmesh_agent::config::{self, Config};
use lvsmesh_agent::telemetry::Telemetry;
use lvsmesh_agent::{app, bootstrap, guard, recover};

/// The agent of an lvsmesh fleet: one runs on every director and realserver.
#[derive(Parser)]
#[command(name = "lvs-agent", version, arg_required_else_help = true)]
struct Arguments {
    /// Print a commented agent.toml with every key and its default.
    #[arg(long)]
    print_default_config: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Start a fleet with this machine as its first node, and exit.
    Init {
        /// The fleet's name: 1 to 63 characters of [a-z0-9-].
        #[arg(long, value_name = "NAME")]
        fleet: String,
        #[command(flatten)]
        common: Common,
    },
    /// Join the fleet of the agent at an address, and exit.
    Join {
        /// HOST or HOST:PORT of any agent of the fleet.
        address: String,
        #[command(flatten)]
        common: Common,
    },
    /// Run the agent until SIGTERM.
    Run {
        #[command(flatten)]
        common: Common,
    },
    /// Take everything that lvsmesh put into this machine's kernel out again, forget the fleet, and exit. To be run after `lvsctl node remove`.
    Leave {
        #[command(flatten)]
        common: Common,
    },
    /// Look at, or go on from, the disk of a node whose fleet has lost its majority; its agent must not run. See docs/disasters.md.
    #[command(subcommand)]
    Recover(Recover),
    /// Clean up after an agent that died; started by the agent itself.
    #[command(hide = true)]
    Guard {
        /// `run_dir` of the agent.
        run_dir: PathBuf,
    },
}

#[derive(Subcommand)]
enum Recover {
    /// Show what this node's disk has: the survivor with the newest log has the most.
    Inspect {
        #[command(flatten)]
        common: Common,
    },
    /// Make this node the only one of its fleet, in a new epoch. All other nodes must be wiped and join again. Nothing takes this back.
    ForceNewFleet {
        /// The fleet's name, to show that it is meant.
        #[arg(long, value_name = "NAME")]
        fleet: String,
        /// This node's name, to show that it is meant.
        #[arg(long, value_name = "NODE")]
        survivor: String,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Args)]
struct Common {
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = config::PATH)]
    config: PathBuf,
    /// Run without certificates: anybody who reaches the port rules the fleet.
    #[arg(long)]
    insecure: bool,
}

/// What failed, and what to do about it.
struct Failure {
    error: String,
    hint: Option<String>,
}

fn failure<E: Error>(hint: impl FnOnce(&E) -> Option<String>) -> impl FnOnce(E) -> Failure {
    move |error| Failure { error: chain(&error), hint: hint(&error) }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.print_default_config {
        // Whoever closes the pipe has read enough.
        drop(io::stdout().write_all(config::DEFAULT.as_bytes()));
        return ExitCode::SUCCESS;
    }
    let outcome = match arguments.command {
        None => Ok(()),
        Some(Command::Guard { run_dir }) => {
            // The guard blocks signals before any thread is started, so it has neither runtime nor exporter.
            guard_log();
            guard::main(&run_dir).map_err(failure(|_| None))
        }
        Some(command) => in_runtime(command),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { error, hint }) => {
            let mut text = format!("error: {error}\n");
            if let Some(hint) = hint {
                text.push_str(&format!("\nhint: {hint}\n"));
            }
            drop(io::stderr().write_all(text.as_bytes()));
            ExitCode::FAILURE
        }
    }
}

fn in_runtime(command: Command) -> Result<(), Failure> {
    let (Command::Init { common, .. }
    | Command::Join { common, .. }
    | Command::Run { common }
    | Command::Recover(Recover::Inspect { common } | Recover::ForceNewFleet { common, .. })
    | Command::Leave { common }) = &command
    else {
        return Ok(());
    };
    let config = Config::load(&common.config).map_err(failure(config::ConfigError::hint))?;
    let insecure = common.insecure;
    // Fails only if there is one already.
    drop(rustls::crypto::ring::default_provider().install_default());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(failure(|_: &io::Error| None))?;
    runtime.block_on(async {
        let telemetry =
            Telemetry::start(&config.telemetry, &config.name).map_err(failure(|_| None))?;
        let outcome = execute(command, config, insecure, &telemetry).await;
        telemetry.shut_down().await;
        outcome
    })
}

async fn execute(
    command: Command,
    config: Config,
    insecure: bool,
    telemetry: &Telemetry,
) -> Result<(), Failure> {
    let data_dir = config.data_dir.display().to_string();
    match command {
        Command::Init { fleet, .. } => {
            let identity = bootstrap::init(&config, &fleet, insecure)
                .map_err(failure(bootstrap::BootstrapError::hint))?;
            tracing::info!(fleet, node = identity.name, id = %identity.id, data_dir, "fleet started; `lvs-agent run` runs it");
        }
        Command::Join { address, .. } => {
            let identity = bootstrap::join(&config, &address, insecure)
                .await
                .map_err(failure(bootstrap::BootstrapError::hint))?;
            tracing::info!(fleet = identity.fleet, node = identity.name, id = %identity.id, data_dir, "joined; `lvs-agent run` runs it");
        }
        Command::Run { .. } => {
            app::run(config, insecure, telemetry).await.map_err(failure(app::AppError::hint))?;
        }
        Command::Leave { .. } => {
            bootstrap::leave(&config).await.map_err(failure(bootstrap::BootstrapError::hint))?;
            tracing::info!("left: nothing of lvsmesh is in this machine's kernel any more");
        }
        Command::Recover(Recover::Inspect { .. }) => {
            let findings =
                recover::inspect(&config).map_err(failure(recover::RecoverError::hint))?;
            // Whoever closes the pipe has read enough.
            drop(io::stdout().write_all(findings.to_string().as_bytes()));
        }
        Command::Recover(Recover::ForceNewFleet { fleet, survivor, .. }) => {
            let forced = recover::force_new_fleet(&config, &fleet, &survivor)
                .await
                .map_err(failure(recover::RecoverError::hint))?;
            let left_behind = forced.left_behind.join(", ");
            tracing::warn!(
                fleet,
                epoch = forced.epoch,
                revision = forced.revision,
                unconfirmed = forced.unconfirmed,
                left_behind,
                "this node is the fleet now; start its agent, then wipe the others and let them join"
            );
        }
        Command::Guard { .. } => {}
    }
    Ok(())
}

/// What the guard has to say goes where the agent's log goes.
fn guard_log() {
    // The only subscriber of this process.
    drop(
        tracing_subscriber::fmt()
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal())
            .try_init(),
    );
}
