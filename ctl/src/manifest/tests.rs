use super::*;

fn text(value: &str) -> Value {
    Value::Text(value.into())
}

#[test]
fn yaml_and_json_give_the_same_tree() {
    let yaml = "# revision 3\nfleet:\n  name: blue\nvips: []\npools:\n- min_healthy: 1\n  check: null\n  weight: 1.5\n  name: 'no'\n  on: no\n";
    let json = r#"{"fleet": {"name": "blue"}, "vips": [], "pools": [{"min_healthy": 1, "check": null, "weight": 1.5, "name": "no", "on": "no"}]}"#;
    let tree = parse("a", yaml).unwrap();
    assert_eq!(tree, parse("b", json).unwrap());
    let Value::Map(entries) = tree else { panic!("a map") };
    let keys: Vec<&str> = entries.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["fleet", "vips", "pools"], "in the file's order");
    let Value::List(pools) = &entries[2].1 else { panic!("a list") };
    let Value::Map(pool) = &pools[0] else { panic!("a map") };
    assert_eq!(pool[0].1, Value::Integer(1));
    assert_eq!(pool[1].1, Value::Null);
    assert_eq!(pool[2].1, Value::Float(1.5));
    assert_eq!(pool[4].1, text("no"), "a word, not a truth value");
}

#[test]
fn a_key_that_is_there_twice_is_kept_twice() {
    let tree = parse("a", "name: x\nname: y\n").unwrap();
    assert_eq!(tree, Value::Map(vec![("name".into(), text("x")), ("name".into(), text("y"))]));
}

#[test]
fn a_syntax_error_says_where() {
    let failure = parse("lvs.yaml", "fleet:\n  name: blue\n vips: [\n").unwrap_err();
    assert!(failure.message.starts_with("lvs.yaml:"), "{}", failure.message);
    let line: u32 = failure.message.split(':').nth(1).unwrap().parse().unwrap();
    assert!((3..=4).contains(&line), "{}", failure.message);
    assert_eq!(failure.exit, Exit::Failed);
    assert_eq!(failure.message.lines().count(), 1);
}

#[test]
fn a_wrong_document_is_refused_with_every_fault() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("lvs.yaml");
    std::fs::write(&file, "fleet: {name: blue}\nvips: 3\nservices:\n- {name: web, schedular: rr}\nfleet: {name: green}\n").unwrap();
    let failure = read(&file).unwrap_err();
    assert_eq!(failure.exit, Exit::Failed);
    let all = failure.details.join("\n");
    for path in ["fleet: ", "vips: ", "services[0].schedular: "] {
        assert!(all.contains(path), "{path} in\n{all}");
    }

    let missing = read(&directory.path().join("none.yaml")).unwrap_err();
    assert!(missing.message.contains("none.yaml"), "{}", missing.message);
}
