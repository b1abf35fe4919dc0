//! Real agents between network namespaces, on any Linux: what needs no IPVS.

mod machines;
