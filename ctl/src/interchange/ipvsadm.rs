//! What `ipvsadm -Sn` prints and `ipvsadm -R` takes becomes a document.

use std::sync::Arc;

use lvsmesh_proto::v1::IpvsService;

use super::Import;
use super::assemble::{Names, assemble};
use super::fates::Fates;
use super::kernel::row;
use super::report::{Fate, Place, Report};
use super::table::{Row, draft};
use crate::ipvsadm::read_line;

/// Reads rules and makes a document of them.
pub(crate) fn import(name: &str, text: &str, names: &Names) -> Import {
    let file: Arc<str> = name.into();
    let mut fates = Fates::default();
    let mut report = Report::default();
    let rows = rows(text, &mut fates);
    let document = assemble(draft(&rows, &mut fates), names, &mut fates, &mut report);
    for (number, line) in lines(text) {
        let (fate, note) = fates.get(number).unwrap_or((Fate::Taken, ""));
        report.add(Place::new(&file, number), line, fate, note);
    }
    Import { document, report }
}

/// Lines with rules, from 1.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let numbered = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    numbered.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// The services of some rules. What cannot be read is said of its line, and left out.
fn rows(text: &str, fates: &mut Fates) -> Vec<Row> {
    let mut services: Vec<IpvsService> = Vec::new();
    // The line of each service, and those of its destinations.
    let mut origins: Vec<(usize, Vec<usize>)> = Vec::new();
    for (number, line) in lines(text) {
        if let Err(why) = read_line(line, &mut services) {
            fates.wrong(number, why);
        } else if services.len() > origins.len() {
            origins.push((number, Vec::new()));
        } else {
            let grown = services
                .iter()
                .zip(&mut origins)
                .find(|(service, (_, known))| service.destinations.len() > known.len());
            if let Some((_, (_, known))) = grown {
                known.push(number);
            }
        }
    }
    let mut rows = Vec::new();
    for (service, (origin, destinations)) in services.iter().zip(&origins) {
        match row(service, *origin, destinations) {
            Ok(row) => rows.push(row),
            Err(why) => fates.unsupported(*origin, why),
        }
    }
    rows
}

#[cfg(test)]
mod tests;
