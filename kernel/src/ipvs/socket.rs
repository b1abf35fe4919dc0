//! A generic netlink socket: questions one at a time, requests many at a time.
//!
//! The sequence number tells answers apart: those of a request that was given up on are passed over. A listing that the kernel calls
//! interrupted is not passed off as whole.
//!
//! Requests that ask for nothing are sent many in one datagram. The kernel works through a datagram's messages in order, inside `send`
//! (`netlink_rcv_skb`, net/netlink/af_netlink.c), and answers those that it refuses and those that ask for an acknowledgement. So only the last
//! one asks: once that is answered, a request without an answer was performed. That spares an allocation in the kernel and a system call here
//! for every one of them.

use std::io;

use netlink_sys::protocols::NETLINK_GENERIC;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use nix::errno::Errno;
use tokio::time::timeout;

use super::codec::Attributes;
use crate::TIMEOUT;

/// How often an interrupted listing is tried.
pub(super) const ATTEMPTS: u32 = 8;

/// How many requests go into one datagram. The kernel is in `send` until all are done, a few microseconds for each, and no answer to a
/// refusal takes more than a kilobyte of the socket's receive buffer, which is 208 KiB unless an administrator made it smaller.
pub(super) const IN_FLIGHT: usize = 64;

/// Room for one datagram. The kernel fills up to 32 KiB with a part of a listing if it sees that much room (`netlink_dump`).
const RECEIVE: usize = 64 * 1024;

// <linux/netlink.h>
const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_OVERRUN: u16 = 4;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_DUMP: u16 = 0x300;

/// `struct nlmsghdr`: length, type, flags, sequence number, port.
const HEADER: usize = 16;
/// `struct genlmsghdr`: command, version, reserved.
const GENERIC_HEADER: usize = 4;

/// What is asked of a family.
pub(super) struct Request {
    /// The family's id, which is the message type.
    pub family: u16,
    /// The family's command.
    pub command: u8,
    /// The family's version.
    pub version: u8,
    /// What the command needs.
    pub attributes: Attributes,
}

/// Why a request brought nothing.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// The kernel refused, or the socket failed.
    Errno(Errno),
    /// No answer within [`TIMEOUT`].
    TimedOut,
    /// What was listed changed during every attempt.
    Unsteady,
    /// An answer that cannot be read.
    Malformed(String),
}

pub(super) struct Socket {
    handle: TokioSocket,
    sequence: u32,
    /// The datagram that was received last.
    buffer: Vec<u8>,
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Socket").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

impl Socket {
    /// Opens a socket in the network namespace of the calling thread, which must be in a tokio runtime.
    pub(super) fn open() -> Result<Self, Failure> {
        let mut handle = TokioSocket::new(NETLINK_GENERIC)?;
        handle.socket_mut().bind_auto()?;
        Ok(Self { handle, sequence: 0, buffer: Vec::with_capacity(RECEIVE) })
    }

    /// Sends a request and returns its answers, of which there may be none besides the acknowledgement.
    pub(super) async fn ask(&mut self, request: &Request) -> Result<Vec<Attributes>, Failure> {
        match self.exchange(request, NLM_F_REQUEST | NLM_F_ACK).await? {
            Answer::Whole(attributes) => Ok(attributes),
            Answer::Interrupted => Err(Failure::Unsteady),
        }
    }

    /// Lists everything, again if it changed meanwhile or an answer was lost.
    pub(super) async fn list(&mut self, request: &Request) -> Result<Vec<Attributes>, Failure> {
        for _ in 0..ATTEMPTS {
            match self.exchange(request, NLM_F_REQUEST | NLM_F_DUMP).await {
                Ok(Answer::Whole(attributes)) => return Ok(attributes),
                Ok(Answer::Interrupted) | Err(Failure::Errno(Errno::ENOBUFS)) => {}
                Err(failure) => return Err(failure),
            }
        }
        Err(Failure::Unsteady)
    }

    /// Sends requests whose answer is only whether they were performed, in order, up to [`IN_FLIGHT`] on their way at a time. One that is
    /// refused does not stop those behind it.
    pub(super) async fn submit(&mut self, requests: &[Request]) -> Vec<Result<(), Failure>> {
        let mut outcomes = Vec::with_capacity(requests.len());
        for some in requests.chunks(IN_FLIGHT) {
            let mut known = vec![None; some.len()];
            let left = timeout(TIMEOUT, self.submit_some(some, &mut known)).await;
            let rest = left.unwrap_or(Err(Failure::TimedOut));
            outcomes.extend(known.into_iter().map(|refused| match (refused, &rest) {
                (Some(errno), _) => Err(Failure::Errno(errno)),
                (None, rest) => rest.clone(),
            }));
        }
        outcomes
    }

    /// Fills in what was refused. What it returns holds for all the others: performed, or the reason why nobody knows.
    async fn submit_some(
        &mut self,
        requests: &[Request],
        refused: &mut [Option<Errno>],
    ) -> Result<(), Failure> {
        let first = self.sequence.wrapping_add(1);
        let mut datagram = Vec::with_capacity(requests.len() * 192);
        for (at, request) in requests.iter().enumerate() {
            let last = at + 1 == requests.len();
            self.sequence = self.sequence.wrapping_add(1);
            let flags = if last { NLM_F_REQUEST | NLM_F_ACK } else { NLM_F_REQUEST };
            encode(&mut datagram, request, flags, self.sequence);
        }
        self.send(&datagram).await?;
        loop {
            self.receive().await?;
            for message in messages(&self.buffer) {
                let Message { kind, sequence, payload, .. } = message?;
                let at = usize::try_from(sequence.wrapping_sub(first)).unwrap_or(usize::MAX);
                if kind != NLMSG_ERROR || at >= requests.len() {
                    continue;
                }
                if let Some(errno) = refusal(payload)? {
                    refused[at] = Some(errno);
                }
                if at + 1 == requests.len() {
                    return Ok(());
                }
            }
        }
    }

