//! Sysctls: files below `/proc/sys/`.
//!
//! `/proc/sys/net` shows the network namespace of the thread that looks, so these functions read and write at once, on the caller's
//! thread; the kernel answers for the `arp_*` settings without waiting for anything.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use lvsmesh_core::plan::Sysctl;

use crate::error::{Errno, KernelError};

const ROOT: &str = "/proc/sys";

/// The name of an IPv4 setting of one interface: `net/ipv4/conf/INTERFACE/KEY`. `all` and `default` are interfaces here.
///
/// Written with slashes, so an interface name may contain dots (`eth0.100`), which `sysctl(8)`'s dotted form confuses.
///
/// # Errors
///
/// `EINVAL` for what cannot be an interface's name (`dev_valid_name`, net/core/dev.c): empty, over 15 bytes, `.`, `..`, or with a slash,
/// a colon or white space.
pub fn interface(interface: &str, key: &str) -> Result<Sysctl, KernelError> {
    let refused = interface.is_empty()
        || interface.len() > 15
        || interface == "."
        || interface == ".."
        || interface.contains(|c: char| c == '/' || c == ':' || c.is_ascii_whitespace());
    if refused {
        return Err(KernelError::refused(
            "name a sysctl of interface",
            format!("`{interface}`"),
            Errno::EINVAL,
        ));
    }
    Ok(Sysctl(format!("net/ipv4/conf/{interface}/{key}")))
}

/// Reads a sysctl; `None` if there is none of that name (an interface that has gone takes its own along).
///
/// # Errors
///
/// `EINVAL` if the name leads out of `/proc/sys`; [`KernelError::Malformed`] if the value is no integer.
pub fn read(name: &Sysctl) -> Result<Option<i64>, KernelError> {
    const OPERATION: &str = "read sysctl";

    let (file, place) = placed(name);
    let text = match fs::read_to_string(path(&file, OPERATION)?) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(KernelError::io(OPERATION, &name.0, &error)),
    };
    let number = match place {
        None => text.trim(),
        Some(place) => text.split_whitespace().nth(place).unwrap_or_default(),
    };
    match number.parse() {
        Ok(value) => Ok(Some(value)),
        Err(_) => Err(KernelError::Malformed {
            operation: OPERATION,
            object: name.0.clone(),
            detail: format!("{:?} is not an integer", text.trim()),
        }),
    }
}

/// Writes a sysctl.
///
/// # Errors
///
/// `ENOENT` if there is none of that name, `EINVAL` if the kernel does not take the value or the name leads out of `/proc/sys`, `EROFS` or
/// `EACCES` in a container that may not.
pub fn write(name: &Sysctl, value: i64) -> Result<(), KernelError> {
    const OPERATION: &str = "set sysctl";

    let (file, place) = placed(name);
    let path = path(&file, OPERATION)?;
    let text = match place {
        None => format!("{value}\n"),
        // The other number stays.
        Some(place) => {
            let text = fs::read_to_string(&path);
            let text = text.map_err(|error| KernelError::io(OPERATION, &name.0, &error))?;
            let mut numbers: Vec<String> = text.split_whitespace().map(ToOwned::to_owned).collect();
            numbers.resize(numbers.len().max(place + 1), "0".to_owned());
            numbers[place] = value.to_string();
            numbers.join(" ")
        }
    };
    // Neither created nor truncated: a name that does not exist must stay an error.
    let outcome = fs::OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    outcome.map_err(|error| KernelError::io(OPERATION, format!("{} to {value}", name.0), &error))
}

/// The file of a sysctl, and which of its numbers it is. The two of `sync_threshold` of IPVS go by two names, the second by `sync_period`
/// (`sysctl_sync_threshold` and `sysctl_sync_period` in `ip_vs.h`).
fn placed(name: &Sysctl) -> (Sysctl, Option<usize>) {
    match name.0.as_str() {
        "net/ipv4/vs/sync_threshold" => (name.clone(), Some(0)),
        "net/ipv4/vs/sync_period" => (Sysctl("net/ipv4/vs/sync_threshold".to_owned()), Some(1)),
        _ => (name.clone(), None),
    }
}

/// Where a sysctl's file is. Names come from plans, and on leaving from a record on disk: none may lead elsewhere.
fn path(name: &Sysctl, operation: &'static str) -> Result<PathBuf, KernelError> {
    let plain = |segment: &str| !matches!(segment, "" | "." | "..") && !segment.contains('\0');
    if name.0.split('/').all(plain) {
        Ok(PathBuf::from(format!("{ROOT}/{}", name.0)))
    } else {
        Err(KernelError::refused(operation, format!("`{}`", name.0), Errno::EINVAL))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_dots_are_one_segment() {
        assert_eq!(
            interface("eth0.100", "arp_ignore").unwrap(),
            Sysctl("net/ipv4/conf/eth0.100/arp_ignore".into())
        );
    }

    #[test]
    fn what_is_no_interface_name_is_refused() {
        for name in ["", ".", "..", "a/b", "../..", "a b", "eth0:1", "sixteen-bytes-xx"] {
            let error = interface(name, "arp_ignore").unwrap_err();
            assert_eq!(error.errno(), Some(Errno::EINVAL), "{name:?}");
        }
    }

    #[test]
    fn no_name_leads_out_of_proc_sys() {
        for name in ["../../etc/passwd", "/etc/passwd", "net//ipv4", "net/./ipv4", "", "a/\0"] {
            let error = read(&Sysctl(name.into())).unwrap_err();
            assert_eq!(error.errno(), Some(Errno::EINVAL), "{name:?}");
            let error = write(&Sysctl(name.into()), 1).unwrap_err();
            assert_eq!(error.errno(), Some(Errno::EINVAL), "{name:?}");
        }
    }

    #[test]
    fn a_sysctl_that_does_not_exist_reads_as_none_and_cannot_be_written() {
        let name = Sysctl("net/ipv4/conf/nosuch0/arp_ignore".into());
        assert_eq!(read(&name).unwrap(), None);
        assert_eq!(write(&name, 1).unwrap_err().errno(), Some(Errno::ENOENT));
    }

    #[test]
    fn a_text_value_is_not_taken_for_a_number() {
        let error = read(&Sysctl("kernel/ostype".into())).unwrap_err();
        assert!(matches!(error, KernelError::Malformed { .. }), "{error}");
    }
}
