//! The IPVS table as it was last read, so that a round need not read all of it again.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};
use std::time::{Duration, Instant};

use lvsmesh_core::plan::{Extent, Observed, Op, ServiceKey, ServiceSpec, Table, VirtualService};
use lvsmesh_kernel::{Kernel, KernelError, Scope};

/// How much of the kernel a round reads before it plans. All but [`Look::Change`] read addresses, sysctls and the rest beside the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Look {
    /// Nothing at all, if only the table is to be another one.
    Change,
    /// Nothing of the table: what was read or done last is taken for what there is.
    Known,
    /// The list of services, and the real servers of some, in turn: a table that was cleared is seen at once, a real server that was changed by
    /// hand when its service's turn comes, which for fewer than [`SLICE`] services is every time.
    Part,
    /// Everything.
    Whole,
}

/// Services whose real servers are read in one go; at least this many in every [`Look::Part`].
const SLICE: usize = 32;

/// A [`Look::Part`] goes on with further slices for this long: a change that comes meanwhile waits. Ten thousand real servers in a thousand
/// services take a tenth of a second to read on a plain machine, so each has its turn within some ten looks.
const BUDGET: Duration = Duration::from_millis(10);

/// Between looks that nothing asked for. `ipvsadm -C` makes no news, so this is how long its effect can last.
const INTERVAL: Duration = Duration::from_secs(1);

/// At most this part of the time is spent on looking: a list of a thousand services takes a while to read on a slow machine.
const EASE: u32 = 50;

/// What is known of the table.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// `None`: nothing, so that the next look is at everything.
    table: Option<Table>,
    /// What was read last beside the table.
    rest: Option<Observed>,
    /// The service whose real servers were read last.
    cursor: Option<ServiceKey>,
    /// How long the last [`Look::Part`] took.
    took: Duration,
}

impl Memory {
    pub(super) fn is_empty(&self) -> bool {
        self.table.is_none()
    }

    /// How long to wait before the next look that nothing asks for.
    pub(super) fn pause(&self) -> Duration {
        INTERVAL.max(self.took * EASE)
    }

    /// What the kernel has now. Without a table: nobody knows it, or there is none.
    pub(super) fn keep(&mut self, observed: Observed) {
        let Observed { table, addresses, sysctls, globals, paths, marks } = observed;
        self.table = table;
        self.rest = Some(Observed { table: None, addresses, sysctls, globals, paths, marks });
    }

    /// Reads the kernel. What is known goes with the answer, and until it is given back with [`Self::keep`] nothing is known: whoever fails on
    /// the way leaves no half-truth.
    pub(super) async fn observe<K: Kernel>(
        &mut self,
        kernel: &mut K,
        scope: &Scope,
        look: Look,
    ) -> Result<Observed, KernelError> {
        let rest = self.rest.take().filter(|_| look == Look::Change);
        let known = self.table.take().filter(|_| scope.ipvs && look != Look::Whole);
        let Some(mut table) = known else { return kernel.observe(scope).await };
        if look == Look::Part {
            let started = Instant::now();
            let Some(services) = kernel.services().await? else {
                return kernel.observe(scope).await;
            };
            let new = refresh(&mut table, services);
            read(kernel, &mut table, &new).await?;
            self.next_slices(kernel, &mut table).await?;
            self.took = started.elapsed();
        }
        let rest = match rest {
            Some(rest) => rest,
            None => kernel.observe(&Scope { ipvs: false, ..scope.clone() }).await?,
        };
        Ok(Observed { table: Some(table), ..rest })
    }

    /// Reads the kernel again after these operations: of the table only the services that they name, unless these are so many, or what became
    /// of the operations is so uncertain, that all of it is read. Says which services were read.
    pub(super) async fn read_back<K: Kernel>(
        &mut self,
        kernel: &mut K,
        scope: &Scope,
        before: Option<Table>,
        ops: &[Op],
        uncertain: bool,
    ) -> Result<(Observed, Extent), KernelError> {
        let touched: BTreeSet<ServiceKey> =
            ops.iter().filter_map(|op| op.action.service()).copied().collect();
        let Some(mut table) =
            before.filter(|table| !uncertain && touched.len() <= SLICE.max(table.len() / 2))
        else {
            return Ok((kernel.observe(scope).await?, Extent::All));
        };
        read(kernel, &mut table, &touched).await?;
        let rest = kernel.observe(&Scope { ipvs: false, ..scope.clone() }).await?;
        Ok((Observed { table: Some(table), ..rest }, Extent::Only(touched)))
    }

    /// Reads the real servers of the services whose turn it is.
    async fn next_slices<K: Kernel>(
        &mut self,
        kernel: &mut K,
        table: &mut Table,
    ) -> Result<(), KernelError> {
        let started = Instant::now();
        let mut left = table.len();
        while left > 0 {
            let after = self.cursor.map_or(Unbounded, Excluded);
            let onward = table.range((after, Unbounded)).map(|(key, _)| *key);
            let around = table.keys().copied();
            let slice: Vec<ServiceKey> = onward.chain(around).take(SLICE.min(left)).collect();
            left -= slice.len();
            self.cursor = slice.last().copied();
            read(kernel, table, &slice.into_iter().collect()).await?;
            if started.elapsed() >= BUDGET {
                break;
            }
        }
        Ok(())
    }
}

/// Takes over a list of services. Those that were not known before are returned: their real servers are not known either.
fn refresh(table: &mut Table, services: BTreeMap<ServiceKey, ServiceSpec>) -> BTreeSet<ServiceKey> {
    table.retain(|key, _| services.contains_key(key));
    let mut new = BTreeSet::new();
    for (key, spec) in services {
        match table.get_mut(&key) {
            Some(service) => service.spec = spec,
            None => {
                new.insert(key);
                table.insert(key, VirtualService { spec, destinations: BTreeMap::new() });
            }
        }
    }
    new
}

/// Reads services whole; those that are gone leave the table.
async fn read<K: Kernel>(
    kernel: &mut K,
    table: &mut Table,
    keys: &BTreeSet<ServiceKey>,
) -> Result<(), KernelError> {
    if keys.is_empty() {
        return Ok(());
    }
    let found = kernel.read_services(keys).await?.unwrap_or_default();
    for key in keys {
        table.remove(key);
    }
    table.extend(found);
    Ok(())
}
