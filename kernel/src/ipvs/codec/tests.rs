//! Answers recorded from Linux 6.1.192 (Debian's 6.1.0-56-amd64) on 2026-11-22, without their netlink and generic netlink headers. ipvsadm 1.31
//! had made what they describe:
//!
//! ```text
//! ipvsadm -A -t 192.0.2.100:80 -s wlc -p 50 -M 255.255.255.0
//! ipvsadm -a -t 192.0.2.100:80 -r 198.51.100.1:80 -g -w 3 -x 1000 -y 800
//! ipvsadm -A -f 7 -6 -s rr
//! ipvsadm -a -f 7 -6 -r [2001:db8::1]:0 -g -w 1
//! ```

use super::*;

const INFO: &str = "\
    08000100010201000800020000100000\
";
const V4_SERVICE: &str = "\
    2c0101000600010002000000060002000600000014000300c0000264000000000000000000000000060004000050000008000600776c63000c000700\
    03000000ffffffff080008003200000008000900ffffff005c000a000800010000000000080002000000000008000300000000000c00040000000000\
    000000000c0005000000000000000000080006000000000008000700000000000800080000000000080009000000000008000a00000000007c000c00\
    0c00010000000000000000000c00020000000000000000000c00030000000000000000000c00040000000000000000000c0005000000000000000000\
    0c00060000000000000000000c00070000000000000000000c00080000000000000000000c00090000000000000000000c000a000000000000000000\
";
const V4_DESTINATION: &str = "\
    5001020014000100c633640100000000000000000000000006000200005000000800030003000000080004000300000005000d000000000006000e00\
    0000000006000f000000000008000500e8030000080006002003000008000700000000000800080000000000080009000000000006000b0002000000\
    5c000a000800010000000000080002000000000008000300000000000c00040000000000000000000c00050000000000000000000800060000000000\
    08000700000000000800080000000000080009000000000008000a00000000007c000c000c00010000000000000000000c0002000000000000000000\
    0c00030000000000000000000c00040000000000000000000c00050000000000000000000c00060000000000000000000c0007000000000000000000\
    0c00080000000000000000000c00090000000000000000000c000a000000000000000000\
";
const V6_MARK: &str = "\
    10010100060001000a000000080005000700000007000600727200000c00070002000000ffffffff080008000000000008000900800000005c000a00\
    0800010000000000080002000000000008000300000000000c00040000000000000000000c0005000000000000000000080006000000000008000700\
    000000000800080000000000080009000000000008000a00000000007c000c000c00010000000000000000000c00020000000000000000000c000300\
    00000000000000000c00040000000000000000000c00050000000000000000000c00060000000000000000000c00070000000000000000000c000800\
    00000000000000000c00090000000000000000000c000a000000000000000000\
";
const V6_DESTINATION: &str = "\
    500102001400010020010db800000000000000000000000106000200000000000800030003000000080004000100000005000d000000000006000e00\
    0000000006000f00000000000800050000000000080006000000000008000700000000000800080000000000080009000000000006000b000a000000\
    5c000a000800010000000000080002000000000008000300000000000c00040000000000000000000c00050000000000000000000800060000000000\
    08000700000000000800080000000000080009000000000008000a00000000007c000c000c00010000000000000000000c0002000000000000000000\
    0c00030000000000000000000c00040000000000000000000c00050000000000000000000c00060000000000000000000c0007000000000000000000\
    0c00080000000000000000000c00090000000000000000000c000a000000000000000000\
";

const V4: ServiceKey = ServiceKey::Address {
    protocol: Protocol::Tcp,
    address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 100)),
    port: 80,
};
const V6: ServiceKey = ServiceKey::Mark { ipv6: true, mark: 7 };

pub(in crate::ipvs) fn bytes(hex: &str) -> Vec<u8> {
    hex.as_bytes()
        .chunks(2)
        .map(|digits| u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap())
        .collect()
}

pub(in crate::ipvs) fn recorded(hex: &str) -> Attributes {
    let bytes = bytes(hex);
    Fields::parse(&bytes, "a recording").unwrap();
    Attributes::from(bytes.as_slice())
}

pub(in crate::ipvs) fn sent(attributes: &Attributes) -> Vec<u8> {
    attributes.as_bytes().to_vec()
}

fn persistent() -> ServiceSpec {
    ServiceSpec {
        scheduler: "wlc".into(),
        flags: ServiceSpec::PERSISTENT,
        timeout: 50,
        netmask: 0xffff_ff00,
        engine: None,
    }
}

#[test]
fn recorded_services_are_what_ipvsadm_made() {
    assert_eq!(
        decode_service(&recorded(V4_SERVICE)),
        Ok(Some((V4, persistent(), Statistics::default())))
    );

    let plain =
        ServiceSpec { scheduler: "rr".into(), flags: 0, timeout: 0, netmask: 128, engine: None };
    assert_eq!(decode_service(&recorded(V6_MARK)), Ok(Some((V6, plain, Statistics::default()))));
}

#[test]
fn recorded_destinations_are_what_ipvsadm_made() {
    let (real, settings, counters, statistics) =
        decode_destination(V4, &recorded(V4_DESTINATION)).unwrap();
    assert_eq!(real, "198.51.100.1:80".parse().unwrap());
    let limited = Destination { weight: 3, method: Method::Route, upper: 1000, lower: 800 };
    assert_eq!((settings, counters), (limited, Counters::default()));
    assert_eq!(statistics, Statistics::default());

    let (real, settings, ..) = decode_destination(V6, &recorded(V6_DESTINATION)).unwrap();
    assert_eq!(real, "[2001:db8::1]:0".parse().unwrap());
    let plain = Destination { weight: 1, method: Method::Route, upper: 0, lower: 0 };
    assert_eq!(settings, plain);
}

