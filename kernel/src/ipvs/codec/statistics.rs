//! Statistics of services and destinations (`ip_vs_genl_fill_stats`, `ip_vs_genl_fill_stats64` in net/netfilter/ipvs/ip_vs_ctl.c).

use super::{Fields, Malformed, sized};
use crate::ipvs::Statistics;

// IPVS_STATS_ATTR_*
const CONNS: u16 = 1;
const INPKTS: u16 = 2;
const OUTPKTS: u16 = 3;
const INBYTES: u16 = 4;
const OUTBYTES: u16 = 5;
const CPS: u16 = 6;
const INPPS: u16 = 7;
const OUTPPS: u16 = 8;
const INBPS: u16 = 9;
const OUTBPS: u16 = 10;

/// Reads the statistics out of the attributes of a service or a destination: all of 64 bits since Linux 4.1, which still sends the older
/// form too, where all but the bytes have 32.
pub(super) fn decode(
    outer: &Fields<'_>,
    [stats64, stats]: [(u16, &str); 2],
) -> Result<Statistics, Malformed> {
    let (bytes, name) = match outer.get(stats64.0) {
        Some(bytes) => (bytes, stats64.1),
        None => (outer.require(stats.0, stats.1)?, stats.1),
    };
    let fields = Fields::parse(bytes, name)?;
    let number = |kind, name| {
        let bytes = fields.require(kind, name)?;
        match bytes.len() {
            4 => Ok(u64::from(u32::from_ne_bytes(sized(bytes, name)?))),
            _ => Ok(u64::from_ne_bytes(sized(bytes, name)?)),
        }
    };
    Ok(Statistics {
        connections: number(CONNS, "IPVS_STATS_ATTR_CONNS")?,
        packets_in: number(INPKTS, "IPVS_STATS_ATTR_INPKTS")?,
        packets_out: number(OUTPKTS, "IPVS_STATS_ATTR_OUTPKTS")?,
        bytes_in: number(INBYTES, "IPVS_STATS_ATTR_INBYTES")?,
        bytes_out: number(OUTBYTES, "IPVS_STATS_ATTR_OUTBYTES")?,
        connections_per_second: number(CPS, "IPVS_STATS_ATTR_CPS")?,
        packets_in_per_second: number(INPPS, "IPVS_STATS_ATTR_INPPS")?,
        packets_out_per_second: number(OUTPPS, "IPVS_STATS_ATTR_OUTPPS")?,
        bytes_in_per_second: number(INBPS, "IPVS_STATS_ATTR_INBPS")?,
        bytes_out_per_second: number(OUTBPS, "IPVS_STATS_ATTR_OUTBPS")?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Attributes, attribute, nest};
    use super::*;

    const KINDS: [(u16, &str); 2] = [(12, "STATS64"), (10, "STATS")];

    /// Each statistic has its attribute's number, plus `more`; `narrow` ones have 32 bits.
    fn stats(kind: u16, more: u64, narrow: &[u16]) -> Attributes {
        let inner = (1..=10).map(|number: u16| {
            let value = more + u64::from(number);
            match narrow.contains(&number) {
                true => attribute(number, &u32::try_from(value).unwrap().to_ne_bytes()),
                false => attribute(number, &value.to_ne_bytes()),
            }
        });
        nest(kind, inner.collect())
    }

    fn numbered(more: u64) -> Statistics {
        Statistics {
            connections: more + 1,
            packets_in: more + 2,
            packets_out: more + 3,
            bytes_in: more + 4,
            bytes_out: more + 5,
            connections_per_second: more + 6,
            packets_in_per_second: more + 7,
            packets_out_per_second: more + 8,
            bytes_in_per_second: more + 9,
            bytes_out_per_second: more + 10,
        }
    }

    fn read(attributes: &Attributes) -> Result<Statistics, Malformed> {
        decode(&Fields::parse(attributes.as_bytes(), "a test")?, KINDS)
    }

    #[test]
    fn the_wide_form_comes_before_the_narrow_one() {
        let wide = stats(12, u64::MAX / 2, &[]);
        let narrow = || stats(10, 100, &[1, 2, 3, 6, 7, 8, 9, 10]);
        let both = [narrow(), wide].into_iter().collect();
        assert_eq!(read(&both), Ok(numbered(u64::MAX / 2)));
        assert_eq!(read(&narrow()), Ok(numbered(100)));
    }

    #[test]
    fn what_is_missing_is_named() {
        let missing = |name: &str| Err(Malformed(format!("{name} is missing")));
        assert_eq!(read(&Attributes::new()), missing("STATS"));
        let empty = nest(12, vec![]);
        assert_eq!(read(&empty), missing("IPVS_STATS_ATTR_CONNS"));
    }
}
