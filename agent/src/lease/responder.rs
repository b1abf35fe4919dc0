//! Answers ARP requests and neighbour solicitations for a group's VIPs, which the kernel has on `lo` and is quiet about.
//!
//! It is deaf until the group is claimed: what is asked meanwhile is not even queued. Each answer names the hardware address that the interface
//! has at that moment, and is made before the lease is asked, so that between the look at the clock and the `send` nothing else happens. A thread
//! that is stopped in between sends one answer late; that one is all that can come from a holder that is stopped.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd as _, BorrowedFd};

use lvsmesh_core::model::{Attach, Vip};
use lvsmesh_core::{arp, ndp};
use lvsmesh_kernel::raw::QuestionSocket;
use lvsmesh_kernel::{Errno, KernelError};

use super::segment::Interface;

/// The longest question that is read whole: Ethernet and IPv6 headers, a solicitation, and options, of which real ones have one of 8 bytes.
const LONGEST: usize = 256;

/// An answer, ready to be sent.
pub(super) enum Answer {
    Arp([u8; arp::FRAME_LEN]),
    Ndp([u8; ndp::FRAME_LEN]),
}

/// One group's sockets for questions, of the families that it has.
#[derive(Debug)]
pub(super) struct Responder {
    arp: Option<QuestionSocket>,
    ndp: Option<QuestionSocket>,
    /// The interface forwards IPv6.
    router: bool,
    /// The group's: the kernel may pass questions for others.
    vips: BTreeSet<IpAddr>,
}

impl Responder {
    /// Opens what a group needs whose VIPs the agent answers for; `None` for others.
    pub(super) fn open(vip: &Vip, interface: &Interface) -> Result<Option<Self>, KernelError> {
        match vip.attach {
            Attach::Address => return Ok(None),
            Attach::Responder => {}
        }
        let (mut v4, mut v6): (Vec<Ipv4Addr>, Vec<Ipv6Addr>) = (vec![], vec![]);
        for address in &vip.addresses {
            match *address {
                IpAddr::V4(address) => v4.push(address),
                IpAddr::V6(address) => v6.push(address),
            }
        }
        let groups = v6.iter().copied().map(ndp::solicited_node).collect();
        let arp = (!v4.is_empty()).then(|| QuestionSocket::arp(interface.index, &v4));
        let ndp = (!v6.is_empty()).then(|| QuestionSocket::ndp(interface.index, &v6, &groups));
        let (arp, ndp) = (arp.transpose()?, ndp.transpose()?);
        let vips = vip.addresses.iter().copied().collect();
        Ok(Some(Self { arp, ndp, router: interface.router, vips }))
    }

    fn each(&self) -> impl Iterator<Item = &QuestionSocket> {
        self.arp.iter().chain(&self.ndp)
    }

    pub(super) fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.each().map(QuestionSocket::as_fd)
    }

    /// Questions are received from here on.
    pub(super) fn listen(&self) -> Result<(), Errno> {
        self.each().try_for_each(QuestionSocket::listen)
    }

    /// Questions are not received from here on, and those that were are forgotten. All sockets have their turn, whatever happens to one.
    pub(super) fn ignore(&self) -> Result<(), Errno> {
        self.each().map(QuestionSocket::ignore).fold(Ok(()), Result::and)
    }

    /// The answer to the next question that deserves one; `None` when there are no more, or when `budget` questions were looked at.
    pub(super) fn next(&self, budget: &mut usize) -> Result<Option<Answer>, Errno> {
        let mut buffer = [0; LONGEST];
        while let Some(left) = budget.checked_sub(1) {
            *budget = left;
            if let Some(socket) = &self.arp
                && let Some(frame) = socket.receive(&mut buffer)?
            {
                let asked = arp::Packet::decode(frame).ok();
                let asked = asked.filter(|asked| self.vips.contains(&asked.target.into()));
                let Some(asked) = asked else { continue };
                let Some(mac) = socket.hardware_address()? else { continue };
                if let Some(answer) = asked.answer(mac) {
                    return Ok(Some(Answer::Arp(answer)));
                }
                continue;
            }
            let Some(socket) = &self.ndp else { return Ok(None) };
            let Some(frame) = socket.receive(&mut buffer)? else { return Ok(None) };
            let asked = ndp::Solicitation::decode(frame).ok();
            let asked = asked.filter(|asked| self.vips.contains(&asked.target.into()));
            let Some(asked) = asked else { continue };
            if let Some(mac) = socket.hardware_address()? {
                return Ok(Some(Answer::Ndp(asked.answer(mac, self.router))));
            }
        }
        Ok(None)
    }

    pub(super) fn send(&self, answer: &Answer) -> Result<(), Errno> {
        let (socket, frame) = match answer {
            Answer::Arp(frame) => (&self.arp, frame.as_slice()),
            Answer::Ndp(frame) => (&self.ndp, frame.as_slice()),
        };
        socket.as_ref().map_or(Ok(()), |socket| socket.send(frame))
    }
}
