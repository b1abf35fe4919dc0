//! Arguments of `lvsctl ipvs`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

const MERGED: &str = "\
With --all, one table stands for all directors: a service or real server that any of them has is
listed once, with the settings of the first director by name that has it (a difference is told on
stderr), with the sum of their connections, counters and rates, and of the sizes of their connection
tables. JSON and YAML have each director's own table in `nodes` beside the merged one.";

const RESTORED: &str = "\
FILE has the lines of `lvsctl ipvs save` or `ipvsadm -Sn`, one service (-A) or real server (-a) a
line; blank lines and lines that begin with # are passed over.

What the file has and the node's kernel lacks is added. What is there already stays as it is, also
with other settings, and nothing is removed. Services that lvsmesh made, or would make by the desired
state, are left alone: change those with `lvsctl apply`. What was added is foreign to lvsmesh: it is
kept by nobody, and gone after a restart of the machine.

Exits with 1 if anything of the file is not in the kernel as it says.";

/// Whose IPVS.
#[derive(Clone, Debug, Default, ClapArgs)]
pub(crate) struct Whose {
    /// That node's; the holder's if not given.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub(crate) node: String,

    /// Those of all directors.
    #[arg(long, conflicts_with = "node")]
    pub(crate) all: bool,
}

/// Columns of a listing.
#[derive(Clone, Copy, Debug, Default, ClapArgs)]
pub(crate) struct Listed {
    /// Show connection thresholds, as `ipvsadm -Ln --thresholds`.
    #[arg(long)]
    pub(crate) thresholds: bool,

    /// Show persistence templates, as `ipvsadm -Ln --persistent-conn`.
    #[arg(long, conflicts_with = "thresholds")]
    pub(crate) persistent_conn: bool,

    /// Show kinds of tunnels, as `ipvsadm -Ln --tun-info`.
    #[arg(long, conflicts_with_all = ["thresholds", "persistent_conn"])]
    pub(crate) tun_info: bool,
}

/// A service, named as ipvsadm names it; none means all.
#[derive(Clone, Debug, Default, ClapArgs)]
#[group(multiple = false)]
pub(crate) struct Named {
    /// A TCP service.
    #[arg(short, long, value_name = "ADDRESS:PORT")]
    pub(crate) tcp_service: Option<String>,

    /// A UDP service.
    #[arg(short, long, value_name = "ADDRESS:PORT")]
    pub(crate) udp_service: Option<String>,

    /// An SCTP service.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) sctp_service: Option<String>,

    /// The service of a firewall mark.
    #[arg(short, long, value_name = "MARK")]
    pub(crate) fwmark_service: Option<String>,

    /// The IPv6 service of a firewall mark.
    #[arg(short = '6', long, value_name = "MARK")]
    pub(crate) fwmark_service_6: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Ipvs {
    /// Print the IPVS table as `ipvsadm -Ln` does.
    #[command(after_help = MERGED)]
    List {
        #[command(flatten)]
        whose: Whose,

        #[command(flatten)]
        columns: Listed,
    },
    /// Print what was counted as `ipvsadm -Ln --stats` does.
    #[command(after_help = MERGED)]
    Stats {
        #[command(flatten)]
        whose: Whose,

        /// Every digit, not thousands (K), millions (M) and so on.
        #[arg(long)]
        exact: bool,
    },
    /// Print what is counted in a second as `ipvsadm -Ln --rate` does.
    #[command(after_help = MERGED)]
    Rate {
        #[command(flatten)]
        whose: Whose,

        /// Every digit, not thousands (K), millions (M) and so on.
        #[arg(long)]
        exact: bool,
    },
    /// Print the connections as `ipvsadm -Lnc` does. With --all, those of one director after another.
    Conns {
        #[command(flatten)]
        whose: Whose,

        /// Show what persistence engines go by, as `ipvsadm -Lnc --persistent-conn`.
        #[arg(long)]
        persistent_conn: bool,
    },
    /// Print the connection timeouts as `ipvsadm -L --timeout` does. With --all, one line a director, its name in front.
    Timeouts {
        #[command(flatten)]
        whose: Whose,
    },
    /// Print the sync daemons as `ipvsadm -L --daemon` does. With --all, the director's name stands in front of each line.
    Daemon {
        #[command(flatten)]
        whose: Whose,
    },
    /// Set the counters of a service and its real servers to zero, or those of all services.
    Zero {
        #[command(flatten)]
        whose: Whose,

        #[command(flatten)]
        service: Named,
    },
    /// Print the table as lines that `ipvsadm -R` and `lvsctl ipvs restore` take, with the thresholds that `ipvsadm -S` leaves out.
    Save {
        /// Whose; the holder's if not given.
        #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
        node: String,

        /// Leave out the services that lvsmesh made.
        #[arg(long)]
        foreign: bool,
    },
    /// Add to a node's kernel what a saved table has and it lacks.
    #[command(after_help = RESTORED)]
    Restore {
        /// To which node.
        #[arg(long, value_name = "NAME")]
        node: String,

        /// The saved table; `-` reads it from standard input.
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,

        /// Show what would be added, but add nothing; exits with 3 if something would.
        #[arg(long)]
        dry_run: bool,
    },
}

impl Ipvs {
    /// The command's words.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::List { .. } => "ipvs list",
            Self::Stats { .. } => "ipvs stats",
            Self::Rate { .. } => "ipvs rate",
            Self::Conns { .. } => "ipvs conns",
            Self::Timeouts { .. } => "ipvs timeouts",
            Self::Daemon { .. } => "ipvs daemon",
            Self::Zero { .. } => "ipvs zero",
            Self::Save { .. } => "ipvs save",
            Self::Restore { .. } => "ipvs restore",
        }
    }
}
