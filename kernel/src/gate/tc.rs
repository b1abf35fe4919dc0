//! Where the gate's program is attached: behind the `clsact` queueing discipline of an interface, for what leaves it (tc-bpf(8)).

use std::os::fd::{AsRawFd as _, BorrowedFd};

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcHeader, TcMessage,
    TcOption,
};
use nix::errno::Errno;

use crate::route_socket::RouteSocket;

/// What `tc filter show dev … egress` calls it.
const NAME: &str = "lvsmesh_gate";

/// Its place among the filters of an interface: the first. Whoever comes before it and decides about a packet lets it past the gate; what the gate passes goes to
/// those after it.
const PRIORITY: u16 = 1;

/// Its number among those of this priority: `lvsm`. Others begin at 1.
const NUMBER: u32 = 0x6c76_736d;

/// `ETH_P_ALL`, <linux/if_ether.h>.
const EVERY_PROTOCOL: u16 = 0x0003;

/// What leaves, behind `clsact`.
const EGRESS: TcHandle = TcHandle { major: u16::MAX, minor: TcHandle::MIN_EGRESS };

fn filter(ifindex: i32) -> TcMessage {
    let header = TcHeader {
        index: ifindex,
        handle: TcHandle::from(NUMBER),
        parent: EGRESS,
        info: u32::from(PRIORITY) << 16 | u32::from(EVERY_PROTOCOL.to_be()),
        ..TcHeader::default()
    };
    TcMessage::from_parts(header, vec![TcAttribute::Kind(TcFilterBpf::KIND.to_owned())])
}

fn ask(routes: &mut RouteSocket, message: RouteNetlinkMessage, flags: u16) -> Result<(), Errno> {
    let mut message = NetlinkMessage::from(message);
    message.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    routes.perform(&mut bytes)
}

/// Puts the program before everything that leaves the interface, in the place of one that an earlier run has left.
pub(super) fn attach(
    routes: &mut RouteSocket,
    ifindex: i32,
    program: BorrowedFd<'_>,
) -> Result<(), Errno> {
    let header = TcHeader {
        index: ifindex,
        handle: TcHandle { major: u16::MAX, minor: 0 },
        parent: TcHandle::CLSACT,
        ..TcHeader::default()
    };
    let hook = TcMessage::from_parts(header, vec![TcAttribute::Kind("clsact".to_owned())]);
    // Without NLM_F_EXCL: one that is there, because somebody else uses it as well, is fine; but an `ingress`, which would take the filter for what comes in, is
    // another kind and refused.
    ask(routes, RouteNetlinkMessage::NewQueueDiscipline(hook), NLM_F_CREATE)?;
    let mut filter = filter(ifindex);
    let program = u32::try_from(program.as_raw_fd()).map_err(|_| Errno::EBADF)?;
    filter.attributes.push(TcAttribute::Options(vec![
        TcOption::Bpf(TcFilterBpfOption::ProgFd(program)),
        TcOption::Bpf(TcFilterBpfOption::ProgName(NAME.to_owned())),
        TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
    ]));
    ask(routes, RouteNetlinkMessage::NewTrafficFilter(filter), NLM_F_CREATE | NLM_F_REPLACE)
}

/// Takes it away. The hook stays: it does nothing by itself, and others may use it.
pub(super) fn detach(routes: &mut RouteSocket, ifindex: i32) -> Result<(), Errno> {
    match ask(routes, RouteNetlinkMessage::DelTrafficFilter(filter(ifindex)), 0) {
        // No such filter, no such hook, no such interface, no filters at all.
        Ok(()) | Err(Errno::ENOENT | Errno::EINVAL | Errno::ENODEV | Errno::EOPNOTSUPP) => Ok(()),
        Err(errno) => Err(errno),
    }
}
