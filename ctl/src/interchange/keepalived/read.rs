//! Files become statements: includes, conditions, definitions.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::lex;
use super::tree::{Builder, Misfit, Node};
use crate::interchange::report::{Fate, Place, Report};

/// Files inside files, this deep at most.
const DEEPEST_INCLUDE: usize = 16;
/// Lines that definitions and includes may make altogether: beyond, a text defines itself without end.
const MOST_LINES: usize = 500_000;
/// Bytes of one line after substitution.
const LONGEST_LINE: usize = 64 * 1024;
/// Substitutions in one line.
const MOST_SUBSTITUTIONS: usize = 1000;

/// One file's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Text {
    /// As it is shown.
    pub(crate) name: String,
    /// As it was opened: what it includes is relative to its directory.
    pub(crate) path: PathBuf,
    /// One name for one file, whatever way leads there.
    pub(crate) identity: PathBuf,
    pub(crate) text: String,
    /// Why not all of it is there, if so.
    pub(crate) complaint: Option<String>,
}

/// Where files come from.
pub(crate) trait Files {
    /// The files that a pattern names, relative to a directory; in order. The error is one line.
    fn matching(&self, directory: &Path, pattern: &str) -> Result<Vec<Text>, String>;
}

/// Reads one director's files.
pub(crate) struct Reader<'a> {
    files: &'a dyn Files,
    /// keepalived's `--config-id`.
    id: Option<&'a str>,
    definitions: BTreeMap<String, Definition>,
    builder: Builder,
    lines: usize,
    /// In the order in which they were opened.
    opened: Vec<Arc<str>>,
    report: &'a mut Report,
}

/// What a parameter stands for: one text, or lines, each with the place where it is written.
#[derive(Clone, Debug)]
enum Definition {
    Text(String),
    Lines(Vec<(usize, String)>, Arc<str>),
}

/// A parameter whose lines are still being read.
struct Collecting {
    place: Place,
    name: String,
    lines: Vec<(usize, String)>,
}

/// The file that is being read.
struct File<'a> {
    name: Arc<str>,
    directory: &'a Path,
    /// It, and those that include it.
    chain: Vec<PathBuf>,
}

impl std::fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("opened", &self.opened).finish_non_exhaustive()
    }
}

impl<'a> Reader<'a> {
    pub(crate) fn new(
        files: &'a dyn Files,
        id: Option<&'a str>,
        first: usize,
        report: &'a mut Report,
    ) -> Self {
        Self {
            files,
            id,
            definitions: BTreeMap::new(),
            builder: Builder::starting_at(first),
            lines: 0,
            opened: Vec::new(),
            report,
        }
    }

    /// Every statement of a file and of what it includes, the files' names, and the id after the last statement's.
    pub(crate) fn read(mut self, text: &Text) -> (Vec<Node>, Vec<Arc<str>>, usize) {
        self.file(text, Vec::new());
        let (nodes, misfits, next) = std::mem::take(&mut self.builder).finish();
        self.misfits(misfits);
        (nodes, self.opened, next)
    }

    fn misfits(&mut self, misfits: Vec<Misfit>) {
        for Misfit { place, brace, why } in misfits {
            self.report.add(place, brace, Fate::Wrong, why);
        }
    }

