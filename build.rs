//! Links the unwinder of GCC into the binary, so that it needs glibc alone at run time.
//!
//! The standard library asks for `libgcc_s`, a shared library. The linker finds this file of the same
//! name first, which says where the same code is to be had for good.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is_glibc = env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux")
        && env::var("CARGO_CFG_TARGET_ENV").as_deref() == Ok("gnu");
    if is_glibc {
        let folder = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
        fs::write(folder.join("libgcc_s.so"), "GROUP(libgcc_eh.a libgcc.a)\n")
            .expect("OUT_DIR can be written to");
        println!("cargo::rustc-link-search=native={}", folder.display());
    }
}
