//! `lvsctl snapshot`.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use lvsmesh_proto::backup::{self, Backup};
use lvsmesh_proto::v1;

use super::{apply, confirm};
use crate::args::Restore;
use crate::client::{Client, Repeat};
use crate::failure::{Exit, Failure};
use crate::output::{Done, Format, present};
use crate::render;

/// Streams a snapshot into a file: whole or not at all, and read back before it has its name.
pub(super) async fn save(
    client: &Client,
    format: Format,
    file: &Path,
    stale: bool,
) -> Result<Done, Failure> {
    let request = v1::SaveSnapshotRequest { stale };
    let mut pieces = client
        .stream(request, async |control, request| control.save_snapshot(request).await)
        .await?;
    let mut bytes = Vec::new();
    while let Some(piece) = client.next(&mut pieces).await? {
        bytes.extend(piece.piece);
    }
    let backup = decoded("what the agent sent", &bytes)?;
    write(file, &bytes).map_err(|error| {
        Failure::new(Exit::Failed, format!("cannot write {}: {error}", file.display()))
    })?;
    let name = file.display().to_string();
    let text = present(format, &render::snapshot::tree(&name, &backup), || {
        format!("revision {} saved to {name} ({} bytes)\n", backup.state.revision(), bytes.len())
    })?;
    let mut done = Done::printed(text);
    if stale {
        "warning: no majority was asked; a newer revision may exist\n"
            .clone_into(&mut done.complaint);
    }
    Ok(done)
}

/// Only its owner may read it: the state has whatever secrets the document has.
fn write(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = file.as_os_str().to_owned();
    name.push(".new");
    let unfinished = PathBuf::from(name);
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut out =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    let written = out.write_all(bytes).and_then(|()| out.sync_all());
    let moved = written.and_then(|()| fs::rename(&unfinished, file));
    if moved.is_err() {
        // What is left would be taken for a snapshot; that it cannot be removed is the smaller fault.
        drop(fs::remove_file(&unfinished));
    }
    moved
}

/// Checks a file and says what is in it, without asking anybody.
pub(super) fn inspect(format: Format, file: &Path) -> Result<Done, Failure> {
    let backup = read(file)?;
    let name = file.display().to_string();
    present(format, &render::snapshot::tree(&name, &backup), || {
        render::snapshot::table(&name, &backup)
    })
    .map(Done::printed)
}

/// Everything that can be found wrong with a file here.
pub(super) fn read(file: &Path) -> Result<Backup, Failure> {
    let name = file.display().to_string();
    let bytes = fs::read(file)
        .map_err(|error| Failure::new(Exit::Failed, format!("cannot read {name}: {error}")))?;
    decoded(&name, &bytes)
}

fn decoded(name: &str, bytes: &[u8]) -> Result<Backup, Failure> {
    backup::decode(bytes).map_err(|error| {
        Failure::new(Exit::Failed, format!("{name}: {}", crate::failure::chain(&error)))
            .hint(error.hint())
    })
}

/// Applies the desired state of a snapshot, against the revision that the changes were shown for.
pub(super) async fn restore(
    client: &Client,
    format: Format,
    restore: Restore,
    backup: Backup,
) -> Result<Done, Failure> {
    let name = restore.file.display().to_string();
    let saved = backup.state.revision();
    if saved == 0 {
        let text = format!(
            "{name} holds no desired state: none was ever applied to fleet `{}`",
            backup.state.fleet()
        );
        return Err(Failure::new(Exit::Failed, text));
    }
    let current = client
        .call(Repeat::Freely, v1::GetRequest { revision: 0 }, async |control, request| {
            control.get(request).await
        })
        .await?;
    if current.stale {
        return Err(Failure::new(Exit::NoQuorum, "no quorum: nothing can be restored")
            .hint("`lvsctl status` shows which nodes answer; docs/disasters.md has the way back from a lost majority"));
    }
    let taken = render::time(backup.header.taken_unix_ms);
    let message = match restore.message.as_str() {
        "" => format!("restored revision {saved} from a snapshot of {taken}"),
        given => given.to_owned(),
    };
    let request = v1::ApplyRequest {
        document: Some(v1::Document::from(&**backup.state.document())),
        expected_revision: Some(current.revision),
        message,
        unverified_author: apply::author(),
        dry_run: true,
    };
    let rehearsal = ask(client, request.clone()).await?;
    if rehearsal.unchanged || restore.dry_run {
        let pending = !rehearsal.unchanged;
        let text =
            present(format, &apply::tree(&rehearsal, true), || apply::table(&rehearsal, true))?;
        return Ok(Done::printed(text).with_exit(if pending { Exit::Pending } else { Exit::Done }));
    }
    let question = format!(
        "Revision {saved} of fleet `{}`, saved {taken}, against revision {} of the fleet:\n{}Restore it? [y/N] ",
        backup.state.fleet(),
        current.revision,
        rehearsal.changes.iter().map(|change| format!("  {change}\n")).collect::<String>(),
    );
    let unasked = format!("restoring revision {saved} replaces the desired state of the fleet");
    if !restore.yes && !confirm::confirmed(&unasked, &question)? {
        return Err(Failure::new(Exit::Failed, "nothing was restored"));
    }
    let answer = ask(client, v1::ApplyRequest { dry_run: false, ..request }).await?;
    let text = present(format, &apply::tree(&answer, false), || apply::table(&answer, false))?;
    Ok(Done::printed(text))
}

async fn ask(client: &Client, request: v1::ApplyRequest) -> Result<v1::ApplyResponse, Failure> {
    client
        .call(Repeat::IfUndone, request, async |control, request| control.apply(request).await)
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_snapshot_is_refused_with_its_name_and_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.snapshot");
        fs::write(&file, "fleet: {name: web}\n").unwrap();
        let failure = inspect(Format::Table, &file).unwrap_err();
        assert!(failure.message.contains("a.snapshot: it is no snapshot"), "{failure:?}");
        assert!(failure.hint.unwrap().contains("snapshot save"));
        fs::write(&file, "lvsmesh snaps").unwrap();
        let failure = inspect(Format::Table, &file).unwrap_err();
        assert!(failure.message.contains("it was cut short"), "{failure:?}");
        let failure = inspect(Format::Table, &dir.path().join("none")).unwrap_err();
        assert!(failure.message.starts_with("cannot read "), "{failure:?}");
    }

    #[test]
    fn a_file_is_replaced_whole_and_only_its_owner_may_read_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.snapshot");
        write(&file, b"one").unwrap();
        write(&file, b"two").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"two");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "a leftover stays behind");
        write(&dir.path().join("no/such/place"), b"x").unwrap_err();
    }
}
