//! `fleet.ipvs`.

use std::time::Duration;

use super::{Findings, interface, limits, text, whole};
use crate::model::Ipvs;
use crate::model::ipvs::setting_named;

pub(super) fn ipvs(ipvs: &Ipvs, found: &mut Findings) {
    let timeouts = &ipvs.timeouts;
    for (key, span) in [("tcp", timeouts.tcp), ("tcp_fin", timeouts.tcp_fin), ("udp", timeouts.udp)]
    {
        let Some(span) = span else { continue };
        let path = format!("fleet.ipvs.timeouts.{key}");
        found.span(&path, span, &limits::IPVS_TIMEOUT);
        if !whole(span, Duration::from_secs(1)) {
            let message = format!("{} is not in whole seconds", text::duration(span));
            found.add(path, message).hint("the kernel counts seconds");
        }
    }
    if let Some(sync) = &ipvs.sync {
        let path = "fleet.ipvs.sync";
        interface(&format!("{path}.interface"), &sync.interface, found);
        found.within(&format!("{path}.port"), sync.port.into(), &limits::PORT);
        found.within(&format!("{path}.ttl"), sync.ttl.into(), &limits::SYNC_TTL);
        if let Some(maxlen) = sync.maxlen {
            found.within(&format!("{path}.maxlen"), maxlen.into(), &limits::SYNC_MAXLEN);
        }
        if !sync.group.is_multicast() {
            found
                .add(format!("{path}.group"), format!("{} is no multicast group", sync.group))
                .hint("the kernel's own is 224.0.0.81");
        }
    }
    let set = ipvs.sysctls.effective();
    let number = |name| set.get(name).copied();
    if let (Some(threshold), Some(period)) = (number("sync_threshold"), number("sync_period"))
        && period != 0
        && threshold >= period
    {
        found
            .add(
                "fleet.ipvs.sysctls.values".to_owned(),
                format!("sync_threshold {threshold} is not below sync_period, {period}"),
            )
            .hint("the kernel refuses it; sync_period 0 sends a connection once");
    }
    for (name, value) in &ipvs.sysctls.values {
        let path = "fleet.ipvs.sysctls.values".to_owned();
        let Some(setting) = setting_named(name) else { continue };
        if !(setting.least..=setting.most).contains(value) {
            let outside = super::outside(value, setting.least, setting.most);
            found
                .add(path, format!("{name}: {outside}"))
                .hint(format!("{} is the kernel's default", setting.default));
        } else if *name == "sync_ports" && !value.cast_unsigned().is_power_of_two() {
            found.add(path, format!("{name}: {value} is no power of two"));
        }
    }
}
