//! A network namespace for one test.

use std::future::Future;

use nix::sched::{CloneFlags, unshare};
use rtnetlink::LinkUnspec;
use tokio::runtime;

/// Runs `test` on a new thread, in a new network namespace that ends with it, on a runtime of that thread alone.
///
/// The namespace has `lo`, which is up. Sockets and `/proc/sys/net` belong to the namespace of the thread that opens them, and the
/// runtime's worker and blocking threads are children of this one, so nothing of the test sees the machine's own network.
#[track_caller]
pub(crate) fn run<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET)
            .expect("this test makes a network namespace: run it as root");
        runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(
            async {
                lo_up().await;
                test().await;
            },
        );
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

async fn lo_up() {
    const LO: u32 = 1; // the first interface of every namespace

    let (connection, handle, _) = rtnetlink::new_connection().expect("a netlink socket");
    let connection = tokio::spawn(connection);
    let up = LinkUnspec::new_with_index(LO).up().build();
    handle.link().set(up).execute().await.expect("lo comes up");
    connection.abort();
}
