//! One probe.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

/// Opens a connection and closes it. `Err`: why it could not be opened, in a few words that are the same for the same trouble.
pub(super) async fn tcp(target: SocketAddr, patience: Duration) -> Result<(), String> {
    match timeout(patience, TcpStream::connect(target)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(format!("connecting to {target}: {}", reason(&error))),
        Err(_) => Err(format!("connecting to {target}: no answer within {patience:?}")),
    }
}

/// Without the number: `Connection refused`.
fn reason(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => nix::errno::Errno::from_raw(code).desc().to_owned(),
        None => error.to_string(),
    }
}
