//! lvsctl
fn main() {}
