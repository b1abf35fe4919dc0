use super::*;

const OURS: u8 = 100;
const SECOND: Duration = Duration::from_secs(1);
const T0: Mono = Mono(1_000_000_000_000);

fn ip(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

const ACQUIRED: Input = Input::Acquired { alone: true };

/// Our own address ends in 10. A member had the addresses when a test begins.
fn machine(policy: Policy) -> Coexist {
    let mut machine = new(policy, OURS);
    machine.vouched(T0);
    machine
}

fn new(policy: Policy, priority: u8) -> Coexist {
    Coexist::new(policy, priority, VrrpVersion::V3, SECOND, ip(10))
}

fn advert(last: u8, priority: u8) -> Input {
    Input::Heard(Foreign { priority, source: ip(last), interval: SECOND, member: false })
}

/// A machine that has taken these at `T0`.
fn after(policy: Policy, inputs: &[Input]) -> Coexist {
    let mut machine = machine(policy);
    for input in inputs {
        let _ = machine.step(T0, *input);
    }
    machine
}

const QUESTION: Option<Effect> = Some(Effect::Ask { advert: false });
const ADVERT: Option<Effect> = Some(Effect::Ask { advert: true });

/// Why; the policy; what came before; the input; what it does; where it stands then.
type Case<'a> = (&'a str, Policy, &'a [Input], Input, Option<Effect>, State);

#[test]
fn every_state_has_an_answer_to_every_input() {
    use Input::{Lost, Sighted, Timer};
    let lower = [advert(9, 50), ACQUIRED];
    let cases: &[Case<'_>] = &[
        ("nobody is heard", Policy::Yield, &[], ACQUIRED, Some(Effect::Claim), State::Active),
        ("no lease, no voice", Policy::Yield, &[], advert(9, 1), None, State::NoLease),
        ("no lease, no voice", Policy::Yield, &[], advert(9, 0), None, State::NoLease),
        ("no lease, no voice", Policy::Contest, &[], Sighted, None, State::NoLease),
        ("nothing to lose", Policy::Yield, &[], Lost, None, State::NoLease),
        ("a spurious timer", Policy::Yield, &[], Timer, None, State::NoLease),
        // Active.
        ("acquired twice", Policy::Yield, &[ACQUIRED], ACQUIRED, None, State::Active),
        (
            "lower priority",
            Policy::Yield,
            &[ACQUIRED],
            advert(20, 50),
            Some(Effect::Reassert),
            State::Active,
        ),
        (
            "equal, lower address",
            Policy::Contest,
            &[ACQUIRED],
            advert(9, 100),
            Some(Effect::Reassert),
            State::Active,
        ),
        (
            "equal, higher address",
            Policy::Contest,
            &[ACQUIRED],
            advert(11, 100),
            Some(Effect::Silence),
            State::Yielding,
        ),
        (
            "higher priority",
            Policy::Yield,
            &[ACQUIRED],
            advert(9, 101),
            Some(Effect::Silence),
            State::Yielding,
        ),
        (
            "the address owner",
            Policy::Yield,
            &[ACQUIRED],
            advert(9, 255),
            Some(Effect::Silence),
            State::Yielding,
        ),
        (
            "another router stops",
            Policy::Yield,
            &[ACQUIRED],
            advert(9, 0),
            Some(Effect::Reassert),
            State::Active,
        ),
        ("the lease ends", Policy::Yield, &[ACQUIRED], Lost, None, State::NoLease),
        ("a spurious timer", Policy::Yield, &[ACQUIRED], Timer, None, State::Active),
        (
            "another announces",
            Policy::Yield,
            &[ACQUIRED],
            Sighted,
            Some(Effect::Reassert),
            State::Active,
        ),
        // Yielding, to one that was there before.
        ("it was there", Policy::Yield, &[advert(9, 50)], ACQUIRED, None, State::Yielding),
        ("it goes on", Policy::Yield, &lower, advert(9, 50), None, State::Yielding),
        ("it wins", Policy::Contest, &[advert(9, 150)], ACQUIRED, None, State::Yielding),
        (
            "it goes on",
            Policy::Contest,
            &[advert(9, 150), ACQUIRED],
            advert(9, 150),
            None,
            State::Yielding,
        ),
        (
            "a third, lower than it",
            Policy::Contest,
            &[advert(9, 150), ACQUIRED],
            advert(20, 140),
            None,
            State::Yielding,
        ),
        (
            "it gives way to us",
            Policy::Contest,
            &[advert(9, 150), ACQUIRED],
            advert(9, 50),
            ADVERT,
            State::Contesting,
        ),
        (
            "it stops: skew first",
            Policy::Contest,
            &[advert(9, 150), ACQUIRED],
            advert(9, 0),
            None,
            State::Yielding,
        ),
        (
            "another stops",
            Policy::Yield,
            &[advert(9, 150), ACQUIRED],
            advert(20, 0),
            None,
            State::Yielding,
        ),
        ("the lease ends", Policy::Yield, &lower, Lost, None, State::NoLease),
        ("the timer comes early", Policy::Yield, &lower, Timer, None, State::Yielding),
        ("it has the addresses", Policy::Yield, &lower, Sighted, None, State::Yielding),
        ("acquired twice", Policy::Yield, &lower, ACQUIRED, None, State::Yielding),
        // Contesting.
        ("we outrank it", Policy::Contest, &[advert(9, 50)], ACQUIRED, ADVERT, State::Contesting),
        ("it goes on", Policy::Contest, &lower, advert(9, 50), None, State::Contesting),
        ("it raises itself", Policy::Contest, &lower, advert(9, 150), None, State::Yielding),
        ("it stops", Policy::Contest, &lower, advert(9, 0), QUESTION, State::Checking),
        ("another stops", Policy::Contest, &lower, advert(20, 0), None, State::Contesting),
        ("it has the addresses", Policy::Contest, &lower, Sighted, None, State::Contesting),
        ("the lease ends", Policy::Contest, &lower, Lost, None, State::NoLease),
        ("the timer comes early", Policy::Contest, &lower, Timer, None, State::Contesting),
        ("acquired twice", Policy::Contest, &lower, ACQUIRED, None, State::Contesting),
    ];
    for (why, policy, before, input, effect, state) in cases {
        let mut machine = after(*policy, before);
        assert_eq!(machine.step(T0, *input), *effect, "{why}, after {before:?}");
        assert_eq!(machine.state(), *state, "{why}, after {before:?}");
    }
}

/// Feeds the timer at its own deadlines until `until`; returns what it asked for, with the milliseconds since `T0`.
fn run(machine: &mut Coexist, until: Mono) -> Vec<(u64, Effect)> {
    let mut effects = Vec::new();
    while let Some(now) = machine.deadline().filter(|deadline| *deadline <= until) {
        let effect = machine.step(now, Input::Timer);
        assert!(
            machine.deadline().is_none_or(|next| next > now),
            "a deadline that stays would spin"
        );
        let passed = u64::try_from(now.since(T0).as_millis()).unwrap();
        effects.extend(effect.map(|effect| (passed, effect)));
    }
    effects
}

#[test]
fn addresses_are_claimed_after_three_questions_that_nobody_answers() {
    let mut young = new(Policy::Yield, OURS);
    assert_eq!(young.step(T0, ACQUIRED), QUESTION, "a master may be between two adverts");
    let ask = Effect::Ask { advert: false };
    assert_eq!(run(&mut young, T0.after(SECOND)), [(10, ask), (20, ask), (30, Effect::Claim)]);

    let mut vouched = new(Policy::Yield, OURS);
    vouched.vouched(T0);
    assert_eq!(vouched.step(T0, ACQUIRED), Some(Effect::Claim));

    let mut answered = new(Policy::Yield, OURS);
    assert_eq!(answered.step(T0, ACQUIRED), QUESTION);
    assert_eq!(answered.step(T0, Input::Sighted), None);
    assert!(answered.is_occupied());
    assert_eq!(answered.state(), State::Yielding);
    // It asks again, and claims when the other is gone.
    let again = run(&mut answered, T0.after(SECOND));
    assert_eq!(again.last(), Some(&(230, Effect::Claim)));
    assert!(!answered.is_occupied());
}

#[test]
fn what_somebody_has_and_nobody_advertises_is_claimed_by_no_later_tenure_and_under_no_other_configuration()
 {
    let later = |seconds| T0.after(seconds * SECOND);
    let asks = |why: &str, machine: &Coexist, now| {
        assert_eq!(machine.clone().step(now, ACQUIRED), QUESTION, "{why}");
    };
    // A foreign master dies and leaves its address behind.
    let mut holder = after(Policy::Yield, &[advert(9, 150), ACQUIRED]);
    let gone = holder.deadline().unwrap();
    assert_eq!(holder.step(gone, Input::Timer), QUESTION);
    assert_eq!(holder.step(gone, Input::Sighted), None);
    assert!(holder.is_occupied());
    let mut other = new(Policy::Yield, OURS);
    other.succeed(&holder);
    asks("another configuration", &other, gone);
    assert_eq!(holder.step(gone, Input::Lost), None);
    asks("the same node again", &holder, gone);
    asks("the same node, much later", &holder, gone.after(3600 * SECOND));
    asks("another node that heard it", &after(Policy::Yield, &[advert(9, 150)]), gone);
    asks("a node that has heard nothing for an hour", &new(Policy::Yield, OURS), later(3600));

    // A member's adverts count when it cannot be contesting any more.
    let mut standby = after(Policy::Contest, &[advert(9, 50)]);
    standby.vouched(later(1));
    asks("a member contests with it", &standby, later(5));
    standby.vouched(later(5));
    assert_eq!(standby.clone().step(later(6), ACQUIRED), Some(Effect::Claim));
    asks("it was heard too long ago", &standby, later(16));
    let mut rare = Coexist::new(Policy::Yield, OURS, VrrpVersion::V3, 40 * SECOND, ip(10));
    rare.vouched(T0);
    assert_eq!(rare.step(later(120), ACQUIRED), Some(Effect::Claim), "three of its intervals");

    // What was this node's own it knows.
    let mut own = after(Policy::Yield, &[ACQUIRED]);
    assert_eq!(own.step(later(60), Input::Lost), None);
    assert_eq!(own.clone().step(later(61), ACQUIRED), Some(Effect::Claim));
    asks("long ago", &own, later(71));
    let mut doubtful = own.clone();
    doubtful.doubt();
    asks("a router that may be a member was there since", &doubtful, later(61));
    assert_eq!(own.step(later(61), advert(9, 50)), None);
    asks("somebody was there since", &own, later(65));
}

#[test]
fn a_contest_is_won_by_silence_or_when_nobody_answers_any_more() {
    let contest = || after(Policy::Contest, &[advert(9, 50), ACQUIRED]);
    let adverts = |effects: &[(u64, Effect)]| -> Vec<u64> {
        let sent = effects.iter().filter(|(_, effect)| *effect == Effect::Ask { advert: true });
        sent.map(|(at, _)| *at).collect()
    };

    let mut silent = contest();
    let effects = run(&mut silent, T0.after(10 * SECOND));
    assert_eq!(adverts(&effects), [100, 200], "then one a second, and it ended before");
    assert_eq!(
        effects.last(),
        Some(&(1230, Effect::Claim)),
        "1.2 of its intervals, three questions"
    );

    let mut gave_way = contest();
    assert_eq!(gave_way.step(T0, Input::Sighted), None, "it has them still");
    let effects = run(&mut gave_way, T0.after(10 * SECOND));
    assert_eq!(effects.last(), Some(&(60, Effect::Claim)));

    // As long as it answers, there is no claim.
    let mut holds = contest();
    for step in 1..100 {
        let now = T0.after(step * ASK_EVERY);
        assert_ne!(holds.step(now, Input::Timer), Some(Effect::Claim));
        assert_eq!(holds.step(now, Input::Sighted), None);
    }
}

#[test]
fn one_that_does_not_give_up_is_yielded_to_and_named() {
    let mut machine = after(Policy::Contest, &[advert(9, 50), ACQUIRED]);
    for second in 1..=3 {
        let now = T0.after(second * SECOND);
        let effects = run(&mut machine, now);
        assert!(effects.iter().all(|(_, effect)| *effect != Effect::Claim), "{effects:?}");
        assert_eq!(machine.unimpressed(), None);
        assert_eq!(machine.step(now, advert(9, 50)), None);
    }
    assert_eq!((machine.state(), machine.unimpressed()), (State::Yielding, Some(ip(9))));
    assert_eq!(machine.step(T0.after(4 * SECOND), advert(9, 50)), None, "once is enough");
    assert_eq!(machine.state(), State::Yielding);
    // Another one, when that is gone, is another matter.
    let later = T0.after(20 * SECOND);
    assert_eq!(machine.step(later, advert(8, 50)), ADVERT);
}

#[test]
fn one_whose_adverts_are_late_is_contested_with_further_on_and_not_anew() {
    let mut machine = after(Policy::Contest, &[advert(9, 50), ACQUIRED]);
    // Each a little later than the contest waits before it asks whether anybody is there.
    for advert_number in 1..=3 {
        let now = T0.after(advert_number * Duration::from_millis(1_220));
        let effects = run(&mut machine, now);
        assert!(effects.iter().all(|(_, effect)| *effect != Effect::Claim), "{effects:?}");
        let _ = machine.step(now, advert(9, 50));
    }
    assert_eq!((machine.state(), machine.unimpressed()), (State::Yielding, Some(ip(9))));
}

#[test]
fn over_ipv6_the_higher_address_wins_too() {
    let address = |last: u16| IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, last]);
    for (last, effect) in [(9, Effect::Reassert), (0x11, Effect::Silence)] {
        let mut machine = Coexist { source: address(0x10), ..machine(Policy::Yield) };
        assert_eq!(machine.step(T0, ACQUIRED), Some(Effect::Claim));
        let foreign =
            Foreign { priority: OURS, source: address(last), interval: SECOND, member: false };
        assert_eq!(machine.step(T0, Input::Heard(foreign)), Some(effect), "{last}");
    }
}

