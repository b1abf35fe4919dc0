use lvsmesh_proto::v1::ListIpvsResponse;

use super::*;
use crate::render::ipvs::save;

/// `ipvsadm -Sn` (1.31, Linux 6.1), with thresholds, a mask without persistence and a mark of the upper half put in.
const SAVED: &str = "\
-A -t 10.9.0.100:80 -s wlc -p 300
-a -t 10.9.0.100:80 -r 10.9.0.2:80 -g -w 1
-a -t 10.9.0.100:80 -r 10.9.0.3:80 -g -w 5 -x 1000 -y 800
-a -t 10.9.0.100:80 -r 10.9.0.4:8080 -m -w 0
-a -t 10.9.0.100:80 -r 10.9.0.5:80 -i -w 1 --tun-type ipip
-a -t 10.9.0.100:80 -r 10.9.0.6:80 -i -w 1 --tun-type gue --tun-port 6080 --tun-remcsum -x 9
-a -t 10.9.0.100:80 -r 10.9.0.7:80 -i -w 1 --tun-type gre --tun-csum
-a -t 10.9.0.100:80 -r 10.9.0.8:80 -i -w 1 --tun-type gre --tun-nocsum
-A -t 10.9.0.101:443 -s mh -b mh-fallback,mh-port
-A -t 10.9.0.102:443 -s sh -b sh-fallback,sh-port -p 60
-A -u 10.9.0.100:53 -s rr -o
-A -u 10.9.0.103:5060 -s rr -p 60 --pe sip -o
-A -u 10.9.0.104:53 -s wlc -M 255.255.255.0
-A --sctp-service 10.9.0.104:5000 -s rr
-A -t [::1.2.3.4]:80 -s rr -b flag-1,flag-3
-A -t [2001:db8::1]:80 -s rr -p 100 -M 64
-a -t [2001:db8::1]:80 -r 10.0.0.1:80 -i -w 1 --tun-type gre --tun-nocsum
-a -t [2001:db8::1]:80 -r [2001:db8::7]:80 -g -w 1
-A -f 7 -s wrr -p 60 -M 255.255.255.0
-a -f 7 -r 10.9.0.8:0 -g -w 1
-A -f 8 -6 -s rr
-a -f 8 -6 -r [2001:db8::7]:0 -g -w 1 -x 4 -y 3
";

fn table(services: Vec<IpvsService>) -> ListIpvsResponse {
    ListIpvsResponse { services, ..ListIpvsResponse::default() }
}

fn reading(text: &str) -> Vec<IpvsService> {
    read(text).unwrap_or_else(|faults| panic!("{text}: {faults:?}"))
}

#[test]
fn what_is_saved_is_what_was_read() {
    let services = reading(SAVED);
    assert_eq!(services.len(), 11);
    assert_eq!(services[0].destinations[1].upper_threshold, 1000);
    assert_eq!(save(&table(services), false), (SAVED.to_owned(), vec![]));
    // ipvsadm's order has the upper half of the marks first.
    let high = "-A -f 4294967295 -s rr\n";
    assert_eq!(save(&table(reading(high)), false).0, high);
}

#[test]
fn short_and_long_options_mean_the_same_and_defaults_are_ipvsadms() {
    let short = "-A -t 10.0.0.1:80 -s wlc -p 360\n-a -t 10.0.0.1:80 -r 10.0.0.2:80 -g -w 1\n";
    let long = "--add-service --tcp-service=10.0.0.1:80 --persistent\n\n# a remark\n \
                --add-server --tcp-service 10.0.0.1:80 --real-server 10.0.0.2";
    assert_eq!(reading(short), reading(long));
}

#[test]
fn only_what_is_not_lvsmeshs_own_is_saved_if_that_is_asked() {
    let mut services = reading(SAVED);
    services[0].owned = true;
    let (text, _) = save(&table(services), true);
    assert!(!text.contains("10.9.0.100:80 ") && text.contains("-u 10.9.0.100:53"), "{text}");
}

#[test]
fn what_the_lines_cannot_say_is_told() {
    let mut services = reading("-A -t 10.0.0.1:80 -s rr\n-a -t 10.0.0.1:80 -r 10.0.0.2:80 -g -w 1");
    services[0].destinations[0].method = 4;
    let (text, unsaid) = save(&table(services.clone()), false);
    assert_eq!(text, "-A -t 10.0.0.1:80 -s rr\n");
    assert_eq!(
        unsaid,
        ["10.0.0.2:80 of -t 10.0.0.1:80: ipvsadm has no option for its forwarding method"]
    );
    services[0].destinations[0].method = 2;
    services[0].destinations[0].tunnel_type = 3;
    assert_eq!(save(&table(services), false).1.len(), 1);
}

