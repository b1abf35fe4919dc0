//! A generic netlink socket with one request in flight.
//!
//! neli's router would keep many requests apart, at a price that a reconciler need not pay: an undrained reader blocks all others, and a
//! listing that the kernel calls interrupted is passed off as whole. Here the sequence number tells answers apart: those of a request
//! that was given up on are passed over.

use std::io::Cursor;

use neli::FromBytesWithInput;
use neli::consts::nl::NlmF;
use neli::consts::socket::NlFamily;
use neli::err::SocketError;
use neli::genl::{Genlmsghdr, GenlmsghdrBuilder};
use neli::nl::{NlPayload, Nlmsghdr, NlmsghdrBuilder};
use neli::socket::asynchronous::NlSocketHandle;
use neli::types::Buffer;
use neli::utils::Groups;
use nix::errno::Errno;
use tokio::time::timeout;

use super::codec::Attributes;
use crate::TIMEOUT;

/// How often an interrupted listing is tried.
pub(super) const ATTEMPTS: u32 = 8;

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
#[derive(Debug)]
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
    handle: NlSocketHandle,
    sequence: u32,
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Socket").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

impl Socket {
    /// Opens a socket in the network namespace of the calling thread, which must be in a tokio runtime.
    pub(super) fn open() -> Result<Self, Failure> {
        let handle = NlSocketHandle::connect(NlFamily::Generic, None, Groups::empty())?;
        Ok(Self { handle, sequence: 0 })
    }

    /// Sends a request and returns its answers, of which there may be none besides the acknowledgement.
    pub(super) async fn ask(&mut self, request: &Request) -> Result<Vec<Attributes>, Failure> {
        match self.exchange(request, NlmF::REQUEST | NlmF::ACK).await? {
            Answer::Whole(attributes) => Ok(attributes),
            Answer::Interrupted => Err(Failure::Unsteady),
        }
    }

    /// Lists everything, again if it changed meanwhile or an answer was lost.
    pub(super) async fn list(&mut self, request: &Request) -> Result<Vec<Attributes>, Failure> {
        for _ in 0..ATTEMPTS {
            match self.exchange(request, NlmF::REQUEST | NlmF::DUMP).await {
                Ok(Answer::Whole(attributes)) => return Ok(attributes),
                Ok(Answer::Interrupted) | Err(Failure::Errno(Errno::ENOBUFS)) => {}
                Err(failure) => return Err(failure),
            }
        }
        Err(Failure::Unsteady)
    }

    async fn exchange(&mut self, request: &Request, flags: NlmF) -> Result<Answer, Failure> {
        self.sequence = self.sequence.wrapping_add(1);
        let payload = GenlmsghdrBuilder::default()
            .cmd(request.command)
            .version(request.version)
            .attrs(request.attributes.clone())
            .build()
            .expect("command and version are set");
        let message: Nlmsghdr<u16, Genlmsghdr<u8, u16>> = NlmsghdrBuilder::default()
            .nl_type(request.family)
            .nl_flags(flags)
            .nl_seq(self.sequence)
            .nl_payload(NlPayload::Payload(payload))
            .build()
            .expect("type, flags and payload are set");

        let conversation = async {
            self.handle.send(&message).await?;
            self.collect().await
        };
        timeout(TIMEOUT, conversation).await.unwrap_or(Err(Failure::TimedOut))
    }

    /// Reads until the request with the current sequence number is answered.
    async fn collect(&self) -> Result<Answer, Failure> {
        let mut attributes = Vec::new();
        let mut interrupted = false;
        loop {
            let (messages, _) = self.handle.recv::<u16, Buffer>().await?;
            for message in messages {
                let message = message?;
                if *message.nl_seq() != self.sequence {
                    continue;
                }
                interrupted |= message.nl_flags().contains(NlmF::DUMP_INTR);
                let ended = match message.nl_payload() {
                    NlPayload::Payload(bytes) => {
                        attributes.push(decode(bytes)?);
                        false
                    }
                    NlPayload::Err(error) => {
                        return Err(Failure::Errno(Errno::from_raw(-*error.error())));
                    }
                    // The end of a listing carries a code, which is negative if it broke off.
                    NlPayload::DumpExtAck(end) if *end.error() < 0 => {
                        return Err(Failure::Errno(Errno::from_raw(-*end.error())));
                    }
                    NlPayload::Ack(_) | NlPayload::DumpExtAck(_) | NlPayload::Empty => true,
                };
                if ended {
                    return Ok(if interrupted {
                        Answer::Interrupted
                    } else {
                        Answer::Whole(attributes)
                    });
                }
            }
        }
    }
}

enum Answer {
    Whole(Vec<Attributes>),
    Interrupted,
}

fn decode(bytes: &Buffer) -> Result<Attributes, Failure> {
    let message = Genlmsghdr::<u8, u16>::from_bytes_with_input(
        &mut Cursor::new(bytes.as_ref()),
        bytes.as_ref().len(),
    );
    match message {
        Ok(message) => Ok(message.attrs().clone()),
        Err(error) => Err(Failure::Malformed(error.to_string())),
    }
}

impl From<SocketError> for Failure {
    fn from(error: SocketError) -> Self {
        match &error {
            SocketError::Io(io) => match io.raw_os_error() {
                Some(code) => Self::Errno(Errno::from_raw(code)),
                None => Self::Malformed(error.to_string()),
            },
            SocketError::Msg(_) | SocketError::Ser(_) | SocketError::De(_) => {
                Self::Malformed(error.to_string())
            }
        }
    }
}