#[test]
fn the_recorded_version_is_the_one_that_ipvsadm_prints() {
    let info = Info { version: (1, 2, 1), connection_table_size: 4096 };
    assert_eq!(decode_info(&recorded(INFO)), Ok(info));
}

/// Laid out by hand after <linux/ip_vs.h>; little-endian, as the recordings.
#[test]
fn a_service_is_sent_as_the_header_lays_it_out() {
    #[rustfmt::skip]
    let identity = [
        "06000100" /* AF */       , "02000000",
        "06000200" /* PROTOCOL */ , "06000000",
        "14000300" /* ADDR */     , "c0000264000000000000000000000000",
        "06000400" /* PORT */     , "00500000",
    ].concat();
    #[rustfmt::skip]
    let settings = [
        "08000600" /* SCHED_NAME */, "776c6300",
        "0c000700" /* FLAGS */     , "01000000", "fdffffff",
        "08000800" /* TIMEOUT */   , "32000000",
        "08000900" /* NETMASK */   , "ffffff00",
    ].concat();

    let whole = format!("54000180{identity}{settings}");
    assert_eq!(sent(&encode_service(V4, Some(&persistent()))), bytes(&whole));
    let only = format!("30000180{identity}");
    assert_eq!(sent(&encode_service(V4, None)), bytes(&only), "to remove it, its identity");
}

#[test]
fn a_destination_is_sent_as_the_header_lays_it_out() {
    let real = "198.51.100.1:80".parse().unwrap();
    let settings = Destination { weight: 3, method: Method::Route, upper: 1000, lower: 800 };
    #[rustfmt::skip]
    let expected = [
        "14000180",                      // the service
        "06000100" /* AF */             , "0a000000",
        "08000500" /* FWMARK */         , "07000000",
        "48000280",                      // the destination
        "14000100" /* ADDR */           , "c6336401000000000000000000000000",
        "06000200" /* PORT */           , "00500000",
        "06000b00" /* ADDR_FAMILY */    , "02000000",
        "08000300" /* FWD_METHOD */     , "03000000",
        "08000400" /* WEIGHT */         , "03000000",
        "08000500" /* U_THRESH */       , "e8030000",
        "08000600" /* L_THRESH */       , "20030000",
    ].concat();
    let sent = sent(&encode_destination(V6, real, Some(&settings)));
    assert_eq!(sent, bytes(&expected), "{sent:02x?}");
}

#[test]
fn an_answer_that_lacks_something_is_refused_by_name() {
    let lacking = |answer: &str, kind: u16| -> Attributes {
        let outer = recorded(answer);
        let (outer_kind, inner) = Walk(outer.as_bytes()).next().unwrap();
        let kept = Walk(inner).filter(|(one, _)| *one != kind);
        nest(outer_kind, kept.map(|(kind, value)| attribute(kind, value)).collect())
    };
    for (kind, name) in [(SVC_AF, "AF"), (SVC_SCHED_NAME, "SCHED_NAME"), (SVC_PORT, "PORT")] {
        let expected = Malformed(format!("IPVS_SVC_ATTR_{name} is missing"));
        assert_eq!(decode_service(&lacking(V4_SERVICE, kind)), Err(expected));
    }
    for (kind, name) in [(DEST_WEIGHT, "WEIGHT"), (DEST_ADDR, "ADDR")] {
        let expected = Malformed(format!("IPVS_DEST_ATTR_{name} is missing"));
        assert_eq!(decode_destination(V4, &lacking(V4_DESTINATION, kind)), Err(expected));
    }
    // What old kernels do not send is no fault.
    assert!(decode_service(&lacking(V4_SERVICE, SVC_STATS64)).is_ok());
    for kind in [DEST_ADDR_FAMILY, DEST_STATS64] {
        let answer = lacking(V4_DESTINATION, kind);
        assert!(decode_destination(V4, &answer).is_ok(), "without attribute {kind}");
    }
    let empty = Attributes::new();
    assert_eq!(decode_service(&empty), Err(Malformed("IPVS_CMD_ATTR_SERVICE is missing".into())));
}

#[test]
fn what_is_not_made_of_attributes_is_refused_and_not_read_past() {
    let good = attribute(3, &[1, 2, 3, 4, 5]);
    assert_eq!(good.as_bytes(), bytes("090003000102030405000000"), "padded to four bytes");
    #[rustfmt::skip]
    let cases = [
        ("nothing",              "",                         Ok(())),
        ("padded",               "0900030001020304 05000000", Ok(())),
        ("its padding left out", "0900030001020304 05",       Ok(())),
        ("cut in its header",    "090003",                   Err(3)),
        ("cut in its value",     "09000300010203",           Err(7)),
        ("shorter than a header","03000300",                 Err(4)),
        ("a second one cut",     "04000100 08000200 0102",    Err(6)),
    ];
    for (why, hex, expected) in cases {
        let bytes = bytes(&hex.replace(' ', ""));
        let found = Fields::parse(&bytes, "it").map(|_| ());
        let expected = expected.map_err(|left| {
            Malformed(format!("it: its last {left} of {} bytes are not an attribute", bytes.len()))
        });
        assert_eq!(found, expected, "{why}");
    }
}
