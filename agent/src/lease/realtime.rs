//! How soon the lease thread gets the processor: before other ordinary threads, always; and before every ordinary thread, if real-time priority is asked
//! for, and what takes that away again.
//!
//! A thread before all others that never sleeps would stop the machine. The kernel sends the process SIGXCPU when one has computed for [`LIMIT`] without
//! a pause, and by default that ends the process. Instead the thread becomes one like any other: its lease then depends on how busy the machine is,
//! and an operator is told.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use lvsmesh_kernel::raw::{RealTimeThread, favour, lock_memory, real_time};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::Counters;

/// Above nothing but what has to be: keepalived's default is 1, kernel threads that matter are at 50 and above.
const PRIORITY: i32 = 10;

/// A turn takes well under a millisecond.
const LIMIT: Duration = Duration::from_millis(50);

/// Where nothing else gets the processor any more, nobody takes a priority away. The kernel then ends the agent.
const LAST_RESORT: Duration = Duration::from_secs(5);

/// The lease thread, if it has real-time priority.
pub type Favoured = Arc<OnceLock<RealTimeThread>>;

/// Puts the calling thread before other ordinary ones, which is also what is left of a real-time priority that is lost. Without the permission it runs as
/// any other; the profile then has to leave room for that.
pub(super) fn come_first() {
    if let Err(error) = favour() {
        tracing::warn!(%error, thread = std::thread::current().name().unwrap_or_default(), "this thread is as likely to wait for the processor as any other; `LimitNICE=-20` in the unit lets it come first");
    }
}

/// Asks for real-time priority, for the calling thread, and for memory that is never swapped out.
pub(super) fn ask(favoured: &Favoured) {
    match real_time(PRIORITY, LIMIT, LAST_RESORT) {
        // Only this thread sets it, once.
        Ok(thread) => drop(favoured.set(thread)),
        Err(error) => {
            tracing::warn!(%error, "no real-time priority for the lease thread; consider beat.profile = \"relaxed\"");
        }
    }
    if let Err(error) = lock_memory() {
        tracing::warn!(%error, "memory of the agent may be swapped out");
    }
}

/// Hears that a thread with real-time priority has computed for too long.
#[derive(Debug)]
pub struct Demotion(Signal);

impl Demotion {
    /// From here on SIGXCPU does not end the process. To be called before the lease thread starts.
    ///
    /// # Errors
    ///
    /// If no handler can be had.
    pub fn register() -> std::io::Result<Self> {
        // What Linux calls it on every architecture that there is an agent for.
        signal(SignalKind::from_raw(nix::libc::SIGXCPU)).map(Self)
    }

    /// Takes the lease thread's priority away when it must be, until `shutdown` turns true.
    pub async fn run(
        mut self,
        favoured: Favoured,
        counters: Arc<Counters>,
        mut shutdown: watch::Receiver<bool>,
    ) {
        loop {
            tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => return,
                heard = self.0.recv() => if heard.is_none() {
                    return;
                },
            }
            // The kernel says so again each second, and others may say it too.
            let Some(thread) = favoured.get().filter(|_| counters.demotions.get() == 0) else {
                continue;
            };
            match thread.demote() {
                Ok(()) => {
                    counters.demotions.add();
                    tracing::error!(
                        limit = ?LIMIT,
                        "SIGXCPU: a thread with real-time priority computed for too long without a pause. The lease thread has lost that priority, and a busy machine can now cost it the lease. Restart the agent when it does not hold, and report this with the log"
                    );
                }
                Err(error) => {
                    tracing::error!(%error, "the lease thread computes for too long without a pause, and its real-time priority cannot be taken away");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_thread_that_never_pauses_loses_its_priority_and_the_process_lives() {
        let demotion = Demotion::register().unwrap();
        let (favoured, counters) = (Favoured::default(), Arc::new(Counters::default()));
        let (stop, stopped) = watch::channel(false);
        let run = tokio::spawn(demotion.run(favoured.clone(), Arc::clone(&counters), stopped));
        let (own, count) = (favoured.clone(), Arc::clone(&counters));
        let spins = std::thread::spawn(move || {
            ask(&own);
            // Without the right to real-time priority there is nothing to lose.
            let favoured = own.get().is_some();
            while favoured && count.demotions.get() == 0 {
                std::hint::spin_loop();
            }
            favoured
        });
        let favoured = tokio::task::spawn_blocking(|| spins.join().unwrap()).await.unwrap();
        assert!(favoured, "this test needs CAP_SYS_NICE");
        assert_eq!(counters.demotions.get(), 1);
        stop.send_replace(true);
        run.await.unwrap();
    }
}
