//! How little a round reads, and that what it then believes is never wrong for long.

use lvsmesh_core::model::{Document, Pool, PoolSource, RealServer, Service};
use lvsmesh_kernel::fake::Reads;

use super::*;

/// This many services with a pool each, of two real servers that are no nodes.
pub(super) fn services(count: u16) -> Document {
    let mut document = document();
    document.pools.clear();
    document.services.clear();
    for at in 0..count {
        let port = 1000 + at;
        let real_server = |last| RealServer::new(IpAddr::from([10, 0, 0, last]), port, 1);
        let name = format!("s{at}");
        document.pools.push(Pool {
            name: name.clone(),
            source: PoolSource::Listed(vec![real_server(1), real_server(2)]),
            check: None,
            min_healthy: 0,
        });
        document.services.push(Service::new(&name, "web", port, &name));
    }
    document
}

fn key(at: u16) -> ServiceKey {
    ServiceKey::Address { protocol: Protocol::Tcp, address: ip(100), port: 1000 + at }
}

pub(super) fn with_weight(mut document: Document, at: usize, weight: u32) -> Document {
    if let PoolSource::Listed(listed) = &mut document.pools[at].source {
        listed[1].weight = weight;
    }
    document
}

async fn director(count: u16) -> Machine {
    let mut machine = Machine::new(LVS_1);
    machine.fleet = TestFleet::with(services(count));
    assert!(machine.round(Tenure::None).await.converged);
    machine.performed();
    machine.kernel.state().reads = Reads::default();
    machine
}

impl Machine {
    fn reads(&self) -> Reads {
        std::mem::take(&mut self.kernel.state().reads)
    }
}

#[tokio::test]
async fn one_weight_is_one_operation_and_one_service_read_back() {
    let mut machine = director(100).await;
    machine.fleet.apply(with_weight(services(100), 70, 9));
    let report = machine.looking(Tenure::None, Look::Known).await;
    assert!(report.converged, "{report:?}");
    let operation =
        "set real server 10.0.0.2:1070 of tcp 192.168.3.100:1070 to weight 9, route".to_owned();
    assert_eq!(machine.performed(), [operation]);
    assert_eq!(machine.reads(), Reads { services: vec![key(70)], ..Reads::default() });
}

#[tokio::test]
async fn a_change_of_the_table_alone_reads_nothing_before_it_is_done() {
    let mut machine = director(100).await;
    for (weight, look, host_reads) in
        [(9, Look::Change, 1), (8, Look::Known, 2), (7, Look::Change, 1)]
    {
        machine.kernel.state().host_reads = 0;
        machine.fleet.apply(with_weight(services(100), 70, weight));
        assert!(machine.looking(Tenure::None, look).await.converged);
        assert_eq!(machine.performed().len(), 1);
        assert_eq!(machine.kernel.state().host_reads, host_reads, "{look:?}");
    }
    // What else has to be there is looked at if anything of it is to be another.
    machine.kernel.state().host_reads = 0;
    let mut other = services(100);
    other.fleet.ipvs.timeouts.tcp = Some(Duration::from_secs(77));
    machine.fleet.apply(other);
    assert!(machine.looking(Tenure::None, Look::Change).await.converged);
    assert_eq!(machine.kernel.state().globals.timeouts.tcp, 77);
    assert_eq!(machine.kernel.state().host_reads, 2);
}

#[tokio::test]
async fn a_round_that_nothing_asked_for_lists_services_and_reads_each_in_its_turn() {
    let mut machine = director(100).await;
    let mut read = std::collections::BTreeSet::new();
    for _ in 0..100_u16.div_ceil(32) {
        assert!(machine.looking(Tenure::None, Look::Part).await.converged);
        let reads = machine.reads();
        assert_eq!((reads.whole, reads.lists), (0, 1));
        assert!(reads.services.len() >= 32, "{}", reads.services.len());
        read.extend(reads.services);
    }
    assert_eq!(read, (0..100).map(key).collect(), "each had its turn");
    assert_eq!(machine.performed(), [""; 0]);
}

