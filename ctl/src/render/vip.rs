//! Who answers for each VIP group, and what keeps everybody else silent. See `docs/adr/0006-fences.md` for the reasons.

use lvsmesh_core::document::Value;
use lvsmesh_core::model::{Attach, Document, Failback, NoQuorum, Vip, text};
use lvsmesh_core::vrrp::fallback::Policy;
use lvsmesh_proto::v1::{FailbackStatus, NodeStatus, StatusResponse, VipStatus};

use super::Align::{Left, Right};
use super::{columns, dash};
use crate::tree::{map, number, texts};

/// A group as the document has it, and as the fleet says it is.
pub(crate) type Group<'a> = (&'a Vip, &'a VipStatus);

/// The groups of the document that the status knows, all of them or the named one.
pub(crate) fn groups<'a>(
    document: &'a Document,
    status: &'a StatusResponse,
    name: Option<&str>,
) -> Vec<Group<'a>> {
    let wanted = document.vips.iter().filter(|vip| name.is_none_or(|name| vip.name == name));
    let seen = |vip: &'a Vip| status.vips.iter().find(|seen| seen.name == vip.name);
    wanted.filter_map(|vip| Some((vip, seen(vip)?))).collect()
}

/// What keeps a holder silent whose lease is over, the innermost first.
fn fences(attach: Attach, seen: &VipStatus) -> Vec<String> {
    let leased = is_leased(seen);
    let gate = if seen.gated && !leased {
        Some("the holder's kernel lets no answer, announcement or advert leave the VIP's interface from two seconds after its agent's last turn on, with the agent or without it".to_owned())
    } else if seen.gated {
        Some("the holder's kernel lets no answer, announcement or advert leave the VIP's interface from the lease's end on, with the agent or without it".to_owned())
    } else {
        (!seen.ungated_reason.is_empty())
            .then(|| format!("no deadline in the packet path: {}", seen.ungated_reason))
    };
    let first = match (attach, leased) {
        (Attach::Responder, true) => {
            "the holder's agent reads its lease before each answer, announcement and advert"
        }
        (Attach::Address, true) => {
            "the holder's agent reads its lease before each announcement and advert, and takes the address away before the lease ends"
        }
        (Attach::Responder, false) => {
            "the holder's agent sends no answer, announcement or advert unless it has listened to others in the last 50 ms"
        }
        (Attach::Address, false) => {
            "the holder's agent sends no announcement or advert unless it has listened to others in the last 50 ms"
        }
    };
    let others: &[&str] = match (attach, seen.gated) {
        (Attach::Responder, _) => &[
            "no kernel answers for the VIP: an agent that is dead, stopped or cut off is silent by itself",
            "the guard says goodbye for a dead agent, and kills one that stands still for a second, or for a lease if that is longer",
        ],
        (Attach::Address, true) => &[
            "the guard takes the address away for a dead agent, and kills one that stands still for a second, or for a lease if that is longer",
            "the address's lifetime: 2 s, renewed twice a second",
        ],
        (Attach::Address, false) => &[
            "the guard takes the address away for a dead agent, and kills one that stands still for a lease",
            "the address's lifetime: 2 s, renewed twice a second",
        ],
    };
    gate.into_iter().chain([first].iter().chain(others).map(ToString::to_string)).collect()
}

/// For how long two machines may answer, by what happens to the holder. Without a majority that is for the policy to say.
fn overlap(attach: Attach, gated: bool, policy: Policy) -> Vec<&'static str> {
    let partition = match policy {
        Policy::Strict => "partition, power loss, clocks up to 2 % apart: none",
        Policy::Sticky | Policy::Vrrp => {
            "partition that leaves a majority, power loss, clocks up to 2 % apart: none"
        }
    };
    let paused = "a virtual machine paused from outside: what was left of its lease, or until it hears the new holder";
    let own: &[&str] = match (attach, gated) {
        (Attach::Responder | Attach::Address, true) => {
            &["crash, with the guard or alone: none; hang: none (on the VIP's interface)"]
        }
        (Attach::Responder, false) => {
            &["crash: none; hang: none, but for one answer that was under way when it stopped"]
        }
        (Attach::Address, false) => &[
            "crash: none while the guard lives; hang: none promised, it is killed after a lease",
            "crash together with the guard: until the address's lifetime ends, at most 3 s",
        ],
    };
    [&[partition], own, &[paused]].concat()
}

