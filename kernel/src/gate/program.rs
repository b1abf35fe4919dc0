//! The gate's program: what may leave an interface, decided by the kernel at the moment at which it would.
//!
//! Extended BPF (<linux/bpf.h>), written instruction by instruction: it is some eighty of them, and a compiler for them would be one more thing that a
//! machine needs that builds lvsmesh. The kernel verifies it when it is loaded.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::Kind;
use crate::raw::KEY_LEN;

/// `struct bpf_insn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instruction {
    code: u8,
    to: u8,
    from: u8,
    offset: i16,
    value: i32,
}

impl Instruction {
    /// As the kernel reads it.
    pub(super) fn bytes(self) -> [u8; 8] {
        let registers = if cfg!(target_endian = "little") {
            self.to | self.from << 4
        } else {
            self.to << 4 | self.from
        };
        let (offset, value) = (self.offset.to_ne_bytes(), self.value.to_ne_bytes());
        let [a, b, c, d] = value;
        [self.code, registers, offset[0], offset[1], a, b, c, d]
    }
}

// Registers: 0 has results, 1 to 5 are arguments and lost in a call, 6 to 9 stay, 10 points behind the stack.
const STACK: u8 = 10;
/// The packet: `struct __sk_buff`.
const PACKET: u8 = 6;
/// Something that outlives a call.
const KEPT: u8 = 7;

// Operations: classes, sizes and sources as in <linux/bpf.h> and <linux/bpf_common.h>.
const LOAD_BYTE: u8 = 0x71;
const LOAD_WORD: u8 = 0x61;
const LOAD_DOUBLE: u8 = 0x79;
const STORE_WORD: u8 = 0x63;
const SET_WORD: u8 = 0x62;
const SET_DOUBLE: u8 = 0x7a;
const ADD_ATOMIC: u8 = 0xdb;
const LOAD_FD: u8 = 0x18;
const COPY: u8 = 0xbf;
const SET: u8 = 0xb7;
const ADD: u8 = 0x07;
const AND: u8 = 0x57;
const SHIFT_LEFT: u8 = 0x67;
const JUMP: u8 = 0x05;
const IF_EQUAL: u8 = 0x15;
const IF_OTHER: u8 = 0x55;
const IF_BELOW: u8 = 0xad;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
/// `BPF_PSEUDO_MAP_FD`.
const OF_A_MAP: u8 = 1;

// Functions of the kernel, `enum bpf_func_id`.
const MAP_LOOKUP: i32 = 1;
const LOAD_BYTES_RELATIVE: i32 = 68;
const BOOT_TIME: i32 = 125;
/// `BPF_HDR_START_NET`.
const FROM_NETWORK_HEADER: i32 = 1;

// Fields of `struct __sk_buff`.
const SKB_PROTOCOL: i16 = 16;
const SKB_IFINDEX: i16 = 40;

// What becomes of the packet, <linux/pkt_cls.h>: `TC_ACT_UNSPEC` leaves it to the filters that follow.
const PASS: i32 = -1;
const DROP: i32 = 2;

// The stack, from its end: the key, and beneath it what was read. Some kernels (6.9 to 6.12, without CAP_PERFMON) refuse a store to a part of eight bytes in which they have seen
// a number being stored, by whatever function: each eight bytes are written once and whole, or in parts of which the one at their beginning comes last.
const KEY: i16 = -24;
const KEY_BODY: i16 = KEY + 8;
const READ: i16 = -32;
const _: () = assert!(KEY_LEN == 24, "the stack is laid out for it");

/// Where a jump goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Label {
    Arp,
    Ipv4,
    Ipv6,
    Neighbour,
    Target,
    Source,
    Link,
    VrrpV6,
    Vrrp,
    Look,
    Pass,
}

#[derive(Default)]
struct Assembler {
    code: Vec<Instruction>,
    labels: BTreeMap<Label, usize>,
    jumps: Vec<(usize, Label)>,
}

impl Assembler {
    fn push(&mut self, code: u8, to: u8, from: u8, offset: i16, value: i32) {
        self.code.push(Instruction { code, to, from, offset, value });
    }

