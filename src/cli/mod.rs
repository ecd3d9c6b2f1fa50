//! The `phicandle` command.