/// What the policy comes to in this fleet.
fn resolved(policy: NoQuorum, status: &StatusResponse) -> (Policy, usize) {
    let votes = |node: &&NodeStatus| {
        node.raft == "voter" && node.roles.iter().any(|role| role == "director")
    };
    let directors = status.nodes.iter().filter(votes).count();
    (Policy::of(policy, directors), directors)
}

/// Whether there is no holder without a lease; an agent that knows of none says nothing.
pub(super) fn is_leased(seen: &VipStatus) -> bool {
    matches!(seen.authority.as_str(), "" | "lease")
}

/// How long the lease still runs, or what the group is held by without one.
pub(crate) fn lease(seen: &VipStatus) -> String {
    if seen.holder.is_empty() {
        "-".to_owned()
    } else if is_leased(seen) {
        format!("{} ms", seen.lease_remaining_ms)
    } else {
        seen.authority.clone()
    }
}

/// Who holds, and whether it is silent.
pub(super) fn holder(seen: &VipStatus) -> String {
    match (seen.holder.as_str(), seen.silent) {
        ("", _) => "nobody".to_owned(),
        (holder, false) => holder.to_owned(),
        (holder, true) => format!("{holder} (silent)"),
    }
}

/// How soon a silent holder is replaced. `None`: it holds without a lease, or its agent does not say.
fn replaced(seen: &VipStatus) -> Option<String> {
    (seen.promise_ms > 0)
        .then(|| format!("a silent holder is replaced after promises of {} ms", seen.promise_ms))
}

/// What the fleet's policy promises without a quorum.
fn without_quorum(policy: NoQuorum, status: &StatusResponse) -> Vec<String> {
    let (resolved, directors) = resolved(policy, status);
    let first = match (policy, resolved) {
        (NoQuorum::Auto, resolved) => {
            format!("auto: `{}`, as {directors} directors vote", resolved.name())
        }
        (NoQuorum::Strict | NoQuorum::Sticky | NoQuorum::VrrpFallback, resolved) => {
            format!("{}:", resolved.name())
        }
    };
    let promises: &[&str] = match resolved {
        Policy::Strict => &["nobody answers"],
        Policy::Sticky => &[
            "the holder goes on while no holder under a lease, no higher advert and nobody who answers for the VIP is heard, and an arbiter answers",
            "who does not hold takes nothing",
            "two may answer on a segment that is itself split, until they hear each other",
        ],
        Policy::Vrrp => &[
            "the holder goes on while no holder under a lease, no higher advert and nobody who answers for the VIP is heard, and an arbiter answers",
            "a director that hears of no majority and no holder, and gets no answer for the VIP but one from an arbiter, takes it",
            "two may answer on a segment that is itself split, until they hear each other",
        ],
    };
    std::iter::once(first).chain(promises.iter().map(ToString::to_string)).collect()
}

/// The policy, and what it waits for.
fn failback(policy: Failback, waiting: Option<&FailbackStatus>) -> String {
    let promised = match policy {
        Failback::Never => "never: the VIPs stay where they are".to_owned(),
        Failback::Delayed(delay) => format!(
            "delayed: to a preferred director that has been fit for {}",
            text::duration(delay)
        ),
        Failback::Immediate => "immediate: to a preferred director as soon as it is fit".to_owned(),
    };
    match waiting {
        Some(waiting) => format!("{promised}; {}", pending(waiting)),
        None => promised,
    }
}

