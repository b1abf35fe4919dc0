use super::*;

fn daemon(role: SyncRole) -> SyncDaemon {
    SyncDaemon {
        role,
        interface: "eth0".into(),
        sync_id: 7,
        max_length: 0,
        group: Some([224, 0, 0, 81].into()),
        port: 8848,
        ttl: 1,
    }
}

/// As the kernel lists it: with the length that it chose.
fn running(role: SyncRole) -> SyncDaemon {
    SyncDaemon { max_length: 1472, ..daemon(role) }
}

fn wanted(timeouts: &[(Timeout, u32)], daemon: Option<SyncDaemon>) -> WantedGlobals {
    WantedGlobals { timeouts: timeouts.iter().copied().collect(), daemon }
}

fn actions(diff: &GlobalsDiff) -> Vec<Action> {
    let ops = diff.timeouts.iter().chain(&diff.stops).chain(&diff.starts);
    ops.map(|op| op.action.clone()).collect()
}

/// What the kernel and the record are after the operations.
fn perform(observed: &Globals, diff: &GlobalsDiff) -> (Globals, Owned) {
    let mut after = observed.clone();
    for action in actions(diff) {
        match action.clone() {
            Action::SetTimeout { which, seconds } => *after.timeouts.get_mut(which) = seconds,
            Action::StopDaemon(role) => after.daemons.retain(|daemon| daemon.role != role),
            Action::StartDaemon(daemon) => {
                assert!(after.daemons.is_empty(), "two daemons on one node: {after:?}");
                let max_length = if daemon.max_length == 0 { 1472 } else { daemon.max_length };
                after.daemons.push(SyncDaemon { max_length, ..daemon });
            }
            Action::AddService(..)
            | Action::SetService(..)
            | Action::RemoveService(_)
            | Action::AddDestination(..)
            | Action::SetDestination(..)
            | Action::RemoveDestination(..)
            | Action::AddAddress { .. }
            | Action::RemoveAddress { .. }
            | Action::SetSysctl { .. }
            | Action::Path(_)
            | Action::SetMarks(_)
            | Action::ClearMarks => panic!("{action}"),
        }
    }
    let owned = Owned {
        timeouts: diff.settled_timeouts.clone(),
        daemons: diff.settled_daemons.clone(),
        ..Owned::default()
    };
    (after, owned)
}

#[test]
fn timeouts_are_set_kept_and_given_back() {
    let kernel =
        Globals { timeouts: Timeouts { tcp: 900, tcp_fin: 120, udp: 300 }, daemons: vec![] };
    let want = wanted(&[(Timeout::Tcp, 3600), (Timeout::Udp, 300)], None);
    let first = diff(Some(&kernel), &want, &Owned::default(), "revision 1");
    assert_eq!(actions(&first), [Action::SetTimeout { which: Timeout::Tcp, seconds: 3600 }]);
    assert_eq!(first.timeouts[0].reason, "is 900 s, revision 1 wants 3600 s");

    let (kernel, owned) = perform(&kernel, &first);
    assert_eq!(actions(&diff(Some(&kernel), &want, &owned, "revision 1")), []);
    // Another value, and what was there first is still what goes back.
    let more = wanted(&[(Timeout::Tcp, 60)], None);
    let (kernel, owned) = perform(&kernel, &diff(Some(&kernel), &more, &owned, "revision 2"));
    let back = diff(Some(&kernel), &WantedGlobals::default(), &owned, "revision 3");
    assert_eq!(actions(&back), [Action::SetTimeout { which: Timeout::Tcp, seconds: 900 }]);
    assert_eq!(back.record_timeouts, owned.timeouts, "ours until it is given back");
    assert!(back.settled_timeouts.is_empty());

    let mut chosen = kernel;
    chosen.timeouts.tcp = 77;
    let left = diff(Some(&chosen), &WantedGlobals::default(), &owned, "revision 3");
    assert_eq!(actions(&left), [], "somebody wanted it so since");
}

