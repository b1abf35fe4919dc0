//! The reference deployment with pages behind it and clients in front of it; needs IPVS.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::ctl::Status;
use crate::document::{Document, LVS_2, RS_1, VIP};
use crate::lab::Lab;
use crate::pages::{Client, Pages, Request, fetch};
use crate::probe::{Echo, Prober, Silence};
use crate::{Fleet, eventually, scaled};

/// Where clients find the pages.
pub const PAGE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(VIP), 80);

/// How long a client waits for a page.
#[must_use]
pub fn patience() -> Duration {
    scaled(Duration::from_millis(500))
}

/// A fleet that serves pages.
#[derive(Debug)]
pub struct Reference {
    /// Servers by their node's name; remove one and its port refuses connections.
    pub pages: BTreeMap<String, Pages>,
    _echoes: Vec<Echo>,
    /// The agents, lvsctl and the machines.
    pub fleet: Fleet,
}

/// A time in which a failover was allowed to lose requests.
#[derive(Clone, Debug)]
pub struct Window {
    /// When the fault was made.
    pub from: Instant,
    /// When the new holder had first answered a datagram and the node that is also a realserver, if it had held, had no table any more: until
    /// then it schedules once more what the new holder sends it as a realserver, and connections that it moved are reset when the table goes.
    pub to: Instant,
    /// The longest time without an answer to a datagram.
    pub silence: Silence,
}

impl Reference {
    /// Brings the fleet and the servers up; there is no document yet.
    ///
    /// # Panics
    ///
    /// On a kernel without IPVS.
    #[must_use]
    pub fn start() -> Self {
        Lab::require_ipvs();
        let fleet = Fleet::start();
        let serve = |name: &str| (name.to_owned(), Pages::serve(fleet.lab.node(name), 80));
        let pages = [LVS_2.0, RS_1.0].into_iter().map(serve).collect();
        let echoes = fleet.names().iter().map(|name| Echo::start(fleet.lab.node(name))).collect();
        Self { pages, _echoes: echoes, fleet }
    }

    /// Applies the reference document and waits until both servers get traffic; returns the status of that moment.
    pub fn serve(&self, persistence: &str) -> Status {
        self.fleet.apply(&Document::reference(persistence));
        self.all_ready()
    }

    /// The same, with a VIP that is on no interface, and for which the holder's agent answers.
    pub fn serve_answered(&self, persistence: &str) -> Status {
        self.fleet.apply(&Document { attach: "responder", ..Document::reference(persistence) });
        self.all_served()
    }

    /// Waits until both servers get traffic and one node alone has the VIP on its interface.
    pub fn all_ready(&self) -> Status {
        let status = self.all_served();
        self.fleet.holder();
        status
    }

    /// Waits until both servers get traffic and one node alone is said to hold the VIP, with its kernel's deadline.
    pub fn all_served(&self) -> Status {
        self.fleet.until("both servers get traffic", Duration::from_secs(60), |status| {
            let serving =
                status.services.iter().all(|service| service.ready == 2 && service.total == 2);
            let held = status
                .vips
                .iter()
                .all(|vip| !vip.holder.is_empty() && vip.also_on.is_empty() && vip.gated);
            !status.services.is_empty() && serving && held
        })
    }

    /// Asks for the page once from the client.
    ///
    /// # Errors
    ///
    /// If there is none within [`patience`].
    pub fn page(&self) -> std::io::Result<String> {
        self.fleet.client().namespace.inside(|| fetch(PAGE, patience()))
    }

    /// Asks for the page so many times, one after the other.
    ///
    /// # Panics
    ///
    /// If one is not answered.
    #[must_use]
    pub fn pages(&self, count: usize) -> Vec<String> {
        let ask = || (0..count).map(|_| fetch(PAGE, patience())).collect::<Vec<_>>();
        let answers = self.fleet.client().namespace.inside(ask).into_iter().enumerate();
        answers
            .map(|(number, page)| {
                page.unwrap_or_else(|error| panic!("request {number} of {count}: {error}"))
            })
            .collect()
    }

    /// Starts a client that asks again and again.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::start(self.fleet.client(), PAGE, scaled(Duration::from_millis(20)), patience())
    }

    /// Starts sending a datagram a millisecond to the VIP.
    #[must_use]
    pub fn prober(&self) -> Prober {
        let prober = Prober::start(self.fleet.client(), VIP);
        eventually("the holder answers datagrams", Duration::from_secs(10), || {
            prober.answering(Duration::from_millis(200))
        });
        prober
    }

    /// Waits until `to` answers after a fault at `from`, and measures the silence.
    ///
    /// # Panics
    ///
    /// If it does not within 30 s (scaled).
    #[must_use]
    pub fn window(&self, prober: &Prober, from: Instant, to: &str) -> Window {
        let first = eventually(&format!("{to} answers datagrams"), Duration::from_secs(30), || {
            prober
                .answers()
                .into_iter()
                .rev()
                .take_while(|answer| answer.at >= from)
                .filter(|answer| answer.by == to)
                .last()
        });
        let mut end = first.at;
        if to != LVS_2.0 && self.forwards(LVS_2.0) {
            eventually("the dual-role node's table is gone", Duration::from_secs(20), || {
                (!self.forwards(LVS_2.0)).then_some(())
            });
            end = Instant::now();
        }
        let silence =
            prober.longest_silence(from).expect("there were answers before and after the fault");
        Window { from, to: end, silence }
    }

    /// Whether a node's IPVS table has a service.
    #[must_use]
    pub fn forwards(&self, node: &str) -> bool {
        let read = || std::fs::read_to_string("/proc/thread-self/net/ip_vs");
        let table = self.fleet.lab.node(node).namespace.inside(read);
        let service =
            |line: &str| ["TCP ", "UDP ", "FWM "].iter().any(|kind| line.starts_with(kind));
        table.expect("the kernel has IPVS").lines().any(service)
    }
}

/// Requests that were not answered and do not touch any window, one line each: when, seen from every window, and why.
#[must_use]
pub fn lost_outside(requests: &[Request], windows: &[Window]) -> Vec<String> {
    let inside =
        |request: &Request| windows.iter().any(|window| request.overlaps(window.from, window.to));
    let seen_from = |request: &Request, window: &Window| {
        let after = |moment: Instant| {
            let (late, early) = (
                request.began.saturating_duration_since(moment),
                moment.saturating_duration_since(request.began),
            );
            late.as_secs_f64() - early.as_secs_f64()
        };
        let (fault, end) = (after(window.from), after(window.to));
        format!(
            "{fault:+.3} s from the fault and {end:+.3} s from the end of {} to {}",
            window.silence.before, window.silence.after
        )
    };
    let line = |request: &Request| {
        let why = request.answer.as_ref().err()?;
        let when: Vec<_> = windows.iter().map(|window| seen_from(request, window)).collect();
        Some(format!("{why} after {:?}, begun {}", request.ended - request.began, when.join("; ")))
    };
    requests.iter().filter(|request| !inside(request)).filter_map(line).collect()
}
