//! Arguments of `lvsctl vip`.

use clap::Subcommand;

/// Who answers for the VIPs; and how to take one over from another VRRP router, such as a keepalived that is to be replaced.
#[derive(Debug, Subcommand)]
pub(crate) enum Vip {
    /// Show for each VIP group who holds it, what is left of the lease, what keeps everybody else silent, and for how long
    /// two machines may answer.
    Status {
        /// Only this one.
        group: Option<String>,
    },
    /// Take a VIP group over from a foreign VRRP master: announce it with a higher priority, and claim it when the
    /// other has given up. Sets `vrrp.coexist: contest` and `vrrp.priority` in the desired state.
    Take {
        /// Its name.
        group: String,

        /// To announce it with: higher than the foreign master's.
        #[arg(long, value_name = "N", default_value_t = 254, value_parser = clap::value_parser!(u8).range(1..=254))]
        priority: u8,
    },
    /// Give a VIP group back to a foreign VRRP router: announce it with a lower priority, and be silent as soon as
    /// another is master. Sets `vrrp.coexist: yield` and `vrrp.priority` in the desired state.
    Yield {
        /// Its name.
        group: String,

        /// To announce it with: lower than the foreign router's. Unless given, the lowest that the fleet allows: 1 under
        /// `no_quorum: strict`, else 2.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=254))]
        priority: Option<u8>,
    },
}
