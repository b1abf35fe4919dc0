//! One line of keepalived's configuration: comments, quotes, braces.

/// A piece of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    Word(String),
    /// `{`, wherever it stands outside quotes: keepalived 2 needs no space before it.
    Open,
    /// `}`
    Close,
}

/// The line without its comment: from the first `#` or `!` outside quotes on.
pub(crate) fn without_comment(line: &str) -> &str {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in line.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (_, '\\') => escaped = true,
            (Some(open), _) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '#' | '!') => return &line[..at],
            (Some(_) | None, _) => {}
        }
    }
    line
}

/// Splits a line that has no comment. The second value says whether every quote was closed; what follows an open one is its last word.
///
/// Quotes may begin and end within a word (`a"b c"d` is one word), and inside them a backslash takes the next character literally, or as
/// C does. Outside quotes it stands before a quote or another backslash only, so that `\.conf$` stays what it is.
pub(crate) fn tokens(line: &str) -> (Vec<Token>, bool) {
    let mut tokens = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut rest = line.chars().peekable();
    while let Some(c) = rest.next() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (Some(_), '\\') => {
                let meant = escape(&mut rest);
                word.get_or_insert_default().push(meant);
            }
            (None, '\\') if matches!(rest.peek(), Some('\\' | '"' | '\'')) => {
                word.get_or_insert_default().extend(rest.next());
            }
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            // A parameter that nobody defined stays as it is written.
            (None, '{') if word.as_ref().is_some_and(|word| word.ends_with('$')) => {
                let word = word.get_or_insert_default();
                word.push('{');
                for c in rest.by_ref() {
                    word.push(c);
                    if c == '}' {
                        break;
                    }
                }
            }
            (None, '{' | '}') => {
                tokens.extend(word.take().map(Token::Word));
                tokens.push(if c == '{' { Token::Open } else { Token::Close });
            }
            (None, _) if c.is_whitespace() => tokens.extend(word.take().map(Token::Word)),
            (Some(_) | None, _) => word.get_or_insert_default().push(c),
        }
    }
    tokens.extend(word.map(Token::Word));
    (tokens, quote.is_none())
}

/// What a backslash inside quotes means, with what follows it.
fn escape(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> char {
    let mut digits = |radix: u32, most: usize| {
        let mut value = 0u32;
        let mut count = 0;
        while count < most {
            let Some(digit) = rest.peek().and_then(|c| c.to_digit(radix)) else { break };
            value = value.saturating_mul(radix).saturating_add(digit);
            count += 1;
            rest.next();
        }
        (count > 0).then(|| char::from_u32(value & 0xff).unwrap_or_default())
    };
    if let Some(octal) = digits(8, 3) {
        return octal;
    }
    match rest.next() {
        Some('a') => '\u{7}',
        Some('b') => '\u{8}',
        Some('E') => '\u{1b}',
        Some('f') => '\u{c}',
        Some('n') => '\n',
        Some('r') => '\r',
        Some('t') => '\t',
        Some('v') => '\u{b}',
        Some('x') => {
            let mut value = 0u32;
            while let Some(digit) = rest.peek().and_then(|c| c.to_digit(16)) {
                value = value.wrapping_mul(16).wrapping_add(digit) & 0xff;
                rest.next();
            }
            char::from_u32(value).unwrap_or_default()
        }
        Some('c') => {
            rest.next().and_then(|c| char::from_u32(u32::from(c) & 0x1f)).unwrap_or_default()
        }
        Some(other) => other,
        None => '\\',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str) -> String {
        let (tokens, closed) = tokens(without_comment(line));
        let mut text: Vec<String> = tokens
            .into_iter()
            .map(|token| match token {
                Token::Word(word) => format!("[{word}]"),
                Token::Open => "{".to_owned(),
                Token::Close => "}".to_owned(),
            })
            .collect();
        text.extend((!closed).then(|| "OPEN QUOTE".to_owned()));
        text.join(" ")
    }

    #[test]
    fn lines_fall_into_words_and_braces() {
        #[rustfmt::skip]
        let cases = [
            ("lb_kind DR   # routing",          "[lb_kind] [DR]"),
            ("lb_kind DR ! routing",            "[lb_kind] [DR]"),
            ("weight 3#three",                  "[weight] [3]"),
            ("TCP_CHECK{ connect_port 80 }",    "[TCP_CHECK] { [connect_port] [80] }"),
            ("group { VI_1 VI_2 }",             "[group] { [VI_1] [VI_2] }"),
            ("} virtual_server 10.0.0.1 80 {",  "} [virtual_server] [10.0.0.1] [80] {"),
            ("misc_path \"/a b/c.sh -H # x\"",  "[misc_path] [/a b/c.sh -H # x]"),
            ("x ab\"c d\"e f",                  "[x] [abc de] [f]"),
            ("x 'it is \"so\"' \"\"",           "[x] [it is \"so\"] []"),
            (r#"x "a\"b\\c\td\x41\102""#,       "[x] [a\"b\\c\tdAB]"),
            (r"regex ^a\.b$",                   r"[regex] [^a\.b$]"),
            ("path ${NOBODY}/x",                "[path] [${NOBODY}/x]"),
            ("x \"never closed",                "[x] [never closed] OPEN QUOTE"),
            ("   ",                             ""),
            ("!",                               ""),
        ];
        for (line, expected) in cases {
            assert_eq!(shown(line), expected, "{line}");
        }
    }
}
