//! A shell on any machine of the running fleet.

use std::io::{BufRead as _, Write as _};
use std::path::Path;
use std::process::Command;

use lvsmesh_tests::ctl::Lvsctl;
use lvsmesh_tests::pki::Files;
use lvsmesh_tests::process::program;
use lvsmesh_tests::reference::Reference;

use crate::say;

/// Asks for a machine and starts a shell there, until there is nothing more to read.
pub(crate) fn offer(running: &Reference) {
    let lab = &running.fleet.lab;
    let names: Vec<_> = lab.nodes().iter().map(|node| node.name.as_str()).collect();
    say(
        "\nThe fleet stays up. `lvsctl status` works on every machine; `exit` leaves a shell; an empty line or Ctrl-D here ends the fleet.",
    );
    loop {
        let mut out = std::io::stdout().lock();
        // A terminal that is gone gives no next line either.
        let _closed = write!(out, "\na shell on {}? ", names.join(", ")).and_then(|()| out.flush());
        drop(out);
        let mut line = String::new();
        let read = std::io::stdin().lock().read_line(&mut line);
        let name = line.trim();
        if name.is_empty() || !read.is_ok_and(|length| length > 0) {
            return;
        }
        let Some(node) = lab.nodes().iter().find(|node| node.name == name) else {
            say(&format!("there is no {name}"));
            continue;
        };
        let started =
            node.namespace.start(&mut shell(running, name)).and_then(|mut child| child.wait());
        if let Err(error) = started {
            say(&format!("no shell on {name}: {error}"));
        }
    }
}

fn shell(running: &Reference, name: &str) -> Command {
    let ctl = &running.fleet.ctl;
    let home = running.fleet.lab.directory(name);
    configure(ctl, &home);
    let mut programs = program("lvsctl");
    programs.pop();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("/bin/bash");
    command
        .args(["--norc", "--noprofile", "-i"])
        .env("PS1", format!("{name}# "))
        .env("PATH", format!("{}:{path}:/usr/sbin:/sbin", programs.display()))
        .env("HOME", &home)
        .current_dir(home);
    command
}

/// Writes the file in which lvsctl finds the agents and its certificate.
fn configure(ctl: &Lvsctl, home: &Path) {
    let directory = home.join(".config/lvsmesh");
    let mut text = format!("endpoints: [{}]\n", ctl.endpoints.join(", "));
    if let Some(Files { ca, cert, key }) = &ctl.identity {
        text.push_str(&format!(
            "ca: {}\ncert: {}\nkey: {}\n",
            ca.display(),
            cert.display(),
            key.display()
        ));
    }
    let written = std::fs::create_dir_all(&directory)
        .and_then(|()| std::fs::write(directory.join("config.yaml"), text));
    if let Err(error) = written {
        say(&format!(
            "lvsctl will need --endpoint and certificates: {}: {error}",
            directory.display()
        ));
    }
}
