//! Statements and blocks.

use super::lex::Token;
use crate::interchange::report::Place;

/// Deeper blocks are refused: keepalived's own words go five deep, and a tree is walked by functions that call themselves.
const DEEPEST: usize = 32;

/// One statement, with the block that follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// Unique in one import.
    pub(crate) id: usize,
    pub(crate) place: Place,
    /// The keyword and its values; at least one.
    pub(crate) words: Vec<String>,
    /// Whether a block follows, which may be empty.
    pub(crate) block: bool,
    pub(crate) children: Vec<Self>,
}

impl Node {
    /// The keyword.
    pub(crate) fn keyword(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// Its nth value, from 1.
    pub(crate) fn value(&self, n: usize) -> Option<&str> {
        self.words.get(n).map(String::as_str)
    }

    /// As written, but for spaces and passwords.
    pub(crate) fn text(&self) -> String {
        if matches!(self.keyword(), "auth_pass" | "password" | "key") && self.words.len() > 1 {
            return format!("{} …", self.keyword());
        }
        self.words.join(" ")
    }
}

/// Puts statements together as they come.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    done: Vec<Node>,
    /// Blocks that are open, each with its statement and what it holds so far.
    open: Vec<Node>,
    /// Blocks that are open beyond the deepest that is kept.
    beyond: usize,
    next: usize,
}

/// Where braces do not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Misfit {
    pub(crate) place: Place,
    pub(crate) brace: &'static str,
    pub(crate) why: String,
}

impl Builder {
    /// A builder whose first statement gets that id.
    pub(crate) fn starting_at(next: usize) -> Self {
        Self { next, ..Self::default() }
    }

    /// Adds the tokens of one line.
    pub(crate) fn line(&mut self, place: &Place, tokens: Vec<Token>) -> Vec<Misfit> {
        let mut misfits = Vec::new();
        let mut words = Vec::new();
        for token in tokens {
            match token {
                Token::Word(word) => words.push(word),
                Token::Open => {
                    self.statement(place, &mut words);
                    misfits.extend(self.begin(place));
                }
                Token::Close => {
                    self.statement(place, &mut words);
                    misfits.extend(self.end(place));
                }
            }
        }
        self.statement(place, &mut words);
        misfits
    }

    /// Closes what is still open and gives everything.
    pub(crate) fn finish(mut self) -> (Vec<Node>, Vec<Misfit>, usize) {
        let mut misfits = Vec::new();
        while let Some(node) = self.open.pop() {
            misfits.push(Misfit {
                place: node.place.clone(),
                brace: "{",
                why: format!("the block of `{}` is never closed", node.keyword()),
            });
            self.siblings().push(node);
        }
        (self.done, misfits, self.next)
    }

    fn siblings(&mut self) -> &mut Vec<Node> {
        match self.open.last_mut() {
            Some(parent) => &mut parent.children,
            None => &mut self.done,
        }
    }

    fn statement(&mut self, place: &Place, words: &mut Vec<String>) {
        if words.is_empty() {
            return;
        }
        let node = Node {
            id: self.next,
            place: place.clone(),
            words: std::mem::take(words),
            block: false,
            children: Vec::new(),
        };
        self.next += 1;
        self.siblings().push(node);
    }

    /// `{` belongs to the last statement, which may stand on a line before.
    fn begin(&mut self, place: &Place) -> Option<Misfit> {
        let misfit = |why: String| Some(Misfit { place: place.clone(), brace: "{", why });
        if self.beyond > 0 || self.open.len() >= DEEPEST {
            self.beyond += 1;
            return misfit(format!("more than {DEEPEST} blocks inside each other"));
        }
        match self.siblings().pop() {
            Some(mut node) if !node.block => {
                node.block = true;
                self.open.push(node);
                None
            }
            other => {
                self.siblings().extend(other);
                misfit("no keyword stands before it".to_owned())
            }
        }
    }

    fn end(&mut self, place: &Place) -> Option<Misfit> {
        if self.beyond > 0 {
            self.beyond -= 1;
            return None;
        }
        match self.open.pop() {
            Some(node) => {
                self.siblings().push(node);
                None
            }
            None => Some(Misfit {
                place: place.clone(),
                brace: "}",
                why: "no block is open here".to_owned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::interchange::keepalived::lex;

    fn build(text: &str) -> (String, Vec<String>) {
        let file: Arc<str> = "f".into();
        let mut builder = Builder::default();
        let mut misfits = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let (tokens, _) = lex::tokens(line);
            misfits.extend(builder.line(&Place::new(&file, index + 1), tokens));
        }
        let (nodes, more, _) = builder.finish();
        misfits.extend(more);
        let misfits = misfits
            .into_iter()
            .map(|Misfit { place, brace, why }| format!("{place} {brace} {why}"))
            .collect();
        (nodes.iter().map(shown).collect::<Vec<_>>().join("; "), misfits)
    }

    fn shown(node: &Node) -> String {
        let inner: Vec<_> = node.children.iter().map(shown).collect();
        let block = if node.block { format!(" {{{}}}", inner.join("; ")) } else { String::new() };
        format!("{}@{}{block}", node.text(), node.place.line)
    }

    #[test]
    fn blocks_open_on_their_line_or_the_next() {
        #[rustfmt::skip]
        let cases = [
            ("a 1 {\n b 2\n c {\n }\n}\nd",    "a 1@1 {b 2@2; c@3 {}}; d@6"),
            ("a 1\n{\n b 2 }\nd",             "a 1@1 {b 2@3}; d@4"),
            ("a { b 2 }\nd",                  "a@1 {b 2@1}; d@2"),
            ("a {\n} b {\n}",                 "a@1 {}; b@2 {}"),
            ("auth_pass secret",              "auth_pass …@1"),
        ];
        for (text, expected) in cases {
            assert_eq!(build(text), (expected.to_owned(), vec![]), "{text}");
        }
    }

    #[test]
    fn braces_that_do_not_fit_are_named() {
        let (tree, misfits) = build("{\na {\n} {\n}\n}\nb {\n c {");
        assert_eq!(tree, "a@2 {}; b@6 {c@7 {}}");
        assert_eq!(
            misfits,
            [
                "f:1 { no keyword stands before it",
                "f:3 { no keyword stands before it",
                // The ends of blocks that were never begun.
                "f:4 } no block is open here",
                "f:5 } no block is open here",
                "f:7 { the block of `c` is never closed",
                "f:6 { the block of `b` is never closed",
            ]
        );
    }

    #[test]
    fn depth_is_bounded() {
        let (tree, misfits) = build(&"a {\n".repeat(100_000));
        let deepest = tree.bytes().scan(0usize, |depth, byte| {
            match byte {
                b'{' => *depth += 1,
                b'}' => *depth -= 1,
                _ => {}
            }
            Some(*depth)
        });
        assert_eq!(deepest.max(), Some(DEEPEST));
        assert!(misfits[0].contains("more than 32 blocks"), "{}", misfits[0]);
    }
}
