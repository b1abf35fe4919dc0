//! What is wrong with a document, and where.

/// One thing that is wrong with a document.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// `services[0].scheduler`; empty for the document as a whole.
    pub path: String,
    /// What is wrong, with the value and the limit.
    pub message: String,
    /// What to do, where there is more to say than the message does.
    pub hint: Option<String>,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "; {hint}"))
    }
}

/// Collects faults in the order in which they are found.
#[derive(Debug, Default)]
pub(super) struct Faults(pub(super) Vec<Fault>);

impl Faults {
    pub(super) fn add(&mut self, path: &str, message: impl Into<String>) {
        self.0.push(Fault { path: path.to_owned(), message: message.into(), hint: None });
    }

    pub(super) fn hint(&mut self, path: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.add(path, message);
        if let Some(last) = self.0.last_mut() {
            last.hint = Some(hint.into());
        }
    }
}

/// A broken rule, with the other values that it is about.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) fault: Fault,
    /// Paths beside the fault's own.
    pub(super) rests_on: Vec<String>,
}

impl Finding {
    /// Whether a value that the rule is about is itself faulty: what stands in for it says nothing.
    pub(super) fn rests_on_any(&self, faults: &[Fault]) -> bool {
        std::iter::once(&self.fault.path)
            .chain(&self.rests_on)
            .any(|path| faults.iter().any(|fault| covers(&fault.path, path)))
    }
}

/// Whether `path` is `outer` or lies inside it.
fn covers(outer: &str, path: &str) -> bool {
    path.strip_prefix(outer)
        .is_some_and(|rest| outer.is_empty() || rest.is_empty() || rest.starts_with(['.', '[']))
}

/// The candidate that `given` is most likely meant to be: the only one that begins with it, else the nearest with at most one wrong letter
/// in short words, two in longer ones.
pub(super) fn nearest<'a>(
    given: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let given = given.to_lowercase().replace(' ', "_");
    let candidates: Vec<_> = candidates.into_iter().collect();
    let mut longer = candidates.iter().filter(|candidate| candidate.starts_with(&given));
    if let (3.., Some(only), None) = (given.len(), longer.next(), longer.next()) {
        return Some(only);
    }
    let allowed = if given.len() < 3 { 0 } else { 1 + usize::from(given.len() > 5) };
    candidates
        .into_iter()
        .map(|candidate| (distance(&given, candidate), candidate))
        .filter(|&(distance, _)| distance <= allowed)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// Edits that turn one word into another: a letter more, less or other, or two neighbours swapped (optimal string alignment).
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<_>, Vec<_>) = (one.chars().collect(), other.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=other.len()).collect()];
    for i in 1..=one.len() {
        let mut row = vec![i];
        for j in 1..=other.len() {
            let differs = usize::from(one[i - 1] != other[j - 1]);
            let mut best =
                (rows[i - 1][j] + 1).min(row[j - 1] + 1).min(rows[i - 1][j - 1] + differs);
            if i > 1 && j > 1 && one[i - 1] == other[j - 2] && one[i - 2] == other[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[one.len()][other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_word_finds_the_one_that_was_meant() {
        let words = ["rr", "wrr", "wlc", "lblcr", "scheduler", "real_servers"];
        #[rustfmt::skip]
        let cases = [
            // given            meant
            ("wlcc",            Some("wlc")),
            ("wcl",             Some("wlc")),
            ("WLC",             Some("wlc")),
            ("RR",              Some("rr")),
            ("sched",           Some("scheduler")),
            ("shceduler",       Some("scheduler")),
            ("real servers",    Some("real_servers")),
            ("realserver",      Some("real_servers")),
            ("xx",              None),
            ("roundrobin",      None),
            ("",                None),
        ];
        for (given, meant) in cases {
            assert_eq!(nearest(given, words), meant, "{given:?}");
        }
    }

    #[test]
    fn a_path_covers_itself_and_what_is_inside() {
        #[rustfmt::skip]
        let cases = [
            ("",                "services[0].port",     true),
            ("services",        "services[0].port",     true),
            ("services[0]",     "services[0].port",     true),
            ("services[0].port", "services[0].port",    true),
            ("services[1]",     "services[10].port",    false),
            ("services[0].po",  "services[0].port",     false),
            ("services[0].port", "services[0]",         false),
        ];
        for (outer, path, expected) in cases {
            assert_eq!(covers(outer, path), expected, "{outer:?} {path:?}");
        }
    }
}
