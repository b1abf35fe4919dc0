//! Generic netlink families that are asked seldom: which number a family has, and Foo-over-UDP's few ports.
//!
//! The IPVS table has a socket of its own ([`crate::ipvs`]): there many operations are on their way at a time. Here it is one question after
//! another, and neli does what is to be done.

use std::io::Cursor;

use neli::FromBytesWithInput;
use neli::consts::nl::NlmF;
use neli::consts::socket::NlFamily;
use neli::err::SocketError;
use neli::genl::{
    AttrTypeBuilder, Genlmsghdr, GenlmsghdrBuilder, Nlattr, NlattrBuilder, NoUserHeader,
};
use neli::nl::{NlPayload, Nlmsghdr, NlmsghdrBuilder};
use neli::socket::asynchronous::NlSocketHandle;
use neli::types::{Buffer, GenlBuffer};
use neli::utils::Groups;
use nix::errno::Errno;
use tokio::time::timeout;

use crate::TIMEOUT;

/// Attributes of one level.
pub(crate) type Attributes = GenlBuffer<u16, Buffer>;

/// Whether a question asks for one thing or for a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// It is acknowledged.
    Once,
    /// Everything that there is (`NLM_F_DUMP`).
    List,
}

// <linux/genetlink.h>
const GENL_ID_CTRL: u16 = 0x10;
const CTRL_VERSION: u8 = 2;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

/// A connection to one family, in the network namespace of the thread that opened it.
pub(crate) struct Family {
    handle: NlSocketHandle,
    id: u16,
    version: u8,
    sequence: u32,
}

impl Family {
    /// Opens a connection. Must be called inside a tokio runtime. The kernel may load the family's module for it.
    ///
    /// # Errors
    ///
    /// `ENOENT` if the kernel has no family of that name, `ETIMEDOUT` without an answer, `EBADMSG` for one that cannot be read.
    pub(crate) async fn open(name: &str, version: u8) -> Result<Self, Errno> {
        let handle =
            NlSocketHandle::connect(NlFamily::Generic, None, Groups::empty()).map_err(errno)?;
        let mut family = Self { handle, id: GENL_ID_CTRL, version: CTRL_VERSION, sequence: 0 };
        let name = attribute(CTRL_ATTR_FAMILY_NAME, &[name.as_bytes(), &[0]].concat());
        let answers = family.ask(Ask::Once, CTRL_CMD_GETFAMILY, vec![name]).await?;
        let ids = answers.iter().flat_map(values);
        let mut ids = ids.filter(|(kind, _)| *kind == CTRL_ATTR_FAMILY_ID);
        let id = ids.find_map(|(_, value)| value.try_into().ok()).ok_or(Errno::EBADMSG)?;
        Ok(Self { id: u16::from_ne_bytes(id), version, ..family })
    }

    /// The family's number, which is given anew whenever its module is loaded.
    pub(crate) const fn id(&self) -> u16 {
        self.id
    }

    /// Sends a question and returns its answers, of which there may be none besides the acknowledgement.
    ///
    /// # Errors
    ///
    /// The kernel's; `ETIMEDOUT` without an answer within [`TIMEOUT`], `EBADMSG` for one that cannot be read.
    pub(crate) async fn ask(
        &mut self,
        ask: Ask,
        command: u8,
        attributes: Vec<Nlattr<u16, Buffer>>,
    ) -> Result<Vec<Attributes>, Errno> {
        self.sequence = self.sequence.wrapping_add(1);
        let payload = GenlmsghdrBuilder::<u8, u16, NoUserHeader>::default()
            .cmd(command)
            .version(self.version)
            .attrs(attributes.into_iter().collect())
            .build()
            .expect("command and version are set");
        let flags = match ask {
            Ask::Once => NlmF::REQUEST | NlmF::ACK,
            Ask::List => NlmF::REQUEST | NlmF::DUMP,
        };
        let message: Nlmsghdr<u16, Genlmsghdr<u8, u16>> = NlmsghdrBuilder::default()
            .nl_type(self.id)
            .nl_flags(flags)
            .nl_seq(self.sequence)
            .nl_payload(NlPayload::Payload(payload))
            .build()
            .expect("type, flags and payload are set");
        let conversation = async {
            self.handle.send(&message).await.map_err(errno)?;
            self.collect().await
        };
        timeout(TIMEOUT, conversation).await.unwrap_or(Err(Errno::ETIMEDOUT))
    }

    /// Reads until the question with the current sequence number is answered; answers to one that was given up on are passed over.
    async fn collect(&self) -> Result<Vec<Attributes>, Errno> {
        let mut answers = Vec::new();
        loop {
            let (messages, _) = self.handle.recv::<u16, Buffer>().await.map_err(errno)?;
            for message in messages {
                let message = message.map_err(errno)?;
                if *message.nl_seq() != self.sequence {
                    continue;
                }
                match message.nl_payload() {
                    NlPayload::Payload(bytes) => answers.push(decode(bytes)?),
                    NlPayload::Err(error) => return Err(Errno::from_raw(-*error.error())),
                    // The end of a list carries a code, which is negative if it broke off.
                    NlPayload::DumpExtAck(end) if *end.error() < 0 => {
                        return Err(Errno::from_raw(-*end.error()));
                    }
                    NlPayload::Ack(_) | NlPayload::DumpExtAck(_) | NlPayload::Empty => {
                        return Ok(answers);
                    }
                }
            }
        }
    }
}

/// One attribute, for a question.
pub(crate) fn attribute(kind: u16, value: &[u8]) -> Nlattr<u16, Buffer> {
    let kind = AttrTypeBuilder::default().nla_type(kind).build().expect("the type is set");
    NlattrBuilder::default()
        .nla_type(kind)
        .nla_payload(Buffer::from(value))
        .build()
        .expect("type and payload are set, and bytes encode as themselves")
}

/// Types and values of an answer's attributes.
pub(crate) fn values(answer: &Attributes) -> impl Iterator<Item = (u16, &[u8])> {
    answer
        .iter()
        .map(|attribute| (*attribute.nla_type().nla_type(), attribute.nla_payload().as_ref()))
}

fn decode(bytes: &Buffer) -> Result<Attributes, Errno> {
    let bytes = bytes.as_ref();
    let message =
        Genlmsghdr::<u8, u16>::from_bytes_with_input(&mut Cursor::new(bytes), bytes.len());
    message.map(|message| message.attrs().clone()).map_err(|_| Errno::EBADMSG)
}

fn errno(error: SocketError) -> Errno {
    match error {
        SocketError::Io(io) => io.raw_os_error().map_or(Errno::EIO, Errno::from_raw),
        SocketError::Msg(_) | SocketError::Ser(_) | SocketError::De(_) => Errno::EBADMSG,
    }
}
