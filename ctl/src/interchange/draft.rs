//! What every importer finds, before it has names: VIP groups, and services on addresses.

use std::collections::BTreeSet;
use std::net::IpAddr;

use lvsmesh_core::model::{Fleet, Garp, Pool, Service, Vrrp};

/// Everything that one import found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Draft {
    /// Without a name.
    pub(crate) fleet: Fleet,
    pub(crate) groups: Vec<Group>,
    pub(crate) entries: Vec<Entry>,
}

/// Addresses that move together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    /// As the other program calls it; becomes a name of ours.
    pub(crate) name: String,
    pub(crate) interface: String,
    pub(crate) vrrp: Vrrp,
    /// Each with the statement that names it.
    pub(crate) addresses: Vec<(IpAddr, usize)>,
    /// Those of them that adverts do not name.
    pub(crate) excluded: BTreeSet<IpAddr>,
    pub(crate) garp: Garp,
    /// Directors, most preferred first.
    pub(crate) preference: Vec<String>,
    /// The statement that it comes from.
    pub(crate) origin: usize,
}

/// One service on one address, or for one firewall mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// `None`: a firewall mark.
    pub(crate) address: Option<IpAddr>,
    /// Its names are empty.
    pub(crate) service: Service,
    /// Its name is empty.
    pub(crate) pool: Pool,
    /// The statement that it comes from.
    pub(crate) origin: usize,
    /// The statement that names the address, where that is another one.
    pub(crate) listen: usize,
    /// The statement of each real server, in the pool's order.
    pub(crate) real_servers: Vec<usize>,
}
