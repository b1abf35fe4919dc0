//! The lab itself: a tool that measures must be measured first.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lvsmesh_tests::capture::Frame;
use lvsmesh_tests::document::{CLIENT, LVS_1, LVS_2, VIP};
use lvsmesh_tests::monitor::{Event, Monitor};
use lvsmesh_tests::pages::{Client, Pages, fetch};
use lvsmesh_tests::peers::{Keepalived, NameServer};
use lvsmesh_tests::probe::{ArpProber, Echo, Prober};
use lvsmesh_tests::{Lab, eventually, link};

#[test]
fn a_cut_link_silences_a_machine_and_a_restored_one_brings_it_back() {
    let lab = Lab::new(&[LVS_1, CLIENT]);
    let _echo = Echo::start(lab.node(LVS_1.0));
    let prober = Prober::start(lab.node(CLIENT.0), LVS_1.1);
    let fresh = Duration::from_millis(100);
    let answers = || prober.answering(fresh).filter(|name| name == LVS_1.0);
    eventually("the machine answers", Duration::from_secs(5), answers);

    let cut = Instant::now();
    lab.cut(LVS_1.0);
    eventually("the machine is silent", Duration::from_secs(5), || {
        answers().is_none().then_some(())
    });
    lab.restore(LVS_1.0);
    eventually("the machine answers again", Duration::from_secs(5), answers);

    let silence = prober.longest_silence(cut).expect("there were answers before and after");
    assert!(
        silence.length >= fresh,
        "the silence of {silence:?} lasted at least as long as it took to see it"
    );
}

#[test]
fn two_machines_with_one_address_are_caught_answering_twice() {
    let lab = Lab::new(&[LVS_1, LVS_2, CLIENT]);
    let capture = lab.capture();
    link::add_address(&lab.node(LVS_1.0).namespace, "eth0", VIP);
    let _prober = ArpProber::start(lab.node(CLIENT.0), VIP, Duration::from_millis(10));
    eventually("the first machine answers", Duration::from_secs(5), || {
        capture
            .answering(VIP)
            .iter()
            .any(|(node, count)| node == LVS_1.0 && *count > 5)
            .then_some(())
    });
    assert_eq!(capture.answered_twice(VIP), [], "one machine alone has the address");

    link::add_address(&lab.node(LVS_2.0).namespace, "eth0", VIP);
    let twice = eventually("both are caught", Duration::from_secs(5), || {
        capture.answered_twice(VIP).into_iter().next()
    });
    assert!(
        twice.1.contains(&LVS_1.0.to_owned()) && twice.1.contains(&LVS_2.0.to_owned()),
        "{twice:?}"
    );
}

#[test]
fn the_monitor_tells_a_machines_address_from_everything_else() {
    let lab = Lab::new(&[LVS_1]);
    let node = &lab.node(LVS_1.0).namespace;
    let monitor = Monitor::start(node);
    link::add_address(node, "eth0", VIP);
    link::delete_address(node, "eth0", VIP);
    eventually("both changes are seen", Duration::from_secs(5), || {
        let events = monitor.events();
        (events.contains(&Event::Added(VIP)) && events.contains(&Event::Removed(VIP))).then_some(())
    });
    assert_eq!(monitor.events_besides(VIP), []);
    link::add_address(node, "lo", LVS_2.1);
    eventually("a change that is none of the address's", Duration::from_secs(5), || {
        (!monitor.events_besides(VIP).is_empty()).then_some(())
    });
}

#[test]
fn a_page_names_the_machine_that_served_it() {
    let lab = Lab::new(&[LVS_1, CLIENT]);
    let page = SocketAddr::from((LVS_1.1, 80));
    let server = Pages::serve(lab.node(LVS_1.0), 80);
    let patience = Duration::from_secs(2);
    let answer = lab.node(CLIENT.0).namespace.inside(|| fetch(page, patience));
    assert_eq!(answer.expect("the page is served"), LVS_1.0);

    let client = Client::start(lab.node(CLIENT.0), page, Duration::from_millis(5), patience);
    eventually("requests are answered", Duration::from_secs(5), || {
        (client.requests().len() > 10).then_some(())
    });
    drop(server);
    eventually("requests are refused", Duration::from_secs(5), || {
        client.requests().last().is_some_and(|request| request.answer.is_err()).then_some(())
    });
}

#[test]
fn a_lone_keepalived_becomes_master_and_its_adverts_are_seen() {
    let lab = Lab::new(&[LVS_1]);
    let capture = lab.capture();
    let keepalived = Keepalived::backup(&lab, lab.node(LVS_1.0), 3, "0.1", &[VIP.into()]);
    keepalived.enters("MASTER", Duration::from_secs(20));
    eventually("an advert is seen", Duration::from_secs(5), || {
        let expected = Frame::Advert { version: 3, vrid: 51, priority: 100 };
        capture
            .adverts(Duration::from_secs(5))
            .iter()
            .any(|seen| seen.frame == expected)
            .then_some(())
    });
}

#[test]
fn a_name_server_publishes_what_it_is_told() {
    let lab = Lab::new(&[CLIENT]);
    let mut server = NameServer::start(&lab, lab.node(CLIENT.0), "web IN A 192.168.3.3");
    server.publish("web IN A 192.168.3.4");
    server.crash();
    server.resume(lab.node(CLIENT.0));
}
