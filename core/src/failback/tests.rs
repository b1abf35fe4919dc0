use proptest::prelude::*;

use super::*;

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);

fn at(millis: u64) -> Mono {
    Mono::default().after(Duration::from_millis(millis))
}

fn fit(node: NodeId) -> Sight {
    Sight { node, run: 7, fit: Ok(()) }
}

fn unfit(node: NodeId) -> Sight {
    Sight { node, run: 0, fit: Err("it does not answer".to_owned()) }
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn waits(to: NodeId, until: Until) -> Verdict {
    Verdict::Wait(Waiting { to, until })
}

#[test]
fn immediate_moves_at_the_second_look_in_a_row() {
    let mut machine = Machine::default();
    let mut look =
        |millis, sight: Sight| machine.look(at(millis), Failback::Immediate, 4, &[sight], true);
    assert_eq!(look(0, unfit(A)), waits(A, Until::Fit("it does not answer".to_owned())));
    assert_eq!(look(500, fit(A)), waits(A, Until::Proven(LOOK)));
    assert!(matches!(look(1000, unfit(A)), Verdict::Wait(_)), "it was too early to be sure");
    assert_eq!(look(1500, fit(A)), waits(A, Until::Proven(LOOK)));
    assert_eq!(look(2000, fit(A)), Verdict::Move(A));
}

#[test]
fn delayed_counts_down_and_then_compares_connections_if_there_are_any_to_compare() {
    let policy = Failback::Delayed(secs(60));
    let mut machine = Machine::default();
    assert_eq!(machine.look(at(0), policy, 4, &[fit(A)], true), waits(A, Until::Proven(secs(60))));
    for second in (0..60).step_by(2) {
        let left = Until::Proven(secs(60 - second));
        let verdict = machine.look(at(second * 1000), policy, 4, &[fit(A)], true);
        assert_eq!(verdict, waits(A, left), "{second}");
    }
    assert_eq!(machine.look(at(60_000), policy, 4, &[fit(A)], true), Verdict::Compare(A));
    let lacks = || "it knows 3 of 9 connections".to_owned();
    assert_eq!(machine.compared(A, Err(lacks())), waits(A, Until::Synchronised(lacks())));
    assert_eq!(machine.compared(A, Ok(())), Verdict::Move(A));
    assert_eq!(machine.look(at(60_500), policy, 4, &[fit(A)], false), Verdict::Move(A));
}

#[test]
fn an_interruption_begins_the_span_anew_even_one_that_nobody_saw() {
    let policy = Failback::Delayed(secs(10));
    #[rustfmt::skip]
    let cases = [
        ("seen unfit",       4_500, unfit(A)),
        ("another run",      4_500, Sight { run: 8, ..fit(A) }),
        ("nobody looked",    9_500, fit(A)),
    ];
    for (why, millis, sight) in cases {
        let mut machine = Machine::default();
        for earlier in [0, 4_000] {
            let _unused = machine.look(at(earlier), policy, 4, &[fit(A)], false);
        }
        let run = sight.run.max(7);
        let _unused = machine.look(at(millis), policy, 4, &[sight], false);
        let verdict = machine.look(at(10_000), policy, 4, &[Sight { run, ..fit(A) }], false);
        assert!(
            matches!(verdict, Verdict::Wait(Waiting { until: Until::Proven(_), .. })),
            "{why}: {verdict:?}"
        );
    }
}

#[test]
fn a_better_one_that_is_being_proven_is_waited_for() {
    let policy = Failback::Delayed(secs(10));
    let mut machine = Machine::default();
    for second in 0..8 {
        let _unused = machine.look(at(second * 1000), policy, 4, &[unfit(A), fit(B)], false);
    }
    for second in 8..18 {
        let verdict = machine.look(at(second * 1000), policy, 4, &[fit(A), fit(B)], false);
        assert!(
            matches!(&verdict, Verdict::Wait(Waiting { to: A, until: Until::Proven(_) })),
            "{verdict:?}"
        );
    }
    assert_eq!(machine.look(at(18_000), policy, 4, &[fit(A), fit(B)], false), Verdict::Move(A));
    assert_eq!(machine.look(at(18_500), policy, 4, &[unfit(A), fit(B)], false), Verdict::Move(B));
}

#[test]
fn what_an_operator_moved_stays_until_the_other_was_unfit() {
    for announced_before in [true, false] {
        let mut machine = Machine::default();
        if announced_before {
            machine.announce(at(0));
        }
        let look = |machine: &mut Machine, millis, sight: Sight| {
            machine.look(at(millis), Failback::Immediate, 4, &[sight], false)
        };
        let _unused = look(&mut machine, 100, fit(A));
        if !announced_before {
            // He asks for what is so already.
            machine.announce(at(200));
        }
        for millis in (500..60_000).step_by(500) {
            let verdict = look(&mut machine, millis, fit(A));
            assert_eq!(verdict, waits(A, Until::Operator), "after {millis} ms");
        }
        let _unused = look(&mut machine, 60_000, unfit(A));
        assert_eq!(look(&mut machine, 60_500, fit(A)), waits(A, Until::Proven(LOOK)));
        assert_eq!(look(&mut machine, 61_000, fit(A)), Verdict::Move(A));
    }
}

#[test]
fn a_restart_that_nobody_saw_ends_an_operators_wish_too() {
    let mut machine = Machine::default();
    machine.announce(at(0));
    let mut look = |millis, run| {
        let sight = Sight { run, ..fit(A) };
        machine.look(at(millis), Failback::Immediate, 4, &[sight], false)
    };
    let _unused = look(0, 7);
    assert_eq!(look(500, 7), waits(A, Until::Operator));
    assert_eq!(look(1000, 8), waits(A, Until::Proven(LOOK)));
    assert_eq!(look(1500, 8), Verdict::Move(A));
}

#[test]
fn an_operators_wish_is_for_the_next_tenure_alone_and_not_for_ever() {
    let mut machine = Machine::default();
    machine.announce(at(0));
    let late = ANNOUNCED + secs(1);
    let _unused =
        machine.look(Mono::default().after(late), Failback::Immediate, 4, &[fit(A)], false);
    let then = Mono::default().after(late + LOOK);
    let verdict = machine.look(then, Failback::Immediate, 4, &[fit(A)], false);
    assert_eq!(verdict, Verdict::Move(A), "it went another way");

    let mut machine = Machine::default();
    machine.announce(at(0));
    let _unused = machine.look(at(100), Failback::Immediate, 4, &[fit(A)], false);
    machine.released();
    let _unused = machine.look(at(1_000), Failback::Immediate, 6, &[fit(A)], false);
    let verdict = machine.look(at(1_500), Failback::Immediate, 6, &[fit(A)], false);
    assert_eq!(verdict, Verdict::Move(A), "another tenure");
}

#[test]
fn who_had_the_vips_in_vain_is_tried_less_and_less_often() {
    let mut machine = Machine::default();
    let mut now = Mono::default();
    let mut pauses = Vec::new();
    for tenure in 1..=9 {
        let _unused = machine.look(now, Failback::Immediate, tenure, &[fit(A)], false);
        let began = now;
        loop {
            now = now.after(LOOK);
            match machine.look(now, Failback::Immediate, tenure, &[fit(A)], false) {
                Verdict::Move(to) => {
                    assert_eq!(to, A);
                    break;
                }
                Verdict::Wait(_) => {}
                other @ (Verdict::Stay | Verdict::Compare(_)) => panic!("{other:?}"),
            }
        }
        pauses.push(now.since(began).as_secs());
        if tenure % 2 == 0 {
            machine.failed(A, now);
        } else {
            machine.moved(A, now);
            now = now.after(secs(5));
        }
        machine.released();
    }
    assert_eq!(pauses, [0, 10, 20, 40, 80, 160, 320, 640, 640]);

    machine.moved(A, now);
    now = now.after(RELAPSE + secs(1));
    let _unused = machine.look(now, Failback::Immediate, 20, &[fit(A)], false);
    let verdict = machine.look(now.after(LOOK), Failback::Immediate, 20, &[fit(A)], false);
    assert_eq!(verdict, Verdict::Move(A), "it had them long enough");
}

#[test]
fn nobody_preferred_and_never_are_no_reason_to_wait() {
    let mut machine = Machine::default();
    assert_eq!(machine.look(at(0), Failback::Immediate, 4, &[], false), Verdict::Stay);
    for millis in [500, 1000] {
        let verdict = machine.look(at(millis), Failback::Never, 4, &[fit(A)], false);
        assert_eq!(verdict, Verdict::Stay);
    }
}

#[test]
fn nineteen_of_twenty_are_enough() {
    #[rustfmt::skip]
    let cases = [
        (0, 0, true), (6, 6, true), (5, 6, false), (18, 19, false), (19, 20, true), (972, 1024, false), (973, 1024, true),
    ];
    for (known, asked, expected) in cases {
        assert_eq!(enough(known, asked).is_ok(), expected, "{known} of {asked}");
    }
    assert_eq!(
        enough(5, 6).unwrap_err(),
        "it knows 5 of 6 established connections, and needs 19 of 20"
    );
    assert!(enough(3, SAMPLE).unwrap_err().contains("3 of 1024 sampled"));
}

#[test]
fn a_sample_has_the_same_connections_whatever_the_order() {
    let digest = |port| {
        let client = SocketAddr::from(([192, 0, 2, 7], port));
        digest("TCP", client, SocketAddr::from(([192, 0, 2, 1], 80)))
    };
    let (mut up, mut down) = (Sample::default(), Sample::default());
    for port in 1..=5000 {
        up.take(digest(port));
        down.take(digest(5001 - port));
        down.take(digest(5001 - port));
    }
    assert_eq!(up, down);
    assert_eq!(up.digests().len(), SAMPLE);
    assert_eq!(
        digest(80),
        0xeb39_9106_69c1_f404,
        "the digest is part of what versions have in common"
    );
}

/// One thing that happens, and how many milliseconds after the one before.
#[derive(Clone, Debug)]
enum Happens {
    Look { fit: bool, run: u64 },
    Announce,
    Failed,
    Moved,
    Released,
}

fn happens() -> impl Strategy<Value = (u64, Happens)> {
    let kind = prop_oneof![
        20 => (prop::bool::weighted(0.9), 1..3_u64).prop_map(|(fit, run)| Happens::Look { fit, run }),
        1 => Just(Happens::Announce),
        1 => Just(Happens::Failed),
        1 => Just(Happens::Moved),
        1 => Just(Happens::Released),
    ];
    (prop_oneof![8 => 300..700_u64, 1 => 4_000..9_000_u64], kind)
}

proptest! {
    /// Judged by the whole history, which the machine does not keep.
    #[test]
    fn a_move_has_all_its_reasons(
        steps in prop::collection::vec(happens(), 1..200),
        delay in prop::option::of(1..6_u64),
    ) {
        let policy = delay.map_or(Failback::Immediate, |delay| Failback::Delayed(secs(delay)));
        let mut machine = Machine::default();
        let (mut now, mut tenure, mut holds) = (Mono::default(), 1, false);
        let mut looks: Vec<(Mono, bool, u64)> = Vec::new();
        let (mut asked, mut announced, mut failed) = (false, None, None);
        for (pause, step) in steps {
            now = now.after(Duration::from_millis(pause));
            match step {
                Happens::Announce => {
                    machine.announce(now);
                    if holds { asked = true } else { announced = Some(now) }
                }
                Happens::Failed => {
                    machine.failed(A, now);
                    failed = Some(now);
                    looks.clear();
                }
                Happens::Moved | Happens::Released => {
                    if matches!(step, Happens::Moved) {
                        machine.moved(A, now);
                    }
                    machine.released();
                    holds = false;
                    asked = false;
                    tenure += 1;
                    looks.clear();
                }
                Happens::Look { fit, run } => {
                    if !holds {
                        holds = true;
                        asked = announced.take().is_some_and(|at| now.since(at) <= ANNOUNCED);
                    }
                    if !fit || looks.last().is_some_and(|&(_, _, before)| before != run) {
                        asked = false;
                    }
                    looks.push((now, fit, run));
                    let sight = Sight { node: A, run, fit: if fit { Ok(()) } else { Err(String::new()) } };
                    let verdict = machine.look(now, policy, tenure, &[sight], false);
                    if verdict != Verdict::Move(A) {
                        continue;
                    }
                    prop_assert!(fit && !asked);
                    prop_assert!(failed.is_none_or(|at| now.since(at) >= FIRST_PAUSE));
                    let least = now.before(policy.delay().unwrap_or(Duration::ZERO));
                    let row = looks.iter().rev().take_while(|look| look.1 && look.2 == run);
                    let times: Vec<Mono> = row.map(|look| look.0).collect();
                    prop_assert!(times.iter().any(|at| *at <= least) && times.len() >= 2);
                    let spanned = times.windows(2).take_while(|pair| pair[0] > least);
                    for pair in spanned {
                        prop_assert!(pair[0].since(pair[1]) <= BLIND);
                    }
                }
            }
        }
    }
}
