//! What a process can ask about others and for itself.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Pid, gettid};

use super::{pidfd_kill, pidfd_open, set_nice, set_ordinary, set_round_robin};

/// A process, for as long as this is open: its number may be given to another afterwards, this not. Readable once the process has ended.
#[derive(Debug)]
pub struct ProcessHandle(OwnedFd);

impl ProcessHandle {
    /// Opens the process with that number.
    ///
    /// To know that it is the right one, open it while it cannot have ended: one's own child that was not waited for, or one's parent, with
    /// a look afterwards whether it still is.
    ///
    /// # Errors
    ///
    /// `ESRCH` if there is none, `EINVAL` for a thread or a number below 1, `ENOSYS` before Linux 5.3.
    pub fn open(pid: u32) -> Result<Self, Errno> {
        pidfd_open(i32::try_from(pid).map_err(|_| Errno::ESRCH)?).map(Self)
    }

    /// Sends SIGKILL. The process has ended when this is readable, not when the call returns: one that waits for a device in the kernel may take
    /// any time.
    ///
    /// # Errors
    ///
    /// `ESRCH` if it has ended already, `EPERM` without the right.
    pub fn kill(&self) -> Result<(), Errno> {
        pidfd_kill(self.0.as_fd())
    }
}

impl AsFd for ProcessHandle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Puts the calling thread on `SCHED_RR` with `priority` (1 to 99), before every ordinary thread of the machine; what it starts is not.
///
/// A thread like that could stop the machine by not sleeping: the kernel kills the *process* when one computes for `limit` without a
/// system call that waits, unless it handles SIGXCPU; and after `last_resort` whatever it handles (soft and hard `RLIMIT_RTTIME`, getrlimit(2); in microseconds,
/// checked at every tick). What the process starts afterwards inherits both.
///
/// # Errors
///
/// `EPERM` without CAP_SYS_NICE or a sufficient `RLIMIT_RTPRIO`, `EINVAL` for a priority outside 1 to 99. Nothing has changed then.
pub fn real_time(
    priority: i32,
    limit: Duration,
    last_resort: Duration,
) -> Result<RealTimeThread, Errno> {
    let micros = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
    let (_, ceiling) = getrlimit(Resource::RLIMIT_RTTIME)?;
    let hard = micros(last_resort).min(ceiling);
    let thread = RealTimeThread(gettid());
    // First the schedule, which may be refused: a hard limit can only be lowered, also by another thread that does the same meanwhile.
    set_round_robin(priority)?;
    if let Err(errno) = setrlimit(Resource::RLIMIT_RTTIME, micros(limit).min(hard), hard) {
        thread.demote()?;
        return Err(errno);
    }
    Ok(thread)
}

/// A thread of this process that has real-time priority. Meant for one that lives as long as the process does: the number of a thread that has ended may be
/// another's.
#[derive(Debug)]
pub struct RealTimeThread(Pid);

impl RealTimeThread {
    /// Puts it on the ordinary schedule (`SCHED_OTHER`), whatever thread calls.
    ///
    /// # Errors
    ///
    /// `ESRCH` if it has ended.
    pub fn demote(&self) -> Result<(), Errno> {
        set_ordinary(self.0)
    }
}

/// Puts the calling thread before the other ordinary threads of its group (nice -20): on a busy machine it gets the processor within some twenty
/// milliseconds rather than within hundreds. What it starts inherits that.
///
/// # Errors
///
/// `EACCES` without CAP_SYS_NICE or a sufficient `RLIMIT_NICE`. Nothing has changed then.
pub fn favour() -> Result<(), Errno> {
    set_nice(-20)
}

/// Keeps all memory of the process, present and future, out of swap: a page that comes from a disk comes too late for a lease.
///
/// # Errors
///
/// `EPERM` or `ENOMEM` without CAP_IPC_LOCK or a sufficient `RLIMIT_MEMLOCK`.
pub fn lock_memory() -> Result<(), Errno> {
    mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE)
}

#[cfg(test)]
mod tests {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_handle_tells_when_the_process_has_ended() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let handle = ProcessHandle::open(child.id()).unwrap();
        let ended = |patience: PollTimeout| {
            poll(&mut [PollFd::new(handle.as_fd(), PollFlags::POLLIN)], patience).unwrap() == 1
        };
        assert!(!ended(PollTimeout::ZERO), "it waits for input");
        drop(child.stdin.take());
        assert!(ended(PollTimeout::from(10_000_u16)), "its input has ended");
        child.wait().unwrap();
    }

    #[test]
    fn a_stopped_process_is_killed() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let handle = ProcessHandle::open(child.id()).unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
        handle.kill().unwrap();
        let mut ended = [PollFd::new(handle.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut ended, PollTimeout::from(10_000_u16)).unwrap(), 1);
        child.wait().unwrap();
        assert_eq!(handle.kill(), Err(Errno::ESRCH));
    }

    #[test]
    fn there_is_no_handle_of_a_process_that_is_not_there() {
        assert_eq!(ProcessHandle::open(u32::MAX).unwrap_err(), Errno::ESRCH);
        // The greatest process number that Linux gives is 2^22.
        assert_eq!(ProcessHandle::open(1 << 22 | 1).unwrap_err(), Errno::ESRCH);
    }

    #[test]
    fn a_favoured_thread_comes_first_and_the_others_stay_as_they_are() {
        let nice = || {
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            // The fields after the name, which may have spaces: the state is the third of proc_pid_stat(5), the nice value the nineteenth.
            let (_, fields) = stat.rsplit_once(')').unwrap();
            fields.split_whitespace().nth(16).unwrap().to_owned()
        };
        let before = nice();
        let favoured = std::thread::spawn(move || favour().map(|()| nice())).join().unwrap();
        assert_eq!(favoured.as_deref(), Ok("-20"), "this test needs CAP_SYS_NICE");
        assert_eq!(nice(), before);
    }

    #[test]
    fn a_priority_out_of_range_changes_nothing() {
        let before = getrlimit(Resource::RLIMIT_RTTIME).unwrap();
        assert_eq!(
            real_time(100, Duration::from_millis(100), Duration::from_secs(1)).unwrap_err(),
            Errno::EINVAL
        );
        assert_eq!(getrlimit(Resource::RLIMIT_RTTIME).unwrap(), before);
    }
}
