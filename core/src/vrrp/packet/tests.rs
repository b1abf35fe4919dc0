//! Bytes captured from keepalived 2.2.7 (Debian 12, in a network namespace; source 10.88.0.2 or fe80::ff:fe00:a, VRID 51, priority 150),
//! and what must not be read as an advert.

use proptest::prelude::*;

use super::super::{GROUP, GROUP_V6};
use super::*;

const SOURCE: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 2);
const VIP: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 100);
const VIP_2: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 101);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 3);

fn advert(
    version: VrrpVersion,
    milliseconds: u64,
    addresses: &[impl Into<IpAddr> + Copy],
) -> Advert {
    Advert {
        version,
        vrid: 51,
        priority: 150,
        interval: Duration::from_millis(milliseconds),
        addresses: addresses.iter().map(|address| (*address).into()).collect(),
        auth: None,
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<char> = hex.chars().collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap())
        .collect()
}

#[test]
fn keepalived_adverts_are_read_and_written_byte_for_byte() {
    let v2 = advert(VrrpVersion::V2, 1000, &[VIP]);
    let pass = Advert { auth: Some(Auth::Pass("1111".into())), ..v2.clone() };
    let v3 = advert(VrrpVersion::V3, 100, &[VIP]);
    let two = advert(VrrpVersion::V3, 1000, &[VIP, VIP_2]);
    #[rustfmt::skip]
    let cases = [
        ("v2",              v2.clone(),     GROUP,  Checksum::Plain,    "2133960100013e0e0a5800640000000000000000"),
        ("v2 goodbye",      v2.goodbye(),   GROUP,  Checksum::Plain,    "213300010001d40e0a5800640000000000000000"),
        ("v2 PASS",         pass.clone(),   GROUP,  Checksum::Plain,    "213396010101daab0a5800643131313100000000"),
        ("v2 PASS goodbye", pass.goodbye(), GROUP,  Checksum::Plain,    "21330001010170ac0a5800643131313100000000"),
        ("v3",              v3.clone(),     GROUP,  Checksum::Pseudo,   "31339601000a431c0a580064"),
        ("v3 goodbye",      v3.goodbye(),   GROUP,  Checksum::Pseudo,   "31330001000ad91c0a580064"),
        ("v3 unicast",      v3.clone(),     PEER,   Checksum::Pseudo,   "31339601000a18d40a580064"),
        ("v3 two VIPs",     two,            GROUP,  Checksum::Pseudo,   "31339602006438000a5800640a580065"),
    ];
    for (why, advert, destination, checksum, wire) in cases {
        assert_eq!(advert.encode(SOURCE, destination, checksum), bytes(wire), "{why}");
        let received = Advert::decode(&bytes(wire), SOURCE, destination);
        assert_eq!(received, Ok(Received { advert, checksum, hmac: false }), "{why}");
    }
}

const SOURCE_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, 0xa);
const VIP_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x100);
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x100);

#[test]
fn keepalived_adverts_over_ipv6_are_read_and_written_byte_for_byte() {
    let one = advert(VrrpVersion::V3, 500, &[VIP_V6]);
    let two = advert(VrrpVersion::V3, 500, &[LINK_LOCAL, VIP_V6]);
    #[rustfmt::skip]
    let cases = [
        ("global only",         one.clone(),    "3133960100320cb820010db8000000000000000000000100"),
        ("goodbye",             one.goodbye(),  "313300010032a2b820010db8000000000000000000000100"),
        ("link-local first",    two.clone(),    "3133960200320d26fe80000000000000000000000000010020010db8000000000000000000000100"),
        ("both, goodbye",       two.goodbye(),  "313300020032a326fe80000000000000000000000000010020010db8000000000000000000000100"),
    ];
    for (why, advert, wire) in cases {
        // A checksum without the pseudo-header does not exist there.
        for checksum in Checksum::ALL {
            assert_eq!(advert.encode(SOURCE_V6, GROUP_V6, checksum), bytes(wire), "{why}");
        }
        let received = Advert::decode(&bytes(wire), SOURCE_V6, GROUP_V6);
        assert_eq!(
            received,
            Ok(Received { advert, checksum: Checksum::Pseudo, hmac: false }),
            "{why}"
        );
    }
}

