//! Ports that the director marks: one entry of IPVS takes them all.

use lvsmesh_core::model::Scheduler;
use lvsmesh_core::plan::ServiceKey;
use lvsmesh_tests::Lab;

use super::site::{Site, Way};

const PORTS: [u16; 4] = [80, 8080, 80, 8080];

fn one_entry_takes_all_ports(ipv6: bool) {
    Lab::require_ipvs();
    let mut site = Site::new(Way::new("dr", ipv6, ipv6));
    let before = site.observe_all();
    site.mark();
    site.apply(Scheduler::Rr, [1, 1]);
    let director = site.observe_all().remove(0);
    let keys: Vec<_> = director.table.expect("it is a director").into_keys().collect();
    assert_eq!(keys, [ServiceKey::Mark { ipv6, mark: 7 }]);
    // Round robin goes on from one port to the next; with an entry for each it would begin anew.
    let answers = site.answers_at(&PORTS, false).unwrap_or_else(|error| panic!("{error}"));
    assert!(answers.windows(2).all(|pair| pair[0] != pair[1]), "{answers:?}");
    site.leave();
    assert_eq!(site.observe_all(), before, "the machines are as they were");
}

#[test]
fn v4() {
    one_entry_takes_all_ports(false);
}

#[test]
fn v6() {
    one_entry_takes_all_ports(true);
}
