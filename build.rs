//! Compiles the C part of the edge and names the shared object. Writes to OUT_DIR only, never into the tree.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=src/ffi/variadic.c");
    cc::Build::new()
        .file("src/ffi/variadic.c")
        .std("c99")
        .pic(true)
        .warnings(true)
        .extra_warnings(true)
        .flag("-fvisibility=hidden")
        .compile("kvbatch_variadic");
    // Programs bind to the name with the version of the interface: it changes only when they would break.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libkvbatch.so.{}", env!("CARGO_PKG_VERSION_MAJOR"));
    // Threads of the host may still run our code, or keep our thread-locals, when it calls dlclose.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
