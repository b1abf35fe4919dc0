//! A deadline in the packet path: what says that this machine has an address leaves it only until then, and the kernel itself looks at the clock.
//!
//! A program behind `clsact` sees what leaves an interface. It knows which addresses and virtual routers are guarded and, for each, until when they may be
//! claimed. The deadline is a word of memory that this process writes and the program reads, so that moving it costs no system call, and letting it pass takes
//! nobody: it holds for an agent that is stopped, for one that was stopped between its look at the clock and the `send`, and for an address that the kernel answers for
//! by itself. What comes in, and what is sent from the address otherwise, goes on.
//!
//! It stays when the process ends: an address may have stayed, too. Whoever takes that away takes the program away as well ([`Program::detach`]).
//! Needs CAP_BPF beside CAP_NET_ADMIN, Linux 5.8 and its `cls_bpf` and `sch_ingress`.

mod program;
mod tc;

use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lvsmesh_core::time::{Mono, nanos};
use nix::errno::Errno;

use crate::clock::{boot_now, raw_now};
use crate::error::KernelError;
use crate::raw::{
    KEY_LEN, MapKind, SLOT_LEN, bpf_map, bpf_map_delete, bpf_map_update, bpf_program, share_map,
};
use crate::route_socket::RouteSocket;

/// So many slots there are: a page of memory.
const SLOTS: u32 = 256;
/// So many addresses and routers can be guarded at a time. Before Linux 5.11 each counts as locked memory from the beginning.
const MOST_GUARDED: u32 = 4_096;

/// What a key of the map of guarded things says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ipv4,
    Ipv6,
    Router,
    RouterV6,
}

impl Kind {
    /// As the program sets it: eight bytes out of a positive number of four.
    fn number(self) -> i32 {
        match self {
            Self::Ipv4 => 4,
            Self::Ipv6 => 6,
            Self::Router => 112,
            Self::RouterV6 => 113,
        }
    }
}

/// Something that a machine can claim to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Guarded {
    /// An address, on whatever interface; one of a link (`fe80::/10`), on that one.
    Address {
        /// The address.
        address: IpAddr,
        /// Index of the interface, which counts for a link's addresses alone: others may be on several links and are different ones there.
        ifindex: u32,
    },
    /// A VRRP virtual router: adverts of it, but those that give it up.
    Router {
        /// Index of the interface that they leave by.
        ifindex: u32,
        /// VRID.
        vrid: u8,
        /// Over IPv6.
        ipv6: bool,
    },
}

impl Guarded {
    /// Kind and address, or kind, interface and number.
    fn key(self) -> [u8; KEY_LEN] {
        let mut key = [0; KEY_LEN];
        let mut put = |kind: Kind, body: &[u8]| {
            key[..8].copy_from_slice(&i64::from(kind.number()).to_ne_bytes());
            key[8..8 + body.len()].copy_from_slice(body);
        };
        match self {
            Self::Address { address: IpAddr::V4(address), .. } => {
                put(Kind::Ipv4, &address.octets());
            }
            Self::Address { address: IpAddr::V6(address), ifindex } => {
                let mut body = address.octets();
                if address.is_unicast_link_local() {
                    // Bits 32 to 63, which are zero (RFC 4291 §2.5.6).
                    body[4..8].copy_from_slice(&ifindex.to_ne_bytes());
                }
                put(Kind::Ipv6, &body);
            }
            Self::Router { ifindex, vrid, ipv6 } => {
                let kind = if ipv6 { Kind::RouterV6 } else { Kind::Router };
                let (index, [a, b, c, d]) = (ifindex.to_ne_bytes(), u32::from(vrid).to_ne_bytes());
                put(kind, &[index[0], index[1], index[2], index[3], a, b, c, d]);
            }
        }
        key
    }
}

/// One deadline, and how much it has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(u32);

/// The program and its memory.
#[derive(Debug)]
pub struct Gate {
    guarded: OwnedFd,
    program: Arc<Program>,
    words: &'static [AtomicU64],
    free: Vec<u32>,
}

/// The program alone: attaching it may have the kernel load modules, which takes as long as it takes.
#[derive(Debug)]
pub struct Program(OwnedFd);

impl Program {
    /// Lets what leaves that interface through the program, in place of an earlier one.
    ///
    /// # Errors
    ///
    /// `ENODEV` without such an interface, `EPERM` without CAP_NET_ADMIN, `ENOENT` where the kernel has no `clsact` or no `cls_bpf`, `EINVAL` where a
    /// queueing discipline `ingress` is in the way, `EAGAIN` if no answer came in time.
    pub fn attach(&self, routes: &mut RouteSocket, ifindex: u32) -> Result<(), KernelError> {
        let refused = |errno| {
            KernelError::refused(
                "attach",
                format!("the gate to the interface with index {ifindex}"),
                errno,
            )
        };
        let index = i32::try_from(ifindex).map_err(|_| refused(Errno::ENODEV))?;
        tc::attach(routes, index, self.0.as_fd()).map_err(refused)
    }