#[test]
fn over_ipv6_there_is_neither_version_2_nor_a_checksum_without_addresses() {
    let v2 = bytes("2133960100013e0e0a5800640000000000000000");
    assert_eq!(Advert::decode(&v2, SOURCE_V6, GROUP_V6), Err(DecodeError::Version(2)));

    let mut plain = bytes("313396010032000020010db8000000000000000000000100");
    let sum = plain_checksum(&plain);
    plain[6..8].copy_from_slice(&sum.to_be_bytes());
    let refused = DecodeError::Checksum { found: sum, expected: 0x0cb8 };
    assert_eq!(Advert::decode(&plain, SOURCE_V6, GROUP_V6), Err(refused));

    let short = bytes("3133960100320cb80a580064");
    let refused = DecodeError::Length { have: 12, expected: 24 };
    assert_eq!(Advert::decode(&short, SOURCE_V6, GROUP_V6), Err(refused));
}

/// A version 2 advert as another implementation (holo) has it in its tests.
#[test]
fn an_advert_of_another_implementation_is_read() {
    let wire = bytes("21331e010001b5c50a0001050000000000000000");
    let received = Advert::decode(&wire, PEER, GROUP).unwrap();
    assert_eq!((received.advert.vrid, received.advert.priority), (51, 30));
    assert_eq!(received.advert.addresses, [Ipv4Addr::new(10, 0, 1, 5)]);
}

#[test]
fn a_plain_or_an_old_checksum_of_version_3_is_accepted_and_remembered() {
    let v3 = advert(VrrpVersion::V3, 100, &[VIP]);
    let plain = v3.encode(SOURCE, GROUP, Checksum::Plain);
    assert_eq!(Advert::decode(&plain, SOURCE, GROUP).unwrap().checksum, Checksum::Plain);

    let old_unicast = v3.encode(SOURCE, GROUP, Checksum::Pseudo);
    let received = Advert::decode(&old_unicast, SOURCE, PEER).unwrap();
    assert_eq!(received.checksum, Checksum::Pseudo);
}

#[test]
fn what_is_no_advert_is_refused_by_name() {
    let good = bytes("2133960100013e0e0a5800640000000000000000");
    let with = |changes: &[(usize, u8)]| {
        let mut wire = good.clone();
        for &(offset, byte) in changes {
            wire[offset] = byte;
        }
        wire
    };
    // Changes the checksum along, so that only the fault meant is found.
    let summed = |changes: &[(usize, u8)]| {
        let mut wire = with(changes);
        wire[6..8].fill(0);
        let sum = plain_checksum(&wire);
        wire[6..8].copy_from_slice(&sum.to_be_bytes());
        wire
    };
    let mut long = good.clone();
    long.resize(1000, 0);
    #[rustfmt::skip]
    let cases = [
        ("empty",               vec![],                         DecodeError::Incomplete { have: 0 }),
        ("half a header",       good[..7].to_vec(),             DecodeError::Incomplete { have: 7 }),
        ("cut short",           good[..19].to_vec(),            DecodeError::Length { have: 19, expected: 20 }),
        ("1000 bytes",          long,                           DecodeError::Length { have: 1000, expected: 20 }),
        ("count too high",      with(&[(3, 2)]),                DecodeError::Length { have: 20, expected: 24 }),
        ("version 4",           with(&[(0, 0x41)]),             DecodeError::Version(4)),
        ("version 1",           with(&[(0, 0x11)]),             DecodeError::Version(1)),
        ("another type",        with(&[(0, 0x22)]),             DecodeError::Type(2)),
        ("checksum zeroed",     with(&[(6, 0), (7, 0)]),        DecodeError::Checksum { found: 0, expected: 0x3e0e }),
        ("priority changed",    with(&[(2, 255)]),              DecodeError::Checksum { found: 0x3e0e, expected: 0xd50d }),
        ("VRID 0",              summed(&[(1, 0)]),              DecodeError::Vrid),
        ("AH",                  summed(&[(4, 2)]),              DecodeError::AuthType(2)),
    ];
    for (why, wire, expected) in cases {
        assert_eq!(Advert::decode(&wire, SOURCE, GROUP), Err(expected), "{why}");
    }
}

