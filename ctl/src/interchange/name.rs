//! Names that other programs gave become names of ours.

use std::collections::BTreeSet;

use lvsmesh_core::document::limits;

/// The nearest name of ours: lower case, everything else than letters and digits becomes one dash. Empty if nothing is left.
pub(crate) fn of(text: &str) -> String {
    let mut name = String::new();
    for c in text.chars() {
        if c.is_ascii_alphanumeric() {
            name.push(c.to_ascii_lowercase());
        } else if !name.is_empty() && !name.ends_with('-') {
            name.push('-');
        }
        if name.len() >= *limits::NAME.end() {
            break;
        }
    }
    name.trim_end_matches('-').to_owned()
}

/// The same, made different from every name in `taken`, which it then joins.
pub(crate) fn unique(text: &str, fallback: &str, taken: &mut BTreeSet<String>) -> String {
    let base = of(text);
    let base = if base.is_empty() { fallback.to_owned() } else { base };
    let mut name = base.clone();
    let mut count = 1u32;
    while !taken.insert(name.clone()) {
        count += 1;
        let suffix = format!("-{count}");
        let room = limits::NAME.end().saturating_sub(suffix.len());
        let short: String = base.chars().take(room).collect();
        name = format!("{}{suffix}", short.trim_end_matches('-'));
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_legal_and_unique() {
        #[rustfmt::skip]
        let cases = [
            ("VI_1", "vi-1"), ("LVS_DEVEL", "lvs-devel"), ("__x__y__", "x-y"), ("192.168.3.100", "192-168-3-100"),
            ("fe80::1", "fe80-1"), ("\u{1f600}", ""), ("", ""),
        ];
        for (text, expected) in cases {
            assert_eq!(of(text), expected, "{text}");
        }
        let long = "a".repeat(100);
        let mut taken = BTreeSet::new();
        for text in ["a", "A", "", "", &long, &long] {
            let name = unique(text, "vip", &mut taken);
            assert!(lvsmesh_core::model::text::is_name(&name), "{name}");
        }
        let shown: Vec<_> = taken.iter().map(|name| name.len()).collect();
        assert_eq!(taken.len(), 6, "{shown:?}");
    }
}
