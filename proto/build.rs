//! Compiles the `.proto` files in pure Rust: no `protoc` is needed.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=fusebox");
    let files = protox::compile(
        [
            "fusebox/v1/policy_service.proto",
            "fusebox/v1/breaker_service.proto",
            "fusebox/v1/fleet_service.proto",
            "fusebox/v1/admin_service.proto",
            "fusebox/v1/audit_service.proto",
            "fusebox/v1/rollout_service.proto",
            "fusebox/sync/v1/sync.proto",
        ],
        ["."],
    )?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptor.bin"), files.encode_to_vec())?;
    tonic_prost_build::configure()
        // Maps in a fixed order: equal messages have equal bytes.
        .btree_map(".")
        .compile_fds(files)?;
    Ok(())
}
