use super::*;

/// Files by their paths.
struct Shelf(Vec<(&'static str, &'static str)>);

impl Shelf {
    fn text(name: &str, text: &str) -> Text {
        Text {
            name: name.to_owned(),
            path: name.into(),
            identity: name.into(),
            text: text.to_owned(),
            complaint: None,
        }
    }
}

impl Files for Shelf {
    fn matching(&self, directory: &Path, pattern: &str) -> Result<Vec<Text>, String> {
        let path = directory.join(pattern);
        let (folder, star) = (path.parent().unwrap(), pattern.ends_with('*'));
        Ok(self
            .0
            .iter()
            .filter(|(name, _)| {
                if star {
                    Path::new(name).parent() == Some(folder)
                } else {
                    Path::new(name) == path
                }
            })
            .map(|(name, text)| Self::text(name, text))
            .collect())
    }
}

fn read(shelf: &Shelf, id: Option<&str>) -> (Vec<String>, Vec<String>) {
    let mut report = Report::default();
    let (name, text) = shelf.0[0];
    let (nodes, files, _) = Reader::new(shelf, id, 0, &mut report).read(&Shelf::text(name, text));
    report.arrange(&files);
    let mut lines = Vec::new();
    let mut todo: Vec<&Node> = nodes.iter().rev().collect();
    while let Some(node) = todo.pop() {
        lines.push(format!("{} {}", node.place, node.text()));
        todo.extend(node.children.iter().rev());
    }
    let report = report
        .lines
        .iter()
        .map(|line| format!("{} {} {}: {}", line.place, line.words, line.fate.words(), line.note))
        .collect();
    (lines, report)
}

#[test]
fn includes_are_relative_to_their_own_file() {
    let shelf = Shelf(vec![
        ("/etc/k/k.conf", "a\ninclude conf.d/*\nb\ninclude none.conf"),
        ("/etc/k/conf.d/1", "one\ninclude 2/x"),
        ("/etc/k/conf.d/2/x", "two\nincluder ../3"),
        ("/etc/k/conf.d/4", "four"),
    ]);
    let (lines, report) = read(&shelf, None);
    assert_eq!(
        lines,
        [
            "/etc/k/k.conf:1 a",
            "/etc/k/conf.d/1:1 one",
            "/etc/k/conf.d/2/x:1 two",
            "/etc/k/conf.d/4:1 four",
            "/etc/k/k.conf:3 b",
        ]
    );
    assert_eq!(
        report,
        [
            "/etc/k/k.conf:2 include conf.d/* taken: /etc/k/conf.d/1, /etc/k/conf.d/4",
            "/etc/k/k.conf:4 include none.conf wrong: no file has such a name",
            "/etc/k/conf.d/1:2 include 2/x taken: /etc/k/conf.d/2/x",
            "/etc/k/conf.d/2/x:2 includer ../3 wrong: no file has such a name",
        ]
    );
}

#[test]
fn a_file_that_includes_itself_is_read_once() {
    let shelf = Shelf(vec![("/a", "one\ninclude b\ntwo"), ("/b", "three\ninclude a")]);
    let (lines, report) = read(&shelf, None);
    assert_eq!(lines, ["/a:1 one", "/b:1 three", "/a:3 two"]);
    assert!(report.contains(&"/b:2 include a wrong: /a includes itself".to_owned()), "{report:?}");
}

#[test]
fn conditions_choose_lines_by_the_directors_id() {
    let text = "@main priority 240\n@^main priority 200\n@main $P=1\nx $P y\n$IF=@main\n$IF z";
    let shelf = Shelf(vec![("/a", text)]);
    assert_eq!(read(&shelf, Some("main")).0, ["/a:1 priority 240", "/a:4 x 1 y", "/a:6 z"]);
    let (lines, report) = read(&shelf, Some("other"));
    assert_eq!(lines, ["/a:2 priority 200", "/a:4 x $P y"]);
    assert!(
        report.contains(&"/a:1 @main priority 240 not needed: not for --id other".to_owned()),
        "{report:?}"
    );
    let (lines, report) = read(&shelf, None);
    assert_eq!(lines, ["/a:4 x $P y"]);
    assert!(report.iter().any(|line| line.contains("--id")), "{report:?}");
}

#[test]
fn parameters_are_replaced_when_they_are_used() {
    let text = "$BASE=10.2.${SUB}\n$SUB=0\n${BASE}.100/32\n$SUB=10\n${BASE}.100/32 ${_HASH} ${WHO}\n$E=\nx $E";
    let (lines, _) = read(&Shelf(vec![("/a", text)]), None);
    assert_eq!(lines, ["/a:3 10.2.0.100/32", "/a:5 10.2.10.100/32 # ${WHO}", "/a:7 x"]);
}

#[test]
fn definitions_may_have_lines_and_stand_inside_each_other() {
    let text = "$RS= \\\nreal_server 10.0.${VS}.${RSN} 80 { \\\n  weight 1 \\\n\n} \n\
                $ALL= \\\nvirtual_server 10.1.${VS}.4 80 { \\\n $RSN=1 \\\n $RS \\\n $RSN=2 \\\n $RS \\\n}\n$VS=7\n$ALL\n";
    let (lines, report) = read(&Shelf(vec![("/a", text)]), None);
    assert_eq!(
        lines,
        [
            "/a:7 virtual_server 10.1.7.4 80",
            "/a:2 real_server 10.0.7.1 80",
            "/a:3 weight 1",
            "/a:2 real_server 10.0.7.2 80",
            "/a:3 weight 1",
        ],
        "{report:?}"
    );
}

#[test]
fn what_has_no_end_is_stopped() {
    let endless = ["$A=${A}\nx ${A}", "$A=${B}${B}\n$B=${A}${A}\nx ${A}", "$A= \\\n x \\\n $A\n$A"];
    for text in endless {
        let shelf = Shelf(vec![("/a", Box::leak(text.to_owned().into_boxed_str()))]);
        let (_, report) = read(&shelf, None);
        assert!(report.iter().any(|line| line.contains("wrong")), "{text}: {report:?}");
    }
    let (lines, report) = read(&Shelf(vec![("/a", "~SEQ(N, 1, 3) x ${N}\ny")]), None);
    assert_eq!(lines, ["/a:2 y"]);
    assert!(report[0].contains("not supported"), "{report:?}");
}
