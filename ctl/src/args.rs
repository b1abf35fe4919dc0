//! Arguments and their help; no behaviour.

mod ipvs;
mod vip;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, Parser, Subcommand};

pub(crate) use ipvs::{Ipvs, Listed, Named, Whose};
pub(crate) use vip::Vip;

use crate::output::Format;

const EXIT_CODES: &str = "\
Exit codes: 0 done or nothing to do, 1 failed, 2 wrong usage, 3 changes pending, 4 not found,
5 conflict (the desired state moved on), 6 no quorum, 8 timed out, 9 denied";

/// Runs a fleet of Linux Virtual Server machines through any one of its agents.
#[derive(Debug, Parser)]
#[command(name = "lvsctl", version, after_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) connection: Connection,

    /// Form of the output.
    #[arg(short, long, global = true, value_name = "FORMAT")]
    pub(crate) output: Option<Format>,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Whom to ask and as whom.
#[derive(Clone, Debug, Default, ClapArgs)]
pub(crate) struct Connection {
    /// An agent to ask; may be given several times, they are tried in turn. Then LVSCTL_ENDPOINTS
    /// (separated by commas), then ~/.config/lvsmesh/config.yaml, then 127.0.0.1:7400.
    #[arg(long, global = true, value_name = "HOST[:PORT]")]
    pub(crate) endpoint: Vec<String>,

    /// The environment's endpoints: an option only so that it shows in the help.
    #[arg(long, hide = true, env = "LVSCTL_ENDPOINTS", value_delimiter = ',', value_name = "LIST")]
    pub(crate) endpoints: Vec<String>,

    #[command(flatten)]
    pub(crate) tls: TlsArgs,

    /// Use no certificates: anybody may answer, and who asks is not verified.
    #[arg(long, global = true, conflicts_with_all = ["ca", "cert", "key"])]
    pub(crate) insecure: bool,

    /// How long the agent may take to answer.
    #[arg(long, global = true, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub(crate) timeout: Duration,
}

/// An operator's certificate.
#[derive(Clone, Debug, Default, ClapArgs)]
pub(crate) struct TlsArgs {
    /// The fleet's certificate authority (PEM).
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,

