//! Says what will happen, and asks if there is somebody to ask.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use crate::failure::{Exit, Failure};

/// Puts the question. Without a terminal nobody can answer: then it is wrong usage not to have said `--yes`, and `unasked` says to what.
pub(super) fn confirmed(unasked: &str, question: &str) -> Result<bool, Failure> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::usage(unasked).hint("add --yes if that is meant"));
    }
    let mut stderr = std::io::stderr().lock();
    let asked = stderr.write_all(question.as_bytes()).and_then(|()| stderr.flush());
    let mut answer = String::new();
    asked
        .and_then(|()| stdin.lock().read_line(&mut answer))
        .map_err(|error| Failure::new(Exit::Failed, format!("cannot ask: {error}")))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
