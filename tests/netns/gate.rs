//! The deadline in the packet path, as the agents use it: where it is, when it is taken away, and what is said where there is none. That it keeps a holder silent is
//! `watcher.rs`'s to show.

use std::process::Command;
use std::time::Duration;

use lvsmesh_tests::capture::Seen;
use lvsmesh_tests::document::{Document, LVS_1, LVS_2, VIP};
use lvsmesh_tests::eventually;
use lvsmesh_tests::fleet::Fleet;
use lvsmesh_tests::probe::ArpProber;
use nix::sys::signal::{Signal, kill};

use super::guard::{guard_of, kill_with_guard};

fn tc(fleet: &Fleet, name: &str, arguments: &[&str]) -> String {
    let node = fleet.lab.node(name);
    let output = node.namespace.inside(|| Command::new("tc").args(arguments).output());
    let output = output.expect("iproute2 is installed");
    assert!(output.status.success(), "tc {arguments:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn is_gated(fleet: &Fleet, name: &str) -> bool {
    tc(fleet, name, &["filter", "show", "dev", "eth0", "egress"]).contains("lvsmesh_gate")
}

fn becomes(fleet: &Fleet, name: &str, gated: bool, within: u64, what: &str) {
    eventually(what, Duration::from_secs(within), || {
        (is_gated(fleet, name) == gated).then_some(())
    });
}

#[test]
fn a_gate_is_where_vips_may_be_held_and_nowhere_else() {
    let mut fleet = Fleet::start();
    assert!(!is_gated(&fleet, LVS_1.0), "no group, no gate");
    let document = Document::vip_alone();
    fleet.apply(&document);
    fleet.held_by(LVS_1.0);
    for name in [LVS_1.0, LVS_2.0] {
        becomes(&fleet, name, true, 20, "every director has one");
    }
    let text = fleet.ctl.run(&["vip", "status"]).succeeded();
    assert!(text.contains("the holder's kernel lets no answer"), "{text}");

    // Somebody deletes what it hangs on.
    tc(&fleet, LVS_1.0, &["qdisc", "del", "dev", "eth0", "clsact"]);
    assert!(!is_gated(&fleet, LVS_1.0));
    becomes(&fleet, LVS_1.0, true, 60, "the agent has looked again");

    // Others that hang there stay, also when the gate goes.
    let others = "filter add dev eth0 egress prio 200 bpf direct-action bytecode";
    let mut others: Vec<&str> = others.split(' ').collect();
    // A program of one instruction, which passes everything on.
    others.push("1,6 0 0 4294967295,");
    tc(&fleet, LVS_1.0, &others);
    let status = fleet.agent_mut(LVS_1.0).end(Signal::SIGTERM);
    assert!(status.success(), "{status}");
    let left = tc(&fleet, LVS_1.0, &["filter", "show", "dev", "eth0", "egress"]);
    assert!(left.contains("pref 200") && !left.contains("lvsmesh_gate"), "{left}");
    fleet.agent_mut(LVS_1.0).start();
    becomes(&fleet, LVS_1.0, true, 20, "it is back");

    // A dead agent's guard takes it away once the address is gone, so that it is in nobody's way.
    fleet.until("lvs-2 holds", Duration::from_secs(20), |status| {
        status.vips.iter().all(|vip| vip.holder == LVS_2.0 && vip.gated)
    });
    let guard = guard_of(&fleet, LVS_2.0).expect("a director has a guard");
    fleet.kill(LVS_2.0);
    becomes(&fleet, LVS_2.0, false, 20, "the guard has taken it away");
    eventually("the guard has ended", Duration::from_secs(20), || kill(guard, None).err());
    assert_eq!(fleet.having(VIP), [LVS_1.0]);

    // Who dies with its guard leaves it, closed; the next agent takes its place.
    kill_with_guard(&mut fleet, LVS_1.0);
    assert!(is_gated(&fleet, LVS_1.0));
    for name in [LVS_1.0, LVS_2.0] {
        fleet.agent_mut(name).start();
    }
    fleet.until("somebody holds behind a gate", Duration::from_secs(40), |status| {
        status.quorum && status.vips.iter().all(|vip| !vip.holder.is_empty() && vip.gated)
    });
    let nothing = "fleet: { name: lab }\n";
    let _printed = fleet.ctl.apply(nothing, &[]).succeeded();
    for name in [LVS_1.0, LVS_2.0] {
        becomes(&fleet, name, false, 20, "no group, no gate");
    }
}

#[test]
fn a_machine_that_leaves_has_no_gate_left() {
    let mut fleet = Fleet::start();
    fleet.apply(&Document::vip_alone());
    fleet.until("lvs-1 holds behind a gate", Duration::from_secs(20), |status| {
        status.vips.iter().all(|vip| vip.holder == LVS_1.0 && vip.gated)
    });
    kill_with_guard(&mut fleet, LVS_1.0);
    assert!(is_gated(&fleet, LVS_1.0), "nobody has taken it away");
    let _removed = fleet.ctl.run(&["node", "remove", LVS_1.0, "--yes"]).succeeded();
    fleet.agent(LVS_1.0).succeed(&["leave"]);
    assert!(!is_gated(&fleet, LVS_1.0));
}

/// A group's addresses may come to be another group's while they are held: what guards them is the other's then.
#[test]
fn a_group_that_is_renamed_while_it_is_held_stays_behind_its_gate() {
    let fleet = Fleet::start();
    let document = Document::vip_alone();
    fleet.apply(&document);
    fleet.held_by(LVS_1.0);
    becomes(&fleet, LVS_1.0, true, 20, "there is a gate");
    let renamed = document.yaml().replace("- name: web", "- name: www");
    assert_ne!(renamed, document.yaml());
    let _printed = fleet.ctl.apply(&renamed, &[]).succeeded();
    fleet.converged();
    fleet.until("it is held under its new name", Duration::from_secs(20), |status| {
        status.vips.iter().all(|vip| vip.name == "www" && vip.holder == LVS_1.0 && vip.gated)
    });
    eventually("the address is back", Duration::from_secs(20), || {
        (fleet.having(VIP) == [LVS_1.0]).then_some(())
    });
    let _asking = ArpProber::start(fleet.client(), VIP, Duration::from_millis(20));
    let capture = fleet.lab.capture();
    let guard = guard_of(&fleet, LVS_1.0).expect("a director has a guard");
    kill(guard, Signal::SIGSTOP).expect("it runs");
    fleet.agent(LVS_1.0).process().signal(Signal::SIGSTOP);
    // The address of the frozen one lives for two or three seconds, and its kernel would answer.
    eventually("it is on both for a while", Duration::from_secs(20), || {
        (fleet.having(VIP) == [LVS_1.0, LVS_2.0]).then_some(())
    });
    let begun = capture.count();
    eventually("the new holder answers", Duration::from_secs(20), || {
        let by = |seen: &&Seen| seen.frame.answers_for(VIP.into());
        (capture.after(begun).iter().filter(by).count() > 10).then_some(())
    });
    assert_eq!(capture.answered_twice(VIP), [], "two answered one question");
    let answers = capture.answering(VIP);
    assert!(answers.iter().any(|(name, _)| name == LVS_2.0), "{answers:?}");
    kill(guard, Signal::SIGCONT).expect("it runs");
    fleet.agent(LVS_1.0).process().signal(Signal::SIGCONT);
}

#[test]
fn without_a_gate_it_is_said_why_and_a_standing_holder_is_ended_sooner() {
    let mut fleet = Fleet::start();
    fleet.apply(&Document::vip_alone());
    fleet.until("lvs-1 holds behind a gate", Duration::from_secs(20), |status| {
        status.vips.iter().all(|vip| vip.holder == LVS_1.0 && vip.gated)
    });
    let without = |fleet: &Fleet, name: &str| {
        let config = fleet.agent(name).config();
        let text = std::fs::read_to_string(&config).expect("it was written");
        let without = text.replace("[beat]\n", "[beat]\ngate = false\n");
        assert_ne!(text, without);
        std::fs::write(&config, without).expect("the lab's directory is writable");
    };
    without(&fleet, LVS_2.0);
    fleet.agent_mut(LVS_2.0).restart();
    // One that dies with its guard leaves a gate that lets nothing pass. Its successor has none, and takes it away.
    without(&fleet, LVS_1.0);
    kill_with_guard(&mut fleet, LVS_1.0);
    assert!(is_gated(&fleet, LVS_1.0));
    fleet.agent_mut(LVS_1.0).start();
    becomes(&fleet, LVS_1.0, false, 20, "its successor has taken it away");
    let status = fleet.until("somebody holds", Duration::from_secs(30), |status| {
        status.quorum && status.vips.iter().all(|vip| !vip.holder.is_empty())
    });
    let vip = &status.vips[0];
    let holder = vip.holder.clone();
    assert!(!vip.gated);
    assert_eq!(vip.ungated_reason, "`beat.gate` is false");
    let text = fleet.ctl.run(&["vip", "status"]).succeeded();
    assert!(text.contains("no deadline in the packet path: `beat.gate` is false"), "{text}");
    assert!(text.contains("hang: none promised"), "{text}");
    assert!(!is_gated(&fleet, &holder));

    // Its kernel answers without it, so that its guard has no patience.
    fleet.agent(&holder).process().signal(Signal::SIGSTOP);
    eventually("the guard has ended it", Duration::from_secs(20), || {
        fleet.agent_mut(&holder).start_again_if_ended().then_some(())
    });
    assert!(fleet.agent(&holder).logged().contains("answers_without_it=true"));
}
