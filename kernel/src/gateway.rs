//! The default gateways of an interface.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `RTF_GATEWAY`, <linux/route.h>.
const THROUGH_A_GATEWAY: u32 = 2;

/// The gateways of the default routes of the calling thread's network namespace that leave through that interface, IPv4 first, each once;
/// none where the kernel does not say. Other tables than the main one are not looked at.
#[must_use]
pub fn gateways(interface: &str) -> Vec<IpAddr> {
    let read = |name| std::fs::read_to_string(format!("/proc/thread-self/net/{name}"));
    let v4 = read("route").unwrap_or_default();
    let v6 = read("ipv6_route").unwrap_or_default();
    let lines = v4.lines().filter_map(|line| ipv4(line, interface));
    let mut found: Vec<IpAddr> = Vec::new();
    for gateway in lines.chain(v6.lines().filter_map(|line| ipv6(line, interface))) {
        if !found.contains(&gateway) {
            found.push(gateway);
        }
    }
    found
}

/// A line of `/proc/net/route` (`fib_route_seq_show`, net/ipv4/fib_trie.c): addresses as the numbers that their bytes are in memory.
fn ipv4(line: &str, interface: &str) -> Option<IpAddr> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [name, destination, gateway, flags, _, _, _, mask, ..] = fields.as_slice() else {
        return None;
    };
    let number = |text: &str| u32::from_str_radix(text, 16).ok();
    let default = number(destination)? == 0 && number(mask)? == 0;
    let through = number(flags)? & THROUGH_A_GATEWAY != 0;
    (*name == interface && default && through)
        .then(|| number(gateway).map(|bytes| Ipv4Addr::from(bytes.to_ne_bytes()).into()))?
}

/// A line of `/proc/net/ipv6_route` (`rt6_info_route`, net/ipv6/route.c).
fn ipv6(line: &str, interface: &str) -> Option<IpAddr> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [_, length, _, _, gateway, _, _, _, flags, name] = fields.as_slice() else { return None };
    let through = u32::from_str_radix(flags, 16).ok()? & THROUGH_A_GATEWAY != 0;
    let gateway = u128::from_str_radix(gateway, 16).ok()?;
    (*name == interface && *length == "00" && through).then(|| Ipv6Addr::from(gateway).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_endian = "little")]
    #[test]
    fn only_default_routes_through_that_interface_count() {
        #[rustfmt::skip]
        let cases = [
            ("eth0 00000000 0103A8C0 0003 0 0 0 00000000 0 0 0",   Some("192.168.3.1")),
            ("eth1 00000000 0103A8C0 0003 0 0 0 00000000 0 0 0",   None),
            ("eth0 0003A8C0 0103A8C0 0003 0 0 0 00FFFFFF 0 0 0",   None),
            ("eth0 00000000 00000000 0001 0 0 0 00000000 0 0 0",   None),
            ("Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT", None),
            ("", None),
        ];
        for (line, gateway) in cases {
            assert_eq!(ipv4(line, "eth0"), gateway.map(|text| text.parse().unwrap()), "{line:?}");
        }
    }

    #[test]
    fn ipv6_default_routes_count_too() {
        let zero = "00000000000000000000000000000000";
        let line = |length: &str, flags: &str| {
            format!(
                "{zero} {length} {zero} 00 fe800000000000000000000000000001 00000400 00000001 00000000 {flags} eth0"
            )
        };
        let gateway = Some("fe80::1".parse().unwrap());
        assert_eq!(ipv6(&line("00", "00000003"), "eth0"), gateway);
        assert_eq!(ipv6(&line("00", "00000003"), "eth1"), None);
        assert_eq!(ipv6(&line("40", "00000003"), "eth0"), None);
        assert_eq!(ipv6(&line("00", "00200200"), "eth0"), None, "the null route");
    }
}
