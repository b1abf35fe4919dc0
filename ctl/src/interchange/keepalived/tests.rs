use std::path::Path;

use lvsmesh_core::document::{check, encode};
use proptest::prelude::*;

use super::*;

/// No file includes another.
struct Alone;

impl Files for Alone {
    fn matching(&self, _: &Path, pattern: &str) -> Result<Vec<Text>, String> {
        Err(format!("`{pattern}` is not here"))
    }
}

fn source(name: Option<&str>, file: &str, text: &str) -> Source {
    let text = Text {
        name: file.to_owned(),
        path: file.into(),
        identity: file.into(),
        text: text.to_owned(),
        complaint: None,
    };
    Source { name: name.map(str::to_owned), text }
}

fn names(interface: Option<&str>) -> Names {
    Names { fleet: "reference".into(), interface: interface.map(str::to_owned), vrid: None }
}

fn one(text: &str) -> Import {
    import(&[source(None, "k.conf", text)], &Alone, None, &names(None))
}

fn yaml(import: &Import) -> String {
    crate::output::yaml(&encode(&import.document)).unwrap()
}

const MASTER: &str = include_str!("../../../../tests/data/keepalived-master.conf");
const BACKUP: &str = include_str!("../../../../tests/data/keepalived-backup.conf");

/// An instance with `10.0.0.1` and `10.0.0.2`, for virtual servers to stand on.
const GROUP: &str = "vrrp_instance V {\n interface eth0\n virtual_router_id 7\n nopreempt\n \
                     virtual_ipaddress {\n  10.0.0.1\n  10.0.0.2\n }\n}\n";

#[test]
fn the_reference_deployments_two_files_are_one_document() {
    let sources = [
        source(Some("lvs-1"), "master.conf", MASTER),
        source(Some("lvs-2"), "backup.conf", BACKUP),
    ];
    let made = import(&sources, &Alone, None, &names(None));
    insta::assert_snapshot!("reference_document", yaml(&made));
    insta::assert_snapshot!("reference_report", made.report.text());
    assert_eq!(check(&made.document), []);
}

#[test]
fn the_order_of_files_is_not_the_order_of_directors() {
    let sources = [
        source(Some("lvs-2"), "backup.conf", BACKUP),
        source(Some("lvs-1"), "master.conf", MASTER),
    ];
    let made = import(&sources, &Alone, None, &names(None));
    let vip = &made.document.vips[0];
    assert_eq!((vip.preference.join(" ").as_str(), vip.vrrp.priority), ("lvs-1 lvs-2", 100));
}

#[test]
fn directors_without_names_are_told_from_their_router_ids() {
    let text = |id: &str, priority: u8| {
        format!(
            "global_defs {{\n router_id {id}\n}}\n{}",
            GROUP.replace("nopreempt", &format!("priority {priority}"))
        )
    };
    let sources = [source(None, "a", &text("Dir_B", 90)), source(None, "b", &text("dir_a", 110))];
    let made = import(&sources, &Alone, None, &names(None));
    assert_eq!(made.document.vips[0].preference, ["dir-a", "dir-b"]);

    let sources = [source(None, "a", &text("LVS", 90)), source(None, "b", &text("LVS", 110))];
    let made = import(&sources, &Alone, None, &names(None));
    assert_eq!(made.document.vips[0].preference, Vec::<String>::new());
    assert!(made.report.text().contains("--node NAME=FILE"), "{}", made.report.text());
}

#[test]
fn files_that_disagree_are_reported() {
    let server = |scheduler: &str, extra: &str| {
        format!(
            "{GROUP}virtual_server 10.0.0.1 80 {{\n lb_algo {scheduler}\n lb_kind DR\n protocol TCP\n \
             real_server 10.0.0.3 80 {{\n }}\n{extra}}}\n"
        )
    };
    let more = " real_server 10.0.0.4 80 {\n }\n";
    let sources = [
        source(Some("a"), "a.conf", &server("wlc", "")),
        source(Some("b"), "b.conf", &server("rr", more)),
    ];
    let made = import(&sources, &Alone, None, &names(None));
    let text = made.report.text();
    assert!(text.contains("a.conf:10 is taken instead; here it differs:"), "{text}");
    assert!(text.contains("scheduler wlc -> rr") && text.contains("10.0.0.4:80"), "{text}");
    assert_eq!(made.document.services.len(), 1);
}

#[test]
fn addresses_with_different_services_become_groups_of_their_own() {
    let made = one(&format!(
        "{GROUP}virtual_server 10.0.0.2 80 {{\n protocol TCP\n lb_kind DR\n real_server 10.0.0.3 80 {{\n }}\n}}\n"
    ));
    let groups: Vec<_> = made
        .document
        .vips
        .iter()
        .map(|vip| format!("{} {:?} {}", vip.name, vip.addresses, vip.vrrp.vrid))
        .collect();
    assert_eq!(groups, ["v [10.0.0.1] 7", "v-2 [10.0.0.2] 8"]);
    assert_eq!(made.document.services[0].vip, "v-2");
    assert!(made.report.text().contains("VRID 8"), "{}", made.report.text());
}