    /// Your certificate (PEM).
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) cert: Option<PathBuf>,

    /// Its key (PEM).
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Replace the desired state of the fleet with a document.
    Apply(Apply),
    /// Print the desired state, as `apply` takes it.
    Get(Get),
    /// Show what the fleet is and does, on one screen.
    Status(Status),
    /// Look at IPVS, zero its counters, save and restore its table.
    #[command(subcommand)]
    Ipvs(Ipvs),
    /// Look at nodes, and take them out.
    #[command(subcommand)]
    Node(Node),
    /// Move the VIPs to another director.
    Failover(Failover),
    /// Show who answers for the VIPs; take one over from a keepalived beside the fleet, and give it back.
    #[command(subcommand)]
    Vip(Vip),
    /// Turn another program's configuration, or a live IPVS table, into a document for `apply`.
    #[command(subcommand)]
    Import(Import),
    /// Turn the desired state into another program's configuration.
    #[command(subcommand)]
    Export(Export),
    /// Save the fleet's state to a file, look into such a file, restore the desired state from one.
    #[command(subcommand)]
    Snapshot(Snapshot),
    /// List who changed the desired state, when, why and what.
    History(History),
    /// Print the versions of this program and of the agent.
    Version,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Apply {
    /// The document; `-` reads it from standard input.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: PathBuf,

    /// Why, for the history; at most 1000 bytes.
    #[arg(short, long, value_name = "TEXT", default_value = "")]
    pub(crate) message: String,

    /// Refuse if the desired state is at another revision than this one (0: if there is any).
    #[arg(long, value_name = "N")]
    pub(crate) expected_revision: Option<u64>,

    /// Check everything and show what would change, but change nothing; exits with 3 if something would.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Get {
    /// An earlier revision; the last 200 are kept.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub(crate) revision: u64,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Status {
    /// Show it again whenever something changes, until interrupted.
    #[arg(short, long)]
    pub(crate) watch: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Node {
    /// List the nodes of the fleet.
    List,
    /// Take a node out of the fleet for good.
    Remove {
        /// Its name.
        name: String,

        /// Do not ask.
        #[arg(short, long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Snapshot {
    /// Write desired state, revisions and members to a file that only you can read.
    Save {
        /// The file; one that is there is replaced.
        file: PathBuf,

        /// Take what the asked agent has, without asking a majority whether that is the newest.
        #[arg(long)]
        stale: bool,
    },
    /// Check a file and show what is in it; asks no agent.
    Inspect {
        /// The file.
        file: PathBuf,
    },
    /// Apply the desired state that is in a file, after showing what that changes. Members and votes stay as they are.
    Restore(Restore),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Restore {
    /// The file.
    pub(crate) file: PathBuf,

    /// Why, for the history; at most 1000 bytes. Which revision was restored, if not given.
    #[arg(short, long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) message: String,

    /// Do not ask.
    #[arg(short, long)]
    pub(crate) yes: bool,

    /// Show what would change, but change nothing; exits with 3 if something would.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Failover {
    /// The director to move to; the most preferred eligible one if not given.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub(crate) to: String,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct History {
    /// At most this many revisions.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    pub(crate) limit: u32,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Import {
    /// Read keepalived.conf, of any age; the files of several directors of one cluster become one document.
    Keepalived(ImportKeepalived),
    /// Read what `ipvsadm -Sn` prints.
    Ipvsadm {
        /// The rules; `-` reads them from standard input.
        #[arg(value_name = "FILE")]
        file: PathBuf,

        #[command(flatten)]
        options: ImportOptions,
    },
    /// Read a node's live IPVS table.
    Kernel {
        /// Whose.
        #[arg(long, value_name = "NAME")]
        node: String,

        #[command(flatten)]
        options: ImportOptions,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ImportKeepalived {
    /// A director's configuration; `-` reads it from standard input. A director without a name is known by its
    /// router_id, if no other file has the same.
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,

    /// A director's name in the fleet and its configuration; may be given several times.
    #[arg(long, value_name = "NAME=FILE", value_parser = named_file)]
    pub(crate) node: Vec<(String, PathBuf)>,

    /// keepalived's --config-id, which chooses lines that begin with `@`.
    #[arg(long, value_name = "ID")]
    pub(crate) id: Option<String>,

    #[command(flatten)]
    pub(crate) options: ImportOptions,
}

/// What every import needs to be told.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct ImportOptions {
    /// The fleet's name, as given to `lvs-agent init`.
    #[arg(long, value_name = "NAME", default_value = "imported")]
    pub(crate) fleet: String,

    /// The interface on which directors carry addresses that no VRRP instance has. Without it their services are
    /// left out; a table, which has no VRRP instances, needs it.
    #[arg(long, value_name = "NAME")]
    pub(crate) vip_interface: Option<String>,

    /// Virtual router id of the VIP group made of such addresses; the lowest that is free if not given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    pub(crate) vip_vrid: Option<u8>,

    /// Write the report there instead of to standard error: as JSON if the name ends in `.json`.
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,

    /// Exit with 3 if anything that was read is not in the document.
    #[arg(long)]
    pub(crate) strict: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Export {
    /// Print a keepalived.conf for one director.
    Keepalived {
        /// The director, which decides about priority and state; the most preferred one if not given.
        #[arg(long, value_name = "NAME")]
        node: Option<String>,

        #[command(flatten)]
        source: ExportSource,
    },
    /// Print what `ipvsadm -R` takes.
    Ipvsadm {
        #[command(flatten)]
        source: ExportSource,
    },
}

impl Export {
    /// Which document.
    pub(crate) const fn source(&self) -> &ExportSource {
        match self {
            Self::Keepalived { source, .. } | Self::Ipvsadm { source } => source,
        }
    }
}

/// Which document is exported.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct ExportSource {
    /// A document; `-` reads it from standard input. The fleet's desired state if not given.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

impl Command {
    /// The command's words, for the name of its span.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Apply(_) => "apply",
            Self::Get(_) => "get",
            Self::Status(_) => "status",
            Self::Ipvs(ipvs) => ipvs.name(),
            Self::Node(Node::List) => "node list",
            Self::Node(Node::Remove { .. }) => "node remove",
            Self::Failover(_) => "failover",
            Self::Vip(Vip::Status { .. }) => "vip status",
            Self::Vip(Vip::Take { .. }) => "vip take",
            Self::Vip(Vip::Yield { .. }) => "vip yield",
            Self::Import(Import::Keepalived(_)) => "import keepalived",
            Self::Import(Import::Ipvsadm { .. }) => "import ipvsadm",
            Self::Import(Import::Kernel { .. }) => "import kernel",
            Self::Export(Export::Keepalived { .. }) => "export keepalived",
            Self::Export(Export::Ipvsadm { .. }) => "export ipvsadm",
            Self::Snapshot(Snapshot::Save { .. }) => "snapshot save",
            Self::Snapshot(Snapshot::Inspect { .. }) => "snapshot inspect",
            Self::Snapshot(Snapshot::Restore(_)) => "snapshot restore",
            Self::History(_) => "history",
            Self::Version => "version",
        }
    }
}

fn named_file(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, file)) if lvsmesh_core::model::text::is_name(name) && !file.is_empty() => {
            Ok((name.to_owned(), file.into()))
        }
        Some(_) | None => Err(format!(
            "`{text}` is not NAME=FILE with a name of a-z, 0-9 and `-`; write lvs-1=keepalived.conf"
        )),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    lvsmesh_core::model::text::parse_duration(text)
        .filter(|span| !span.is_zero())
        .ok_or_else(|| format!("`{text}` is not a duration; write 10s or 500ms"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definitions_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn options_may_stand_before_or_after_the_command() {
        let before = [
            "lvsctl",
            "--endpoint",
            "a",
            "--endpoint",
            "b:1",
            "--insecure",
            "-o",
            "json",
            "status",
        ];
        let after = [
            "lvsctl",
            "status",
            "--endpoint",
            "a",
            "--endpoint",
            "b:1",
            "--insecure",
            "-o",
            "json",
        ];
        for line in [before, after] {
            let args = Args::try_parse_from(line).unwrap();
            assert_eq!(args.connection.endpoint, ["a", "b:1"]);
            assert!(args.connection.insecure);
            assert_eq!(args.output, Some(Format::Json));
        }
    }

    #[test]
    fn durations_are_checked() {
        let parse = |text: &str| Args::try_parse_from(["lvsctl", "--timeout", text, "version"]);
        assert_eq!(parse("500ms").unwrap().connection.timeout, Duration::from_millis(500));
        for wrong in ["5", "0s", "soon"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
