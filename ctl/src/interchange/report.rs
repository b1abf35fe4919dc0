//! What became of every line that was read: nothing is dropped in silence.

use std::sync::Arc;

use lvsmesh_core::document::Value;

use crate::tree::{map, number};

/// What became of a keyword, or of a whole line.
///
/// Ordered by how much an operator should care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Fate {
    /// The document says the same.
    Taken,
    /// Nothing in the document stands for it and nothing is lost: the note says why.
    Idle,
    /// The document says something near: the note says what.
    Changed,
    /// lvsmesh has nothing like it: the note says why, or what to do instead.
    Unsupported,
    /// No keepalived that is known here has such a word in this place.
    Unknown,
    /// It cannot be read, or contradicts itself.
    Wrong,
}

impl Fate {
    /// All of them.
    pub(crate) const ALL: [Self; 6] =
        [Self::Taken, Self::Idle, Self::Changed, Self::Unsupported, Self::Unknown, Self::Wrong];

    /// For people.
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Idle => "not needed",
            Self::Changed => "changed",
            Self::Unsupported => "not supported",
            Self::Unknown => "unknown",
            Self::Wrong => "wrong",
        }
    }

    /// For programs.
    const fn name(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Idle => "not_needed",
            Self::Changed => "changed",
            Self::Unsupported => "not_supported",
            Self::Unknown => "unknown",
            Self::Wrong => "wrong",
        }
    }

    /// Whether something that the text asked for is not in the document.
    pub(crate) const fn is_loss(self) -> bool {
        match self {
            Self::Taken | Self::Idle | Self::Changed => false,
            Self::Unsupported | Self::Unknown | Self::Wrong => true,
        }
    }
}

/// Where something was read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// The file as it was named, or `-`.
    pub(crate) file: Arc<str>,
    /// From 1; 0 for the file as a whole.
    pub(crate) line: usize,
}

impl Place {
    pub(crate) fn new(file: &Arc<str>, line: usize) -> Self {
        Self { file: Arc::clone(file), line }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{}:{line}", self.file),
        }
    }
}

/// What became of one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) place: Place,
    /// The line's words, cut where they are very long, passwords left out.
    pub(crate) words: String,
    pub(crate) fate: Fate,
    /// Why, or what instead; may be empty.
    pub(crate) note: String,
}

/// What became of everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// In the order of the files and their lines.
    pub(crate) lines: Vec<Line>,
    /// What concerns the whole import.
    pub(crate) remarks: Vec<String>,
}

impl Report {
    pub(crate) fn add(
        &mut self,
        place: Place,
        words: impl AsRef<str>,
        fate: Fate,
        note: impl Into<String>,
    ) {
        self.lines.push(Line { place, words: shorten(words.as_ref()), fate, note: note.into() });
    }

    /// Something that is said once.
    pub(crate) fn remark(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.remarks.contains(&text) {
            self.remarks.push(text);
        }
    }

    /// Puts the lines in order. Lines of a multi-line definition that was used several times come several times; those that are alike
    /// are kept once.
    pub(crate) fn arrange(&mut self, files: &[Arc<str>]) {
        let rank = |file: &Arc<str>| files.iter().position(|known| known == file);
        self.lines.sort_by(|one, other| {
            (rank(&one.place.file), one.place.line)
                .cmp(&(rank(&other.place.file), other.place.line))
        });
        self.lines.dedup();
    }

    /// Whether something that the text asked for is not in the document.
    pub(crate) fn has_loss(&self) -> bool {
        self.lines.iter().any(|line| line.fate.is_loss())
    }

    fn count(&self, fate: Fate) -> usize {
        self.lines.iter().filter(|line| line.fate == fate).count()
    }

    /// `57 lines: 30 taken, 5 changed`.
    fn summary(&self) -> String {
        let counts: Vec<String> = Fate::ALL
            .into_iter()
            .map(|fate| (fate, self.count(fate)))
            .filter(|&(_, count)| count > 0)
            .map(|(fate, count)| format!("{count} {}", fate.words()))
            .collect();
        match counts.as_slice() {
            [] => "nothing was read".to_owned(),
            counts => format!("{} lines: {}", self.lines.len(), counts.join(", ")),
        }
    }

    /// For people: a line each, remarks, the sum.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let places: Vec<String> = self.lines.iter().map(|line| line.place.to_string()).collect();
        let width = places.iter().map(|place| place.chars().count()).max().unwrap_or_default();
        for (line, place) in self.lines.iter().zip(&places) {
            let Line { words, fate, note, .. } = line;
            let note = if note.is_empty() { String::new() } else { format!("  # {note}") };
            let fate = fate.words();
            text += format!("{place:<width$}  {fate:<13}  {words}{note}").trim_end();
            text.push('\n');
        }
        for remark in &self.remarks {
            text += &format!("note: {remark}\n");
        }
        text + &self.summary() + "\n"
    }

    /// For programs.
    pub(crate) fn tree(&self) -> Value {
        let text = |text: &str| Value::Text(text.to_owned());
        let lines = self.lines.iter().map(|Line { place, words, fate, note }| {
            map([
                ("file", text(&place.file)),
                ("line", number(i128::try_from(place.line).unwrap_or_default())),
                ("words", text(words)),
                ("fate", text(fate.name())),
                ("note", text(note)),
            ])
        });
        map([
            ("lines", Value::List(lines.collect())),
            ("remarks", crate::tree::texts(&self.remarks)),
        ])
    }
}

/// At most 100 characters, and none that would move a cursor.
fn shorten(words: &str) -> String {
    let clean = |c: char| match c {
        '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    let mut kept: String = words.chars().take(100).map(clean).collect();
    if words.chars().nth(100).is_some() {
        kept.push('…');
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_where_what_and_why() {
        let file: Arc<str> = "a.conf".into();
        let mut report = Report::default();
        report.add(Place::new(&file, 12), "smtp_alert", Fate::Unsupported, "no mail");
        report.add(Place::new(&file, 2), "priority 100", Fate::Taken, "");
        report.add(Place::new(&file, 2), "priority 100", Fate::Taken, "");
        report.remark("nothing moves back by itself");
        report.remark("nothing moves back by itself");
        report.arrange(&[file]);
        assert_eq!(
            report.text(),
            "a.conf:2   taken          priority 100\n\
             a.conf:12  not supported  smtp_alert  # no mail\n\
             note: nothing moves back by itself\n\
             2 lines: 1 taken, 1 not supported\n"
        );
        assert!(report.has_loss());
    }

    #[test]
    fn a_line_cannot_forge_another() {
        let mut report = Report::default();
        let file: Arc<str> = "a.conf".into();
        report.add(
            Place::new(&file, 1),
            format!("x\n\u{1b}[2J{}", "y".repeat(200)),
            Fate::Unknown,
            "",
        );
        let words = &report.lines[0].words;
        assert!(words.chars().count() == 101 && !words.contains(char::is_control), "{words}");
    }
}