#[test]
fn the_daemons_role_follows_and_both_never_run() {
    let want = |role| wanted(&[], Some(daemon(role)));
    let first =
        diff(Some(&Globals::default()), &want(SyncRole::Backup), &Owned::default(), "revision 1");
    let (kernel, owned) = perform(&Globals::default(), &first);
    assert_eq!(kernel.daemons, [running(SyncRole::Backup)]);
    assert_eq!(actions(&diff(Some(&kernel), &want(SyncRole::Backup), &owned, "revision 1")), []);

    let turn = diff(Some(&kernel), &want(SyncRole::Master), &owned, "revision 1");
    assert_eq!(
        actions(&turn),
        [Action::StopDaemon(SyncRole::Backup), Action::StartDaemon(daemon(SyncRole::Master))]
    );
    assert_eq!(turn.record_daemons.len(), 2, "a crash on the way leaves neither unrecorded");
    let (kernel, owned) = perform(&kernel, &turn);

    let gone = diff(Some(&kernel), &WantedGlobals::default(), &owned, "revision 2");
    assert_eq!(actions(&gone), [Action::StopDaemon(SyncRole::Master)]);
    let (kernel, owned) = perform(&kernel, &gone);
    assert!(kernel.daemons.is_empty() && owned.daemons.is_empty());

    let lost = Owned { daemons: [daemon(SyncRole::Backup)].into(), ..Owned::default() };
    let again = diff(Some(&kernel), &want(SyncRole::Backup), &lost, "revision 2");
    assert_eq!(again.starts[0].reason, "recorded as ours, but gone from the kernel");
}

#[test]
fn another_setting_restarts_the_daemon_and_a_length_that_the_kernel_fitted_does_not() {
    let owned = Owned { daemons: [daemon(SyncRole::Backup)].into(), ..Owned::default() };
    let kernel = Globals { daemons: vec![running(SyncRole::Backup)], ..Globals::default() };
    let other = SyncDaemon { port: 9000, ..daemon(SyncRole::Backup) };
    let change = diff(Some(&kernel), &wanted(&[], Some(other.clone())), &owned, "revision 2");
    assert_eq!(
        actions(&change),
        [Action::StopDaemon(SyncRole::Backup), Action::StartDaemon(other)]
    );

    let long = SyncDaemon { max_length: 9000, ..daemon(SyncRole::Backup) };
    let want = wanted(&[], Some(long.clone()));
    let change = diff(Some(&kernel), &want, &owned, "revision 2");
    assert_eq!(change.starts[0].action, Action::StartDaemon(long.clone()));
    let fitted = Owned { daemons: [long].into(), ..Owned::default() };
    assert_eq!(actions(&diff(Some(&kernel), &want, &fitted, "revision 2")), []);
}

#[test]
fn a_daemon_of_somebody_else_is_left_alone_and_told() {
    for role in [SyncRole::Master, SyncRole::Backup] {
        let theirs = SyncDaemon { sync_id: 51, ..running(role) };
        let kernel = Globals { daemons: vec![theirs], ..Globals::default() };
        let want = wanted(&[], Some(daemon(SyncRole::Backup)));
        let change = diff(Some(&kernel), &want, &Owned::default(), "revision 1");
        assert_eq!(actions(&change), []);
        let [line] = &change.withheld[..] else { panic!("{change:?}") };
        assert!(line.contains(&format!("ipvsadm --stop-daemon {role}")), "{line}");
        let none = diff(Some(&kernel), &WantedGlobals::default(), &Owned::default(), "revision 1");
        assert_eq!((actions(&none), none.withheld), (vec![], vec![]));
    }
}

#[test]
fn without_an_observation_everything_stays() {
    let owned = Owned { daemons: [daemon(SyncRole::Backup)].into(), ..Owned::default() };
    let blind = diff(None, &WantedGlobals::default(), &owned, "revision 1");
    assert_eq!((actions(&blind), blind.settled_daemons), (vec![], owned.daemons));
}
