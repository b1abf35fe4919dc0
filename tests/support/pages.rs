//! Pages that say who served them, and the clients that ask for them.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::lab::Node;
use crate::netns::Namespace;

/// A web server whose only page is the name of its node; ends when dropped, and from then on refuses connections.
#[derive(Debug)]
pub struct Pages {
    stop: Arc<AtomicBool>,
    port: u16,
    namespace: Namespace,
    server: Option<JoinHandle<()>>,
}

impl Pages {
    /// Serves on every address of the node.
    ///
    /// # Panics
    ///
    /// If the port is taken.
    #[must_use]
    pub fn serve(node: &Node, port: u16) -> Self {
        let listener = node.namespace.inside(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)));
        let listener = listener
            .unwrap_or_else(|error| panic!("listen on port {port} of {}: {error}", node.name));
        let stop = Arc::new(AtomicBool::new(false));
        let (ended, page) = (Arc::clone(&stop), node.name.clone());
        let server = std::thread::spawn(move || {
            for connection in listener.incoming() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                let page = page.clone();
                // A probe opens a connection and says nothing; it must not keep others waiting.
                std::thread::spawn(move || {
                    connection.and_then(|connection| answer(connection, &page))
                });
            }
        });
        Self { stop, port, namespace: node.namespace.clone(), server: Some(server) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // A last connection wakes the server.
        let _woken = self.namespace.inside(|| TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
        if let Some(server) = self.server.take() {
            let _ended = server.join();
        }
    }
}

fn answer(mut connection: TcpStream, page: &str) -> io::Result<()> {
    connection.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut request = Vec::new();
    let mut part = [0_u8; 512];
    while !request.ends_with(b"\r\n\r\n") {
        match connection.read(&mut part)? {
            0 => return Ok(()),
            length => request.extend_from_slice(&part[..length]),
        }
    }
    let length = page.len() + 1;
    write!(
        connection,
        "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{page}\n"
    )
}

/// Asks for the page over a new connection from the calling thread's namespace; returns the name of the node that served it.
///
/// # Errors
///
/// If there is no whole page within `patience`.
pub fn fetch(from: SocketAddr, patience: Duration) -> io::Result<String> {
    let mut connection = TcpStream::connect_timeout(&from, patience)?;
    connection.set_read_timeout(Some(patience))?;
    connection.set_write_timeout(Some(patience))?;
    connection.write_all(b"GET / HTTP/1.0\r\nHost: lvsmesh\r\n\r\n")?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    let page = answer.split_once("\r\n\r\n").map(|(_, page)| page.trim().to_owned());
    page.filter(|page| !page.is_empty())
        .ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "no page in the answer"))
}

/// One request of a [`Client`].
#[derive(Clone, Debug)]
pub struct Request {
    /// When it was begun.
    pub began: Instant,
    /// When its answer was there, or it had failed.
    pub ended: Instant,
    /// Who served it, or why nobody did.
    pub answer: Result<String, String>,
}

impl Request {
    /// Whether any part of it lies between two moments.
    #[must_use]
    pub fn overlaps(&self, from: Instant, to: Instant) -> bool {
        self.began <= to && self.ended >= from
    }
}

/// Asks for the page again and again, a new connection each time, until it is dropped.
#[derive(Debug)]
pub struct Client {
    requests: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Client {
    /// Begins a request about every `interval`, or as soon as the one before it has ended.
    #[must_use]
    pub fn start(node: &Node, from: SocketAddr, interval: Duration, patience: Duration) -> Self {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (writer, ended) = (Arc::clone(&requests), Arc::clone(&stop));
        let thread = node.namespace.thread(move || {
            // Two clients of one pace take turns, and a scheduler that takes turns too gives each of them one server for ever: now and then one
            // lets the other go twice.
            for lets_pass in [false, false, true].into_iter().cycle() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                let began = Instant::now();
                let answer = fetch(from, patience).map_err(|error| error.to_string());
                let request = Request { began, ended: Instant::now(), answer };
                let took = request.ended - began;
                writer.lock().unwrap_or_else(PoisonError::into_inner).push(request);
                let pause = (began + interval).saturating_duration_since(Instant::now());
                std::thread::sleep(if lets_pass { pause + took.min(interval * 5) } else { pause });
            }
        });
        Self { requests, stop, thread: Some(thread) }
    }

    /// All requests that have ended, oldest first.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}