    fn set(&mut self, register: u8, value: i32) {
        self.push(SET, register, 0, 0, value);
    }

    fn jump(&mut self, code: u8, (left, right): (u8, u8), value: i32, label: Label) {
        self.jumps.push((self.code.len(), label));
        self.push(code, left, right, 0, value);
    }

    fn here(&mut self, label: Label) {
        self.labels.insert(label, self.code.len());
    }

    /// Reads `length` bytes from the network header on to the stack, at the offset in register 2. What is too short passes: it says nothing.
    fn read_at(&mut self, stack: i16, length: i32) {
        self.push(COPY, 1, PACKET, 0, 0);
        self.push(COPY, 3, STACK, 0, 0);
        self.push(ADD, 3, 0, 0, stack.into());
        self.set(4, length);
        self.set(5, FROM_NETWORK_HEADER);
        self.push(CALL, 0, 0, 0, LOAD_BYTES_RELATIVE);
        self.jump(IF_OTHER, (0, 0), 0, Label::Pass);
    }

    fn read(&mut self, offset: i32, stack: i16, length: i32) {
        self.set(2, offset);
        self.read_at(stack, length);
    }

    fn kind(&mut self, kind: Kind) {
        self.push(SET_DOUBLE, STACK, 0, KEY, kind.number());
    }

    /// Finds the stack's `key` in a map; what is not there passes. Register 0 has the value's address.
    fn find(&mut self, map: BorrowedFd<'_>, key: i16) {
        self.push(LOAD_FD, 1, OF_A_MAP, 0, map.as_raw_fd());
        self.push(0, 0, 0, 0, 0);
        self.push(COPY, 2, STACK, 0, 0);
        self.push(ADD, 2, 0, 0, key.into());
        self.push(CALL, 0, 0, 0, MAP_LOOKUP);
        self.jump(IF_EQUAL, (0, 0), 0, Label::Pass);
    }

    fn finish(mut self) -> Vec<Instruction> {
        for (at, label) in self.jumps {
            let target = self.labels[&label];
            // Counted from the next instruction; the program is far shorter than a jump may be.
            let distance = i64::try_from(target).unwrap_or(0) - i64::try_from(at).unwrap_or(0) - 1;
            self.code[at].offset = i16::try_from(distance).unwrap_or(0);
        }
        self.code
    }
}

/// `ETH_P_*` as `__sk_buff.protocol` has it: in network order.
fn protocol(number: u16) -> i32 {
    i32::from(number.to_be())
}

