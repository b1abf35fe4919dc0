//! A document becomes rules for `ipvsadm -R`, in the form of `ipvsadm -Sn`.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use lvsmesh_core::command::{Apply, Candidate, Command};
use lvsmesh_core::model::{Document, Listen, NodeId, PoolSource, Role};
use lvsmesh_core::placement::place;
use lvsmesh_core::plan::Table;
use lvsmesh_core::state::State;

use super::Exported;
use crate::interchange::table::listing;
use crate::render::ipvs::save;

/// The rules of the table that a director which holds every VIP has, with every real server well.
pub(crate) fn export(document: &Document) -> Exported {
    let mut notes: Vec<String> = document
        .pools
        .iter()
        .filter(|pool| matches!(pool.source, PoolSource::Discovery(_)))
        .map(|pool| format!("pool {}: its real servers are found, and not in the rules", pool.name))
        .collect();
    let marked = document
        .services
        .iter()
        .filter(|service| matches!(service.listen, Listen::Mark { marking: Some(_), .. }));
    notes.extend(marked.map(|service| {
        format!(
            "service {}: nothing in the rules marks packets: rules of the firewall must",
            service.name
        )
    }));
    let (text, unsaid) = save(&listing(&table(document)), false);
    notes.extend(unsaid);
    Exported { text, notes }
}

/// What the planner makes of the document for a director that is no real server of it.
pub(crate) fn table(document: &Document) -> Table {
    let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let director = Candidate {
        name: "director".to_owned(),
        roles: BTreeSet::from([Role::Director]),
        addresses: vec![nowhere.ip()],
        grpc: nowhere,
        lease: nowhere,
    };
    let mut state = State::init(document.fleet.name.clone(), director);
    // Whatever it answers, the state's document is what the planner looks at; one that is refused gives an empty table.
    let _outcome = state.apply(
        1,
        Command::Apply(Apply {
            document: document.clone(),
            expected_revision: None,
            author: String::new(),
            message: String::new(),
            unix_ms: 0,
        }),
    );
    place(&state, NodeId(1), true).table
}
