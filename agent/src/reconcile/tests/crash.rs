//! The agent dies between any two operations: the next one finishes what it began, and nothing foreign is touched.

use lvsmesh_core::model::Document;

use super::scale::{services, with_weight};
use super::*;

/// A change with operations of every kind: settings, real servers and services added, changed and removed, on a machine that is director and
/// real server (its `lo` gains or loses the VIP).
fn before_and_after() -> (Document, Document) {
    let mut before = services(6);
    before.pools.extend(document().pools);
    before.services.extend(document().services);
    let mut after = with_weight(with_weight(services(8), 1, 0), 2, 9);
    after.services[3].scheduler = Scheduler::Rr;
    after.services.remove(0);
    after.pools.remove(0);
    (before, after)
}

async fn died_after(own: NodeId, operations: usize) -> (Machine, usize) {
    let (before, after) = before_and_after();
    let mut machine = Machine::new(own);
    let (key, service) = foreign();
    machine.kernel.state().table.as_mut().unwrap().insert(key, service);
    machine.fleet = TestFleet::with(before);
    assert!(machine.round(HOLDING).await.converged);
    machine.performed();

    machine.fleet.apply(after);
    machine.kernel.state().dies_after = Some(operations);
    machine.looking(HOLDING, Look::Known).await;
    let performed = machine.performed().len();
    machine.kernel.state().dies_after = None;
    machine.restart();
    assert!(machine.round(HOLDING).await.converged, "after {operations} operations");
    (machine, performed)
}

#[tokio::test]
async fn whoever_starts_after_a_crash_anywhere_in_a_plan_finishes_it() {
    for own in [LVS_1, LVS_2] {
        let (whole, count) = died_after(own, usize::MAX).await;
        assert!(count > 10, "{count} operations are few");
        let (table, addresses, sysctls) = {
            let kernel = whole.kernel.state();
            (kernel.table.clone(), kernel.addresses.clone(), kernel.sysctls.clone())
        };
        for operations in 0..=count {
            let (machine, performed) = died_after(own, operations).await;
            assert_eq!(performed, operations, "it died when it should");
            let kernel = machine.kernel.state();
            assert_eq!(kernel.table, table, "{own}, after {operations} operations");
            assert_eq!(kernel.addresses, addresses, "{own}, after {operations} operations");
            assert_eq!(kernel.sysctls, sysctls, "{own}, after {operations} operations");
            let (key, service) = foreign();
            assert_eq!(
                kernel.table.as_ref().unwrap()[&key],
                service,
                "the foreign one is as it was"
            );
            assert_eq!(machine.recorded().services, machine.planned(HOLDING));
        }
    }
}

impl Machine {
    fn planned(&self, tenure: Tenure) -> std::collections::BTreeSet<ServiceKey> {
        let holding = tenure != Tenure::None;
        let plan = lvsmesh_core::placement::place(&self.fleet.state, self.own, holding);
        plan.table.into_keys().collect()
    }
}