    fn file(&mut self, text: &Text, mut chain: Vec<PathBuf>) {
        let name: Arc<str> = text.name.as_str().into();
        if !self.opened.contains(&name) {
            self.opened.push(Arc::clone(&name));
        }
        if let Some(complaint) = &text.complaint {
            self.report.add(Place::new(&name, 0), "", Fate::Wrong, complaint.clone());
        }
        chain.push(text.identity.clone());
        let file =
            File { name, directory: text.path.parent().unwrap_or_else(|| Path::new("")), chain };
        // A parameter whose value goes over several lines.
        let mut collecting: Option<Collecting> = None;
        for (index, raw) in text.text.lines().enumerate() {
            let place = Place::new(&file.name, index + 1);
            let line = lex::without_comment(raw).trim();
            if line.is_empty() {
                continue;
            }
            if let Some(Collecting { name, lines, .. }) = &mut collecting {
                let body = line.strip_suffix('\\');
                lines.push((index + 1, body.unwrap_or(line).trim().to_owned()));
                if body.is_none() {
                    let value = Definition::Lines(std::mem::take(lines), Arc::clone(&file.name));
                    self.definitions.insert(name.clone(), value);
                    collecting = None;
                }
                continue;
            }
            if let Some(pattern) = include(line) {
                self.include(&file, place, line, pattern);
                continue;
            }
            match definition(line) {
                Some((name, rest))
                    if rest.trim_end_matches('\\').trim().is_empty() && rest.ends_with('\\') =>
                {
                    self.report.add(place.clone(), line, Fate::Taken, "");
                    let name = name.to_owned();
                    collecting = Some(Collecting { place, name, lines: Vec::new() });
                }
                _ => self.line(&file, place, line.to_owned(), 0),
            }
        }
        if let Some(Collecting { place, name, .. }) = collecting {
            self.report.add(place, format!("${name}="), Fate::Wrong, "the definition has no end");
        }
    }

    fn include(&mut self, file: &File<'_>, place: Place, line: &str, pattern: &str) {
        let (words, _) = lex::tokens(pattern);
        let pattern = match words.as_slice() {
            // Braces of a pattern are none of the configuration's.
            [lex::Token::Word(word)] => word.as_str(),
            _ => pattern.trim_matches(['"', '\'']),
        };
        if file.chain.len() >= DEEPEST_INCLUDE {
            let why = format!("more than {DEEPEST_INCLUDE} files inside each other");
            self.report.add(place, line, Fate::Wrong, why);
            return;
        }
        match self.files.matching(file.directory, pattern) {
            Err(why) => self.report.add(place, line, Fate::Wrong, why),
            Ok(texts) if texts.is_empty() => {
                self.report.add(place, line, Fate::Wrong, "no file has such a name");
            }
            Ok(texts) => {
                let names: Vec<_> = texts.iter().map(|text| text.name.as_str()).collect();
                self.report.add(place.clone(), line, Fate::Taken, names.join(", "));
                for text in &texts {
                    if file.chain.contains(&text.identity) {
                        let why = format!("{} includes itself", text.name);
                        self.report.add(place.clone(), line, Fate::Wrong, why);
                    } else {
                        self.file(text, file.chain.clone());
                    }
                }
            }
        }
    }

    /// One line, after includes and definitions of several lines are done with.
    fn line(&mut self, file: &File<'_>, place: Place, mut line: String, depth: usize) {
        self.lines += 1;
        if self.lines > MOST_LINES || depth > DEEPEST_INCLUDE {
            if self.lines <= MOST_LINES + 1 {
                self.report.add(
                    place,
                    &line,
                    Fate::Wrong,
                    "definitions have no end; the rest is left out",
                );
                self.lines = self.lines.max(MOST_LINES + 1);
            }
            return;
        }
        for _ in 0..MOST_SUBSTITUTIONS {
            match self.condition(&place, &line) {
                Condition::None => {}
                Condition::Holds(rest) => line = rest,
                Condition::Fails => return,
            }
            if let Some((name, value)) = definition(&line) {
                self.report.add(place, &line, Fate::Taken, "");
                self.definitions.insert(name.to_owned(), Definition::Text(value.to_owned()));
                return;
            }
            let Some((range, name)) = self.reference(&line) else {
                self.statement(&place, &line);
                return;
            };
            match self.value(file, &name) {
                None => return,
                Some(Definition::Text(text)) => line.replace_range(range, &text),
                Some(Definition::Lines(lines, from)) => {
                    let (before, after) =
                        (line[..range.start].to_owned(), line[range.end..].to_owned());
                    let last = lines.len().saturating_sub(1);
                    for (index, (number, body)) in lines.into_iter().enumerate() {
                        let before = if index == 0 { before.as_str() } else { "" };
                        let after = if index == last { after.as_str() } else { "" };
                        let text = format!("{before}{body}{after}").trim().to_owned();
                        if !text.is_empty() {
                            self.line(file, Place::new(&from, number), text, depth + 1);
                        }
                    }
                    return;
                }
            }
            line = line.trim().to_owned();
            if line.is_empty() {
                return;
            }
            if line.len() > LONGEST_LINE {
                break;
            }
        }
        self.report.add(place, &line, Fate::Wrong, "a parameter stands for itself, over and over");
    }

