//! Documents for the reference deployment and its variations.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The fleet's name.
pub const FLEET: &str = "lab";
/// The address that clients use.
pub const VIP: Ipv4Addr = Ipv4Addr::new(192, 168, 3, 100);
/// One that they use in a lab with IPv6.
pub const VIP_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 3, 0, 0, 0, 0, 0, 0x100);
/// Director.
pub const LVS_1: (&str, Ipv4Addr) = ("lvs-1", Ipv4Addr::new(192, 168, 3, 101));
/// Director and realserver.
pub const LVS_2: (&str, Ipv4Addr) = ("lvs-2", Ipv4Addr::new(192, 168, 3, 102));
/// Realserver.
pub const RS_1: (&str, Ipv4Addr) = ("rs-1", Ipv4Addr::new(192, 168, 3, 3));
/// No part of the fleet; asks for pages, and runs lvsctl.
pub const CLIENT: (&str, Ipv4Addr) = ("client", Ipv4Addr::new(192, 168, 3, 10));

/// The parts of a document that tests vary.
#[derive(Clone, Debug)]
pub struct Document {
    /// Of the VIP group, with commas between them.
    pub addresses: String,
    /// VRRP version: 2 (with PASS 1111) or 3.
    pub vrrp_version: u8,
    /// How a holder makes the VIP answer. Most tests look for the VIP on the holder's interface, where it is only with `address`.
    pub attach: &'static str,
    /// With units.
    pub advert_interval: &'static str,
    /// More of the VIP group, behind its interface: a line of its own with four blanks before it.
    pub vip: String,
    /// More of its `vrrp`: `, coexist: contest`.
    pub vrrp: String,
    /// More VIP groups, as YAML with two blanks before each.
    pub vips: String,
    /// More of `fleet`, behind its name: `, ipvs: { connections: keep }`.
    pub fleet: String,
    /// Pools and services, as YAML.
    pub rest: String,
}

impl Document {
    /// A VIP and nothing behind it: what a kernel without IPVS can do.
    #[must_use]
    pub fn vip_alone() -> Self {
        Self {
            addresses: VIP.to_string(),
            vrrp_version: 2,
            attach: "address",
            advert_interval: "1s",
            vip: String::new(),
            vrrp: String::new(),
            vips: String::new(),
            fleet: String::new(),
            rest: String::new(),
        }
    }

    /// The reference deployment, with a check that notices a dead page in about a second and `persistence` with its unit.
    #[must_use]
    pub fn reference(persistence: &str) -> Self {
        let rest = format!(
            r"pools:
  - name: web
    real_servers:
      - {{ address: {rs}, port: 80, weight: 3 }}
      - {{ address: {both}, port: 80, weight: 3 }}
    check: {{ kind: tcp, interval: 500ms, timeout: 1s, retries: 1, delay_before_retry: 200ms }}
services:
  - {{ name: web, vip: web, port: 80, protocol: tcp, scheduler: wlc, forwarding: dr, persistence: {persistence}, pool: web }}
",
            rs = RS_1.1,
            both = LVS_2.1,
        );
        Self { rest, ..Self::vip_alone() }
    }

    /// The whole text.
    #[must_use]
    pub fn yaml(&self) -> String {
        let Self { addresses, vrrp_version, attach, advert_interval, vip, vrrp, vips, fleet, rest } =
            self;
        let auth = if *vrrp_version == 2 { ", auth: { pass: \"1111\" }" } else { "" };
        format!(
            r"fleet: {{ name: {FLEET}{fleet} }}
vips:
  - name: web
    addresses: [{addresses}]
    interface: eth0{vip}
    attach: {attach}
    preference: [{}, {}]
    vrrp: {{ vrid: 51, version: {vrrp_version}, advert_interval: {advert_interval}, priority: 200{auth}{vrrp} }}
{vips}{rest}",
            LVS_1.0, LVS_2.0
        )
    }
}
