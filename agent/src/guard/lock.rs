//! Two locks below the run directory: one says that a guard may still touch the kernel, the other that the agent lives.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, Flock, FlockArg, fcntl};
use nix::libc;

use super::LOCK;

/// Name of the file that the agent has locked for as long as it lives.
const LIFE: &str = "agent.alive";

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

/// Shows that this process lives: until its last thread is past everything that it could still do, or the file is closed.
///
/// This is a record lock (`F_SETLK`, fcntl(2)), which the kernel takes back while it closes the files of a process (`filp_flush`, fs/open.c), when no thread
/// of it can call anything any more. The end of the process, which a pidfd shows, is later by what closing costs: for each packet
/// socket a grace period of RCU (`packet_release`, net/packet/af_packet.c), some 15 ms at 250 ticks a second, and every VIP group has three. Such a
/// lock is the process's, so the file must not be opened and closed by it anywhere else.
pub(super) fn show_life(run_dir: &Path) -> io::Result<File> {
    let file = life(run_dir)?;
    fcntl(&file, FcntlArg::F_SETLK(&whole_file()))?;
    Ok(file)
}

/// Waits until the process that [shows its life](show_life) has none. Blocks the thread, without limit. The lock is the caller's then.
pub(super) fn outlive(run_dir: &Path) -> io::Result<File> {
    let file = life(run_dir)?;
    loop {
        match fcntl(&file, FcntlArg::F_SETLKW(&whole_file())) {
            Ok(_) => return Ok(file),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn life(run_dir: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).open(run_dir.join(LIFE))
}

fn whole_file() -> libc::flock {
    // Small constants, whose types differ between the kernel's interfaces.
    let short = |constant: i32| libc::c_short::try_from(constant).unwrap_or_default();
    libc::flock {
        l_type: short(libc::F_WRLCK),
        l_whence: short(libc::SEEK_SET),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
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
