//! Tunnels' ends and ways back, in memory.

use lvsmesh_core::plan::Sysctl;
use lvsmesh_core::plan::path::{PathAction, Route, SeenTunnel};

use super::{FakeState, Refusal};
use crate::error::Errno;

impl FakeState {
    pub(super) fn path(&mut self, action: &PathAction) -> Result<(), Refusal> {
        let gone = |was: bool, errno: Errno| if was { Ok(()) } else { Err(errno.into()) };
        let fresh = |was: bool| if was { Err(Errno::EEXIST.into()) } else { Ok(()) };
        match action {
            PathAction::AddTunnel(tunnel) => {
                let name = tunnel.name();
                if !self.interfaces.insert(name.clone()) {
                    return Err(Errno::EEXIST.into());
                }
                let ends = (tunnel.kind, tunnel.local, tunnel.checksum);
                let seen = SeenTunnel { tunnel: Some(ends), up: true, marked: true };
                self.paths.tunnels.insert(name.clone(), seen);
                // As a new device has them: `default`'s.
                for (sysctl, value) in [
                    (format!("net/ipv4/conf/{name}/rp_filter"), 0),
                    (format!("net/ipv6/conf/{name}/disable_ipv6"), 1),
                ] {
                    self.sysctls.insert(Sysctl(sysctl), value);
                }
                Ok(())
            }
            PathAction::RaiseTunnel(name) => match self.paths.tunnels.get_mut(name) {
                Some(tunnel) => {
                    tunnel.up = true;
                    Ok(())
                }
                None => Err(Errno::ENODEV.into()),
            },
            PathAction::RemoveTunnel(name) => {
                self.addresses.retain(|address| address.interface != *name);
                self.sysctls.retain(|sysctl, _| sysctl.0.split('/').nth(3) != Some(name));
                self.interfaces.remove(name);
                gone(self.paths.tunnels.remove(name).is_some(), Errno::ENODEV)
            }
            PathAction::AddPort(port) => {
                let ports = self.paths.ports.as_mut().ok_or(Errno::ENOENT)?;
                let taken = ports.contains_key(port);
                if taken {
                    return Err(Errno::EADDRINUSE.into());
                }
                ports.insert(*port, true);
                Ok(())
            }
            PathAction::RemovePort(port) => {
                let ports = self.paths.ports.as_mut().ok_or(Errno::ENOENT)?;
                gone(ports.remove(port).is_some(), Errno::ENOENT)
            }
            PathAction::AddRule(rule) => fresh(self.paths.rules.insert(*rule, true).is_some()),
            PathAction::RemoveRule(rule) => {
                gone(self.paths.rules.remove(rule).is_some(), Errno::ENOENT)
            }
            PathAction::AddRoute(route) => {
                let same = |other: &Route| {
                    (other.table, other.gateway.is_ipv6()) == (route.table, route.gateway.is_ipv6())
                };
                if self.paths.routes.keys().any(same) {
                    return Err(Errno::EEXIST.into());
                }
                // The kernel takes no gateway that is its own address (`fib_check_nh`).
                if self.addresses.iter().any(|address| address.address == route.gateway) {
                    return Err(Errno::EINVAL.into());
                }
                self.paths.routes.insert(*route, true);
                Ok(())
            }
            PathAction::RemoveRoute(route) => {
                gone(self.paths.routes.remove(route).is_some(), Errno::ESRCH)
            }
        }
    }
}