/// The program, for two maps: `guarded`, from [`key`](super::Guarded::key) to the number of a slot, and `slots`, an array of deadline (`CLOCK_BOOTTIME` in nanoseconds) and
/// count.
///
/// Stopped are, of what is guarded by a slot whose deadline has passed: ARP of either kind whose sender has the address (RFC 826), neighbour advertisements for
/// it and solicitations from it (RFC 4861 §4.3, §4.4), VRRP adverts of a router of that number (RFC 9568 §5) but those with priority 0, which give it up.
pub(super) fn program(guarded: BorrowedFd<'_>, slots: BorrowedFd<'_>) -> Vec<Instruction> {
    let mut to = Assembler::default();
    to.push(COPY, PACKET, 1, 0, 0);
    to.push(LOAD_WORD, 1, PACKET, SKB_PROTOCOL, 0);
    to.jump(IF_EQUAL, (1, 0), protocol(0x0806), Label::Arp);
    to.jump(IF_EQUAL, (1, 0), protocol(0x0800), Label::Ipv4);
    to.jump(IF_EQUAL, (1, 0), protocol(0x86dd), Label::Ipv6);
    to.jump(JUMP, (0, 0), 0, Label::Pass);

    // The sender's protocol address, of an ARP packet for Ethernet and IPv4.
    to.here(Label::Arp);
    to.kind(Kind::Ipv4);
    to.push(SET_DOUBLE, STACK, 0, KEY_BODY + 8, 0);
    to.push(SET_WORD, STACK, 0, KEY_BODY + 4, 0);
    to.read(14, KEY_BODY, 4);
    to.jump(JUMP, (0, 0), 0, Label::Look);

    to.here(Label::Ipv6);
    to.read(6, READ, 1);
    to.push(LOAD_BYTE, 1, STACK, READ, 0);
    to.jump(IF_EQUAL, (1, 0), 58, Label::Neighbour);
    to.jump(IF_EQUAL, (1, 0), 112, Label::VrrpV6);
    to.jump(JUMP, (0, 0), 0, Label::Pass);

    // Linux puts no extension header before ICMPv6 of neighbour discovery, and the agent none at all.
    to.here(Label::Neighbour);
    to.kind(Kind::Ipv6);
    to.read(40, READ, 1);
    to.push(LOAD_BYTE, 1, STACK, READ, 0);
    to.jump(IF_EQUAL, (1, 0), 136, Label::Target);
    to.jump(IF_EQUAL, (1, 0), 135, Label::Source);
    to.jump(JUMP, (0, 0), 0, Label::Pass);
    to.here(Label::Target);
    to.read(48, KEY_BODY, 16);
    to.jump(JUMP, (0, 0), 0, Label::Link);
    to.here(Label::Source);
    to.read(8, KEY_BODY, 16);

    // An address of fe80::/10 is one of this link alone: the key has the link in it.
    to.here(Label::Link);
    to.push(LOAD_BYTE, 1, STACK, KEY_BODY, 0);
    to.jump(IF_OTHER, (1, 0), 0xfe, Label::Look);
    to.push(LOAD_BYTE, 1, STACK, KEY_BODY + 1, 0);
    to.push(AND, 1, 0, 0, 0xc0);
    to.jump(IF_OTHER, (1, 0), 0x80, Label::Look);
    to.push(LOAD_WORD, 1, PACKET, SKB_IFINDEX, 0);
    to.push(STORE_WORD, STACK, 1, KEY_BODY + 4, 0);
    to.jump(JUMP, (0, 0), 0, Label::Look);

    to.here(Label::Ipv4);
    to.read(9, READ, 1);
    to.push(LOAD_BYTE, 1, STACK, READ, 0);
    to.jump(IF_OTHER, (1, 0), 112, Label::Pass);
    to.kind(Kind::Router);
    to.read(0, READ, 1);
    to.push(LOAD_BYTE, 2, STACK, READ, 0);
    to.push(AND, 2, 0, 0, 0x0f);
    to.push(SHIFT_LEFT, 2, 0, 0, 2);
    to.read_at(READ, 4);
    to.jump(JUMP, (0, 0), 0, Label::Vrrp);

    to.here(Label::VrrpV6);
    to.kind(Kind::RouterV6);
    to.read(40, READ, 4);

    // Version and type, number, priority, count.
    to.here(Label::Vrrp);
    to.push(LOAD_BYTE, 1, STACK, READ + 2, 0);
    to.jump(IF_EQUAL, (1, 0), 0, Label::Pass);
    to.push(SET_DOUBLE, STACK, 0, KEY_BODY + 8, 0);
    to.push(LOAD_BYTE, 1, STACK, READ + 1, 0);
    to.push(STORE_WORD, STACK, 1, KEY_BODY + 4, 0);
    to.push(LOAD_WORD, 1, PACKET, SKB_IFINDEX, 0);
    to.push(STORE_WORD, STACK, 1, KEY_BODY, 0);

    to.here(Label::Look);
    to.find(guarded, KEY);
    to.push(LOAD_WORD, 1, 0, 0, 0);
    to.push(STORE_WORD, STACK, 1, READ, 0);
    to.find(slots, READ);
    to.push(COPY, KEPT, 0, 0, 0);
    to.push(CALL, 0, 0, 0, BOOT_TIME);
    to.push(LOAD_DOUBLE, 1, KEPT, 0, 0);
    to.jump(IF_BELOW, (0, 1), 0, Label::Pass);
    to.set(1, 1);
    to.push(ADD_ATOMIC, KEPT, 1, 8, 0);
    to.set(0, DROP);
    to.push(EXIT, 0, 0, 0, 0);

    to.here(Label::Pass);
    to.set(0, PASS);
    to.push(EXIT, 0, 0, 0, 0);
    to.finish()
}
