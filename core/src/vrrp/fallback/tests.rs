use proptest::prelude::*;

use super::*;

const T0: Mono = Mono(1_000_000_000);

fn at(ms: u64) -> Mono {
    T0.after(Duration::from_millis(ms))
}

fn ip(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

fn terms(policy: Policy) -> Terms {
    Terms {
        policy,
        patience: PATIENCE,
        priority: priority(200, 0),
        rank: 0,
        version: VrrpVersion::V2,
        interval: Duration::from_secs(1),
        source: ip(101),
        arbiters: false,
    }
}

/// One that could hold.
fn fit(terms: Terms) -> Fallback {
    let mut machine = Fallback::new(terms, T0);
    assert_eq!(machine.step(T0, Input::Fit(true)), None);
    machine
}

const ASK: Option<Effect> = Some(Effect::Ask { addresses: true });

/// Lets it run by its own deadlines until it does something else than ask.
fn run(machine: &mut Fallback, until: u64) -> Option<(u64, Effect)> {
    loop {
        let now = machine.deadline().filter(|now| *now <= at(until))?;
        match machine.step(now, Input::Timer) {
            ASK => assert_eq!(machine.step(now, Input::Ready), None),
            Some(effect) => {
                return Some((u64::try_from(now.since(T0).as_millis()).unwrap(), effect));
            }
            None => assert_eq!(machine.state(), State::Idle, "nothing was due at {now:?}"),
        }
    }
}

/// A holder without a lease, from `at(0)`.
fn sticky(terms: Terms) -> Fallback {
    let mut machine = fit(terms);
    machine.listened(at(0));
    assert_eq!(machine.step(at(0), Input::Expired), Some(Effect::Claim));
    machine
}

#[test]
fn auto_follows_the_number_of_directors_that_vote() {
    #[rustfmt::skip]
    let cases = [
        (NoQuorum::Strict,       1, Policy::Strict),
        (NoQuorum::Sticky,       5, Policy::Sticky),
        (NoQuorum::VrrpFallback, 5, Policy::Vrrp),
        (NoQuorum::Auto,         1, Policy::Vrrp),
        (NoQuorum::Auto,         2, Policy::Vrrp),
        (NoQuorum::Auto,         3, Policy::Strict),
    ];
    for (word, directors, policy) in cases {
        assert_eq!(Policy::of(word, directors), policy, "{word:?} {directors}");
    }
}

#[test]
fn priorities_are_below_the_holders_and_never_zero() {
    assert_eq!([priority(200, 0), priority(200, 1), priority(200, 250)], [199, 198, 1]);
    assert_eq!([priority(2, 0), priority(2, 1)], [1, 1]);
}

#[test]
fn a_holder_goes_on_unless_the_policy_is_strict_or_it_is_unfit() {
    for (policy, goes_on) in [(Policy::Strict, false), (Policy::Sticky, true), (Policy::Vrrp, true)]
    {
        let mut machine = fit(terms(policy));
        let effect = machine.step(at(0), Input::Expired);
        assert_eq!(effect.is_some(), goes_on, "{policy:?}");
        assert_eq!(machine.is_master(), goes_on, "{policy:?}");
        assert!(!machine.may_emit(at(0)), "{policy:?}: not before it has listened");
        machine.listened(at(0));
        assert_eq!(machine.may_emit(at(0)), goes_on, "{policy:?}");
    }
    let mut unfit = Fallback::new(terms(Policy::Vrrp), T0);
    assert_eq!(unfit.step(at(0), Input::Expired), None);
    assert!(!unfit.is_master());
}

#[test]
fn an_orphaned_group_is_taken_after_vrrps_time_and_three_questions() {
    // 3 s and 57/256 s (RFC 3768), and 600 ms for answers.
    let mut first = fit(terms(Policy::Vrrp));
    assert_eq!(run(&mut first, 60_000), Some((3822, Effect::Claim)));
    // One priority less, one place further back.
    let mut second = fit(Terms { priority: priority(200, 1), rank: 1, ..terms(Policy::Vrrp) });
    assert_eq!(run(&mut second, 60_000), Some((4026, Effect::Claim)));
    // Nothing is taken sooner than a majority is missed.
    let patience = Duration::from_secs(20);
    let mut patient = fit(Terms { patience, ..terms(Policy::Vrrp) });
    assert_eq!(run(&mut patient, 60_000), Some((20_600, Effect::Claim)));
    for policy in [Policy::Strict, Policy::Sticky] {
        assert_eq!(run(&mut fit(terms(policy)), 600_000), None, "{policy:?}");
    }
    assert_eq!(run(&mut Fallback::new(terms(Policy::Vrrp), T0), 600_000), None, "unfit");
}

#[test]
fn whoever_is_heard_of_while_it_waits_or_asks_begins_the_wait_anew() {
    let heard = Input::Heard { priority: 1, source: ip(9) };
    for sign in [heard, Input::Sighted, Input::Asked] {
        let mut machine = fit(terms(Policy::Vrrp));
        assert_eq!(machine.step(at(3000), sign), None);
        assert_eq!(run(&mut machine, 60_000), Some((6822, Effect::Claim)), "{sign:?}");

        let mut machine = fit(terms(Policy::Vrrp));
        assert_eq!(machine.step(at(3300), Input::Timer), ASK);
        assert_eq!(machine.step(at(3310), sign), None);
        assert_eq!(machine.state(), State::Idle, "{sign:?}");
        assert_eq!(run(&mut machine, 60_000), Some((7132, Effect::Claim)), "{sign:?}");
    }
    let mut machine = fit(terms(Policy::Vrrp));
    assert_eq!(machine.step(at(3300), Input::Timer), ASK);
    assert_eq!(machine.step(at(3310), Input::Contact), None);
    assert_eq!(run(&mut machine, 60_000), Some((5910, Effect::Claim)), "no holder, but a majority");
}

#[test]
fn nothing_is_taken_before_the_table_stands() {
    let mut machine = fit(terms(Policy::Vrrp));
    for asked in 0..10 {
        let now = machine.deadline().unwrap();
        assert_eq!(machine.step(now, Input::Timer), ASK, "{asked}");
    }
    assert_eq!(machine.step(machine.deadline().unwrap(), Input::Ready), None);
    assert_eq!(machine.step(machine.deadline().unwrap(), Input::Timer), Some(Effect::Claim));
}

#[test]
fn a_holder_without_a_lease_gives_way() {
    let own = terms(Policy::Vrrp).priority;
    let heard = |priority, last| Input::Heard { priority, source: ip(last) };
    #[rustfmt::skip]
    let cases = [
        ("before it promises",             Input::Asked,           Some(Effect::Silence)),
        ("to a holder under a lease",      heard(200, 1),          Some(Effect::Silence)),
        ("to a higher address",            heard(own, 102),        Some(Effect::Silence)),
        ("not to a lower address",         heard(own, 100),        Some(Effect::Reassert)),
        ("not to a lower priority",        heard(own - 1, 250),    Some(Effect::Reassert)),
        ("when it is unfit",               Input::Fit(false),      Some(Effect::Silence)),
        ("after a suspend",                Input::Suspended,       Some(Effect::Silence)),
        ("not to a leader that only leads", Input::Contact,        None),
        ("to its own lease, unseen",       Input::Lease,           None),
    ];
    for (why, input, effect) in cases {
        let mut machine = sticky(terms(Policy::Vrrp));
        assert_eq!(machine.step(at(10), input), effect, "{why}");
        let holds = !matches!(effect, Some(Effect::Silence)) && input != Input::Lease;
        assert_eq!(machine.is_master(), holds, "{why}");
        assert_eq!(machine.may_emit(at(11)), holds, "{why}");
    }
}

#[test]
fn another_who_answers_is_contradicted_once() {
    let mut machine = sticky(terms(Policy::Sticky));
    assert_eq!(machine.step(at(10), Input::Sighted), Some(Effect::Reassert));
    assert_eq!(machine.step(at(10_011), Input::Sighted), Some(Effect::Reassert), "long after");
    assert_eq!(machine.step(at(10_020), Input::Sighted), Some(Effect::Silence));
    assert_eq!(run(&mut machine, 600_000), None, "sticky takes nothing back");
}

#[test]
fn arbiters_have_to_answer_before_and_while_it_holds() {
    let arbitrated = Terms { arbiters: true, ..terms(Policy::Vrrp) };
    let mut machine = fit(arbitrated);
    assert_eq!(
        run(&mut machine, 60_000),
        None,
        "nobody vouches for it, and it asks again and again"
    );

    let mut machine = fit(arbitrated);
    assert_eq!(machine.step(at(3300), Input::Timer), ASK);
    assert_eq!(machine.step(at(3301), Input::Arbiter), None);
    let claim = Some(Effect::Claim);
    assert_eq!(machine.step(at(3500), Input::Timer), ASK);
    assert_eq!(machine.step(at(3500), Input::Ready), None);
    assert_eq!(machine.step(at(3700), Input::Timer), ASK);
    assert_eq!(machine.step(at(3900), Input::Timer), claim);
    let arbiters = Some(Effect::Ask { addresses: false });
    assert_eq!(machine.step(at(3900), Input::Timer), arbiters);
    assert_eq!(machine.step(at(4300), Input::Arbiter), None);
    for ms in [4400, 4900, 5400] {
        assert_eq!(machine.step(at(ms), Input::Timer), arbiters, "{ms}");
    }
    assert_eq!(machine.step(at(5900), Input::Timer), Some(Effect::Silence));

    let mut holder = sticky(arbitrated);
    assert_eq!(holder.step(at(0), Input::Timer), arbiters, "asked at once");
    assert_eq!(holder.step(at(1700), Input::Timer), Some(Effect::Silence));
}

#[test]
fn a_thread_that_was_stopped_listens_before_it_speaks() {
    let mut machine = sticky(terms(Policy::Sticky));
    assert!(machine.may_emit(at(49)));
    assert!(!machine.may_emit(at(50)));
    machine.listened(at(5000));
    assert!(machine.may_emit(at(5001)));
}

#[test]
fn whoever_is_heard_of_leaves_a_sign() {
    let heard = Input::Heard { priority: 1, source: ip(1) };
    for (input, sign) in
        [(heard, true), (Input::Sighted, true), (Input::Arbiter, false), (Input::Contact, false)]
    {
        let mut machine = fit(terms(Policy::Sticky));
        assert_eq!(machine.step(at(7), input), None);
        assert_eq!(machine.last_sign() >= at(7), sign, "{input:?}");
    }
}

#[test]
fn new_terms_silence_whom_they_do_not_allow() {
    let mut taken = fit(terms(Policy::Vrrp));
    assert!(run(&mut taken, 60_000).is_some());
    assert_eq!(taken.change(at(5000), terms(Policy::Vrrp)), None, "the same");
    let other = Terms { priority: 150, ..terms(Policy::Vrrp) };
    assert_eq!(taken.change(at(5000), other), Some(Effect::Claim), "to be said anew");
    assert_eq!(taken.change(at(5000), terms(Policy::Sticky)), Some(Effect::Silence));
    let mut held = sticky(terms(Policy::Vrrp));
    assert_eq!(held.change(at(1), terms(Policy::Sticky)), Some(Effect::Claim));
    assert_eq!(held.change(at(1), terms(Policy::Strict)), Some(Effect::Silence));
}

fn input() -> impl Strategy<Value = Input> {
    let heard = (1u8..=254, 1u8..=254)
        .prop_map(|(priority, last)| Input::Heard { priority, source: ip(last) });
    prop_oneof![
        1 => Just(Input::Contact),
        1 => Just(Input::Asked),
        1 => Just(Input::Lease),
        1 => Just(Input::Expired),
        3 => any::<bool>().prop_map(Input::Fit),
        1 => heard,
        1 => Just(Input::Sighted),
        4 => Just(Input::Arbiter),
        4 => Just(Input::Ready),
        1 => Just(Input::Suspended),
        30 => Just(Input::Timer),
    ]
}

proptest! {
    /// What ADR 0009 promises, whatever happens.
    #[test]
    fn nobody_is_doubled_who_can_be_heard(
        policy in prop_oneof![Just(Policy::Strict), Just(Policy::Sticky), Just(Policy::Vrrp)],
        arbiters in any::<bool>(),
        rank in 0u8..4,
        inputs in proptest::collection::vec((input(), 0u64..700), 1..200),
    ) {
        let terms = Terms { arbiters, rank, priority: priority(200, rank), ..terms(policy) };
        let mut machine = Fallback::new(terms, T0);
        let (mut now, mut holding) = (T0, false);
        // Since the last sign of a holder or a majority.
        let (mut asked, mut vouched, mut quiet_since) = (0, false, T0);
        for (input, pause) in inputs {
            now = now.after(Duration::from_millis(pause));
            if input == Input::Timer && let Some(deadline) = machine.deadline() {
                now = now.max(deadline);
            }
            let before = machine.is_master();
            let effect = machine.step(now, input);
            match input {
                Input::Asked | Input::Suspended | Input::Fit(false) => prop_assert!(!machine.is_master()),
                Input::Heard { .. } | Input::Sighted if !before => {
                    prop_assert!(!machine.is_master());
                }
                Input::Contact | Input::Lease | Input::Expired | Input::Fit(true) | Input::Arbiter | Input::Ready
                | Input::Timer | Input::Heard { .. } | Input::Sighted => {}
            }
            let sign = matches!(input, Input::Asked | Input::Contact | Input::Heard { .. } | Input::Sighted | Input::Suspended);
            if sign || effect == Some(Effect::Silence) {
                (asked, vouched, quiet_since) = (0, false, now);
            }
            if input == Input::Arbiter && asked > 0 {
                vouched = true;
            }
            match effect {
                Some(Effect::Ask { addresses: true }) => {
                    prop_assert!(policy == Policy::Vrrp);
                    prop_assert!(now >= quiet_since.after(PATIENCE));
                    asked += 1;
                }
                Some(Effect::Claim) if input == Input::Expired => prop_assert!(policy != Policy::Strict),
                Some(Effect::Claim) => {
                    prop_assert!(policy == Policy::Vrrp && asked >= QUESTIONS && (vouched || !arbiters));
                }
                Some(Effect::Silence) => prop_assert!(before && !machine.is_master()),
                Some(Effect::Reassert) | Some(Effect::Ask { addresses: false }) => prop_assert!(machine.is_master()),
                None => {}
            }
            // Every change of what is seen is told.
            match (holding, machine.is_master()) {
                (false, true) => prop_assert_eq!(effect, Some(Effect::Claim)),
                (true, false) => prop_assert!(effect == Some(Effect::Silence) || input == Input::Lease),
                _ => {}
            }
            holding = machine.is_master();
            prop_assert!(machine.deadline().is_none_or(|deadline| input != Input::Timer || deadline > now || effect == Some(Effect::Claim)), "a deadline that stays in the past");
        }
    }
}
