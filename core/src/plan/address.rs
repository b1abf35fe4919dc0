//! Addresses and sysctls.
