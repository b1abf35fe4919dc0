//! What the kernel counts for a service or a destination.

/// `IPVS_STATS_ATTR_*`: totals since the counters were zeroed, and rates. Up to two seconds old: the kernel's estimator brings them up to date.
///
/// *In* is from the client, *out* is to it; with direct routing and tunnels the answers bypass the director and nothing is out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Connections scheduled.
    pub connections: u64,
    /// Packets.
    pub packets_in: u64,
    /// Packets.
    pub packets_out: u64,
    /// Bytes, IP headers included.
    pub bytes_in: u64,
    /// Bytes, IP headers included.
    pub bytes_out: u64,
    /// Connections scheduled in a second, averaged over several.
    pub connections_per_second: u64,
    /// Packets in a second, averaged.
    pub packets_in_per_second: u64,
    /// Packets in a second, averaged.
    pub packets_out_per_second: u64,
    /// Bytes in a second, averaged.
    pub bytes_in_per_second: u64,
    /// Bytes in a second, averaged.
    pub bytes_out_per_second: u64,
}
