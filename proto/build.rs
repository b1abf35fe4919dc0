//! Compiles the `.proto` files, nothing else.

fn main() -> std::io::Result<()> {
    let files = [
        "lvsmesh/v1/desired.proto",
        "lvsmesh/v1/control.proto",
        "lvsmesh/internal/v1/log.proto",
        "lvsmesh/internal/v1/peer.proto",
    ];
    let descriptors = std::path::PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default())
        .join("descriptors.bin");
    tonic_prost_build::configure()
        .file_descriptor_set_path(descriptors)
        .compile_protos(&files, &["."])
}
