//! Addresses on `lo` and sysctls: the cases that operators meet.

use super::*;

/// The realserver side of the reference deployment, with all that it needs.
fn side() -> RealServerSide {
    RealServerSide {
        addresses: [ip(100)].into(),
        sysctls: [(Sysctl(IGNORE.into()), 1), (Sysctl(ANNOUNCE.into()), 2)].into(),
        ..RealServerSide::default()
    }
}

fn host(ignore: i64, announce: i64, addresses: impl IntoIterator<Item = Address>) -> Observed {
    Observed {
        table: None,
        addresses: addresses.into_iter().collect(),
        sysctls: [(Sysctl(IGNORE.into()), ignore), (Sysctl(ANNOUNCE.into()), announce)].into(),
        ..Observed::default()
    }
}

#[test]
fn a_real_server_gets_its_sysctls_first_and_gives_them_back_last() {
    let plan = NodePlan { revision: 3, real_server: side(), ..NodePlan::default() };
    let arriving = diff(&host(0, 0, []), &plan, &Owned::default());
    insta::assert_snapshot!(script(&arriving), @r"
    set net/ipv4/conf/all/arp_announce to 2: is 0, revision 3 needs at least 2
    set net/ipv4/conf/all/arp_ignore to 1: is 0, revision 3 needs at least 1
    add address 192.0.2.100 to lo: a VIP that this real server answers for, in revision 3
    ");

    let leaving = teardown(&host(1, 2, [host_address("lo", ip(100), true)]), &arriving.settled);
    insta::assert_snapshot!(script(&leaving), @r"
    remove address 192.0.2.100 from lo: ours, and not needed by a node that has left
    set net/ipv4/conf/all/arp_announce to 0: was 0 before it was raised, not needed by a node that has left
    set net/ipv4/conf/all/arp_ignore to 0: was 0 before it was raised, not needed by a node that has left
    ");
}

#[test]
fn what_an_operator_set_by_hand_is_adopted_or_left_alone() {
    let plan = NodePlan { revision: 3, real_server: side(), ..NodePlan::default() };
    let by_hand = host(2, 2, [host_address("lo", ip(100), false)]);

    let adopted = diff(&by_hand, &plan, &Owned::default());
    assert_eq!(adopted.ops, vec![], "a higher value and an unmarked VIP are right already");
    assert_eq!(adopted.record.addresses, BTreeSet::from([("lo".to_owned(), ip(100))]));
    assert_eq!(adopted.record.sysctls, BTreeMap::new(), "what was not raised is not given back");

    let changed = Owned {
        sysctls: [(Sysctl(IGNORE.into()), Raised { before: 0, ours: 1 })].into(),
        ..adopted.settled
    };
    let leaving = teardown(&by_hand, &changed);
    assert_eq!(leaving.ops.len(), 1, "only the VIP goes: arp_ignore is 2, which we never wrote");
    assert_eq!(leaving.settled, Owned::default());
}

#[test]
fn a_sysctl_that_is_raised_again_still_goes_back_to_its_first_value() {
    let plan = NodePlan { revision: 3, real_server: side(), ..NodePlan::default() };
    let raised = Raised { before: 1, ours: 2 };
    let owned = Owned { sysctls: [(Sysctl(ANNOUNCE.into()), raised)].into(), ..Owned::default() };

    let lowered_by_hand = host(1, 0, [host_address("lo", ip(100), true)]);
    let found = diff(&lowered_by_hand, &plan, &owned);
    assert_eq!(found.ops.len(), 1, "{:?}", found.ops);
    assert_eq!(found.record.sysctls, owned.sysctls);
}

/// Such a director takes its VIPs onto `lo` as a real server does, keeps them there in both roles, and gives up one that no role needs.
#[test]
fn a_director_whose_agent_answers_has_its_vips_on_lo_for_good() {
    let director = DirectorSide {
        addresses: [ip(100), ip(101)].into(),
        sysctls: [(Sysctl(IGNORE.into()), Want::AtLeast(1))].into(),
        ..DirectorSide::default()
    };
    let both = NodePlan { revision: 3, director, real_server: side(), ..NodePlan::default() };
    insta::assert_snapshot!(script(&diff(&host(0, 2, []), &both, &Owned::default())), @r"
    set net/ipv4/conf/all/arp_ignore to 1: is 0, revision 3 needs at least 1
    add address 192.0.2.100 to lo: a VIP that this real server answers for, in revision 3
    add address 192.0.2.101 to lo: a VIP that this director may come to hold, in revision 3
    ");
    let there = [100, 101].map(|last| host_address("lo", ip(last), true));
    let alone = NodePlan { revision: 4, real_server: side(), ..NodePlan::default() };
    let left = diff(&host(1, 2, there.clone()), &alone, &Owned::default());
    insta::assert_snapshot!(script(&left), @r"
    remove address 192.0.2.101 from lo: ours, and not needed by revision 4
    ");

    let [one, other] = there;
    #[rustfmt::skip]
    let cases = [
        ("in place",        host(1, 2, [one.clone(), other.clone()]), None),
        ("one is missing",  host(1, 2, [one.clone()]),                Some("VIP 192.0.2.101 not on lo")),
        ("not quiet",       host(0, 2, [one, other]),                 Some("net/ipv4/conf/all/arp_ignore is 0, must be at least 1")),
        ("unreadable",      Observed::default(),                      Some("net/ipv4/conf/all/arp_ignore cannot be read")),
    ];
    for (why, observed, fault) in cases {
        assert_eq!(director_fault(&observed, &both.director).as_deref(), fault, "{why}");
    }
    assert_eq!(director_fault(&Observed::default(), &DirectorSide::default()), None);
}

#[test]
fn a_real_server_that_cannot_be_set_up_says_why() {
    let up = host_address("lo", ip(100), true);
    let wrong_prefix = Address { prefix: 24, ..up.clone() };
    #[rustfmt::skip]
    let cases = [
        ("in place",            host(1, 2, [up.clone()]),   None),
        ("stricter",            host(2, 2, [up.clone()]),   None),
        ("sysctl too low",      host(0, 2, [up]),           Some("net/ipv4/conf/all/arp_ignore is 0, must be at least 1")),
        ("no address",          host(1, 2, []),             Some("VIP 192.0.2.100 not on lo")),
        ("a whole network",     host(1, 2, [wrong_prefix]), Some("VIP 192.0.2.100 not on lo")),
        ("no sysctls",          Observed::default(),        Some("net/ipv4/conf/all/arp_announce cannot be read")),
    ];
    for (why, observed, fault) in cases {
        assert_eq!(real_server_fault(&observed, &side()).as_deref(), fault, "{why}");
    }

    let plan = NodePlan { real_server: side(), ..NodePlan::default() };
    let withheld = diff(&Observed::default(), &plan, &Owned::default());
    assert_eq!(withheld.ops, vec![]);
    assert_eq!(
        withheld.withheld,
        ["VIP 192.0.2.100 is not added to lo: net/ipv4/conf/all/arp_announce cannot be read"]
    );
}