#[test]
fn a_group_of_addresses_shares_a_pool() {
    let made = one(&format!(
        "{GROUP}virtual_server_group G {{\n 10.0.0.1-2 80\n 10.0.0.1 81\n 10.0.0.2 81\n fwmark 9\n}}\n\
         virtual_server group G {{\n lb_kind NAT\n protocol UDP\n ops\n real_server 10.0.0.3 8080 {{\n  weight 2\n }}\n}}\n"
    ));
    insta::assert_snapshot!("group_document", yaml(&made));
    assert!(!made.report.has_loss(), "{}", made.report.text());
}

#[test]
fn an_address_without_an_instance_needs_an_interface() {
    let text = "virtual_server 10.0.0.9 80 {\n protocol TCP\n lb_kind DR\n real_server 10.0.0.3 80 {\n }\n}\n";
    let made = one(text);
    assert!(made.document.services.is_empty() && made.report.text().contains("--vip-interface"));
    let made = import(&[source(None, "k", text)], &Alone, None, &names(Some("eth1")));
    let vip = &made.document.vips[0];
    assert_eq!(
        (vip.interface.as_str(), vip.vrrp.vrid, made.document.services.len()),
        ("eth1", 1, 1)
    );
    assert_eq!(check(&made.document), []);
}

#[test]
fn every_kind_of_setting_is_carried() {
    let made = one(&format!(
        "global_defs {{\n lvs_timeouts tcp 600 udp 30\n lvs_sync_daemon eth1 inst V id 12 ttl 3\n}}\n{GROUP}\
         virtual_server_group BOTH {{\n 10.0.0.1-2\n}}\n\
         virtual_server group BOTH {{\n lvs_sched mh\n mh-port\n flag-1\n protocol tcp\n lvs_method TUN type gue port 6080 csum\n \
         persistence_timeout 60\n persistence_granularity 255.255.255.0\n delay_loop 2.5\n connect_timeout 4\n \
         real_server 10.0.0.3 {{\n  weight 3\n  uthreshold 100\n  lthreshold 50\n  TCP_CHECK {{\n   connect_port 22\n  }}\n }}\n \
         real_server 10.0.0.4 {{\n  lvs_method DR\n  retry 4\n  TCP_CHECK {{\n   connect_port 22\n   retry 1\n  }}\n }}\n}}\n"
    ));
    insta::assert_snapshot!("settings_document", yaml(&made));
    insta::assert_snapshot!("settings_report", made.report.text());
}

#[test]
fn what_is_not_supported_is_said_by_line() {
    let made = one(&format!(
        "{GROUP}vrrp_script chk {{\n script /bin/true\n interval 2\n}}\nfrobnicate on\nvrrp_instance W {{\n interface eth0\n \
         virtual_router_id 9\n track_script {{\n  chk weight 10\n }}\n blorb\n virtual_ipaddress {{\n  10.0.1.1/24 dev eth0 label x\n \
         fe80::1/64\n  10.0.2.1 dev eth5\n }}\n}}\nvirtual_server 10.0.0.1 80 {{\n protocol TCP\n lb_kind DR\n sorry_server 10.0.0.8 80\n \
         real_server 10.0.0.3 8080 {{\n  HTTP_GET {{\n   url {{\n    path /\n   }}\n   nb_get_retry 3\n  }}\n }}\n}}\n\
         virtual_server ten 80 {{\n real_server 10.0.0.3 80 {{\n  weight x\n }}\n}}\n"
    ));
    insta::assert_snapshot!("losses_report", made.report.text());
    assert_eq!(check(&made.document), []);
}

/// Statements of a text: what the report must have a line for.
fn statements(text: &str) -> usize {
    let mut report = Report::default();
    let source = source(None, "k.conf", text);
    let (nodes, ..) = read::Reader::new(&Alone, None, 0, &mut report).read(&source.text);
    Places::of(&[nodes])
        .0
        .values()
        .map(|place| place.line)
        .collect::<std::collections::BTreeSet<_>>()
        .len()
}

fn reported(import: &Import) -> usize {
    let lines: std::collections::BTreeSet<_> =
        import.report.lines.iter().map(|line| line.place.line).collect();
    lines.len()
}

