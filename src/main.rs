//! The `phicandle` command.

fn main() {}
