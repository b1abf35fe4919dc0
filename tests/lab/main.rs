//! The reference deployment on a kernel with IPVS: this machine's, or Debian's stock kernel in the virtual machine of `tests/vm/boot`.
//!
//! Every test here has `ipvs_` in its path: `tests/run` leaves such tests out on a kernel without IPVS and runs them on one that has it.

mod ipvs_failover;
mod ipvs_import;
mod ipvs_keep;
mod ipvs_modes;
mod ipvs_repair;
mod ipvs_table;
mod ipvs_views;
