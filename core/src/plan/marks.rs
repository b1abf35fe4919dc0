//! Firewall marks that directors set: packets to the ports of a VIP group get the mark of the service that takes them, so that IPVS holds one
//! entry for all of them.
//!
//! *In*: what was read ([`Seen`]), what should be ([`Marks`]), whether the table is recorded as ours. *Out*: operations. The marks are rules in
//! one nftables table of our own, `inet lvsmesh`, which is replaced as a whole, in one transaction. A table of that name that is not recorded
//! is left alone, unless it is just what is wanted.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Action, Op};
use crate::model::{PortRange, Protocol};

/// The nftables table that is ours, of family `inet`.
pub const TABLE: &str = "lvsmesh";

/// The rules of the table.
pub type Marks = BTreeSet<MarkRule>;

/// Packets to one of these addresses and one of these ports get the mark, in the hook `prerouting` at the priority of mangle (-150): before
/// IPVS looks at them, which it does on their way in to the machine itself (`ip_vs_in_hook`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MarkRule {
    /// Not 0.
    pub mark: u32,
    /// All of one IP version; at least one.
    pub addresses: BTreeSet<IpAddr>,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Destination ports; at least one, apart from one another.
    pub ports: BTreeSet<PortRange>,
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Seen {
    /// Nobody asked.
    #[default]
    Unasked,
    /// This machine cannot mark, and why, in one line.
    Unable(String),
    /// There is no table of our name.
    Absent,
    /// There is one.
    Present {
        /// Its rules; `None` if it has anything that we do not write.
        rules: Option<Marks>,
    },
}

/// What has to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MarksDiff {
    /// At most one.
    pub ops: Vec<Op>,
    /// Whether the table is ours before the operation.
    pub record: bool,
    /// Whether it is after it.
    pub settled: bool,
    /// What is wanted and cannot be, each with the reason.
    pub withheld: Vec<String>,
}

/// Lists what makes the table as wanted.
#[must_use]
pub fn diff(seen: &Seen, wanted: &Marks, ours: bool, source: &str) -> MarksDiff {
    let kept = MarksDiff { record: ours, settled: ours, ..MarksDiff::default() };
    let set = |reason: String| MarksDiff {
        ops: vec![Op { action: Action::SetMarks(wanted.clone()), reason }],
        record: true,
        settled: true,
        withheld: vec![],
    };
    match seen {
        Seen::Unasked => kept,
        Seen::Unable(_) if wanted.is_empty() => kept,
        Seen::Unable(why) => {
            MarksDiff { withheld: vec![format!("packets are not marked: {why}")], ..kept }
        }
        Seen::Absent if wanted.is_empty() => MarksDiff::default(),
        Seen::Absent => set(format!("in the table of {source}")),
        Seen::Present { .. } if wanted.is_empty() => {
            if !ours {
                return kept;
            }
            let reason = format!("ours, and no service of {source} needs it");
            let ops = vec![Op { action: Action::ClearMarks, reason }];
            MarksDiff { ops, record: true, ..MarksDiff::default() }
        }
        Seen::Present { rules } if rules.as_ref() == Some(wanted) => {
            MarksDiff { record: true, settled: true, ..MarksDiff::default() }
        }
        Seen::Present { .. } if ours => set(format!("its rules are not those of {source}")),
        Seen::Present { .. } => MarksDiff {
            withheld: vec![format!(
                "packets are not marked: the nftables table inet {TABLE} is there and is not lvsmesh's (if nobody needs it: `nft delete table inet {TABLE}`)"
            )],
            ..kept
        },
    }
}

impl std::fmt::Display for MarkRule {
    /// `mark 7 for tcp 80, 1000-1999 of 192.0.2.1`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ports: Vec<_> = self.ports.iter().map(ToString::to_string).collect();
        let addresses: Vec<_> = self.addresses.iter().map(ToString::to_string).collect();
        let protocol = self.protocol.name();
        write!(
            f,
            "mark {} for {protocol} {} of {}",
            self.mark,
            ports.join(", "),
            addresses.join(", ")
        )
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
    use proptest::{collection, option};

    use super::*;

    pub(in crate::plan) fn marks() -> impl Strategy<Value = Marks> {
        collection::btree_set((7..9_u32).prop_map(rule), 0..2)
    }

    pub(in crate::plan) fn seen() -> impl Strategy<Value = Seen> {
        prop_oneof![
            Just(Seen::Absent),
            option::of(marks()).prop_map(|rules| Seen::Present { rules }),
        ]
    }

    fn rule(mark: u32) -> MarkRule {
        MarkRule {
            mark,
            addresses: [[192, 0, 2, 1].into()].into(),
            protocol: Protocol::Tcp,
            ports: [PortRange { first: 80, last: 80 }, PortRange { first: 1000, last: 1999 }]
                .into(),
        }
    }

    fn actions(diff: &MarksDiff) -> Vec<&Action> {
        diff.ops.iter().map(|op| &op.action).collect()
    }

    #[test]
    fn the_table_is_made_mended_and_taken_away_if_it_is_ours() {
        let wanted = Marks::from([rule(7)]);
        let set = Action::SetMarks(wanted.clone());
        let other = Seen::Present { rules: Some([rule(8)].into()) };
        let odd = Seen::Present { rules: None };
        for (seen, ours) in
            [(&Seen::Absent, false), (&Seen::Absent, true), (&other, true), (&odd, true)]
        {
            let found = diff(seen, &wanted, ours, "revision 3");
            assert_eq!(actions(&found), [&set], "{seen:?}");
            assert!(found.record && found.settled && found.withheld.is_empty());
        }
        let gone = diff(&other, &Marks::new(), true, "revision 3");
        assert_eq!(actions(&gone), [&Action::ClearMarks]);
        assert_eq!((gone.record, gone.settled), (true, false));
    }

    #[test]
    fn what_is_right_is_adopted_and_what_is_anothers_is_left_alone() {
        let wanted = Marks::from([rule(7)]);
        let same = Seen::Present { rules: Some(wanted.clone()) };
        let found = diff(&same, &wanted, false, "revision 3");
        assert_eq!((found.ops.len(), found.record, found.settled), (0, true, true));
        for rules in [None, Some(Marks::from([rule(8)]))] {
            let found = diff(&Seen::Present { rules: rules.clone() }, &wanted, false, "revision 3");
            assert_eq!((found.ops.len(), found.record), (0, false));
            assert!(found.withheld[0].contains("nft delete table inet lvsmesh"), "{found:?}");
            let unneeded = diff(&Seen::Present { rules }, &Marks::new(), false, "revision 3");
            assert_eq!(unneeded, MarksDiff::default());
        }
    }

    #[test]
    fn a_machine_that_cannot_mark_says_so_only_if_it_should() {
        let unable = Seen::Unable("there is no nft".into());
        let found = diff(&unable, &[rule(7)].into(), false, "revision 3");
        assert_eq!(found.withheld, ["packets are not marked: there is no nft"]);
        assert_eq!(diff(&unable, &Marks::new(), false, "revision 3"), MarksDiff::default());
        // What was recorded stays so until somebody can look.
        assert!(diff(&unable, &Marks::new(), true, "revision 3").settled);
        assert!(diff(&Seen::Unasked, &Marks::new(), true, "revision 3").record);
    }

    #[test]
    fn a_rule_reads_as_one_line() {
        insta::assert_snapshot!(rule(7), @"mark 7 for tcp 80, 1000-1999 of 192.0.2.1");
    }
}
