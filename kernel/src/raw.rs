//! Sockets below IP and calls that no library wraps: the only `unsafe` of lvsmesh is in this file.
//!
//! The files beneath it use what is here and are safe themselves. All sockets are non-blocking and belong to the network namespace of the
//! thread that opens them; none allocates after it was opened.
#![expect(unsafe_code, reason = "each block says why no safe wrapper does")]

mod arp;
mod bpf;
mod page;
mod process;
mod solicit;
mod vrrp;
mod vrrp_v6;

use std::fs::File;
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::AtomicU64;

pub use arp::{FrameListener, FrameSender, LinkTarget};
pub(crate) use bpf::{
    KEY_LEN, MapKind, SLOT_LEN, bpf_map, bpf_map_delete, bpf_map_update, bpf_program,
};
use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap};
use nix::unistd::Pid;
pub use page::{SharedWords, WORDS};
pub use process::{ProcessHandle, RealTimeThread, favour, lock_memory, real_time};
use socket2::SockAddr;
pub use solicit::QuestionSocket;
pub use vrrp::{GROUP, Received, VrrpSocket};
pub use vrrp_v6::{GROUP_V6, VrrpSocketV6};

/// `ETH_P_ARP`, <linux/if_ether.h>.
const ETH_P_ARP: u16 = 0x0806;
/// `ETH_P_IPV6`, <linux/if_ether.h>.
const ETH_P_IPV6: u16 = 0x86dd;

/// The address of an interface for a packet socket, for frames of one `protocol` (packet(7)). The hardware address stays empty: `SOCK_RAW`
/// frames carry it themselves.
fn link_address(ifindex: u32, protocol: u16) -> Result<SockAddr, Errno> {
    let ifindex = i32::try_from(ifindex).map_err(|_| Errno::ENODEV)?;
    let family = u16::try_from(libc::AF_PACKET).map_err(|_| Errno::EAFNOSUPPORT)?;
    let size =
        libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).map_err(|_| Errno::EOVERFLOW)?;
    // SAFETY: `storage` points to zeroed memory for a `sockaddr_storage`, which is large enough and sufficiently aligned for every address
    // family, `sockaddr_ll` included, and all zeroes are a valid `sockaddr_ll`; the length that is set is that of the `sockaddr_ll` written.
    // nix builds a `LinkAddr` only from a pointer, socket2 has no other way to a link address.
    let (_, address) = unsafe {
        SockAddr::try_init(|storage, length| {
            let link = &mut *storage.cast::<libc::sockaddr_ll>();
            link.sll_family = family;
            link.sll_protocol = protocol.to_be();
            link.sll_ifindex = ifindex;
            *length = size;
            Ok(())
        })
    }
    .map_err(|_| Errno::EINVAL)?;
    Ok(address)
}

/// `pidfd_open(2)`, Linux 5.3.
fn pidfd_open(pid: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: the call takes two integers and touches no memory of ours. Neither nix nor the standard library's stable part has it.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    let fd = i32::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just opened this descriptor for us, with close-on-exec, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `pidfd_send_signal(2)` of SIGKILL, Linux 5.1.
fn pidfd_kill(process: BorrowedFd<'_>) -> Result<(), Errno> {
    let (fd, no_info) = (process.as_raw_fd(), std::ptr::null::<libc::siginfo_t>());
    // SAFETY: the descriptor is open across the call, and a null pointer stands for the siginfo that kill(2) would send. Neither nix nor the standard
    // library's stable part has it.
    Errno::result(unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, fd, libc::SIGKILL, no_info, 0)
    })?;
    Ok(())
}

/// The first page of a file, shared with every process that maps it, until this process ends.
fn map_words(file: &File) -> Result<&'static [AtomicU64; WORDS], Errno> {
    let length = NonZeroUsize::new(WORDS * size_of::<u64>()).ok_or(Errno::EINVAL)?;
    let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: the kernel chooses where, so nothing that is there is replaced.
    let at = unsafe { mmap(None, length, access, MapFlags::MAP_SHARED, file, 0) }?;
    // SAFETY: it is never unmapped, it is aligned to a page and as long as was asked for, any bits are an `AtomicU64`, and nobody reaches it in
    // another way. The callers made the file that long, and nobody makes it shorter, without which a look at it would end the process.
    Ok(unsafe { at.cast::<[AtomicU64; WORDS]>().as_ref() })
}

