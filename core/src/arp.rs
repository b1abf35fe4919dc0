//! ARP frames.
