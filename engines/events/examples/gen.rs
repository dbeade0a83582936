//! Writes the generated files into the tree that this crate stands in.

use std::path::Path;

fn main() -> Result<(), deltran_events::artefacts::ArtefactError> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for line in deltran_events::artefacts::write(&root)? {
        println!("{line}");
    }
    Ok(())
}
