//! UDP ports on which the kernel takes packets out of GUE, over the generic netlink family `fou` (net/ipv4/fou.c, <linux/fou.h>).
//!
//! One question at a time on a blocking socket of its own: the kernel does the work inside `send` and queues the answer before that returns.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use lvsmesh_core::plan::Action;
use lvsmesh_core::plan::path::{GuePort, PathAction};
use nix::errno::Errno;
use nix::sys::socket::{
    self, AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, sockopt,
};
use nix::sys::time::TimeVal;

use crate::TIMEOUT;
use crate::error::{KernelError, describe, load_module};

// <linux/netlink.h>, <linux/genetlink.h>
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;
const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
/// nlmsghdr and genlmsghdr.
const HEADER: usize = 16;
const GENERIC: usize = 4;
/// The type of an attribute without its two flags.
const TYPE: u16 = 0x3fff;

// <linux/fou.h>
const FOU_CMD_ADD: u8 = 1;
const FOU_CMD_DEL: u8 = 2;
const FOU_CMD_GET: u8 = 3;
const FOU_ATTR_PORT: u16 = 1;
const FOU_ATTR_AF: u16 = 2;
const FOU_ATTR_TYPE: u16 = 4;
const FOU_ENCAP_GUE: u8 = 2;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Lists the ports, each with whether it takes GUE; `None` if the kernel has no Foo-over-UDP, or has not loaded it.
pub(crate) fn list() -> Result<Option<BTreeMap<GuePort, bool>>, KernelError> {
    let error = |errno| KernelError::refused("list", "GUE ports", errno);
    let mut socket = Socket::open().map_err(error)?;
    let family = match socket.family() {
        Ok(family) => family,
        Err(Errno::ENOENT) => return Ok(None),
        Err(errno) => return Err(error(errno)),
    };
    let answers = socket.ask(family, FOU_CMD_GET, NLM_F_DUMP, &[]).map_err(error)?;
    Ok(Some(answers.iter().filter_map(|answer| port(answer)).collect()))
}

/// Receives GUE on a port. Where the kernel's module is not loaded, this tries to load it, once: the module says no alias by which the kernel
/// would find it by itself (Linux 6.1).
///
/// # Errors
///
/// `ENOENT` if the kernel has no Foo-over-UDP, `EADDRINUSE` if something else has the port.
pub(crate) fn add(port: GuePort) -> Result<(), KernelError> {
    static TRIED: AtomicBool = AtomicBool::new(false);

    let kind = attribute(FOU_ATTR_TYPE, &[FOU_ENCAP_GUE]);
    let attributes = [address(port), kind].concat();
    let outcome = perform(&PathAction::AddPort(port), FOU_CMD_ADD, &attributes);
    let missing = outcome.as_ref().is_err_and(|error| error.errno() == Some(Errno::ENOENT));
    if !missing || TRIED.swap(true, Ordering::Relaxed) {
        return outcome;
    }
    if let Err(error) = load_module("fou") {
        tracing::warn!(%error, "GUE needs the kernel's Foo-over-UDP");
    }
    perform(&PathAction::AddPort(port), FOU_CMD_ADD, &attributes)
}

/// Stops that.
///
/// # Errors
///
/// `ENOENT` if there is no such port.
pub(crate) fn remove(port: GuePort) -> Result<(), KernelError> {
    perform(&PathAction::RemovePort(port), FOU_CMD_DEL, &address(port))
}

fn perform(action: &PathAction, command: u8, attributes: &[u8]) -> Result<(), KernelError> {
    let (operation, object) = describe(&Action::Path(action.clone()));
    let done = Socket::open().and_then(|mut socket| {
        let family = socket.family()?;
        socket.ask(family, command, NLM_F_ACK, attributes)
    });
    done.map(|_| ()).map_err(|errno| KernelError::refused(operation, object, errno))
}

fn address(port: GuePort) -> Vec<u8> {
    let family = if port.ipv6 { AF_INET6 } else { AF_INET };
    [attribute(FOU_ATTR_PORT, &port.port.to_be_bytes()), attribute(FOU_ATTR_AF, &[family])].concat()
}