/// Words that occur in configurations, and what confuses them.
fn scrap() -> impl Strategy<Value = String> {
    let words: Vec<&'static str> = Context::ALL
        .into_iter()
        .flat_map(|context| context.words().iter().copied().flatten())
        .map(|word| word.name)
        .chain([
            "{",
            "}",
            "{ }",
            "\"",
            "'",
            "#",
            "!",
            "\\",
            "$A=",
            "$A",
            "${A}",
            "$A= \\",
            "@x",
            "@^x",
            "~SEQ(A,1,3)",
            "10.0.0.1",
            "10.0.0.1-9",
            "10.0.0.0/30",
            "::1",
            "80",
            "0",
            "-1",
            "4294967296",
            "0.0001",
            "group",
            "fwmark",
            "TUN",
            "DR",
            "NAT",
            "type",
            "gue",
            "port",
            "\n",
            "\n",
            "\n",
            "\n",
            "é",
            "\u{0}",
        ])
        .collect();
    proptest::collection::vec(proptest::sample::select(words), 0..120)
        .prop_map(|words| words.join(" "))
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let made = one(&String::from_utf8_lossy(&bytes));
        prop_assert_eq!(check(&made.document), []);
    }

    #[test]
    fn no_words_make_it_panic_or_forget_a_line(text in scrap()) {
        let made = one(&text);
        prop_assert_eq!(check(&made.document), []);
        prop_assert!(reported(&made) >= statements(&text), "{}\n{}", text, made.report.text());
    }

    /// A line of a sound file that is cut, doubled, or lost in the middle.
    #[test]
    fn no_damage_makes_it_panic(at in 0..MASTER.lines().count(), cut in 0usize..40, kind in 0..4u8) {
        let mut lines: Vec<String> = MASTER.lines().map(str::to_owned).collect();
        match kind {
            0 => { lines.remove(at); }
            1 => { let copy = lines[at].clone(); lines.insert(at, copy); }
            2 => lines[at] = lines[at].chars().skip(cut).collect(),
            _ => lines[at] = lines[at].chars().take(cut).collect(),
        }
        let text = lines.join("\n");
        let made = one(&text);
        prop_assert_eq!(check(&made.document), []);
        prop_assert!(reported(&made) >= statements(&text), "{}\n{}", text, made.report.text());
    }
}

#[test]
fn how_a_pair_announces_itself_is_carried() {
    let file = |source: &str, peer: &str| {
        format!(
            "global_defs {{\n vrrp_garp_interval 0.05\n vrrp_gna_interval 2\n vrrp_garp_master_refresh 60\n}}\n\
             vrrp_instance v {{\n interface eth0\n virtual_router_id 7\n nopreempt\n advert_int 1\n unicast_src_ip {source}\n \
             unicast_peer {{\n  {peer}\n  10.0.0.9\n }}\n garp_master_repeat 3\n virtual_ipaddress {{\n  10.0.0.1\n }}\n \
             virtual_ipaddress_excluded {{\n  10.0.0.2\n  2001:db8::2/128 preferred_lft 0 nodad\n }}\n}}\n"
        )
    };
    let sources = [
        source(Some("lvs-1"), "a.conf", &file("10.0.0.101", "10.0.0.102")),
        source(Some("lvs-2"), "b.conf", &file("10.0.0.102", "10.0.0.101")),
    ];
    let made = import(&sources, &Alone, None, &names(None));
    let report = made.report.text();
    assert!(!made.report.has_loss(), "{report}");
    let vip = &made.document.vips[0];
    assert_eq!(vip.addresses.len(), 3, "{report}");
    assert_eq!(vip.advertised(), ["10.0.0.1".parse::<std::net::IpAddr>().unwrap()]);
    // The pair knows itself; 10.0.0.9 is somebody else.
    let listed = vec!["10.0.0.9".parse().unwrap()];
    assert_eq!(vip.vrrp.peers, lvsmesh_core::model::Peers::Unicast(listed));
    let millis = [vip.garp.refresh, vip.garp.interval].map(|span| span.as_millis());
    assert_eq!((vip.garp.repeat, millis), (6, [60_000, 1000]));
    assert!(report.contains("2s became 1s"), "{report}");
}

#[test]
fn a_director_that_says_no_source_leaves_all_peers_listed() {
    let made = one(
        "vrrp_instance v {\n interface eth0\n virtual_router_id 7\n garp_master_delay 0\n garp_master_repeat 4\n garp_master_refresh 0\n \
         unicast_peer {\n  10.0.0.9 min_ttl 250\n  10.0.0.8\n }\n virtual_ipaddress {\n  10.0.0.1\n }\n}\n",
    );
    let vip = &made.document.vips[0];
    assert_eq!(vip.vrrp.peers.listed().len(), 2);
    assert_eq!((vip.garp.repeat, vip.garp.refresh.is_zero()), (4, true));
    assert!(made.report.text().contains("without its limits of the TTL"));
}
