//! TCP connections that stay open, and whether they still work.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::lab::Node;

/// Answers every byte with one byte, the last of its node's address, for as long as a client keeps its connection. It goes on until the test
/// program ends.
///
/// # Panics
///
/// If the port is taken.
pub fn echo(node: &Node, port: u16) {
    let listener = node.namespace.inside(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)));
    let listener =
        listener.unwrap_or_else(|error| panic!("listen on port {port} of {}: {error}", node.name));
    let [.., name] = node.address.octets();
    std::thread::spawn(move || {
        for connection in listener.incoming().filter_map(Result::ok) {
            std::thread::spawn(move || serve(connection, name));
        }
    });
}

fn serve(mut connection: TcpStream, name: u8) -> io::Result<()> {
    let mut byte = [0];
    while connection.read(&mut byte)? == 1 {
        connection.write_all(&[name])?;
    }
    Ok(())
}

/// Open connections of one client.
#[derive(Debug)]
pub struct Connections(Vec<TcpStream>);

impl Connections {
    /// Opens so many to an address.
    ///
    /// # Panics
    ///
    /// If one cannot be opened.
    #[must_use]
    pub fn open(client: &Node, to: SocketAddr, count: usize, patience: Duration) -> Self {
        let open = || -> io::Result<TcpStream> {
            let connection = TcpStream::connect_timeout(&to, patience)?;
            connection.set_read_timeout(Some(patience))?;
            connection.set_nodelay(true)?;
            Ok(connection)
        };
        let all = client.namespace.inside(|| (0..count).map(|_| open()).collect::<Vec<_>>());
        let open = |one: io::Result<TcpStream>| {
            one.unwrap_or_else(|error| panic!("a connection to {to}: {error}"))
        };
        Self(all.into_iter().map(open).collect())
    }

    /// Asks once over each; for each that still works, the last byte of the server's address.
    pub fn ask(&mut self) -> Vec<Option<u8>> {
        let ask = |connection: &mut TcpStream| -> io::Result<u8> {
            let mut byte = [0];
            connection.write_all(b"?")?;
            connection.read_exact(&mut byte)?;
            Ok(byte[0])
        };
        self.0.iter_mut().map(|connection| ask(connection).ok()).collect()
    }
}