    async fn exchange(&mut self, request: &Request, flags: u16) -> Result<Answer, Failure> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut datagram = Vec::new();
        encode(&mut datagram, request, flags, self.sequence);
        let conversation = async {
            self.send(&datagram).await?;
            self.collect().await
        };
        timeout(TIMEOUT, conversation).await.unwrap_or(Err(Failure::TimedOut))
    }

    /// Reads until the request with the current sequence number is answered.
    async fn collect(&mut self) -> Result<Answer, Failure> {
        let mut attributes = Vec::new();
        let mut interrupted = false;
        loop {
            self.receive().await?;
            for message in messages(&self.buffer) {
                let Message { kind, flags, sequence, payload } = message?;
                if sequence != self.sequence {
                    continue;
                }
                interrupted |= flags & NLM_F_DUMP_INTR != 0;
                match kind {
                    NLMSG_NOOP => {}
                    NLMSG_OVERRUN => return Err(Failure::Errno(Errno::ENOBUFS)),
                    // The end of a listing carries a code too, which is negative if it broke off.
                    NLMSG_ERROR | NLMSG_DONE => {
                        if let Some(errno) = refusal(payload)? {
                            return Err(Failure::Errno(errno));
                        }
                        return Ok(if interrupted {
                            Answer::Interrupted
                        } else {
                            Answer::Whole(attributes)
                        });
                    }
                    _ => match payload.get(GENERIC_HEADER..) {
                        Some(bytes) => attributes.push(bytes.into()),
                        None => return Err(Failure::Malformed(format!("{payload:02x?}"))),
                    },
                }
            }
        }
    }

    /// Sends a datagram to the kernel, whole or not at all.
    async fn send(&mut self, datagram: &[u8]) -> Result<(), Failure> {
        self.handle.send_to(datagram, &SocketAddr::new(0, 0)).await?;
        Ok(())
    }

    /// Reads one datagram into the buffer.
    async fn receive(&mut self) -> Result<(), Failure> {
        self.buffer.clear();
        let received = self.handle.recv(&mut self.buffer).await.map_err(Failure::from);
        if let Err(Failure::Errno(Errno::ENOBUFS)) = received {
            // Answers were lost, and will be until there is none left to read (`NETLINK_S_CONGESTED`).
            while self.handle.socket_ref().recv(&mut self.buffer, 0).is_ok() {
                self.buffer.clear();
            }
        }
        received
    }
}

enum Answer {
    Whole(Vec<Attributes>),
    Interrupted,
}

fn encode(datagram: &mut Vec<u8>, request: &Request, flags: u16, sequence: u32) {
    let attributes = request.attributes.as_bytes();
    let length =
        u32::try_from(HEADER + GENERIC_HEADER + attributes.len()).expect("no request has 4 GiB");
    datagram.extend_from_slice(&length.to_ne_bytes());
    datagram.extend_from_slice(&request.family.to_ne_bytes());
    datagram.extend_from_slice(&flags.to_ne_bytes());
    datagram.extend_from_slice(&sequence.to_ne_bytes());
    // The port: the socket's own.
    datagram.extend_from_slice(&[0; 4]);
    datagram.extend_from_slice(&[request.command, request.version, 0, 0]);
    // Attributes are padded to four bytes, and so is the message.
    datagram.extend_from_slice(attributes);
}

/// A message of a datagram.
struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    payload: &'a [u8],
}

/// Cuts a datagram into its messages. After one that cannot be read there are no more.
fn messages(datagram: &[u8]) -> impl Iterator<Item = Result<Message<'_>, Failure>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Some((message, length)) = message(rest) else {
            let detail = format!("{} bytes of it are no message", rest.len());
            rest = &[];
            return Some(Err(Failure::Malformed(detail)));
        };
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Ok(message))
    })
}

fn message(bytes: &[u8]) -> Option<(Message<'_>, usize)> {
    let length = usize::try_from(u32::from_ne_bytes(*bytes.first_chunk()?)).ok()?;
    let payload = bytes.get(HEADER..length)?;
    let kind = u16::from_ne_bytes(*bytes[4..].first_chunk()?);
    let flags = u16::from_ne_bytes(*bytes[6..].first_chunk()?);
    let sequence = u32::from_ne_bytes(*bytes[8..].first_chunk()?);
    Some((Message { kind, flags, sequence, payload }, length))
}

/// What `struct nlmsgerr`, or the end of a listing, says: 0 or a negative error number.
fn refusal(payload: &[u8]) -> Result<Option<Errno>, Failure> {
    match payload.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes)) {
        Some(code) if code < 0 => Ok(Some(Errno::from_raw(-code))),
        Some(_) => Ok(None),
        None => Err(Failure::Malformed("an acknowledgement without its code".into())),
    }
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(code) => Self::Errno(Errno::from_raw(code)),
            None => Self::Malformed(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests;
