//! `lvsctl status`.

use std::io::{IsTerminal as _, Write as _};

use lvsmesh_proto::v1;
use tokio_stream::StreamExt as _;

use crate::client::{Client, Repeat};
use crate::failure::{Exit, Failure};
use crate::output::{Done, Format, present};
use crate::render;

/// Moves to the upper left corner and clears the screen.
const CLEAR: &str = "\x1b[H\x1b[2J";

pub(super) async fn run(client: &Client, format: Format) -> Result<Done, Failure> {
    let request = v1::StatusRequest {};
    let answer = client
        .call(Repeat::Freely, request, async |control, request| control.status(request).await)
        .await?;
    let text = present(format, &render::status::tree(&answer), || render::status::table(&answer))?;
    let done = Done::printed(text);
    if answer.quorum {
        let degraded = render::status::degraded(&answer);
        if degraded.is_empty() {
            return Ok(done);
        }
        let complaint = degraded.iter().map(|line| format!("degraded: {line}\n")).collect();
        return Ok(Done { complaint, exit: Exit::Degraded, ..done });
    }
    // The answer stands all the same: what this node does is worth knowing.
    let failure = Failure::new(Exit::NoQuorum, "no quorum: no majority of voters can be reached")
        .hint("addresses on real servers stay as they are, and forwarding tables on directors that are none; bring voters back, or ask an agent on the other side with --endpoint");
    Ok(Done { complaint: failure.render(), exit: Exit::NoQuorum, ..done })
}

/// Prints a status whenever the agent sends one, until the stream ends or nobody reads.
pub(super) async fn watch(client: &Client, format: Format) -> Result<Done, Failure> {
    let request = v1::StatusRequest {};
    let mut statuses =
        client.stream(request, async |control, request| control.watch(request).await).await?;
    let clear = format == Format::Table && std::io::stdout().is_terminal();
    let mut first = true;
    while let Some(status) = statuses.next().await {
        let status = status.map_err(|status| Failure::of(&status))?;
        let text =
            present(format, &render::status::tree(&status), || render::status::table(&status))?;
        let lead = match (clear, first) {
            (true, _) => CLEAR,
            (false, true) => "",
            (false, false) => "\n",
        };
        first = false;
        let mut out = std::io::stdout().lock();
        match out.write_all(format!("{lead}{text}").as_bytes()).and_then(|()| out.flush()) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => break,
            Err(error) => {
                return Err(Failure::new(Exit::Failed, format!("cannot write to stdout: {error}")));
            }
        }
    }
    Ok(Done::printed(String::new()))
}
