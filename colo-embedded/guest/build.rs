//! Links the program (and nothing else: the library's tests are ordinary programs) for a machine without an operating system.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // No C library, no start-up code, no dynamic linker; and where `abi::IMAGE_BASE` says.
    for arg in [
        "-nostartfiles",
        "-nostdlib",
        "-static",
        "-no-pie",
        "-Wl,--image-base=0x100400000",
        "-Wl,--build-id=none",
    ] {
        println!("cargo::rustc-link-arg-bins={arg}");
    }
}
