//! How often a holder announces its addresses.

use std::time::Duration;

use lvsmesh_core::document::limits;
use lvsmesh_core::model::{Garp, text};

use super::value;
use crate::interchange::fates::Fates;
use crate::interchange::keepalived::tree::Node;

/// What `global_defs` or an instance says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    repeat: Option<u32>,
    delay: Option<Duration>,
    refresh: Option<Duration>,
    interval: Option<Duration>,
}

impl Words {
    /// Takes a statement, if it is one of these; its word with or without `vrrp_` before it.
    pub(super) fn take(&mut self, node: &Node, fates: &mut Fates) {
        let word = node.keyword();
        match word.strip_prefix("vrrp_").unwrap_or(word) {
            "garp_master_repeat" => self.repeat = value::number(node, 1, u32::MAX, fates),
            "garp_master_delay" => self.delay = value::timer(node, fates),
            "garp_master_refresh" => {
                let span = value::timer(node, fates);
                let fits = span.map(|span| {
                    if span.is_zero() { span } else { clamp(span, &limits::GARP_REFRESH) }
                });
                note(node, span, fits, fates);
                self.refresh = fits;
            }
            "garp_interval" | "gna_interval" => {
                let span = value::timer(node, fates);
                let fits = span.map(|span| clamp(span, &limits::GARP_INTERVAL));
                note(node, span, fits, fates);
                self.interval = self.interval.max(fits);
            }
            _ => {}
        }
    }

    /// What becomes of them. What nobody says is lvsmesh's own default, which announces more.
    pub(super) fn finish(self) -> Garp {
        let default = Garp::default();
        // keepalived says everything once more after the delay.
        let bursts = if self.delay.is_some_and(|delay| delay.is_zero()) { 1 } else { 2 };
        let most = u32::try_from(*limits::GARP_REPEAT.end()).unwrap_or(u32::MAX);
        let repeat = self.repeat.map(|repeat| repeat.saturating_mul(bursts).min(most));
        Garp {
            repeat: repeat.and_then(|repeat| repeat.try_into().ok()).unwrap_or(default.repeat),
            refresh: self.refresh.unwrap_or(default.refresh),
            interval: self.interval.unwrap_or(default.interval),
        }
    }
}

fn clamp(span: Duration, range: &std::ops::RangeInclusive<Duration>) -> Duration {
    span.clamp(*range.start(), *range.end())
}

fn note(node: &Node, had: Option<Duration>, fits: Option<Duration>, fates: &mut Fates) {
    if let (Some(had), Some(fits)) = (had, fits)
        && had != fits
    {
        let [had, fits] = [had, fits].map(text::duration);
        fates.changed(node.id, format!("{had} became {fits}"));
    }
}