fn port(answer: &[u8]) -> Option<(GuePort, bool)> {
    let mut found = (None, None, false);
    for (kind, value) in attributes(answer) {
        match (kind, value) {
            (FOU_ATTR_PORT, &[high, low]) => found.0 = Some(u16::from_be_bytes([high, low])),
            (FOU_ATTR_AF, &[family]) => found.1 = Some(family == AF_INET6),
            (FOU_ATTR_TYPE, &[kind]) => found.2 = kind == FOU_ENCAP_GUE,
            _ => {}
        }
    }
    Some((GuePort { ipv6: found.1?, port: found.0? }, found.2))
}

struct Socket {
    socket: OwnedFd,
    sequence: u32,
}

impl Socket {
    fn open() -> Result<Self, Errno> {
        let socket = socket::socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkGeneric,
        )?;
        socket::bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        socket::connect(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        let patience = TimeVal::new(i64::try_from(TIMEOUT.as_secs()).unwrap_or(i64::MAX), 0);
        socket::setsockopt(&socket, sockopt::ReceiveTimeout, &patience)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// The family's number; `ENOENT` if the kernel has none of that name and cannot load it.
    fn family(&mut self) -> Result<u16, Errno> {
        let name = attribute(CTRL_ATTR_FAMILY_NAME, b"fou\0");
        let answers = self.ask(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, NLM_F_ACK, &name)?;
        let all = answers.iter().flat_map(|answer| attributes(answer));
        let mut ids = all.filter(|(kind, _)| *kind == CTRL_ATTR_FAMILY_ID);
        let id = ids.find_map(|(_, value)| value.try_into().ok());
        id.map(u16::from_ne_bytes).ok_or(Errno::EBADMSG)
    }

    /// The attributes of each answer.
    fn ask(
        &mut self,
        family: u16,
        command: u8,
        flags: u16,
        attributes: &[u8],
    ) -> Result<Vec<Vec<u8>>, Errno> {
        self.sequence += 1;
        let length = HEADER + GENERIC + attributes.len();
        let mut request = Vec::with_capacity(length);
        request.extend(u32::try_from(length).map_err(|_| Errno::EMSGSIZE)?.to_ne_bytes());
        request.extend(family.to_ne_bytes());
        request.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        request.extend(self.sequence.to_ne_bytes());
        request.extend([0; 4]);
        request.extend([command, 1, 0, 0]);
        request.extend(attributes);
        socket::send(self.socket.as_raw_fd(), &request, MsgFlags::empty())?;

        let mut answers = Vec::new();
        let mut buffer = vec![0; 32 * 1024];
        loop {
            let length = socket::recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            let mut rest = &buffer[..length];
            while let Some((kind, body, next)) = message(rest) {
                match kind {
                    NLMSG_ERROR | NLMSG_DONE => {
                        let code = body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                        return if code < 0 { Err(Errno::from_raw(-code)) } else { Ok(answers) };
                    }
                    _ if kind == family => {
                        answers.push(body.get(GENERIC..).unwrap_or_default().to_vec());
                    }
                    _ => {}
                }
                rest = next;
            }
        }
    }
}

/// Type and body of the first message, and what comes after it.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(*bytes.first_chunk()?)).ok()?;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let body = bytes.get(HEADER..length)?;
    Some((kind, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    // The values here are a few bytes long.
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?);
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & TYPE, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_read_as_it_is_written() {
        for ipv6 in [false, true] {
            let wanted = GuePort { ipv6, port: 6080 };
            let gue = [address(wanted), attribute(FOU_ATTR_TYPE, &[FOU_ENCAP_GUE])].concat();
            assert_eq!(port(&gue), Some((wanted, true)));
            let direct = [address(wanted), attribute(FOU_ATTR_TYPE, &[1])].concat();
            assert_eq!(port(&direct), Some((wanted, false)));
        }
        assert_eq!(port(&attribute(FOU_ATTR_AF, &[AF_INET])), None, "no port");
        for cut in 0..8 {
            let whole = address(GuePort { ipv6: false, port: 1 });
            assert_eq!(port(&whole[..cut]), None, "cut at {cut}");
        }
    }
}
