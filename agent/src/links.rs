//! Channels to other agents, kept open.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use lvsmesh_proto::internal::v1::peer_client::PeerClient;
use lvsmesh_proto::v1::control_client::ControlClient;
use tonic::transport::Channel;

use crate::tls::Connector;

/// More channels than this are not kept: the fleet's members change, and addresses that no member has any more are never asked for again.
const MOST: usize = 1024;
/// Longest answer: an IPVS table of a hundred thousand real servers with their counters has about 15 MiB.
const LONGEST_ANSWER: usize = 64 << 20;

/// One channel for each address that was asked for.
#[derive(Clone, Debug)]
pub struct Links {
    connector: Connector,
    channels: Arc<Mutex<BTreeMap<SocketAddr, Channel>>>,
}

impl Links {
    /// No channel yet.
    #[must_use]
    pub fn new(connector: Connector) -> Self {
        Self { connector, channels: Arc::default() }
    }

    /// What operators may ask the agent there.
    #[must_use]
    pub fn control(&self, address: SocketAddr) -> ControlClient<Channel> {
        ControlClient::new(self.channel(address)).max_decoding_message_size(LONGEST_ANSWER)
    }

    /// What agents may ask the agent there.
    #[must_use]
    pub fn peer(&self, address: SocketAddr) -> PeerClient<Channel> {
        PeerClient::new(self.channel(address))
    }

    fn channel(&self, address: SocketAddr) -> Channel {
        // Nothing panics between two changes of the map.
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if channels.len() >= MOST && !channels.contains_key(&address) {
            channels.clear();
        }
        channels.entry(address).or_insert_with(|| self.connector.channel(address)).clone()
    }
}
