//! Extended BPF (bpf(2)): maps, and a program for packets that leave an interface.
#![forbid(unsafe_code)]

use std::os::fd::{BorrowedFd, OwnedFd};

use nix::errno::Errno;

use super::{bpf_element, bpf_open};

// `enum bpf_cmd`, `bpf_map_type`, `bpf_prog_type` and flags, <linux/bpf.h>.
const MAP_CREATE: i32 = 0;
const MAP_UPDATE_ELEM: i32 = 2;
const MAP_DELETE_ELEM: i32 = 3;
const PROG_LOAD: i32 = 5;
const MAP_TYPE_HASH: u32 = 1;
const MAP_TYPE_ARRAY: u32 = 2;
const MMAPABLE: u32 = 1 << 10;
const PROG_TYPE_SCHED_CLS: u32 = 3;

/// Two words.
pub(crate) const SLOT_LEN: usize = 16;
/// Keys and values of the gate's map of what is guarded.
pub(crate) const KEY_LEN: usize = 24;
const VALUE_LEN: usize = 4;

/// Names are so long, with the zero at their end; `BPF_OBJ_NAME_LEN`.
const NAME_LEN: usize = 16;

/// Which of the gate's maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MapKind {
    /// A hash, from keys of 24 bytes to values of four. Memory is taken as entries come.
    Guarded,
    /// An array of two words of eight bytes each, shared with the process's memory.
    Slots,
}

/// Two numbers of 32 bits, as they lie beside each other in memory.
fn pair(first: u32, second: u32) -> u64 {
    let ([a, b, c, d], [e, f, g, h]) = (first.to_ne_bytes(), second.to_ne_bytes());
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

/// One, and nothing beside it.
pub(super) fn low(number: u32) -> u64 {
    pair(number, 0)
}

/// A name in the attributes, for `bpftool`.
fn named(name: &str) -> [u8; NAME_LEN] {
    let mut bytes = [0; NAME_LEN];
    let length = name.len().min(NAME_LEN - 1);
    bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
    bytes
}

/// Attributes out of 128 bytes.
fn attributes(bytes: &[u8; 128]) -> [u64; 16] {
    let (words, _) = bytes.as_chunks::<8>();
    std::array::from_fn(|index| u64::from_ne_bytes(words[index]))
}

/// Makes a map.
pub(crate) fn bpf_map(kind: MapKind, entries: u32, name: &str) -> Result<OwnedFd, Errno> {
    /// `BPF_F_NO_PREALLOC`.
    const AS_THEY_COME: u32 = 1;
    let (kind, key, value, flags) = match kind {
        MapKind::Guarded => (MAP_TYPE_HASH, KEY_LEN, VALUE_LEN, AS_THEY_COME),
        MapKind::Slots => (MAP_TYPE_ARRAY, size_of::<u32>(), SLOT_LEN, MMAPABLE),
    };
    let length = |bytes| u32::try_from(bytes).map_err(|_| Errno::EINVAL);
    let (key, value) = (length(key)?, length(value)?);
    let mut bytes = [0; 128];
    for (index, number) in [kind, key, value, entries, flags].into_iter().enumerate() {
        bytes[index * 4..index * 4 + 4].copy_from_slice(&number.to_ne_bytes());
    }
    bytes[28..28 + NAME_LEN].copy_from_slice(&named(name));
    bpf_open(MAP_CREATE, &attributes(&bytes), &[])
}

/// Puts a value under a key of a map of the kind [`MapKind::Guarded`].
pub(crate) fn bpf_map_update(
    map: BorrowedFd<'_>,
    key: &[u8; KEY_LEN],
    value: u32,
) -> Result<(), Errno> {
    bpf_element(MAP_UPDATE_ELEM, map, key, Some(&value.to_ne_bytes()))
}

/// Takes a key away.
///
/// # Errors
///
/// `ENOENT` if it is not there.
pub(crate) fn bpf_map_delete(map: BorrowedFd<'_>, key: &[u8; KEY_LEN]) -> Result<(), Errno> {
    bpf_element(MAP_DELETE_ELEM, map, key, None)
}

/// Has the kernel verify and keep a program for packets (`BPF_PROG_TYPE_SCHED_CLS`).
pub(crate) fn bpf_program(code: &[[u8; 8]], name: &str) -> Result<OwnedFd, Errno> {
    // It calls no function that wants the GPL.
    const LICENSE: &[u8] = b"Apache-2.0\0";
    let count = u32::try_from(code.len()).map_err(|_| Errno::E2BIG)?;
    let code = code.as_flattened();
    let mut bytes = [0; 128];
    let numbers = [pair(PROG_TYPE_SCHED_CLS, count), code.as_ptr() as u64, LICENSE.as_ptr() as u64];
    for (index, number) in numbers.into_iter().enumerate() {
        bytes[index * 8..index * 8 + 8].copy_from_slice(&number.to_ne_bytes());
    }
    bytes[48..48 + NAME_LEN].copy_from_slice(&named(name));
    bpf_open(PROG_LOAD, &attributes(&bytes), &[code, LICENSE])
}