#[test]
fn silence_or_a_goodbye_of_the_master_ends_the_yielding() {
    // (256 - 100) / 256 of a second.
    let skew = Duration::from_micros(609_375);
    let down = 3 * SECOND + skew;
    let yielding = || after(Policy::Yield, &[ACQUIRED, advert(9, 150)]);

    let mut silent = yielding();
    assert_eq!(silent.deadline(), Some(T0.after(down)));
    let just_before = Mono(T0.after(down).0 - 1);
    assert_eq!(silent.step(just_before, Input::Timer), None);
    assert_eq!(silent.step(T0.after(down), Input::Timer), QUESTION);
    assert_eq!(silent.foreign(T0.after(down)), None);
    assert_eq!(silent.state(), State::Checking);

    let mut stopped = yielding();
    let later = T0.after(SECOND);
    assert_eq!(stopped.step(later, advert(9, 0)), None);
    assert_eq!(stopped.deadline(), Some(later.after(skew)));
    assert_eq!(stopped.step(later.after(skew), Input::Timer), QUESTION);
    // One that comes back in the meantime is respected.
    assert_eq!(stopped.step(later.after(skew), advert(7, 1)), None);
    assert_eq!(stopped.state(), State::Yielding);
}

#[test]
fn an_announcement_of_another_is_answered_once_a_second() {
    let mut machine = after(Policy::Yield, &[ACQUIRED, Input::Sighted]);
    let at = |ms| T0.after(Duration::from_millis(ms));
    assert_eq!(machine.step(at(999), Input::Sighted), None);
    assert_eq!(machine.step(at(1000), Input::Sighted), Some(Effect::Reassert));
}