#[test]
fn every_fault_is_told_with_its_line() {
    let text = "-A -t 10.0.0.1:80 -s rr\nnonsense\n\n-a -t 10.0.0.9:80 -r 10.0.0.2:80\n";
    assert_eq!(
        read(text).unwrap_err(),
        [
            "line 2: only -A and -a can be restored, not `nonsense`",
            "line 4: its service was not added above"
        ]
    );
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let add = "-A -t 10.0.0.1:80 -s rr\n";
    #[rustfmt::skip]
    let cases = [
        ("-D -t 10.0.0.1:80",                                "only -A and -a can be restored, not `-D`"),
        ("-A -s rr",                                         "a service is named by one of -t, -u, --sctp-service and -f"),
        ("-A -t 10.0.0.3:80 -u 10.0.0.3:80",                 "a service is named by one of -t, -u, --sctp-service and -f"),
        ("-A -t 10.0.0.1:80 -s wlc",                         "this service was added above"),
        ("-A -t www:80",                                     "`www:80` is not an address with a port, as 192.0.2.1:80 or [2001:db8::1]:80"),
        ("-A -t 10.0.0.3:http",                              "`10.0.0.3:http` is not an address with a port, as 192.0.2.1:80 or [2001:db8::1]:80"),
        ("-A -t 2001:db8::1:80",                             "`2001:db8::1:80` is not an address with a port, as 192.0.2.1:80 or [2001:db8::1]:80"),
        ("-A -t 10.0.0.3",                                   "`10.0.0.3` has no port"),
        ("-A -t 10.0.0.3:80 -6",                             "-6 is for firewall marks: an address says its family"),
        ("-A -f 0",                                          "--fwmark-service: `0` is not a number from 1 to 4294967295"),
        ("-A -f -1",                                         "--fwmark-service: `-1` is not a number from 1 to 4294967295"),
        ("-A -t 10.0.0.3:80 -z",                             "no option `-z`"),
        ("-A -t 10.0.0.3:80 -s",                             "-s needs a value"),
        ("-A -t 10.0.0.3:80 -o -o",                          "--ops comes twice"),
        ("-A -t 10.0.0.3:80 --ops=1",                        "--ops takes no value"),
        ("-A -t 10.0.0.3:80 -w 1",                           "--weight has no place in this command"),
        ("-A -t 10.0.0.3:80 -p 0",                           "--persistent: `0` is not a number from 1 to 2147483647"),
        ("-A -t 10.0.0.3:80 -M 64",                          "--netmask: `64` is not a mask such as 255.255.255.0"),
        ("-A -t [2001:db8::1]:80 -M 129",                    "--netmask: `129` is not a number from 1 to 128"),
        ("-A -t 10.0.0.3:80 -s rr -b sh-port",               "--sched-flags: scheduler `rr` has no flag `sh-port`"),
        ("-a -t 10.0.0.1:80",                                "a real server is named by -r"),
        ("-a -t 10.0.0.1:80 -r 10.0.0.2:80 -s rr",           "--scheduler has no place in this command"),
        ("-a -t 10.0.0.1:80 -r 10.0.0.2:80 -g -m",           "-g, -i and -m exclude each other"),
        ("-a -t 10.0.0.1:80 -r [2001:db8::2]:80 -g",         "only a tunnel (-i) leads to another family than the service's"),
        ("-a -t 10.0.0.1:80 -r 10.0.0.2:80 -w 2147483648",   "--weight: `2147483648` is not a number from 0 to 2147483647"),
        ("-a -t 10.0.0.1:80 -r 10.0.0.2:80 --tun-type gue",  "the --tun-… options need -i"),
        ("-a -t 10.0.0.1:80 -r 10.0.0.2:80 -i --tun-csum",   "an ipip tunnel has neither port nor checksum"),
        ("-a -t 10.0.0.1:80 -r 10.0.0.2:80 -i --tun-type gue", "a gue tunnel needs --tun-port"),
        ("-a -t 10.0.0.1:80 -r 10.0.0.2:80 -i --tun-type gre --tun-remcsum", "a gre tunnel has neither port nor remote checksum"),
        ("-a -t 10.0.0.1:80 -r 10.0.0.2:80 -i --tun-type x", "--tun-type: `x` is none of ipip, gue and gre"),
        ("-a -t 10.0.0.1:80 -r 10.0.0.2:80 -i --tun-csum --tun-nocsum", "only one of the --tun-…csum options makes sense"),
        ("-a -t 10.0.0.1:80 -r 10.0.0.2:80\n-a -t 10.0.0.1:80 -r 10.0.0.2", "this real server was added to the service above"),
    ];
    for (line, expected) in cases {
        let faults = read(&format!("{add}{line}")).unwrap_err();
        assert_eq!(faults.len(), 1, "{line}: {faults:?}");
        assert_eq!(faults[0].split_once(": ").map(|(_, text)| text), Some(expected), "{line}");
    }
}
