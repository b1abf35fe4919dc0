//! A lease that is not renewed, under a policy that lets its holder go on.

use super::*;

pub(super) fn policy(policy: Policy) -> Order {
    Order::WithoutQuorum(WithoutQuorum { policy, rank: 0, directors: [NodeId(2)].into() })
}

/// One that holds, and whose lease nobody renews from now on.
fn orphaned(neighbour: &Neighbour, word: Policy) -> Holder {
    let holder = Holder::start();
    holder.handle.inputs.order(policy(word));
    holder.elect();
    neighbour.until(Seen::Advert { priority: 200 });
    holder.handle.inputs.send(Input::Voters([OWN, NodeId(2)].into()));
    holder
}

fn unleased(holder: &Holder) -> Option<Unleased> {
    holder.handle.outlook.borrow().unleased
}

#[test]
fn a_holder_goes_on_gives_way_takes_again_and_says_goodbye() {
    let neighbour = Neighbour::new();
    let holder = orphaned(&neighbour, Policy::Vrrp);
    neighbour.until(Seen::Advert { priority: 199 });
    assert!(attached());
    holder.tenure(Tenure::Holding { epoch: 1 });
    wait_until("it is said", || unleased(&holder) == Some(Unleased::Sticky));

    neighbour.say.send(Say::Advert(200)).unwrap();
    holder.tenure(Tenure::None);
    assert!(!attached());
    assert_eq!(unleased(&holder), None);

    // Ten promises of the relaxed profile, VRRP's time, and a question that nobody answers.
    neighbour.until(Seen::Question);
    holder.tenure(Tenure::Preparing { epoch: 1 });
    assert!(!attached(), "it only asks");
    holder.handle.inputs.send(Input::TableReady { epoch: 1 });
    neighbour.until(Seen::Advert { priority: 199 });
    holder.tenure(Tenure::Holding { epoch: 1 });
    wait_until("the VIP is there", attached);
    wait_until("it is said", || unleased(&holder) == Some(Unleased::Vrrp));

    holder.stop();
    neighbour.until(Seen::Advert { priority: 0 });
    assert!(!attached());
}

#[test]
fn a_holder_is_silent_before_it_promises() {
    let neighbour = Neighbour::new();
    let holder = orphaned(&neighbour, Policy::Sticky);
    neighbour.until(Seen::Advert { priority: 199 });
    let group = Message::Hold {
        group: 0,
        epoch: 2,
        term: 2,
        seq: 1,
        stamp: Mono(1),
        promise: Duration::from_millis(600),
        hint: None,
    };
    holder.handle.inputs.send(Input::Datagram { from: NodeId(2), message: group });
    holder.tenure(Tenure::None);
    assert!(!attached());
    neighbour.silent();
    holder.stop();
}

#[test]
fn a_stricter_policy_silences_whom_it_does_not_allow() {
    let neighbour = Neighbour::new();
    let holder = orphaned(&neighbour, Policy::Sticky);
    neighbour.until(Seen::Advert { priority: 199 });
    holder.handle.inputs.order(policy(Policy::Strict));
    holder.tenure(Tenure::None);
    assert!(!attached());
    neighbour.silent();
    holder.stop();
}

#[test]
fn under_the_strict_policy_an_orphaned_holder_lets_go() {
    let neighbour = Neighbour::new();
    let holder = orphaned(&neighbour, Policy::Strict);
    holder.tenure(Tenure::None);
    assert!(!attached());
    neighbour.silent();
    holder.stop();
}
