//! One command, one file: ask, then present the answer.

mod apply;
mod confirm;
mod export;
mod failover;
mod get;
mod history;
mod import;
mod ipvs;
mod node;
mod snapshot;
mod status;
mod version;
mod vip;

use std::path::PathBuf;

use crate::args::{Args, Command, Import, Ipvs, Node, Snapshot};
use crate::client::Client;
use crate::config;
use crate::failure::Failure;
use crate::output::{Done, Format};

/// Runs the command that the arguments name.
pub(crate) async fn run(args: Args) -> Result<Done, Failure> {
    let Args { connection, output, command } = args;
    // What only reads files asks nobody.
    match &command {
        Command::Import(Import::Keepalived(import)) => return import::keepalived(output, import),
        Command::Import(Import::Ipvsadm { file, options }) => {
            return import::ipvsadm(output, file, options);
        }
        Command::Export(export) if export.source().file.is_some() => {
            return export::from_file(export);
        }
        Command::Snapshot(Snapshot::Inspect { file }) => {
            return snapshot::inspect(output.unwrap_or(Format::Table), file);
        }
        Command::Import(Import::Kernel { .. })
        | Command::Export(_)
        | Command::Snapshot(_)
        | Command::Apply(_)
        | Command::Get(_)
        | Command::Status(_)
        | Command::Ipvs(_)
        | Command::Node(_)
        | Command::Failover(_)
        | Command::Vip(_)
        | Command::History(_)
        | Command::Version => {}
    }
    // What is wrong with a document or a saved table is found without asking anybody.
    let document = match &command {
        Command::Apply(apply) => Some(apply::read(apply)?),
        Command::Get(_)
        | Command::Status(_)
        | Command::Ipvs(_)
        | Command::Node(_)
        | Command::Failover(_)
        | Command::Snapshot(_)
        | Command::Vip(_)
        | Command::Import(_)
        | Command::Export(_)
        | Command::History(_)
        | Command::Version => None,
    };
    let saved = match &command {
        Command::Ipvs(Ipvs::Restore { file, .. }) => ipvs::read(file)?,
        Command::Apply(_)
        | Command::Get(_)
        | Command::Status(_)
        | Command::Ipvs(_)
        | Command::Node(_)
        | Command::Failover(_)
        | Command::Snapshot(_)
        | Command::Vip(_)
        | Command::Import(_)
        | Command::Export(_)
        | Command::History(_)
        | Command::Version => Vec::new(),
    };
    let backup = match &command {
        Command::Snapshot(Snapshot::Restore(restore)) => Some(snapshot::read(&restore.file)?),
        Command::Snapshot(_)
        | Command::Apply(_)
        | Command::Get(_)
        | Command::Status(_)
        | Command::Ipvs(_)
        | Command::Node(_)
        | Command::Failover(_)
        | Command::Vip(_)
        | Command::Import(_)
        | Command::Export(_)
        | Command::History(_)
        | Command::Version => None,
    };
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let config = config::load(&connection, home.as_deref())?;
    let client = Client::new(config, connection.timeout)?;
    let format = output.unwrap_or(Format::Table);
    match command {
        Command::Apply(apply) => {
            apply::run(&client, format, apply, document.unwrap_or_default()).await
        }
        Command::Get(get) => get::run(&client, output, get.revision).await,
        Command::Status(status) if status.watch => status::watch(&client, format).await,
        Command::Status(_) => status::run(&client, format).await,
        Command::Ipvs(command) => ipvs::run(&client, format, command, saved).await,
        Command::Node(Node::List) => node::list(&client, format).await,
        Command::Node(Node::Remove { name, yes }) => node::remove(&client, format, name, yes).await,
        Command::Vip(command) => vip::run(&client, format, command).await,
        Command::Failover(failover) => failover::run(&client, format, failover.to).await,
        Command::Import(Import::Keepalived(import)) => import::keepalived(output, &import),
        Command::Import(Import::Ipvsadm { file, options }) => {
            import::ipvsadm(output, &file, &options)
        }
        Command::Import(Import::Kernel { node, options }) => {
            import::kernel(&client, output, node, &options).await
        }
        Command::Export(export) => export::run(&client, &export).await,
        Command::Snapshot(Snapshot::Save { file, stale }) => {
            snapshot::save(&client, format, &file, stale).await
        }
        Command::Snapshot(Snapshot::Inspect { file }) => snapshot::inspect(format, &file),
        Command::Snapshot(Snapshot::Restore(restore)) => {
            let backup = match backup {
                Some(backup) => backup,
                None => snapshot::read(&restore.file)?,
            };
            snapshot::restore(&client, format, restore, backup).await
        }
        Command::History(history) => history::run(&client, format, history.limit).await,
        Command::Version => version::run(&client, format).await,
    }
}
