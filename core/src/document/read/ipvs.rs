//! `fleet.ipvs`.

use std::collections::BTreeMap;

use super::{At, Map, Words, address, duration, number, string, suggest};
use crate::document::fault::Faults;
use crate::document::{Value, limits, schema};
use crate::model::ipvs::{SETTINGS, setting_named};
use crate::model::{Connections, Ipvs, Sync, SysctlProfile, Sysctls, Timeouts};

pub(super) fn ipvs(at: At<'_>, faults: &mut Faults) -> Ipvs {
    let mut map = Map::open(at, &schema::IPVS, faults);
    Ipvs {
        timeouts: map.optional("timeouts", timeouts).unwrap_or_default(),
        sync: map.optional("sync", sync),
        sysctls: map.optional("sysctls", sysctls).unwrap_or_default(),
        connections: map.word("connections", &CONNECTIONS).unwrap_or_default(),
    }
}

fn timeouts(at: At<'_>, faults: &mut Faults) -> Timeouts {
    let mut map = Map::open(at, &schema::TIMEOUTS, faults);
    Timeouts {
        tcp: map.optional("tcp", duration),
        tcp_fin: map.optional("tcp_fin", duration),
        udp: map.optional("udp", duration),
    }
}

fn sync(at: At<'_>, faults: &mut Faults) -> Sync {
    let mut map = Map::open(at, &schema::SYNC, faults);
    Sync {
        interface: map.required("interface", string).unwrap_or_default(),
        id: map.optional("id", number(&limits::SYNC_ID)).unwrap_or_default(),
        group: map.optional("group", address).unwrap_or(Sync::GROUP),
        port: map.optional("port", number(&limits::PORT)).unwrap_or(Sync::PORT),
        ttl: map.optional("ttl", number(&limits::SYNC_TTL)).unwrap_or(1),
        maxlen: map.optional("maxlen", number(&limits::SYNC_MAXLEN)),
    }
}

fn sysctls(at: At<'_>, faults: &mut Faults) -> Sysctls {
    let mut map = Map::open(at, &schema::SYSCTLS, faults);
    let profile = map.word("profile", &PROFILE).unwrap_or_default();
    let mut values = BTreeMap::new();
    for (path, value) in map.list("values", sysctl) {
        let Some((name, value)) = value else { continue };
        if values.insert(name, value).is_some() {
            map.refuse_at(&path, &format!("`{name}` is there twice"), "leave one out");
        }
    }
    Sysctls { profile, values }
}

fn sysctl(at: At<'_>, faults: &mut Faults) -> (String, Option<(&'static str, i64)>) {
    let path = at.path.clone();
    let mut map = Map::open(at, &schema::SYSCTL, faults);
    let name = map.required("name", string).unwrap_or_default();
    let has_value = map.has("value");
    let value = map.required("value", integer).flatten();
    let Some(setting) = setting_named(&name) else {
        if !name.is_empty() {
            let names = SETTINGS.map(|setting| setting.name);
            map.refuse("name", &format!("no IPVS sysctl {name:?}"), &suggest(&name, &names));
        }
        return (path, None);
    };
    let Some(value) = value.filter(|_| has_value) else { return (path, None) };
    (path, Some((setting.name, value)))
}

fn integer(at: At<'_>, faults: &mut Faults) -> Option<i64> {
    let Value::Integer(number) = *at.value else {
        super::wrong_type(&at, "a whole number", faults);
        return None;
    };
    let read = i64::try_from(number).ok();
    if read.is_none() {
        faults.add(&at.path, format!("{number} is too large for any setting"));
    }
    read
}

static CONNECTIONS: Words<Connections> = Words {
    noun: "policy for connections",
    all: &Connections::ALL,
    name: Connections::name,
    planned: &[],
};
static PROFILE: Words<SysctlProfile> = Words {
    noun: "sysctl profile",
    all: &SysctlProfile::ALL,
    name: SysctlProfile::name,
    planned: &[],
};
