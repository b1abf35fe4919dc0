//! A saved state, in pieces.

use std::pin::Pin;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::{Stream, StreamExt as _, stream};
use lvsmesh_core::command::Command;
use lvsmesh_proto::backup;
use lvsmesh_proto::internal::v1::SnapshotHeader;
use lvsmesh_proto::v1::{SaveSnapshotRequest, SaveSnapshotResponse};
use tonic::Status;

use super::context::Context;
use super::status::CallError;
use crate::writes::Errand;

/// Bytes of one message.
const PIECE: usize = 256 << 10;

/// What is sent.
pub(super) type Pieces = Pin<Box<dyn Stream<Item = Result<SaveSnapshotResponse, Status>> + Send>>;

/// The leader's state, which a majority has just confirmed to be the newest; with `stale` this node's own, whatever it is.
pub(super) async fn save(
    context: &Context,
    errand: &Errand,
    stale: bool,
) -> Result<Pieces, CallError> {
    if stale {
        return Ok(pieces(&here(context, true)));
    }
    let answer = context.writes.at_leader(
        errand,
        || async {
            // An entry that changes nothing: once it is applied here, so is everything that was committed before the call. It costs a write
            // on a majority's disks, which a backup may, and shows that those take one.
            context.writes.propose(Command::Health(Vec::new())).await?;
            Ok(pieces(&here(context, false)))
        },
        async |links, address| {
            let request = errand.request(SaveSnapshotRequest { stale: false });
            let answer = links.control(address).save_snapshot(request).await?;
            Ok(answer.into_inner().boxed() as Pieces)
        },
    );
    answer.await
}

fn here(context: &Context, stale: bool) -> Vec<u8> {
    let state = context.raft.state.borrow().state.clone();
    let status = context.raft.status.borrow().clone();
    let ids = |ids: &std::collections::BTreeSet<_>| {
        ids.iter().map(|id: &lvsmesh_core::model::NodeId| id.0).collect()
    };
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let header = SnapshotHeader {
        epoch: context.identity.epoch,
        term: status.term,
        voters: ids(&status.voters),
        learners: ids(&status.learners),
        taken_unix_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        taken_by: context.identity.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        stale,
        ..SnapshotHeader::default()
    };
    backup::encode(header, &state)
}

fn pieces(file: &[u8]) -> Pieces {
    let pieces: Vec<_> = file
        .chunks(PIECE)
        .map(|piece| Ok(SaveSnapshotResponse { piece: piece.to_vec() }))
        .collect();
    stream::iter(pieces).boxed()
}