#[test]
fn a_new_configuration_knows_what_the_old_one_heard() {
    let succeed = |old: &Coexist, policy| {
        let mut new = new(policy, OURS);
        new.succeed(old);
        let effect = new.step(T0, ACQUIRED);
        (effect, new.state())
    };
    let yielding = after(Policy::Yield, &[advert(9, 50), ACQUIRED]);
    assert_eq!(succeed(&yielding, Policy::Yield), (None, State::Yielding));
    assert_eq!(
        succeed(&yielding, Policy::Contest),
        (ADVERT, State::Contesting),
        "taken by command"
    );
    // Who is seen stays seen, without a gap, unless it is outranked now.
    let active = after(Policy::Yield, &[ACQUIRED, advert(9, 50)]);
    assert_eq!(succeed(&active, Policy::Yield), (Some(Effect::Claim), State::Active));
    let mut lowered = new(Policy::Yield, 1);
    lowered.succeed(&active);
    assert_eq!(lowered.step(T0, ACQUIRED), None, "and back again");
    assert_eq!(lowered.state(), State::Yielding);
}

#[test]
fn what_was_taken_is_given_back_to_whoever_wants_it() {
    let taken = after(Policy::Contest, &[ACQUIRED]);
    let give_back = || {
        let mut new = new(Policy::Yield, 1);
        new.succeed(&taken);
        assert!(new.stands_back());
        assert_eq!(new.step(T0, ACQUIRED), None);
        assert_eq!(new.state(), State::Yielding);
        new
    };
    let mut given = give_back();
    assert_eq!(given.step(T0.after(SECOND), advert(9, 50)), None);
    assert!(run(&mut given, T0.after(4 * SECOND)).is_empty());
    // 3 s and the longest skew that there is.
    let mut unwanted = give_back();
    let effects = run(&mut unwanted, T0.after(5 * SECOND));
    assert_eq!(effects.first(), Some(&(3996, Effect::Ask { advert: false })));
    assert_eq!(effects.last(), Some(&(4026, Effect::Claim)));
    // A holder that had nobody to take it from stays.
    let alone = after(Policy::Yield, &[ACQUIRED]);
    let mut new = machine(Policy::Yield);
    new.succeed(&alone);
    assert!(!new.stands_back());
}

