//! Refuses `cargo pgrx install` and `cargo pgrx package`, which would install the library with a SQL script that they make
//! themselves, without a function in it: the script is assembled from sql/ by `make install`.

use std::fs;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // cargo-pgrx has flags of its own.
    println!("cargo::rerun-if-env-changed=RUSTFLAGS");
    println!("cargo::rerun-if-env-changed=PGRX_BUILD_FLAGS");
    if ancestors().any(|name| name == "cargo-pgrx") {
        println!(
            "cargo::error=cargo-pgrx cannot install envelope_pg, whose functions are in a script that it does not know"
        );
        println!("cargo::error=use `make install PG_CONFIG=/path/to/pg_config`, with DESTDIR=/some/root for a package");
    }
}

/// The names of the processes that this one descends from; none where there is no /proc.
fn ancestors() -> impl Iterator<Item = String> {
    let mut pid = String::from("self");
    std::iter::from_fn(move || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let field = |name: &str| Some(status.lines().find_map(|line| line.strip_prefix(name))?.trim().to_owned());
        pid = field("PPid:")?;
        field("Name:")
    })
}