    /// Takes the program away from that interface, whoever has put it there. One that is not there is gone.
    ///
    /// # Errors
    ///
    /// `EPERM` without CAP_NET_ADMIN, `EAGAIN` if no answer came in time.
    pub fn detach(routes: &mut RouteSocket, ifindex: u32) -> Result<(), Errno> {
        i32::try_from(ifindex).map_or(Ok(()), |index| tc::detach(routes, index))
    }
}

impl Gate {
    /// Loads the program. Nothing is guarded, and it is attached nowhere.
    ///
    /// # Errors
    ///
    /// `EPERM` without CAP_BPF, `EINVAL` or `ENOSYS` on a kernel that lacks what it takes.
    pub fn load() -> Result<Self, KernelError> {
        let refused =
            |object: &'static str| move |errno| KernelError::refused("load", object, errno);
        let map =
            |kind, entries, name| bpf_map(kind, entries, name).map_err(refused("the gate's maps"));
        let guarded = map(MapKind::Guarded, MOST_GUARDED, "lvsmesh_guarded")?;
        let slots = map(MapKind::Slots, SLOTS, "lvsmesh_slots")?;
        let code: Vec<[u8; 8]> = program::program(guarded.as_fd(), slots.as_fd())
            .into_iter()
            .map(program::Instruction::bytes)
            .collect();
        let program = bpf_program(&code, "lvsmesh_gate").map_err(refused("the gate's program"))?;
        let words = SLOT_LEN / 8 * usize::try_from(SLOTS).unwrap_or(0);
        let words = share_map(slots.as_fd(), words).map_err(refused("the gate's deadlines"))?;
        let program = Arc::new(Program(program));
        Ok(Self { guarded, program, words, free: (0..SLOTS).rev().collect() })
    }

    /// The program, to be attached.
    #[must_use]
    pub fn program(&self) -> Arc<Program> {
        Arc::clone(&self.program)
    }

    /// A deadline of one's own, which has passed; `None`: all 256 are taken.
    pub fn take(&mut self) -> Option<Slot> {
        let slot = Slot(self.free.pop()?);
        self.close(&slot);
        Some(slot)
    }

    /// Gives a deadline back. What it guards must have been [released](Self::release) before.
    pub fn put_back(&mut self, slot: Slot) {
        self.close(&slot);
        self.free.push(slot.0);
    }

    /// From here on that may be claimed until the slot's deadline and no longer.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, `E2BIG` if too much is guarded.
    pub fn guard(&self, slot: &Slot, what: Guarded) -> Result<(), Errno> {
        bpf_map_update(self.guarded.as_fd(), &what.key(), slot.0)
    }

    /// From here on that may be claimed at any time. One that is not guarded is released.
    ///
    /// # Errors
    ///
    /// None that is known of.
    pub fn release(&self, what: Guarded) -> Result<(), Errno> {
        match bpf_map_delete(self.guarded.as_fd(), &what.key()) {
            Err(Errno::ENOENT) => Ok(()),
            outcome => outcome,
        }
    }

    /// Moves the deadline.
    ///
    /// The program has `CLOCK_BOOTTIME`, which is slewed against the clock of `until`: by up to a tenth through the length of a tick, which is what
    /// chronyd uses, and by 500 millionths through the frequency (adjtimex(2)). That much of what is left is given away: the kernel's clock may be the slow one.
    pub fn open_until(&self, slot: &Slot, until: Mono) {
        // In this order: a pause in between makes the deadline earlier.
        let boot = boot_now();
        let left = until.remaining(raw_now());
        let left = left * 898 / 1000;
        let deadline = if left.is_zero() { 0 } else { nanos(boot.saturating_add(left)) };
        self.word(slot, 0).store(deadline, Ordering::Release);
    }

    /// The deadline has passed.
    pub fn close(&self, slot: &Slot) {
        self.word(slot, 0).store(0, Ordering::Release);
    }

    /// How many packets the deadlines have stopped since the program was loaded.
    #[must_use]
    pub fn stopped(&self) -> u64 {
        let counts = self.words.iter().skip(1).step_by(2);
        counts.map(|count| count.load(Ordering::Acquire)).sum()
    }

    fn word(&self, slot: &Slot, which: usize) -> &AtomicU64 {
        let slot = usize::try_from(slot.0).unwrap_or(0);
        &self.words[slot * 2 + which]
    }
}
