//! UDP ports on which the kernel takes packets out of GUE, over the generic netlink family `fou` (net/ipv4/fou.c, <linux/fou.h>).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use lvsmesh_core::plan::Action;
use lvsmesh_core::plan::path::{GuePort, PathAction};
use neli::genl::Nlattr;
use neli::types::Buffer;
use nix::errno::Errno;

use crate::error::{KernelError, describe, load_module};
use crate::genl::{Ask, Family, attribute, values};

// <linux/fou.h>
const FAMILY: &str = "fou";
const VERSION: u8 = 1;
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
pub(crate) async fn list() -> Result<Option<BTreeMap<GuePort, bool>>, KernelError> {
    let error = |errno| KernelError::refused("list", "GUE ports", errno);
    let mut family = match Family::open(FAMILY, VERSION).await {
        Ok(family) => family,
        Err(Errno::ENOENT) => return Ok(None),
        Err(errno) => return Err(error(errno)),
    };
    let answers = family.ask(Ask::List, FOU_CMD_GET, vec![]).await.map_err(error)?;
    Ok(Some(answers.iter().filter_map(|answer| port(values(answer))).collect()))
}

/// Receives GUE on a port. Where the kernel's module is not loaded, this tries to load it, once: the module has no alias by which the kernel
/// would find it by itself (Linux 6.1).
///
/// # Errors
///
/// `ENOENT` if the kernel has no Foo-over-UDP, `EADDRINUSE` if something else has the port.
pub(crate) async fn add(port: GuePort) -> Result<(), KernelError> {
    static TRIED: AtomicBool = AtomicBool::new(false);

    let kind = attribute(FOU_ATTR_TYPE, &[FOU_ENCAP_GUE]);
    let attributes: Vec<_> = address(port).into_iter().chain([kind]).collect();
    let action = PathAction::AddPort(port);
    let outcome = perform(&action, FOU_CMD_ADD, attributes.clone()).await;
    let missing = outcome.as_ref().is_err_and(|error| error.errno() == Some(Errno::ENOENT));
    if !missing || TRIED.swap(true, Ordering::Relaxed) {
        return outcome;
    }
    if let Err(error) = load_module("fou") {
        tracing::warn!(%error, "GUE needs the kernel's Foo-over-UDP");
    }
    perform(&action, FOU_CMD_ADD, attributes).await
}

/// Stops that.
///
/// # Errors
///
/// `ENOENT` if there is no such port.
pub(crate) async fn remove(port: GuePort) -> Result<(), KernelError> {
    perform(&PathAction::RemovePort(port), FOU_CMD_DEL, address(port).into()).await
}

async fn perform(
    action: &PathAction,
    command: u8,
    attributes: Vec<Nlattr<u16, Buffer>>,
) -> Result<(), KernelError> {
    let (operation, object) = describe(&Action::Path(action.clone()));
    let done = async {
        let mut family = Family::open(FAMILY, VERSION).await?;
        family.ask(Ask::Once, command, attributes).await
    };
    done.await.map(drop).map_err(|errno| KernelError::refused(operation, object, errno))
}

fn address(port: GuePort) -> [Nlattr<u16, Buffer>; 2] {
    let family = if port.ipv6 { AF_INET6 } else { AF_INET };
    [attribute(FOU_ATTR_PORT, &port.port.to_be_bytes()), attribute(FOU_ATTR_AF, &[family])]
}

fn port<'a>(answer: impl Iterator<Item = (u16, &'a [u8])>) -> Option<(GuePort, bool)> {
    let mut found = (None, None, false);
    for (kind, value) in answer {
        match (kind, value) {
            (FOU_ATTR_PORT, &[high, low]) => found.0 = Some(u16::from_be_bytes([high, low])),
            (FOU_ATTR_AF, &[family]) => found.1 = Some(family == AF_INET6),
            (FOU_ATTR_TYPE, &[kind]) => found.2 = kind == FOU_ENCAP_GUE,
            _ => {}
        }
    }
    Some((GuePort { ipv6: found.1?, port: found.0? }, found.2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::genl::Attributes;

    fn read(attributes: impl IntoIterator<Item = Nlattr<u16, Buffer>>) -> Option<(GuePort, bool)> {
        let answer: Attributes = attributes.into_iter().collect();
        port(values(&answer))
    }

    #[test]
    fn a_port_is_read_as_it_is_written() {
        for ipv6 in [false, true] {
            let wanted = GuePort { ipv6, port: 6080 };
            let kind = |kind| attribute(FOU_ATTR_TYPE, &[kind]);
            let gue = address(wanted).into_iter().chain([kind(FOU_ENCAP_GUE)]);
            assert_eq!(read(gue), Some((wanted, true)));
            let direct = address(wanted).into_iter().chain([kind(1)]);
            assert_eq!(read(direct), Some((wanted, false)));
        }
        assert_eq!(read([attribute(FOU_ATTR_AF, &[AF_INET])]), None, "no port");
        assert_eq!(read([attribute(FOU_ATTR_PORT, &[1])]), None, "half a port");
    }
}
