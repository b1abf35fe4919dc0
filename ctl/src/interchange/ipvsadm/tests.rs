use lvsmesh_core::document::check;
use lvsmesh_core::plan::{Table, VirtualService};
use proptest::prelude::*;

use super::*;
use crate::interchange::export::ipvsadm::{rules, table};

const RULES: &str = "\
-A -t 192.168.3.100:80 -s wlc -p 50
-a -t 192.168.3.100:80 -r 192.168.3.3:80 -g -w 3
-a -t 192.168.3.100:80 -r 192.168.3.102:80 -g -w 0 -x 100 -y 50
-A -t 192.168.3.101:0 -s mh -p 60 -M 255.255.255.0 -b mh-port
-a -t 192.168.3.101:0 -r 192.168.3.3:0 -i -w 1
-A -u 192.168.3.100:5060 -s rr -p 30 --pe sip -o
-a -u 192.168.3.100:5060 -r 192.168.3.3:5070 -m -w 1
-a -u 192.168.3.100:5060 -r 192.168.3.4:5060 -i --tun-type gue --tun-port 6080 --tun-csum -w 1
-A --sctp-service 192.168.3.100:36412 -s sh -b sh-fallback,sh-port
-a --sctp-service 192.168.3.100:36412 -r 192.168.3.3:36412 -i --tun-type gre --tun-nocsum -w 2
-A -f 7 -s wrr
-a -f 7 -r 192.168.3.3:0 -g -w 1
";

fn names() -> Names {
    Names { fleet: "f".into(), interface: Some("eth0".into()), vrid: Some(51) }
}

fn made(text: &str) -> Table {
    rows(text, &mut Fates::default())
        .into_iter()
        .map(|Row { key, spec, destinations, .. }| {
            let destinations = destinations.into_iter().map(|(at, made, _)| (at, made)).collect();
            (key, VirtualService { spec, destinations })
        })
        .collect()
}

#[test]
fn rules_become_a_document_with_the_same_table() {
    let import = import("rules", RULES, &names());
    assert!(!import.report.has_loss(), "{}", import.report.text());
    assert_eq!(check(&import.document), []);
    assert_eq!(table(&import.document), made(RULES));
}

#[test]
fn a_table_is_written_as_it_was_read() {
    let mut written: Vec<_> = rules(&made(RULES)).lines().map(str::to_owned).collect();
    let mut read: Vec<_> = RULES.lines().map(str::to_owned).collect();
    written.sort();
    read.sort();
    assert_eq!(written, read);
}

#[test]
fn rules_that_cannot_be_read_are_said() {
    #[rustfmt::skip]
    let cases = [
        ("-A -t www:http -s wlc",                 "print the rules with -n"),
        ("-A -t 192.0.2.1:80 --frob",             "no option `--frob`"),
        ("-A -s wlc",                             "no service"),
        ("-D -t 192.0.2.1:80",                    "no option `-D`"),
        ("-t 192.0.2.1:80",                       "neither -A nor -a"),
        ("-A -t 192.0.2.1:80 -w",                 "-w has no value"),
        ("-A -f 0",                               "no firewall mark"),
        ("-A -t 192.0.2.1:80 -b warp",            "no flag `warp`"),
        ("-A -t 192.0.2.1:80 -p x",               "no number"),
        ("-a -t 192.0.2.1:80 -r 192.0.2.2:80",    "no rule before it"),
        ("-A -t 192.0.2.1:80 -s warp",            "no scheduler `warp`"),
    ];
    for (rule, why) in cases {
        let import = import("r", rule, &names());
        assert!(import.document.services.is_empty(), "{rule}");
        let text = import.report.text();
        assert!(import.report.has_loss() && text.contains(why), "{rule}: {text}");
    }
}

#[test]
fn what_a_rule_leaves_out_is_ipvsadms_default() {
    let text = "ipvsadm -A -t 192.0.2.1:80\n# a comment\n-a -t 192.0.2.1:80 --real-server=192.0.2.2\n-A -t 192.0.2.1:81 -p";
    assert_eq!(
        rules(&made(text)),
        "-A -t 192.0.2.1:80 -s wlc\n-a -t 192.0.2.1:80 -r 192.0.2.2:80 -g -w 1\n-A -t 192.0.2.1:81 -s wlc -p 300\n"
    );
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "(-[AatrugmiwpxMsbo] |192\\.0\\.2\\.[1-3]:?[0-9]{0,3} |[a-z0-9:=.-]{0,9} |\n){0,60}") {
        let import = import("r", &text, &names());
        prop_assert_eq!(check(&import.document), []);
    }
}
