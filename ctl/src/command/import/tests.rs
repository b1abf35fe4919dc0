use super::*;

#[test]
fn braces_of_a_pattern_are_unrolled() {
    #[rustfmt::skip]
    let cases = [
        ("a.conf",            "a.conf"),
        ("{a,b}.conf",        "a.conf b.conf"),
        ("{foo/{,cat,dog},bar}", "foo/ bar foo/cat bar foo/dog bar"),
        ("a}b{c",             "a}b{c"),
    ];
    for (pattern, expected) in cases {
        assert_eq!(braces(pattern).join(" "), expected, "{pattern}");
    }
    assert!(braces(&"{a,b}".repeat(40)).len() <= 512);
}

#[test]
fn a_file_is_found_from_the_one_that_includes_it() {
    let directory = tempfile::tempdir().unwrap();
    let inside = directory.path().join("conf.d");
    std::fs::create_dir(&inside).unwrap();
    for name in ["b.conf", "a.conf", "c.txt"] {
        std::fs::write(inside.join(name), name).unwrap();
    }
    let found = Disk.matching(directory.path(), "conf.d/*.conf").unwrap();
    let texts: Vec<_> = found.iter().map(|text| text.text.as_str()).collect();
    assert_eq!(texts, ["a.conf", "b.conf"]);
    assert_eq!(Disk.matching(directory.path(), "none").unwrap(), []);
    assert!(Disk.matching(directory.path(), "***").is_err());
}

#[test]
fn old_files_need_not_be_utf_8() {
    let read = text("a".to_owned(), Path::new("a"), b"router_id \xc0\xc1 # x".to_vec());
    assert!(read.text.starts_with("router_id \u{fffd}"), "{}", read.text);
    assert!(read.complaint.is_some());
}