/// `failback to lvs-1 in 42 s`.
pub(super) fn pending(waiting: &FailbackStatus) -> String {
    let FailbackStatus { to, waits_for, remaining_ms, reason } = waiting;
    let seconds = remaining_ms.div_ceil(1000);
    match waits_for.as_str() {
        "time" => format!("failback to {to} in {seconds} s"),
        "pause" => format!(
            "failback to {to} in {seconds} s at the earliest: it was given the VIPs in vain"
        ),
        "fit" => format!("failback to {to} when it can hold: {reason}"),
        "connections" => format!("failback to {to} when it has caught up: {reason}"),
        "operator" => format!(
            "no failback to {to} while this tenure lasts, unless it has been down: an operator moved the VIPs (`lvsctl failover --to {to}` moves them back)"
        ),
        "move" => format!("failback to {to} now"),
        // A newer agent's.
        other => format!("failback to {to}: {other} {reason}"),
    }
}

fn answers(attach: Attach) -> &'static str {
    match attach {
        Attach::Responder => "agent",
        Attach::Address => "kernel",
    }
}

/// For people.
pub(crate) fn table(document: &Document, status: &StatusResponse, groups: &[Group<'_>]) -> String {
    if groups.is_empty() {
        return "the desired state has no VIP group\n".to_owned();
    }
    let rows: Vec<[String; 6]> = groups
        .iter()
        .map(|(vip, seen)| {
            [
                vip.name.clone(),
                holder(seen),
                seen.epoch.to_string(),
                lease(seen),
                answers(vip.attach).to_owned(),
                dash(&seen.also_on.join(", ")),
            ]
        })
        .collect();
    let headings = [
        ("VIP", Left),
        ("HOLDER", Left),
        ("EPOCH", Right),
        ("LEASE", Right),
        ("ANSWERS", Left),
        ("ALSO ON", Left),
    ];
    let mut text = columns(headings, &rows, "");
    let (resolved, _) = resolved(document.fleet.no_quorum, status);
    for (vip, seen) in groups {
        let two = overlap(vip.attach, seen.gated, resolved);
        let fences = fences(vip.attach, seen);
        let fences: Vec<&str> = fences.iter().map(String::as_str).collect();
        text += &format!("\n{} (attach: {})\n", vip.name, vip.attach.name());
        let policy = without_quorum(document.fleet.no_quorum, status);
        let policy: Vec<&str> = policy.iter().map(String::as_str).collect();
        let back = [failback(document.fleet.failback, seen.failback.as_ref())];
        let back = back.each_ref().map(String::as_str);
        let replaced = replaced(seen);
        let replaced: Vec<&str> = replaced.iter().map(String::as_str).collect();
        let blocks: [(&str, &[&str]); 5] = [
            ("failover", &replaced),
            ("fences", &fences),
            ("two may answer", &two),
            ("no quorum", &policy),
            ("failback", &back),
        ];
        for (heading, lines) in blocks {
            for (index, line) in lines.iter().enumerate() {
                let heading = if index == 0 { heading } else { "" };
                text += &format!("  {heading:<16}{line}\n");
            }
        }
    }
    text
}

/// The names are those of `FailbackStatus` in `control.proto`.
pub(super) fn failback_tree(waiting: Option<&FailbackStatus>) -> Value {
    let Some(FailbackStatus { to, waits_for, remaining_ms, reason }) = waiting else {
        return Value::Null;
    };
    map([
        ("to", to.as_str().into()),
        ("waits_for", waits_for.as_str().into()),
        ("remaining_ms", number(*remaining_ms)),
        ("reason", reason.as_str().into()),
    ])
}

/// For programs.
pub(crate) fn tree(document: &Document, status: &StatusResponse, groups: &[Group<'_>]) -> Value {
    let lines = |lines: &[&str]| texts(&lines.iter().map(ToString::to_string).collect::<Vec<_>>());
    let (resolved, _) = resolved(document.fleet.no_quorum, status);
    let group = |(vip, seen): &Group<'_>| {
        map([
            ("name", vip.name.as_str().into()),
            ("addresses", texts(&seen.addresses)),
            ("holder", seen.holder.as_str().into()),
            ("epoch", number(seen.epoch)),
            ("lease_remaining_ms", number(seen.lease_remaining_ms)),
            ("promise_ms", number(seen.promise_ms)),
            ("also_on", texts(&seen.also_on)),
            ("silent", Value::Bool(seen.silent)),
            ("authority", seen.authority.as_str().into()),
            ("attach", vip.attach.name().into()),
            ("fences", texts(&fences(vip.attach, seen))),
            ("overlap", lines(&overlap(vip.attach, seen.gated, resolved))),
            ("gated", Value::Bool(seen.gated)),
            ("no_quorum", document.fleet.no_quorum.name().into()),
            ("without_quorum", texts(&without_quorum(document.fleet.no_quorum, status))),
            ("failback", failback_tree(seen.failback.as_ref())),
        ])
    };
    map([("vips", Value::List(groups.iter().map(group).collect()))])
}

#[cfg(test)]
mod tests {
    use lvsmesh_core::document::decode;

    use super::*;

    fn document(attach: &str) -> Document {
        let vip = map([
            ("name", "web".into()),
            ("addresses", texts(&["192.0.2.100".to_owned()])),
            ("interface", "eth0".into()),
            ("attach", attach.into()),
            ("vrrp", map([("vrid", number(51))])),
        ]);
        let fleet = map([("name", "blue".into())]);
        decode(&map([("fleet", fleet), ("vips", Value::List(vec![vip]))])).unwrap()
    }

    fn status(holder: &str) -> StatusResponse {
        let vip = VipStatus {
            name: "web".into(),
            addresses: vec!["192.0.2.100".into()],
            holder: holder.into(),
            epoch: 7,
            lease_remaining_ms: if holder.is_empty() { 0 } else { 143 },
            promise_ms: if holder.is_empty() { 0 } else { 200 },
            also_on: vec![],
            silent: false,
            authority: if holder.is_empty() { String::new() } else { "lease".into() },
            failback: None,
            gated: false,
            ungated_reason: String::new(),
        };
        StatusResponse { vips: vec![vip], ..StatusResponse::default() }
    }

    #[test]
    fn a_group_is_shown_with_its_fences() {
        let (document, status) = (document("responder"), status("lvs-1"));
        insta::assert_snapshot!(table(&document, &status, &groups(&document, &status, None)), @r"
        VIP  HOLDER  EPOCH   LEASE  ANSWERS  ALSO ON
        web  lvs-1       7  143 ms  agent    -

        web (attach: responder)
          failover        a silent holder is replaced after promises of 200 ms
          fences          the holder's agent reads its lease before each answer, announcement and advert
                          no kernel answers for the VIP: an agent that is dead, stopped or cut off is silent by itself
                          the guard says goodbye for a dead agent, and kills one that stands still for a second, or for a lease if that is longer
          two may answer  partition, power loss, clocks up to 2 % apart: none
                          crash: none; hang: none, but for one answer that was under way when it stopped
                          a virtual machine paused from outside: what was left of its lease, or until it hears the new holder
          no quorum       strict:
                          nobody answers
          failback        never: the VIPs stay where they are
        ");
    }

    #[test]
    fn what_is_promised_without_a_quorum_follows_the_policy_and_the_directors() {
        let mut status = status("lvs-1");
        status.vips[0].authority = "sticky".into();
        assert_eq!(lease(&status.vips[0]), "sticky");
        let director = NodeStatus {
            raft: "voter".into(),
            roles: vec!["director".into()],
            ..NodeStatus::default()
        };
        let learner = NodeStatus { raft: "learner".into(), ..director.clone() };
        status.nodes = vec![director.clone(), director.clone(), learner];
        let auto = without_quorum(NoQuorum::Auto, &status);
        assert_eq!(auto[0], "auto: `vrrp-fallback`, as 2 directors vote");
        assert_eq!(auto[1..], without_quorum(NoQuorum::VrrpFallback, &status)[1..]);
        status.nodes.push(director);
        let auto = without_quorum(NoQuorum::Auto, &status);
        assert_eq!(auto, ["auto: `strict`, as 3 directors vote", "nobody answers"]);
        assert!(without_quorum(NoQuorum::Sticky, &status)[2].contains("takes nothing"));
        let partition = |policy| overlap(Attach::Responder, false, policy)[0];
        assert!(partition(Policy::Strict).starts_with("partition, "));
        assert!(partition(Policy::Vrrp).starts_with("partition that leaves a majority, "));
    }

    #[test]
    fn a_move_back_says_what_it_waits_for() {
        let waiting = |waits_for: &str, remaining_ms, reason: &str| FailbackStatus {
            to: "lvs-1".into(),
            waits_for: waits_for.into(),
            remaining_ms,
            reason: reason.into(),
        };
        let lines: Vec<String> = [
            waiting("time", 41_001, ""),
            waiting("fit", 0, "it does not answer: connection refused"),
            waiting(
                "connections",
                0,
                "it knows 3 of 9 established connections, and needs 19 of 20",
            ),
            waiting("operator", 0, ""),
            waiting("pause", 20_000, ""),
            waiting("move", 0, ""),
        ]
        .iter()
        .map(pending)
        .collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        failback to lvs-1 in 42 s
        failback to lvs-1 when it can hold: it does not answer: connection refused
        failback to lvs-1 when it has caught up: it knows 3 of 9 established connections, and needs 19 of 20
        no failback to lvs-1 while this tenure lasts, unless it has been down: an operator moved the VIPs (`lvsctl failover --to lvs-1` moves them back)
        failback to lvs-1 in 20 s at the earliest: it was given the VIPs in vain
        failback to lvs-1 now
        ");
        let policy = Failback::Delayed(std::time::Duration::from_secs(60));
        assert_eq!(
            failback(policy, Some(&waiting("time", 41_001, ""))),
            "delayed: to a preferred director that has been fit for 1m; failback to lvs-1 in 42 s"
        );
    }

    #[test]
    fn a_gate_promises_the_same_for_both_ways_to_attach() {
        let mut status = status("lvs-1");
        status.vips[0].gated = true;
        for attach in ["responder", "address"] {
            let document = document(attach);
            let text = table(&document, &status, &groups(&document, &status, None));
            for line in [
                "fences          the holder's kernel lets no answer, announcement or advert leave the VIP's interface from the lease's end on",
                "crash, with the guard or alone: none; hang: none (on the VIP's interface)\n",
                "kills one that stands still for a second, or for a lease",
            ] {
                assert!(text.contains(line), "{attach}: {text}");
            }
        }
        status.vips[0].gated = false;
        status.vips[0].ungated_reason = "`beat.gate` is false".into();
        let document = document("address");
        let text = table(&document, &status, &groups(&document, &status, None));
        let line = "fences          no deadline in the packet path: `beat.gate` is false";
        assert!(text.contains(line), "{text}");
        assert!(text.contains("kills one that stands still for a lease\n"), "{text}");
    }

    #[test]
    fn an_address_that_its_kernel_answers_for_promises_less() {
        let (document, status) = (document("address"), status(""));
        let text = table(&document, &status, &groups(&document, &status, Some("web")));
        assert!(text.contains("web  nobody      7      -  kernel"), "{text}");
        assert!(
            text.contains("crash together with the guard: until the address's lifetime"),
            "{text}"
        );
        assert!(groups(&document, &status, Some("wbe")).is_empty());
    }
}
