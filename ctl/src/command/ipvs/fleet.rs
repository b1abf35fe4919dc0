//! All directors asked, one after another.

use lvsmesh_proto::v1;

use crate::client::{Client, Repeat};
use crate::failure::{Exit, Failure};
use crate::output::Done;

/// Directors that did not answer, each with the reason.
#[derive(Debug, Default)]
pub(super) struct Unheard(Vec<String>);

impl Unheard {
    /// What was heard, as the command's end; what was not, and other `remarks`, as its complaint.
    pub(super) fn beside(self, text: String, remarks: &[String]) -> Done {
        let done = Done::printed(text);
        if !self.0.is_empty() {
            let failure = Failure {
                details: [&self.0[..], remarks].concat(),
                ..Failure::new(Exit::Failed, "not every director has answered")
            };
            return Done { complaint: failure.render(), exit: failure.exit, ..done };
        }
        let complaint = remarks.iter().map(|remark| format!("note: {remark}\n")).collect();
        Done { complaint, ..done }
    }
}

/// Asks every director of the fleet, in the order of their names.
///
/// # Errors
///
/// If the fleet is not known, has no director, or none of them answers.
pub(super) async fn each<A>(
    client: &Client,
    ask: impl AsyncFn(String) -> Result<A, Failure>,
) -> Result<(Vec<A>, Unheard), Failure> {
    let status = client
        .call(Repeat::Freely, v1::StatusRequest {}, async |control, request| {
            control.status(request).await
        })
        .await?;
    let directors = status
        .nodes
        .into_iter()
        .filter(|node| node.roles.iter().any(|role| role == "director"))
        .map(|node| node.name);
    let mut names: Vec<String> = directors.collect();
    names.sort_unstable();
    let (mut answers, mut unheard) = (Vec::new(), Vec::new());
    for name in names {
        match ask(name.clone()).await {
            Ok(answer) => answers.push(answer),
            Err(failure) => unheard.push(format!("{name}: {}", failure.message)),
        }
    }
    if answers.is_empty() {
        return Err(Failure {
            details: unheard,
            ..Failure::new(Exit::Failed, "no director has answered")
        });
    }
    Ok((answers, Unheard(unheard)))
}
