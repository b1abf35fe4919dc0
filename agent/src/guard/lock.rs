//! The lock that says a guard may still touch the kernel.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::LOCK;

/// Takes the guard's lock, waiting for another holder for at most `patience`. `flock(2)` has no timeout, hence the short naps.
pub(super) fn take_lock(run_dir: &Path, patience: Duration) -> io::Result<Flock<File>> {
    const NAP: Duration = Duration::from_millis(20);

    let mut file =
        OpenOptions::new().create(true).truncate(false).write(true).open(run_dir.join(LOCK))?;
    let started = Instant::now();
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((again, Errno::EWOULDBLOCK | Errno::EINTR)) if started.elapsed() < patience => {
                file = again;
            }
            Err((_, Errno::EWOULDBLOCK)) => {
                return Err(io::Error::new(
                    ErrorKind::TimedOut,
                    format!("another guard still has it after {patience:?}"),
                ));
            }
            Err((_, error)) => return Err(error.into()),
        }
        std::thread::sleep(NAP);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_has_one_owner_and_is_free_when_it_ends() {
        let directory = tempfile::tempdir().unwrap();
        let first = take_lock(directory.path(), Duration::ZERO).unwrap();
        let second = take_lock(directory.path(), Duration::from_millis(30)).unwrap_err();
        assert_eq!(second.kind(), ErrorKind::TimedOut);
        drop(first);
        take_lock(directory.path(), Duration::ZERO).unwrap();
    }
}
