//! One command, one file: ask, then present the answer.

mod apply;
mod failover;
mod get;
mod history;
mod ipvs;
mod node;
mod status;
mod version;

use std::path::PathBuf;

use crate::args::{Args, Command, Ipvs, Node};
use crate::client::Client;
use crate::config;
use crate::failure::Failure;
use crate::output::{Done, Format};

/// Runs the command that the arguments name.
pub(crate) async fn run(args: Args) -> Result<Done, Failure> {
    let Args { connection, output, command } = args;
    // What is wrong with a document or a saved table is found without asking anybody.
    let document = match &command {
        Command::Apply(apply) => Some(apply::read(apply)?),
        Command::Get(_)
        | Command::Status(_)
        | Command::Ipvs(_)
        | Command::Node(_)
        | Command::Failover(_)
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
        | Command::History(_)
        | Command::Version => Vec::new(),
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
        Command::Failover(failover) => failover::run(&client, format, failover.to).await,
        Command::History(history) => history::run(&client, format, history.limit).await,
        Command::Version => version::run(&client, format).await,
    }
}
