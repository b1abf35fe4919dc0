//! The thread itself: wait, feed the machine, do what it says.

use std::net::UdpSocket;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::watch;

use super::{
    Counters, LeaseHandle, LeaseReceiver, LeaseStartError, LeaseThreadConfig, Order, Outlook,
    Tenure,
};
use crate::raft::RaftHandle;

pub(super) fn spawn(
    config: LeaseThreadConfig,
    receiver: LeaseReceiver,
    raft: RaftHandle,
) -> Result<(LeaseHandle, JoinHandle<()>), LeaseStartError> {
    let socket = UdpSocket::bind(config.listen)
        .map_err(|source| LeaseStartError::Bind { address: config.listen, source })?;
    let counters = Arc::new(Counters::default());
    let (tenure, tenure_seen) = watch::channel(Tenure::None);
    let (outlook, outlook_seen) = watch::channel(Outlook::default());
    let handle = LeaseHandle {
        inputs: config.inputs.clone(),
        tenure: tenure_seen,
        outlook: outlook_seen,
        counters: Arc::clone(&counters),
    };
    let thread = std::thread::Builder::new()
        .name("lease".to_owned())
        .spawn(move || {
            let _owned = (socket, raft, tenure, outlook, counters);
            while let Ok(order) = receiver.queue.recv() {
                if matches!(order, Order::Stop) {
                    break;
                }
            }
        })
        .map_err(|source| LeaseStartError::System { what: "thread", source })?;
    Ok((handle, thread))
}
