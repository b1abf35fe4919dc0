use super::*;
use crate::manifest;

const DOCUMENT: &str = "\
fleet:
  name: blue
vips:
- name: web
  addresses: [192.168.3.100]
  interface: eth0
  vrrp: {vrid: 51, auth: {pass: '1111'}}
pools:
- name: web
  real_servers:
  - {address: 192.168.3.3, port: 80, weight: 3}
  check: {kind: tcp, interval: 6s}
services:
- {name: web, vip: web, port: 80, protocol: tcp, scheduler: wlc, persistence: 50s, pool: web}
";

fn document(text: &str) -> Document {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    manifest::read(file.path()).unwrap_or_else(|failure| panic!("{}", failure.render()))
}

fn answer(stale: bool) -> v1::GetResponse {
    let document = Some(v1::Document::from(&document(DOCUMENT)));
    v1::GetResponse { revision: 7, document, stale }
}

#[test]
fn what_get_prints_apply_takes() {
    let asked = document(DOCUMENT);
    for format in [None, Some(Format::Yaml), Some(Format::Json)] {
        let done = print(format, answer(false)).unwrap();
        assert_eq!(document(&done.text), asked, "{format:?}\n{}", done.text);
    }
    let done = print(None, answer(false)).unwrap();
    assert!(done.text.starts_with("# revision 7\nfleet:\n  name: blue\n"), "{}", done.text);
    assert!(done.text.contains("interval: 6s\n"), "{}", done.text);
    assert_eq!(done.complaint, "");
}

#[test]
fn json_says_the_revision_beside_and_a_stale_answer_is_marked() {
    let done = print(Some(Format::Json), answer(true)).unwrap();
    assert!(done.text.starts_with("{\n  \"fleet\": {"), "{}", done.text);
    assert_eq!(
        done.complaint,
        "revision 7\nwarning: no leader could be asked; a newer revision may exist\n"
    );
}