/// keepalived 2.4's `auth_hmac`: a trailer of 28 bytes, of which the first is 1.
#[test]
fn an_hmac_trailer_is_passed_over_whether_or_not_the_checksum_covers_it() {
    let v3 = advert(VrrpVersion::V3, 100, &[VIP]);
    let mut trailer = [0; 28];
    (trailer[0], trailer[1], trailer[27]) = (1, 7, 0xab);
    let bare = v3.encode(SOURCE, GROUP, Checksum::Pseudo);
    let outside = [bare.as_slice(), &trailer].concat();
    let mut inside = outside.clone();
    inside[6..8].fill(0);
    let sum = pseudo_checksum(&inside, SOURCE.into(), GROUP.into());
    inside[6..8].copy_from_slice(&sum.to_be_bytes());
    for wire in [outside.clone(), inside] {
        let received = Advert::decode(&wire, SOURCE, GROUP).unwrap();
        assert_eq!((received.advert, received.hmac), (v3.clone(), true));
    }
    let mut unknown = outside.clone();
    unknown[bare.len()] = 2;
    let refused = DecodeError::Length { have: 40, expected: 12 };
    assert_eq!(Advert::decode(&unknown, SOURCE, GROUP), Err(refused));
    let mut damaged = outside;
    damaged[2] = 1;
    assert!(matches!(Advert::decode(&damaged, SOURCE, GROUP), Err(DecodeError::Checksum { .. })));
}

#[test]
fn addresses_that_are_excluded_are_not_advertised() {
    let vip = Vip {
        name: "web".into(),
        addresses: vec![VIP.into(), VIP_V6.into(), VIP_2.into()],
        excluded: 2,
        interface: "eth0".into(),
        attach: crate::model::Attach::Address,
        preference: vec![],
        garp: crate::model::Garp::default(),
        arbiters: Vec::new(),
        vrrp: crate::model::Vrrp {
            vrid: 51,
            version: VrrpVersion::V3,
            advert_interval: Duration::from_millis(100),
            priority: 150,
            auth: None,
            checksum: Checksum::Pseudo,
            coexist: crate::model::Coexist::Yield,
            peers: crate::model::Peers::Multicast,
        },
    };
    assert_eq!(Advert::of(&vip), advert(VrrpVersion::V3, 100, &[VIP]));
    // What adverts name decides what they go over.
    let moved = Vip { addresses: vec![VIP_V6.into(), VIP.into()], excluded: 1, ..vip };
    assert_eq!(Advert::of(&moved), advert(VrrpVersion::V3, 100, &[VIP_V6]));
}

#[test]
fn what_keepalived_drops_is_named() {
    let ours = Advert {
        auth: Some(Auth::Pass("1111".into())),
        ..advert(VrrpVersion::V2, 1000, &[VIP, VIP_2])
    };
    let third = advert(VrrpVersion::V3, 1000, &[VIP, VIP_2]);
    #[rustfmt::skip]
    let cases = [
        (ours.clone(),                                                      None),
        (Advert { priority: 1, ..ours.clone() },                            None),
        (Advert { addresses: vec![VIP_2.into(), VIP.into()], ..ours.clone() },            None),
        (third.clone(),                                                     Some("version 3 instead of 2")),
        (Advert { auth: None, ..ours.clone() },                             Some("authentication none instead of a password")),
        (Advert { auth: Some(Auth::Pass("2".into())), ..ours.clone() },     Some("another password")),
        (Advert { interval: Duration::from_secs(3), ..ours.clone() },       Some("advert interval 3 s instead of 1 s")),
        (Advert { addresses: vec![VIP.into()], ..ours.clone() },                   Some("addresses 10.88.0.100 instead of 10.88.0.100, 10.88.0.101")),
    ];
    for (other, expected) in cases {
        let found = ours.mismatch(&other).map(|(_, text)| text);
        assert_eq!(found.as_deref(), expected);
    }
    // Version 3 adopts the sender's interval.
    let slower = Advert { interval: Duration::from_secs(3), ..third.clone() };
    assert_eq!(third.mismatch(&slower), None);
}