#[test]
fn version_2_skews_by_parts_of_a_second_whatever_the_interval() {
    let slow = 10 * SECOND;
    assert_eq!(skew(100, VrrpVersion::V2, slow), Duration::from_micros(609_375));
    assert_eq!(skew(100, VrrpVersion::V3, slow), Duration::from_micros(6_093_750));
    assert_eq!(skew(254, VrrpVersion::V3, slow), Duration::from_micros(78_125));
}

#[test]
fn an_interval_of_zero_does_not_make_a_master_vanish_at_once() {
    let mut machine = after(Policy::Yield, &[ACQUIRED]);
    let broken = Foreign { priority: 150, source: ip(9), interval: Duration::ZERO, member: false };
    assert_eq!(machine.step(T0, Input::Heard(broken)), Some(Effect::Silence));
    assert!(machine.deadline().unwrap() > T0.after(Duration::from_millis(30)));
}

/// A member that holds without a lease.
fn member(last: u8, priority: u8) -> Input {
    Input::Heard(Foreign { priority, source: ip(last), interval: SECOND, member: true })
}

const UNSURE: Input = Input::Acquired { alone: false };

/// Lets it run by its own deadlines until it claims; how long that took, and how many adverts it sent before.
fn until_claimed(machine: &mut Coexist, from: Mono, mut answers: u32) -> Option<(u128, u32)> {
    let mut adverts = 0;
    loop {
        let now = machine.deadline().filter(|now| now.since(from) < Duration::from_secs(10))?;
        match machine.step(now, Input::Timer) {
            Some(Effect::Claim) => return Some((now.since(from).as_millis(), adverts)),
            Some(Effect::Ask { advert }) => {
                adverts += u32::from(advert);
                if answers > 0 {
                    answers -= 1;
                    assert_ne!(machine.step(now, Input::Sighted), Some(Effect::Claim));
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_member_that_may_hold_without_a_lease_is_told_first() {
    let mut machine = machine(Policy::Yield);
    assert_eq!(machine.step(T0, UNSURE), ADVERT);
    assert_eq!(machine.state(), State::Contesting);
    // Nobody advertises and nobody answers.
    assert_eq!(until_claimed(&mut machine, T0, 0), Some((40, 0)));
}

#[test]
fn a_member_that_has_not_heard_the_advert_is_told_again() {
    let mut machine = machine(Policy::Yield);
    assert_eq!(machine.step(T0, UNSURE), ADVERT);
    let (after, adverts) = until_claimed(&mut machine, T0, 3).unwrap();
    assert!(adverts >= 2, "{adverts} adverts within {after} ms");
    assert_eq!(machine.state(), State::Active);
}

#[test]
fn a_member_that_holds_without_a_lease_gives_way_whatever_the_policy_on_others_is() {
    for policy in [Policy::Yield, Policy::Contest] {
        let mut machine = after(policy, &[member(9, 99)]);
        assert_eq!(machine.step(T0, UNSURE), ADVERT, "{policy:?}");
        let claimed = until_claimed(&mut machine, T0, 1).unwrap();
        assert!(claimed.0 < 200, "{claimed:?}: it is silent when it does not answer any more");
    }
    // It has promised, and so given way; nobody need be told.
    let mut machine = after(Policy::Yield, &[member(9, 99)]);
    assert_eq!(machine.step(T0, ACQUIRED), QUESTION);
    // It holds on under a lease what it held before.
    let mut machine = after(Policy::Yield, &[member(9, 99)]);
    machine.goes_on();
    assert_eq!(machine.step(T0, ACQUIRED), Some(Effect::Claim));
}
