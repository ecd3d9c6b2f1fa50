//! Tells the kernels that they are alone.

fn main() {
    println!("cargo::rustc-cfg=kernels_alone");
    println!("cargo::rerun-if-changed=build.rs");
}
