use std::collections::BTreeSet;

use super::*;

#[test]
fn the_page_lists_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/import.md");
    let written = std::fs::read_to_string(path).unwrap_or_default();
    let made = page();
    if written != made && std::env::var_os("LVSMESH_UPDATE").is_some() {
        std::fs::write(path, &made).unwrap();
        return;
    }
    assert!(
        written == made,
        "docs/import.md is not what the table says: run this test with LVSMESH_UPDATE=1"
    );
}

#[test]
fn no_place_has_a_word_twice_and_every_loss_says_why() {
    for context in Context::ALL {
        let mut seen = BTreeSet::new();
        for word in context.words().iter().copied().flatten() {
            assert!(seen.insert(word.name), "{} has {} twice", context.title(), word.name);
            let silent = word.note.is_empty() && word.fate != Fate::Taken;
            assert!(!silent, "{}: {} says nothing", context.title(), word.name);
            assert!(!matches!(word.fate, Fate::Unknown | Fate::Wrong), "{}", word.name);
        }
    }
}

#[test]
fn every_place_can_be_reached() {
    let mut reached = BTreeSet::from([Context::Top]);
    loop {
        let inner: BTreeSet<Context> = reached
            .iter()
            .flat_map(|context| context.words().iter().copied().flatten())
            .filter_map(|word| match word.inner {
                Inner::Words(context) => Some(context),
                Inner::Nothing | Inner::Lines => None,
            })
            .collect();
        let before = reached.len();
        reached.extend(inner);
        if reached.len() == before {
            break;
        }
    }
    assert_eq!(reached, Context::ALL.into_iter().collect());
}

#[test]
fn every_word_that_keepalived_knows_is_in_the_table() {
    let text = include_str!("../../../../../tests/data/keepalived-2.2.7-words.txt");
    let mut count = 0;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (block, words) = line.split_once(": ").unwrap();
        let context = match block {
            "top" => Context::Top,
            "HTTP_GET" | "SSL_GET" => Context::Http,
            "host" => Context::SmtpHost,
            block => Context::ALL.into_iter().find(|context| context.title() == block).unwrap(),
        };
        for name in words.split(' ') {
            let word = context.word(name);
            let known = word.is_some_and(|word| word.age == Age::Current);
            assert!(known, "{block}: {name}: {word:?}");
            count += 1;
        }
    }
    assert!(count > 400, "only {count} words were read");
}
