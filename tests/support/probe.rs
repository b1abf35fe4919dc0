//! Who answers for an address, asked once a millisecond, and who answers ARP for it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::lab::Node;
use crate::{link, pace};

/// Discard's port: no service, so a datagram to it is for the holder itself.
const PORT: u16 = 9;

/// Answers every datagram with the name of its node, and what came behind the first byte; ends when dropped.
#[derive(Debug)]
pub struct Echo {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    /// Listens on every address of the node.
    ///
    /// # Panics
    ///
    /// If the port is taken.
    #[must_use]
    pub fn start(node: &Node) -> Self {
        Self::listen(node, Ipv4Addr::UNSPECIFIED.into())
    }

    /// As [`start`](Self::start), IPv4 and IPv6.
    #[must_use]
    pub fn dual_stack(node: &Node) -> Self {
        Self::listen(node, Ipv6Addr::UNSPECIFIED.into())
    }

    fn listen(node: &Node, address: IpAddr) -> Self {
        let socket = node.namespace.inside(|| UdpSocket::bind((address, PORT)));
        let socket = socket
            .unwrap_or_else(|error| panic!("listen on UDP port {PORT} of {}: {error}", node.name));
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("the timeout is not zero");
        let stop = Arc::new(AtomicBool::new(false));
        let (ended, name) = (Arc::clone(&stop), node.name.clone());
        let thread = std::thread::spawn(move || {
            pace::hasten();
            let mut buffer = [0_u8; 64];
            while !ended.load(Ordering::Relaxed) {
                if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    let mut answer = name.clone().into_bytes();
                    answer.extend(buffer.get(1..length).unwrap_or_default());
                    // The way back may be cut: that is what is being measured.
                    let _lost = socket.send_to(&answer, from);
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

/// Any port, of the family of `address`.
fn any(address: IpAddr) -> SocketAddr {
    match address {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// Asks once, from a node, and says who answered within a second.
#[must_use]
pub fn ask(node: &Node, address: impl Into<IpAddr>) -> Option<String> {
    let address = address.into();
    let socket = node.namespace.inside(|| UdpSocket::bind(any(address))).ok()?;
    socket.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    socket.send_to(b"?", SocketAddr::from((address, PORT))).ok()?;
    let mut buffer = [0_u8; 64];
    let length = socket.recv(&mut buffer).ok()?;
    Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// An answer to a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// When it came.
    pub at: Instant,
    /// The node that gave it.
    pub by: String,
    /// Which datagram it answers: they are counted from 1.
    pub question: u64,
}

/// Sends a datagram to an address every millisecond and notes every answer, until it is dropped.
#[derive(Debug)]
pub struct Prober {
    answers: Arc<Mutex<Vec<Answer>>>,
    asked: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    sender: Option<JoinHandle<()>>,
    reader: Option<JoinHandle<()>>,
    deaf: Arc<AtomicBool>,
}

/// A time without an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silence {
    /// The last answer before it.
    pub from: Instant,
    /// How long it was.
    pub length: Duration,
    /// Who answered before it.
    pub before: String,
    /// Who answered after it.
    pub after: String,
}

impl Prober {
    /// Starts asking from a node.
    #[must_use]
    pub fn start(node: &Node, address: impl Into<IpAddr>) -> Self {
        let address = address.into();
        let socket =
            node.namespace.inside(|| UdpSocket::bind(any(address))).expect("some port is free");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("the timeout is not zero");
        let answers = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::new(AtomicU64::new(0));
        let sending = socket.try_clone().expect("a socket can be cloned");
        let (ended, counter) = (Arc::clone(&stop), Arc::clone(&asked));
        let sender = std::thread::spawn(move || {
            pace::hasten();
            let mut next = Instant::now();
            while !ended.load(Ordering::Relaxed) {
                let question = counter.fetch_add(1, Ordering::Relaxed) + 1;
                let text = format!("? {question}");
                // No route and no neighbour are answers too: silence.
                let _lost = sending.send_to(text.as_bytes(), SocketAddr::from((address, PORT)));
                next += Duration::from_millis(1);
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
            }
        });
        let (writer, deaf) = (Arc::clone(&answers), Arc::new(AtomicBool::new(false)));
        let ended = Arc::clone(&deaf);
        let reader = std::thread::spawn(move || {
            pace::hasten();
            let mut buffer = [0_u8; 64];
            while !ended.load(Ordering::Relaxed) {
                let Ok(length) = socket.recv(&mut buffer) else { continue };
                let at = Instant::now();
                let text = String::from_utf8_lossy(&buffer[..length]);
                let Some((by, question)) = text.split_once(' ') else { continue };
                let Ok(question) = question.parse() else { continue };
                let answer = Answer { at, by: by.to_owned(), question };
                writer.lock().unwrap_or_else(PoisonError::into_inner).push(answer);
            }
        });
        Self { answers, asked, stop, sender: Some(sender), reader: Some(reader), deaf }
    }

    /// How many datagrams were sent until now.
    #[must_use]
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// The answers to the datagrams after `question`, oldest first.
    #[must_use]
    pub fn answers_after(&self, question: u64) -> Vec<Answer> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.iter().filter(|answer| answer.question > question).cloned().collect()
    }

    /// Stops asking, gives the last answers time to come, and says how many datagrams were sent and how many of them were not answered.
    #[must_use]
    pub fn finish(mut self) -> (usize, usize) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(sender) = self.sender.take() {
            let _ended = sender.join();
        }
        let sent = usize::try_from(self.asked()).expect("a test asks less often");
        // The reader takes what is there until half a second has brought nothing.
        let mut before = usize::MAX;
        while before != self.answers().len() {
            before = self.answers().len();
            std::thread::sleep(Duration::from_millis(500));
        }
        (sent, sent - before)
    }

    /// All answers until now, oldest first.
    #[must_use]
    pub fn answers(&self) -> Vec<Answer> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Who gave the newest answer, if it is younger than `age`.
    #[must_use]
    pub fn answering(&self, age: Duration) -> Option<String> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.last().filter(|answer| answer.at.elapsed() <= age).map(|answer| answer.by.clone())
    }

    /// The longest time without an answer, of those that began after `since` (less 10 ms: the last answer before a fault comes before it).
    #[must_use]
    pub fn longest_silence(&self, since: Instant) -> Option<Silence> {
        let answers = self.answers();
        let since = since.checked_sub(Duration::from_millis(10)).unwrap_or(since);
        let silences = answers.windows(2).filter_map(|pair| match pair {
            [before, after] => Some(Silence {
                from: before.at,
                length: after.at - before.at,
                before: before.by.clone(),
                after: after.by.clone(),
            }),
            _ => None,
        });
        silences
            .filter(|silence| silence.from + silence.length >= since)
            .max_by_key(|silence| silence.length)
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.deaf.store(true, Ordering::Relaxed);
        for thread in [self.sender.take(), self.reader.take()].into_iter().flatten() {
            let _ended = thread.join();
        }
    }
}

/// Makes a node ask by ARP or neighbour solicitation for an address again and again, until it is dropped; [`crate::capture`] sees who answers.
#[derive(Debug)]
pub struct ArpProber {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl ArpProber {
    /// Asks every `interval`.
    #[must_use]
    pub fn start(node: &Node, address: impl Into<IpAddr>, interval: Duration) -> Self {
        let address = address.into();
        let stop = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&stop);
        let thread = node.namespace.thread(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime needs only descriptors");
            let socket = UdpSocket::bind(any(address)).expect("some port is free");
            runtime.block_on(async {
                let (connection, handle, _) =
                    rtnetlink::new_connection().expect("a netlink socket needs no rights");
                let connection = tokio::spawn(connection);
                while !ended.load(Ordering::Relaxed) {
                    // The kernel asks everybody when it knows nothing and has a packet to send.
                    link::forget_neighbour(&handle, address)
                        .await
                        .expect("root may forget neighbours");
                    let _lost = socket.send_to(b"?", SocketAddr::from((address, PORT)));
                    tokio::time::sleep(interval).await;
                }
                connection.abort();
            });
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for ArpProber {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}