/// The memory of a BPF array that was made to be shared, `words` of eight bytes from its beginning, until this process ends.
pub(crate) fn share_map(map: BorrowedFd<'_>, words: usize) -> Result<&'static [AtomicU64], Errno> {
    let length = NonZeroUsize::new(words * size_of::<u64>()).ok_or(Errno::EINVAL)?;
    let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: the kernel chooses where, so nothing that is there is replaced; it refuses a length beyond the map's.
    let at = unsafe { mmap(None, length, access, MapFlags::MAP_SHARED, map, 0) }?;
    // SAFETY: it is never unmapped, it is aligned to a page and as long as was asked for, any bits are an `AtomicU64`, and nobody in this process reaches it in
    // another way. Closing the descriptor leaves the mapping and the map.
    Ok(unsafe { std::slice::from_raw_parts(at.cast::<AtomicU64>().as_ptr(), words) })
}

/// `bpf(2)` with the attributes of a command; what they point to has to live across the call, and has to be as long as the command has it.
///
/// # Safety
///
/// Every pointer among the attributes points to memory that is valid for what the command does with it.
unsafe fn bpf(command: i32, attributes: &[u64; 16]) -> Result<i32, Errno> {
    // SAFETY: the attributes are read alone, by their length, of which the kernel wants what it does not know to be zero; the rest is the caller's. Neither nix
    // nor libc has a wrapper.
    let outcome = unsafe {
        libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size_of_val(attributes))
    };
    i32::try_from(Errno::result(outcome)?).map_err(|_| Errno::EOVERFLOW)
}

/// A command of `bpf(2)` that opens a descriptor and reads `code` and `license` alone.
fn bpf_open(command: i32, attributes: &[u64; 16], pointed_to: &[&[u8]]) -> Result<OwnedFd, Errno> {
    let own = |at: &u64| pointed_to.iter().any(|bytes| bytes.as_ptr() as u64 == *at);
    debug_assert_eq!(attributes.iter().filter(|at| own(at)).count(), pointed_to.len());
    // SAFETY: `bpf.rs` builds the attributes out of numbers and of the addresses of `pointed_to`, with their lengths; they live across the call.
    let fd = unsafe { bpf(command, attributes) }?;
    // SAFETY: the kernel has just opened this descriptor for us, with close-on-exec, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `BPF_MAP_UPDATE_ELEM`, or `BPF_MAP_DELETE_ELEM` without a value, on a map of the kind [`MapKind::Guarded`].
fn bpf_element(
    command: i32,
    map: BorrowedFd<'_>,
    key: &[u8; KEY_LEN],
    value: Option<&[u8; 4]>,
) -> Result<(), Errno> {
    let mut attributes = [0; 16];
    attributes[0] = bpf::low(map.as_raw_fd().cast_unsigned());
    attributes[1] = key.as_ptr() as u64;
    attributes[2] = value.map_or(0, |value| value.as_ptr() as u64);
    // SAFETY: key and value live across the call, which only reads them, and are as long as a map of
    // that kind has them; there are no other hashes, and an array takes keys and values that are shorter or as long.
    unsafe { bpf(command, &attributes) }.map(drop)
}

/// `sched_setscheduler(2)` of that thread of this process; 0: the calling one. Threads and processes that it starts have the ordinary schedule.
fn set_schedule(thread: Pid, policy: i32, priority: i32) -> Result<(), Errno> {
    let parameters = libc::sched_param { sched_priority: priority };
    let policy = policy | libc::SCHED_RESET_ON_FORK;
    // SAFETY: `parameters` lives across the call, which only reads it. nix has no wrapper.
    Errno::result(unsafe {
        libc::sched_setscheduler(thread.as_raw(), policy, &raw const parameters)
    })?;
    Ok(())
}

/// `setpriority(2)` of the calling thread alone, as Linux has it; from -20, before all others, to 19.
fn set_nice(nice: i32) -> Result<(), Errno> {
    // SAFETY: the call takes three integers and touches no memory of ours; 0 names the calling thread. nix has no wrapper.
    Errno::result(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) })?;
    Ok(())
}

fn set_round_robin(priority: i32) -> Result<(), Errno> {
    set_schedule(Pid::from_raw(0), libc::SCHED_RR, priority)
}

fn set_ordinary(thread: Pid) -> Result<(), Errno> {
    set_schedule(thread, libc::SCHED_OTHER, 0)
}
