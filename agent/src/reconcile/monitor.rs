//! Follows the kernel's links and addresses.

use std::time::Duration;

use lvsmesh_kernel::address::{Addresses, Event, Events};
use lvsmesh_kernel::{KernelError, chain};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::Links;

/// After a failure, before the next try.
const AGAIN: Duration = Duration::from_secs(1);

/// Follows the kernel's links and addresses until `shutdown` turns true.
pub async fn monitor(
    links: watch::Sender<Links>,
    news: mpsc::Sender<Event>,
    mut shutdown: watch::Receiver<bool>,
) {
    loop {
        let failure = tokio::select! {
            biased;
            _ = shutdown.wait_for(|stop| *stop) => return,
            failure = follow(&links, &news) => failure,
        };
        if let Err(error) = failure {
            tracing::warn!(error = %chain(&error), "following links and addresses failed, starting over");
        }
        tokio::select! {
            biased;
            _ = shutdown.wait_for(|stop| *stop) => return,
            () = sleep(AGAIN) => {}
        }
    }
}

async fn follow(
    links: &watch::Sender<Links>,
    news: &mpsc::Sender<Event>,
) -> Result<(), KernelError> {
    // Subscribed before the first listing, so that nothing falls between them.
    let mut events = Events::subscribe()?;
    let addresses = Addresses::open()?;
    let mut resync = true;
    loop {
        if std::mem::take(&mut resync) {
            let listed = addresses.links().await?;
            publish(links, |links| *links = listed);
            pass_on(news, Event::Resync);
        }
        match events.next().await? {
            Event::Link(link) => publish(links, |links| {
                // A link that was renamed is there under its old name too.
                links.retain(|_, other| other.index != link.index);
                links.insert(link.name.clone(), link);
            }),
            Event::LinkGone { interface } => publish(links, |links| {
                links.remove(&interface);
            }),
            Event::Resync => resync = true,
            event @ (Event::Address { .. } | Event::AddressGone { .. }) => pass_on(news, event),
        }
    }
}

fn publish(links: &watch::Sender<Links>, change: impl FnOnce(&mut Links)) {
    links.send_if_modified(|links| {
        let before = links.clone();
        change(links);
        *links != before
    });
}

/// A full channel means that a round is due, which will read everything anyway.
fn pass_on(news: &mpsc::Sender<Event>, event: Event) {
    if news.try_send(event).is_err() {
        tracing::debug!("news of addresses dropped: a round is due");
    }
}
