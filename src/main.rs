//! The `phicandle` command.

use std::process::exit;

use phicandle::cli::{Demo, run};

fn main() {
    exit(run(std::env::args_os(), &Demo::File("demo.gguf".into())));
}
