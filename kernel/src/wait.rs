//! Waiting for descriptors and a moment of the lease's clock at once.

use lvsmesh_core::time::Mono;
use nix::errno::Errno;
use nix::poll::ppoll;
pub use nix::poll::{PollFd, PollFlags};
use nix::sys::time::TimeSpec;

use crate::clock::raw_now;

/// Waits until one of `fds` is ready or `deadline` has come, and returns how many are ready: `PollFd::any` says which. Allocates nothing.
///
/// Never returns 0 before the deadline by [`raw_now`]: the kernel's timers run on `CLOCK_MONOTONIC`, which NTP slews by up to 0.05 %, so
/// the remainder is waited for again. Without a deadline it waits for as long as it takes.
///
/// # Errors
///
/// `ENOMEM` if the kernel is out of memory. Signals do not end it.
pub fn until(fds: &mut [PollFd<'_>], deadline: Option<Mono>) -> Result<usize, Errno> {
    loop {
        let remaining = deadline.map(|deadline| deadline.remaining(raw_now()));
        let ready = match ppoll(fds, remaining.map(TimeSpec::from), None) {
            Ok(ready) => usize::try_from(ready).unwrap_or(0),
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno),
        };
        if ready > 0 {
            return Ok(ready);
        }
        if deadline.is_some_and(|deadline| raw_now() >= deadline) {
            return Ok(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::fd::AsFd as _;
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_ready_comes_before_the_deadline() {
        let (read, mut write) = std::io::pipe().unwrap();
        let (quiet, _kept) = std::io::pipe().unwrap();
        write.write_all(b"x").unwrap();
        let mut fds = [quiet.as_fd(), read.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));

        assert_eq!(until(&mut fds, Some(raw_now().after(Duration::from_secs(60)))), Ok(1));
        assert_eq!(fds.each_ref().map(PollFd::any), [Some(false), Some(true)]);
        assert_eq!(until(&mut fds, Some(Mono(0))), Ok(1), "also when the deadline is long past");
    }

    #[test]
    fn a_deadline_never_comes_early() {
        for micros in [0, 1, 50, 500, 5_000, 20_000] {
            let deadline = raw_now().after(Duration::from_micros(micros));
            assert_eq!(until(&mut [], Some(deadline)), Ok(0));
            assert!(raw_now() >= deadline, "{micros} µs");
        }
    }
}
