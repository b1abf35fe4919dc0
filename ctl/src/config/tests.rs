use super::*;
use crate::args::TlsArgs;

fn flags(endpoints: &[&str], environment: &[&str]) -> Connection {
    Connection {
        endpoint: endpoints.iter().map(|&text| text.to_owned()).collect(),
        endpoints: environment.iter().map(|&text| text.to_owned()).collect(),
        insecure: true,
        ..Connection::default()
    }
}

fn home(config: &str) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join(".config/lvsmesh");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("config.yaml"), config).unwrap();
    home
}

#[test]
fn flags_come_before_the_environment_before_the_file_before_this_machine() {
    let file = home("endpoints: [file]\n");
    let empty = tempfile::tempdir().unwrap();
    #[rustfmt::skip]
    let cases = [
        (flags(&["flag", "b:1"], &["env"]), &file,  vec!["flag:7400", "b:1"]),
        (flags(&[], &["env", "c:2"]),       &file,  vec!["env:7400", "c:2"]),
        (flags(&[], &[]),                   &file,  vec!["file:7400"]),
        (flags(&[], &[]),                   &empty, vec!["127.0.0.1:7400"]),
    ];
    for (connection, home, expected) in cases {
        assert_eq!(load(&connection, Some(home.path())).unwrap().endpoints, expected);
    }
    assert_eq!(load(&flags(&[], &[]), None).unwrap().endpoints, ["127.0.0.1:7400"]);
}

#[test]
fn an_endpoint_is_a_host_and_perhaps_a_port() {
    #[rustfmt::skip]
    let cases = [
        ("lvs-1",               Some("lvs-1:7400")),
        ("lvs-1:1",             Some("lvs-1:1")),
        ("192.0.2.1",           Some("192.0.2.1:7400")),
        ("2001:db8::1",         Some("[2001:db8::1]:7400")),
        ("[2001:db8::1]:7500",  Some("[2001:db8::1]:7500")),
        ("",                    None),
        (":7400",               None),
        ("lvs-1:0",             None),
        ("lvs-1:http",          None),
        ("http://lvs-1:7400",   None),
        ("a b",                 None),
    ];
    for (text, expected) in cases {
        assert_eq!(endpoint(text).ok().as_deref(), expected, "{text:?}");
    }
}

#[test]
fn certificates_come_whole_or_a_flag_says_that_there_are_none() {
    let file = home("ca: tls/ca.pem\ncert: /abs/cert.pem\n");
    let insecure = home("insecure: true\n");
    let base = file.path().join(".config/lvsmesh");
    let with = |key: Option<&str>, insecure| Connection {
        tls: TlsArgs { key: key.map(PathBuf::from), ..TlsArgs::default() },
        insecure,
        ..Connection::default()
    };

    let found = load(&with(Some("my.key"), false), Some(file.path())).unwrap().security;
    let expected = Security::Tls {
        ca: base.join("tls/ca.pem"),
        cert: "/abs/cert.pem".into(),
        key: "my.key".into(),
    };
    assert_eq!(found, expected);

    let missing = load(&with(None, false), Some(file.path())).unwrap_err();
    assert_eq!(missing.exit, Exit::Usage);
    assert!(missing.message.contains("--key missing"), "{}", missing.message);
    assert_eq!(load(&with(None, true), Some(file.path())).unwrap().security, Security::Insecure);
    assert_eq!(
        load(&with(None, false), Some(insecure.path())).unwrap().security,
        Security::Insecure
    );
    let partly = load(&with(Some("my.key"), false), Some(insecure.path())).unwrap_err();
    assert!(partly.message.contains("--ca, --cert missing"), "{}", partly.message);
}

#[test]
fn a_wrong_file_is_named() {
    let home = home("endpoint: [a]\n");
    let failure = load(&flags(&[], &[]), Some(home.path())).unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);
    assert!(
        failure.message.contains("config.yaml") && failure.message.contains("endpoint"),
        "{}",
        failure.message
    );
}