/// Packets of keepalived 2.2.7, of both families.
const RECORDED: [&str; 6] = [
    "2133960100013e0e0a5800640000000000000000",
    "213396010101daab0a5800643131313100000000",
    "31339601000a18d40a580064",
    "31339602006438000a5800640a580065",
    "313300010032a2b820010db8000000000000000000000100",
    "3133960200320d26fe80000000000000000000000000010020010db8000000000000000000000100",
];

fn any_advert() -> impl Strategy<Value = Advert> {
    let common = (1u8.., any::<u8>(), proptest::collection::vec(any::<u32>(), 0..21));
    let auth = proptest::option::of("[ -~]{1,8}");
    (any::<bool>(), common, auth, 1u64..4096).prop_map(
        |(v2, (vrid, priority, ips), auth, units)| {
            let (version, interval, auth) = if v2 {
                (VrrpVersion::V2, Duration::from_secs(units % 255 + 1), auth.map(Auth::Pass))
            } else {
                (VrrpVersion::V3, Duration::from_millis(units * 10), None)
            };
            let addresses = ips.into_iter().map(|ip| Ipv4Addr::from(ip).into()).collect();
            Advert { version, vrid, priority, interval, addresses, auth }
        },
    )
}

proptest! {
    #[test]
    fn decoding_never_panics(wire in proptest::collection::vec(any::<u8>(), 0..1100)) {
        drop(Advert::decode(&wire, SOURCE, GROUP));
    }

    #[test]
    fn decoding_a_damaged_advert_never_panics(
        advert in any_advert(), offset in any::<proptest::sample::Index>(), byte in any::<u8>(), cut in 0usize..12,
    ) {
        let mut wire = advert.encode(SOURCE, GROUP, Checksum::Pseudo);
        let offset = offset.index(wire.len());
        wire[offset] = byte;
        wire.truncate(wire.len().saturating_sub(cut));
        drop(Advert::decode(&wire, SOURCE, GROUP));
    }

    #[test]
    fn decoding_what_became_of_a_recorded_packet_never_panics(
        which in 0usize..RECORDED.len(),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..6),
        more in proptest::collection::vec(any::<u8>(), 0..32), cut in 0usize..24, over_ipv6 in any::<bool>(),
    ) {
        let mut wire = bytes(RECORDED[which]);
        for (at, byte) in changes {
            let at = at.index(wire.len());
            wire[at] = byte;
        }
        wire.extend(more);
        wire.truncate(wire.len().saturating_sub(cut));
        let found = if over_ipv6 {
            Advert::decode(&wire, SOURCE_V6, GROUP_V6)
        } else {
            Advert::decode(&wire, SOURCE, GROUP)
        };
        // What is taken says of itself what it is.
        if let Ok(Received { advert, .. }) = found {
            prop_assert_eq!(advert.vrid, wire[1]);
            prop_assert_eq!(advert.addresses.len(), usize::from(wire[3]));
        }
    }

    #[test]
    fn what_is_encoded_is_read_back(advert in any_advert(), pseudo in any::<bool>()) {
        let checksum = if pseudo { Checksum::Pseudo } else { Checksum::Plain };
        let wire = advert.encode(SOURCE, PEER, checksum);
        prop_assert_eq!(Advert::decode(&wire, SOURCE, PEER).map(|received| received.advert), Ok(advert));
    }
}