#[tokio::test]
async fn what_others_change_between_two_looks_is_found_whatever_it_is() {
    let tampered: [(&str, Undo); 6] = [
        ("cleared", |kernel| kernel.table.as_mut().unwrap().clear()),
        ("a service gone", |kernel| {
            kernel.table.as_mut().unwrap().remove(&key(70));
        }),
        ("a service changed", |kernel| {
            kernel.table.as_mut().unwrap().get_mut(&key(70)).unwrap().spec.scheduler = "rr".into();
        }),
        ("a real server gone", |kernel| {
            let table = kernel.table.as_mut().unwrap();
            table.get_mut(&key(70)).unwrap().destinations.pop_first();
        }),
        ("a weight changed", |kernel| {
            let table = kernel.table.as_mut().unwrap();
            for destination in table.get_mut(&key(70)).unwrap().destinations.values_mut() {
                destination.weight = 0;
            }
        }),
        ("a service made anew without real servers", |kernel| {
            kernel.table.as_mut().unwrap().get_mut(&key(70)).unwrap().destinations.clear();
        }),
    ];
    for (why, tamper) in tampered {
        for look in [Look::Part, Look::Whole] {
            let mut machine = director(100).await;
            let before = machine.kernel.state().table.clone();
            tamper(&mut machine.kernel.state());
            for _ in 0..4 {
                machine.looking(Tenure::None, look).await;
            }
            assert_eq!(machine.kernel.state().table, before, "{why}, {look:?}");
            assert!(machine.rounds.report().drift_repaired > 0, "{why}, {look:?}");
        }
    }
}

#[tokio::test]
async fn a_change_that_meets_another_table_than_the_known_one_is_done_by_a_look_at_all_of_it() {
    let mut machine = director(100).await;
    machine.kernel.state().table.as_mut().unwrap().clear();
    machine.fleet.apply(with_weight(services(100), 70, 9));
    let report = machine.looking(Tenure::None, Look::Known).await;
    assert!(report.converged, "{report:?}");
    assert_eq!(report.warnings, [""; 0], "the surprise is no failure any more");
    let table = machine.kernel.state().table.clone().unwrap();
    assert_eq!(table.len(), 100);
    assert_eq!(table[&key(70)].destinations.values().map(|d| d.weight).collect::<Vec<_>>(), [1, 9]);
    assert_eq!(machine.reads().whole, 2, "before and after");
}

#[tokio::test]
async fn a_standing_refusal_is_tried_again_but_does_not_have_everything_read_each_time() {
    let mut machine = director(100).await;
    let mut crossed = services(100);
    crossed.services[70].scheduler = Scheduler::Mh;
    machine.fleet.apply(crossed);
    machine.kernel.state().missing_schedulers.insert("mh".into());
    for round in 0..3 {
        let report = machine.looking(Tenure::None, Look::Known).await;
        assert!(!report.converged);
        assert_eq!(report.warnings.len(), 1, "{:?}", report.warnings);
        assert!(report.warnings[0].contains("set service"), "{:?}", report.warnings);
        // The round in which it is new looks at everything, tries once more and reads that back.
        assert_eq!(machine.reads().whole, usize::from(round == 0), "round {round}");
    }
    machine.kernel.state().missing_schedulers.clear();
    assert!(machine.looking(Tenure::None, Look::Known).await.converged);
}

#[tokio::test]
async fn lost_answers_have_everything_read_and_what_was_done_is_not_done_twice() {
    let mut machine = director(100).await;
    let mut changed = services(100);
    for at in [3, 50, 97] {
        changed = with_weight(changed, at, 9);
    }
    machine.fleet.apply(changed);
    machine.kernel.state().lose_answers = 2;
    let report = machine.looking(Tenure::None, Look::Known).await;
    assert!(report.converged, "{report:?}");
    assert_eq!(machine.performed().len(), 3, "each once");
    assert!(machine.reads().whole > 0);
}

#[tokio::test]
async fn a_failed_look_leaves_nothing_that_is_taken_for_known() {
    let mut machine = director(100).await;
    machine.kernel.state().fail_observation = Some(Errno::ENOBUFS);
    assert!(!machine.looking(Tenure::None, Look::Part).await.converged);
    machine.kernel.state().table.as_mut().unwrap().clear();
    assert!(machine.looking(Tenure::None, Look::Known).await.converged);
    assert_eq!(machine.kernel.state().table.as_ref().unwrap().len(), 100);
}

#[tokio::test]
async fn many_failures_are_told_in_a_few_lines() {
    let mut machine = Machine::new(LVS_1);
    let mut unknown = services(100);
    for service in &mut unknown.services {
        service.scheduler = Scheduler::Mh;
    }
    machine.fleet = TestFleet::with(unknown);
    machine.kernel.state().missing_schedulers.insert("mh".into());
    let report = machine.round(Tenure::None).await;
    assert!(!report.converged);
    assert_eq!(report.warnings.len(), 17, "{:?}", report.warnings);
    // A service each, and the two real servers that wait for it.
    assert_eq!(report.warnings.last().map(String::as_str), Some("and 284 more"));
}
