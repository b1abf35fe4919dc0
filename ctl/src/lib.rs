//! The operator's tool: a command becomes one call to an agent, and the answer becomes text.
//!
//! ```text
//!   args, config ─▶ command/* ─▶ client ══ gRPC ══ any agent
//!        manifest ──▲     │           interchange ◀─ other programs' files
//!                         └─▶ render ─▶ output ─▶ stdout        failure ─▶ stderr, exit code
//! ```
//!
//! Data goes to standard output, everything else to standard error. What a table looks like may change; `-o json` is a promise: its names
//! are those of the `.proto` files.

mod args;
mod client;
mod command;
mod config;
mod failure;
mod interchange;
mod ipvsadm;
mod manifest;
mod output;
mod render;
mod telemetry;
mod tls;
mod tree;

use std::process::ExitCode;

use clap::Parser as _;
use tracing::Instrument as _;

use crate::args::Args;
use crate::failure::{Exit, Failure};
use crate::output::Done;

/// Runs the command that the arguments name.
#[must_use]
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help goes to stdout, complaints to stderr; a reader that has left has seen enough.
            drop(error.print());
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(run(args)),
        Err(error) => Err(Failure::new(Exit::Failed, format!("cannot start: {error}"))),
    };
    ExitCode::from(finish(result))
}

async fn run(args: Args) -> Result<Done, Failure> {
    let telemetry = telemetry::start()?;
    let name = args.command.name();
    let span =
        tracing::info_span!("lvsctl", otel.name = format!("lvsctl {name}"), otel.kind = "client");
    telemetry.adopt(&span);
    let result = async {
        let result = command::run(args).await;
        if let Err(failure) = &result {
            tracing::error!(exit = failure.exit.code(), "{}", failure.message);
        }
        result
    }
    .instrument(span)
    .await;
    telemetry.shut_down().await;
    result
}

/// Prints the answer or the failure, and gives the exit code.
fn finish(result: Result<Done, Failure>) -> u8 {
    let (text, complaint, exit) = match result {
        Ok(Done { text, complaint, exit }) => (text, complaint, exit),
        Err(failure) => (String::new(), failure.render(), failure.exit),
    };
    let printed = print(&mut std::io::stdout().lock(), &text);
    // Nobody is left to tell if this fails.
    drop(print(&mut std::io::stderr().lock(), &complaint));
    match printed {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            let failure = Failure::new(Exit::Failed, format!("cannot write to stdout: {error}"));
            drop(print(&mut std::io::stderr().lock(), &failure.render()));
            failure.exit.code()
        }
        // `lvsctl status | head -1` has done what it was asked to.
        Ok(()) | Err(_) => exit.code(),
    }
}

fn print(to: &mut impl std::io::Write, text: &str) -> std::io::Result<()> {
    to.write_all(text.as_bytes())?;
    to.flush()
}