    fn statement(&mut self, place: &Place, line: &str) {
        if line.starts_with('~') {
            let why = "sequences and lists of keepalived's own are not unrolled here: write the lines out";
            self.report.add(place.clone(), line, Fate::Unsupported, why);
            return;
        }
        let (tokens, closed) = lex::tokens(line);
        if !closed {
            let why = "a quote is not closed; the rest of the line counts as one word";
            self.report.add(place.clone(), line, Fate::Wrong, why);
        }
        let misfits = self.builder.line(place, tokens);
        self.misfits(misfits);
    }

    /// `@id` and `@^id` before a line.
    fn condition(&mut self, place: &Place, line: &str) -> Condition {
        let Some(rest) = line.strip_prefix('@') else { return Condition::None };
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let (word, rest) = rest.split_at(end);
        let (negative, word) = word.strip_prefix('^').map_or((false, word), |word| (true, word));
        let Some(id) = self.id else {
            let why = "depends on the director: name it with --id";
            self.report.add(place.clone(), line, Fate::Wrong, why);
            return Condition::Fails;
        };
        if (id == word) == negative {
            self.report.add(place.clone(), line, Fate::Idle, format!("not for --id {id}"));
            return Condition::Fails;
        }
        Condition::Holds(rest.trim().to_owned())
    }

    /// The first `${NAME}`, or `$NAME` before a blank, that stands for something.
    fn reference(&self, line: &str) -> Option<(std::ops::Range<usize>, String)> {
        let known = |name: &str| {
            self.definitions.contains_key(name)
                || matches!(name, "_PWD" | "_INSTANCE" | "_HASH" | "_BANG")
        };
        line.match_indices('$').find_map(|(at, _)| {
            let rest = &line[at + 1..];
            let (name, length) = match rest.strip_prefix('{') {
                Some(inner) => {
                    let end = inner.find('}')?;
                    (&inner[..end], end + 3)
                }
                None => {
                    let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                    (&rest[..end], end + 1)
                }
            };
            known(name).then(|| (at..at + length, name.to_owned()))
        })
    }

    fn value(&self, file: &File<'_>, name: &str) -> Option<Definition> {
        let text = |text: &str| Some(Definition::Text(text.to_owned()));
        match (self.definitions.get(name), name) {
            (Some(definition), _) => Some(definition.clone()),
            (None, "_PWD") => text(&file.directory.to_string_lossy()),
            (None, "_INSTANCE") => text(self.id.unwrap_or_default()),
            (None, "_HASH") => text("#"),
            (None, "_BANG") => text("!"),
            (None, _) => None,
        }
    }
}

enum Condition {
    None,
    Holds(String),
    Fails,
}

/// The pattern of an `include` line of any kind.
fn include(line: &str) -> Option<&str> {
    let (word, rest) = line.split_once(char::is_whitespace)?;
    matches!(word, "include" | "includea" | "includeb" | "includem" | "includer" | "includew")
        .then(|| rest.trim())
}

/// Name and value of `$NAME=VALUE`.
fn definition(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.strip_prefix('$')?.split_once('=')?;
    let legal = !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    legal.then(|| (name, value.trim()))
}

#[cfg(test)]
mod tests;
