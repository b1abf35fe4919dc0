//! Real servers from a watched file in the form of Prometheus' `file_sd`.
//!
//! ```json
//! [{"targets": ["10.0.0.1:80", "[2001:db8::1]:80"], "labels": {"weight": "3"}}]
//! ```
//!
//! A target is an address with a port: the file says where real servers are, not how to find out. The label `weight` (0 to 65535) is for all
//! targets of its group; other labels are for other readers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lvsmesh_core::model::{FileSource, RealServer};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use serde::Deserialize;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::Source;

/// A list of ten thousand real servers has less than half of it.
const LONGEST: u64 = 4 << 20;

/// After the first sign of a change, so that a writer who does not rename gets to its end.
const SETTLE: Duration = Duration::from_millis(50);

/// A file and what watches it.
#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    interval: Duration,
    changed: Arc<Notify>,
    watcher: Option<RecommendedWatcher>,
}

#[derive(Deserialize)]
struct Group {
    targets: Vec<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

impl File {
    pub(super) fn new(source: &FileSource) -> Self {
        Self {
            path: PathBuf::from(&source.path),
            interval: source.interval,
            changed: Arc::new(Notify::new()),
            watcher: None,
        }
    }

    /// Watches the file's directory, because a file that is replaced by renaming is another file. Without the watch there is the interval.
    fn watch(&mut self) {
        if self.watcher.is_some() {
            return;
        }
        let changed = Arc::clone(&self.changed);
        let name = self.path.file_name().map(ToOwned::to_owned);
        let started = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // What cannot be told is a reason to look.
            let ours = event.map_or(true, |event| {
                // Reading it is an access too; waking on those would never end.
                !event.kind.is_access()
                    && event.paths.iter().any(|path| path.file_name() == name.as_deref())
            });
            if ours {
                changed.notify_one();
            }
        })
        .and_then(|mut watcher| {
            let directory = self.path.parent().unwrap_or_else(|| Path::new("/"));
            watcher.watch(directory, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        match started {
            Ok(watcher) => self.watcher = Some(watcher),
            Err(error) => {
                tracing::debug!(path = %self.path.display(), %error, "file cannot be watched, reading it at its interval");
            }
        }
    }
}

impl Source for File {
    async fn due(&mut self) {
        self.watch();
        // The interval having passed is as good a reason as a change.
        if timeout(self.interval, self.changed.notified()).await.is_ok() {
            sleep(SETTLE).await;
        }
    }

    async fn snapshot(&mut self) -> Result<Vec<RealServer>, String> {
        let path = self.path.display();
        let failed = |error: std::io::Error| format!("{path}: {error}");
        let length = tokio::fs::metadata(&self.path).await.map_err(failed)?.len();
        if length > LONGEST {
            return Err(format!("{path}: {length} bytes are above the limit of {LONGEST}"));
        }
        let text = tokio::fs::read_to_string(&self.path).await.map_err(failed)?;
        parse(&self.path, &text).map_err(|fault| format!("{path}: {fault}"))
    }
}

fn parse(path: &Path, text: &str) -> Result<Vec<RealServer>, String> {
    let groups: Vec<Group> = match path.extension().and_then(|extension| extension.to_str()) {
        Some("json") => serde_json::from_str(text).map_err(|error| error.to_string())?,
        Some("yaml" | "yml") => serde_saphyr::from_str(text)
            // Its rendering shows the place over several lines; a status has one.
            .map_err(|error| error.to_string().lines().next().unwrap_or_default().to_owned())?,
        _ => return Err("the name ends in none of .json, .yaml and .yml".to_owned()),
    };
    let mut found: BTreeMap<SocketAddr, u32> = BTreeMap::new();
    for (index, group) in groups.iter().enumerate() {
        let weight = match group.labels.get("weight") {
            None => 1,
            Some(text) => {
                text.parse().ok().filter(|weight| *weight <= 65_535).ok_or_else(|| {
                    format!("[{index}].labels.weight: `{text}` is not a number from 0 to 65535")
                })?
            }
        };
        for (position, target) in group.targets.iter().enumerate() {
            let place = || format!("[{index}].targets[{position}]");
            let address = target
                .parse::<SocketAddr>()
                .ok()
                .filter(|address| address.port() != 0)
                .ok_or_else(|| format!("{}: `{target}` is not ADDRESS:PORT", place()))?;
            if let Some(other) = found.insert(address, weight).filter(|other| *other != weight) {
                return Err(format!(
                    "{}: {target} has weight {weight} here and {other} before",
                    place()
                ));
            }
        }
    }
    Ok(found.into_iter().map(|(at, weight)| RealServer::new(at.ip(), at.port(), weight)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn real_server(address: &str, weight: u32) -> RealServer {
        let at: SocketAddr = address.parse().unwrap();
        RealServer::new(at.ip(), at.port(), weight)
    }

    #[test]
    fn json_and_yaml_say_the_same() {
        let expected = [
            real_server("10.0.0.1:80", 3),
            real_server("10.0.0.2:80", 3),
            real_server("[2001:db8::1]:80", 1),
        ];
        let json = r#"[
            {"targets": ["10.0.0.2:80", "10.0.0.1:80"], "labels": {"weight": "3", "rack": "a"}},
            {"targets": ["[2001:db8::1]:80", "[2001:db8::1]:80"]}
        ]"#;
        let yaml = "- targets: ['10.0.0.2:80', '10.0.0.1:80']\n  labels: {weight: \"3\", rack: a}\n- targets: ['[2001:db8::1]:80']\n";
        assert_eq!(parse(Path::new("/x.json"), json).unwrap(), expected);
        assert_eq!(parse(Path::new("/x.yaml"), yaml).unwrap(), expected);
        assert_eq!(parse(Path::new("/x.yml"), yaml).unwrap(), expected);
        assert_eq!(parse(Path::new("/x.json"), "[]").unwrap(), []);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            ("/x.toml", "[]", "the name ends in none of .json, .yaml and .yml"),
            (
                "/x.json",
                r#"[{"targets": ["web:80"]}]"#,
                "[0].targets[0]: `web:80` is not ADDRESS:PORT",
            ),
            (
                "/x.json",
                r#"[{"targets": ["10.0.0.1:0"]}]"#,
                "[0].targets[0]: `10.0.0.1:0` is not ADDRESS:PORT",
            ),
            (
                "/x.json",
                r#"[{"targets": [], "labels": {"weight": "65536"}}]"#,
                "[0].labels.weight: `65536` is not a number from 0 to 65535",
            ),
            (
                "/x.json",
                r#"[{"targets": ["10.0.0.1:80"]}, {"targets": ["10.0.0.1:80"], "labels": {"weight": "2"}}]"#,
                "[1].targets[0]: 10.0.0.1:80 has weight 2 here and 1 before",
            ),
        ];
        for (path, text, expected) in cases {
            assert_eq!(parse(Path::new(path), text).unwrap_err(), expected);
        }
        for text in ["", "{", r#"{"targets": []}"#, r#"[{"target": []}]"#] {
            let fault = parse(Path::new("/x.json"), text).unwrap_err();
            assert!(!fault.contains('\n') && !fault.is_empty(), "{fault}");
        }
        let fault = parse(Path::new("/x.yaml"), "- targets: {a: b}\n").unwrap_err();
        assert!(!fault.contains('\n') && !fault.is_empty(), "{fault}");
    }

    #[tokio::test]
    async fn a_file_that_is_replaced_is_noticed_long_before_its_interval() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("web.json");
        std::fs::write(&path, "[]").unwrap();
        let mut file = File::new(&FileSource {
            path: path.to_str().unwrap().to_owned(),
            interval: Duration::from_secs(3600),
        });
        assert_eq!(file.snapshot().await.unwrap(), []);
        file.watch();
        assert!(file.watcher.is_some());

        let beside = directory.path().join("web.new");
        std::fs::write(&beside, r#"[{"targets": ["10.0.0.1:80"]}]"#).unwrap();
        std::fs::rename(&beside, &path).unwrap();
        timeout(Duration::from_secs(20), file.due()).await.expect("the change is noticed");
        assert_eq!(file.snapshot().await.unwrap(), [real_server("10.0.0.1:80", 1)]);
    }

    #[tokio::test]
    async fn a_missing_file_is_a_fault_with_its_path_until_it_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("web.json");
        let mut file = File::new(&FileSource {
            path: path.to_str().unwrap().to_owned(),
            interval: Duration::from_millis(100),
        });
        let fault = file.snapshot().await.unwrap_err();
        assert!(fault.starts_with(path.to_str().unwrap()), "{fault}");
        std::fs::write(&path, "[]").unwrap();
        timeout(Duration::from_secs(20), file.due()).await.expect("its interval passes");
        assert_eq!(file.snapshot().await.unwrap(), []);
    }
}
