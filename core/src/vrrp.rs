//! VRRP is announced, never obeyed.
