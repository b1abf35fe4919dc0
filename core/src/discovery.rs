//! What a discovery source's answers mean.
//!
//! *In*: a full snapshot or a failure, and the last good set. *Out*: what is replicated. A source that falls silent, breaks or says that
//! there is nothing never empties a pool that serves: an operator who means it takes the pool out of the document.

use std::collections::BTreeMap;

use crate::command::{Discovered, SourceStatus};
use crate::model::RealServer;

/// What a source's answer makes of what was known about the pool. `last`: as replicated, `None` if nothing is.
///
/// An empty answer and a failed one keep the last good set: stale, or lost if there never was one. Real servers that are named twice are
/// taken once, with the weight named first.
#[must_use]
pub fn digest(
    pool: &str,
    answer: Result<Vec<RealServer>, String>,
    last: Option<&Discovered>,
) -> Discovered {
    let failure = match answer {
        Ok(found) if !found.is_empty() => {
            let mut by_address = BTreeMap::new();
            for real_server in found {
                by_address.entry(real_server.socket_addr()).or_insert(real_server);
            }
            return Discovered {
                pool: pool.to_owned(),
                status: SourceStatus::Synced,
                real_servers: by_address.into_values().collect(),
            };
        }
        Ok(_) => "the source answered, but named no real server".to_owned(),
        Err(reason) => reason,
    };
    let real_servers = last.map(|last| last.real_servers.clone()).unwrap_or_default();
    let status = if real_servers.is_empty() {
        SourceStatus::Lost(failure)
    } else {
        SourceStatus::Stale(failure)
    };
    Discovered { pool: pool.to_owned(), status, real_servers }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rs(last: u8, port: u16, weight: u32) -> RealServer {
        RealServer::new([192, 0, 2, last].into(), port, weight)
    }

    #[test]
    fn a_pool_follows_good_answers_and_outlives_bad_ones() {
        let good = Discovered {
            pool: "web".into(),
            status: SourceStatus::Synced,
            real_servers: vec![rs(3, 80, 1)],
        };
        let empty = "the source answered, but named no real server";
        let stale = |why: &str| SourceStatus::Stale(why.into());
        let lost = |why: &str| SourceStatus::Lost(why.into());
        #[rustfmt::skip]
        let cases = [
            ("first answer",            Ok(vec![rs(3, 80, 1)]),                 None,           SourceStatus::Synced,   vec![rs(3, 80, 1)]),
            ("another set",             Ok(vec![rs(4, 80, 1)]),                 Some(&good),    SourceStatus::Synced,   vec![rs(4, 80, 1)]),
            ("sorted",                  Ok(vec![rs(4, 80, 1), rs(3, 81, 1), rs(3, 80, 1)]), None, SourceStatus::Synced, vec![rs(3, 80, 1), rs(3, 81, 1), rs(4, 80, 1)]),
            ("named twice",             Ok(vec![rs(3, 80, 2), rs(3, 80, 5)]),   None,           SourceStatus::Synced,   vec![rs(3, 80, 2)]),
            ("empty, and never good",   Ok(vec![]),                             None,           lost(empty),            vec![]),
            ("empty after good",        Ok(vec![]),                             Some(&good),    stale(empty),           vec![rs(3, 80, 1)]),
            ("failed, and never good",  Err("no such file".into()),             None,           lost("no such file"),   vec![]),
            ("failed after good",       Err("timed out".into()),                Some(&good),    stale("timed out"),     vec![rs(3, 80, 1)]),
        ];
        for (why, answer, last, status, real_servers) in cases {
            let expected = Discovered { pool: "web".into(), status, real_servers };
            assert_eq!(digest("web", answer, last), expected, "{why}");
        }
    }

    #[test]
    fn a_source_that_comes_back_is_synced_again() {
        let first = digest("web", Ok(vec![rs(3, 80, 1)]), None);
        let down = digest("web", Err("timed out".into()), Some(&first));
        let twice = digest("web", Err("timed out".into()), Some(&down));
        assert_eq!(twice, down, "the same failure is no news");
        assert_eq!(digest("web", Ok(vec![rs(3, 80, 1)]), Some(&twice)), first);
    }
}
