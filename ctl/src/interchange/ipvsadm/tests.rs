use lvsmesh_core::document::check;
use proptest::prelude::*;

use super::*;
use crate::interchange::export::ipvsadm;

/// In the order of the listing.
const RULES: &str = "\
-A -t 192.168.3.100:80 -s wlc -p 50
-a -t 192.168.3.100:80 -r 192.168.3.3:80 -g -w 3
-a -t 192.168.3.100:80 -r 192.168.3.102:80 -g -w 0 -x 100 -y 50
-A -t 192.168.3.101:0 -s mh -b mh-port -p 60 -M 255.255.255.0
-a -t 192.168.3.101:0 -r 192.168.3.3:0 -i -w 1 --tun-type ipip
-A -u 192.168.3.100:5060 -s rr -p 30 --pe sip -o
-a -u 192.168.3.100:5060 -r 192.168.3.3:5070 -m -w 1
-a -u 192.168.3.100:5060 -r 192.168.3.4:5060 -i -w 1 --tun-type gue --tun-port 6080 --tun-csum
-A --sctp-service 192.168.3.100:36412 -s sh -b sh-fallback,sh-port
-a --sctp-service 192.168.3.100:36412 -r 192.168.3.3:36412 -i -w 2 --tun-type gre --tun-nocsum
-A -f 7 -s wrr
-a -f 7 -r 192.168.3.3:0 -g -w 1
";

fn names() -> Names {
    Names { fleet: "f".into(), interface: Some("eth0".into()), vrid: Some(51) }
}

#[test]
fn rules_become_a_document_that_makes_them() {
    let made = import("rules", RULES, &names());
    assert!(!made.report.has_loss(), "{}", made.report.text());
    assert_eq!(check(&made.document), []);
    assert_eq!(ipvsadm::export(&made.document).text, RULES);
}

#[test]
fn rules_that_cannot_be_read_are_said_and_the_others_taken() {
    let text = "# saved\n-A -t 192.0.2.1:80 -s wlc\n-A -t www:http\n-a -t 192.0.2.1:80 -r 192.0.2.2:80\n\
                -a -t 192.0.2.9:80 -r 192.0.2.2:80\n-A -t 192.0.2.1:81 -s warp\n-a -t 192.0.2.1:80 -r 192.0.2.3:80\n";
    let made = import("r", text, &names());
    assert_eq!(
        ipvsadm::export(&made.document).text,
        "-A -t 192.0.2.1:80 -s wlc\n-a -t 192.0.2.1:80 -r 192.0.2.2:80 -g -w 1\n-a -t 192.0.2.1:80 -r 192.0.2.3:80 -g -w 1\n"
    );
    let fates: Vec<_> = made.report.lines.iter().map(|line| (line.place.line, line.fate)).collect();
    assert_eq!(
        fates,
        [
            (2, Fate::Taken),
            (3, Fate::Wrong),
            (4, Fate::Taken),
            (5, Fate::Wrong),
            (6, Fate::Unsupported),
            (7, Fate::Taken),
        ],
        "{}",
        made.report.text()
    );
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "(-[AatrugmiwpxMsbo] |192\\.0\\.2\\.[1-3]:?[0-9]{0,3} |[a-z0-9:=.-]{0,9} |\n){0,60}") {
        let made = import("r", &text, &names());
        prop_assert_eq!(check(&made.document), []);
    }
}
