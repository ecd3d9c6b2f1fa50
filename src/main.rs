//! The `phicandle` command.

use std::process::exit;

use phicandle::cli::{Demo, run};

/// The demo model, inside the program, so that one file is all there is to install.
static DEMO: &[u8] = include_bytes!("../python/phicandle/demo.gguf");

fn main() {
    exit(run(std::env::args_os(), &Demo::Bytes(DEMO)));
}
