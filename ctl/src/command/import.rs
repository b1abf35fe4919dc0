//! `lvsctl import`: files are read here; what they say is read in `interchange`.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use lvsmesh_core::document;
use lvsmesh_proto::v1;

use crate::args::{ImportKeepalived, ImportOptions};
use crate::client::{Client, Repeat};
use crate::failure::{Exit, Failure};
use crate::interchange::assemble::Names;
use crate::interchange::keepalived::{Files, Source, Text};
use crate::interchange::{self, Import};
use crate::output::{Done, Format, present, yaml};

/// Longest file that is read: 16 MiB. keepalived's largest configurations have some tens of thousands of lines.
const LONGEST_FILE: u64 = 16 * 1024 * 1024;

pub(super) fn keepalived(
    format: Option<Format>,
    import: &ImportKeepalived,
) -> Result<Done, Failure> {
    let named = import.node.iter().map(|(name, file)| (Some(name.clone()), file));
    let nameless = import.files.iter().map(|file| (None, file));
    let mut sources = Vec::new();
    for (name, file) in named.chain(nameless) {
        sources.push(Source { name, text: read(file)? });
    }
    if sources.is_empty() {
        return Err(Failure::usage("no file: name a keepalived.conf, or --node NAME=FILE"));
    }
    let names = names(&import.options)?;
    let made = interchange::keepalived::import(&sources, &Disk, import.id.as_deref(), &names);
    finish(format, made, &import.options)
}

pub(super) fn ipvsadm(
    format: Option<Format>,
    file: &Path,
    options: &ImportOptions,
) -> Result<Done, Failure> {
    needs_interface(options)?;
    let names = names(options)?;
    let Text { name, text, .. } = read(file)?;
    finish(format, interchange::ipvsadm::import(&name, &text, &names), options)
}

pub(super) async fn kernel(
    client: &Client,
    format: Option<Format>,
    node: String,
    options: &ImportOptions,
) -> Result<Done, Failure> {
    needs_interface(options)?;
    let names = names(options)?;
    let request = v1::ListIpvsRequest { node };
    let answer = client
        .call(Repeat::Freely, request, async |control, request| control.list_ipvs(request).await)
        .await?;
    finish(format, interchange::kernel::import(&answer, &names), options)
}

/// A table says nothing about interfaces.
fn needs_interface(options: &ImportOptions) -> Result<(), Failure> {
    if options.vip_interface.is_some() {
        return Ok(());
    }
    Err(Failure::usage("a table does not say where its addresses are")
        .hint("name the directors' interface that carries them: --vip-interface eth0"))
}

fn names(options: &ImportOptions) -> Result<Names, Failure> {
    if !lvsmesh_core::model::text::is_name(&options.fleet) {
        let fleet = &options.fleet;
        return Err(Failure::usage(format!("--fleet `{fleet}` is no name"))
            .hint("1 to 63 characters of a-z, 0-9 and `-` are possible"));
    }
    Ok(Names {
        fleet: options.fleet.clone(),
        interface: options.vip_interface.clone(),
        vrid: options.vip_vrid,
    })
}

/// The document to standard output, the report to standard error or its file.
fn finish(
    format: Option<Format>,
    import: Import,
    options: &ImportOptions,
) -> Result<Done, Failure> {
    let Import { document, report } = import;
    let tree = document::encode(&document);
    let text = match format {
        None | Some(Format::Table | Format::Yaml) => yaml(&tree)?,
        Some(Format::Json) => present(Format::Json, &tree, String::new)?,
    };
    let complaint = match &options.report {
        None => report.text(),
        Some(file) => {
            let json = file.extension().is_some_and(|extension| extension == "json");
            let report = if json {
                present(Format::Json, &report.tree(), String::new)?
            } else {
                report.text()
            };
            std::fs::write(file, report).map_err(|error| {
                Failure::new(Exit::Failed, format!("cannot write {}: {error}", file.display()))
            })?;
            String::new()
        }
    };
    let exit = if options.strict && report.has_loss() { Exit::Pending } else { Exit::Done };
    Ok(Done { text, complaint, exit })
}

/// A file that the operator named, or standard input for `-`.
fn read(path: &Path) -> Result<Text, Failure> {
    if path == Path::new("-") {
        let mut bytes = Vec::new();
        let read = std::io::stdin().lock().take(LONGEST_FILE).read_to_end(&mut bytes);
        return match read {
            Ok(_) => Ok(text("-".to_owned(), Path::new("./-"), bytes)),
            Err(error) => {
                Err(Failure::new(Exit::Failed, format!("cannot read standard input: {error}")))
            }
        };
    }
    load(path).map_err(|why| Failure::new(Exit::Failed, why))
}

fn load(path: &Path) -> Result<Text, String> {
    let shown = path.display();
    let complain = |error: std::io::Error| format!("cannot read {shown}: {error}");
    let file = std::fs::File::open(path).map_err(complain)?;
    let length = file.metadata().map_err(complain)?;
    if length.is_dir() {
        return Err(format!("cannot read {shown}: it is a directory"));
    }
    let mut bytes = Vec::new();
    file.take(LONGEST_FILE + 1).read_to_end(&mut bytes).map_err(complain)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > LONGEST_FILE) {
        return Err(format!("cannot read {shown}: it is longer than {LONGEST_FILE} bytes"));
    }
    Ok(text(shown.to_string(), path, bytes))
}

/// Text in which bytes that are no UTF-8 are replaced, as they are in comments of old files.
fn text(name: String, path: &Path, bytes: Vec<u8>) -> Text {
    let (text, complaint) = match String::from_utf8(bytes) {
        Ok(text) => (text, None),
        Err(error) => (
            String::from_utf8_lossy(error.as_bytes()).into_owned(),
            Some("not UTF-8: bytes that cannot be read are replaced".to_owned()),
        ),
    };
    let identity = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    Text { name, path: path.to_owned(), identity, text, complaint }
}

/// Files that a configuration includes.
#[derive(Debug)]
struct Disk;

impl Files for Disk {
    fn matching(&self, directory: &Path, pattern: &str) -> Result<Vec<Text>, String> {
        let mut paths: Vec<PathBuf> = Vec::new();
        for pattern in braces(pattern) {
            let pattern = directory.join(pattern);
            let found = glob::glob(&pattern.to_string_lossy())
                .map_err(|error| format!("the pattern cannot be read: {error}"))?;
            // A directory that cannot be listed has no file that could be read.
            paths.extend(found.filter_map(Result::ok).filter(|path| !path.is_dir()));
        }
        paths.iter().map(|path| load(path)).collect()
    }
}

/// `a{b,c}d` is `abd` and `acd`; at most 256 of them.
fn braces(pattern: &str) -> Vec<String> {
    const MOST: usize = 256;
    let mut done = Vec::new();
    let mut left = vec![pattern.to_owned()];
    while let Some(pattern) = left.pop() {
        let choice = innermost(&pattern).filter(|_| done.len() + left.len() < MOST);
        match choice {
            None => done.push(pattern),
            Some((open, close)) => {
                let choices = pattern[open + 1..close].split(',').rev();
                left.extend(choices.map(|choice| {
                    format!("{}{choice}{}", &pattern[..open], &pattern[close + 1..])
                }));
            }
        }
    }
    done
}

/// The first pair of braces that has none inside.
fn innermost(pattern: &str) -> Option<(usize, usize)> {
    let close = pattern.find('}')?;
    let open = pattern[..close].rfind('{')?;
    Some((open, close))
}

#[cfg(test)]
mod tests;
