//! The event contract as others meet it: generated files, examples, envelopes and topology.

#[cfg(test)]
mod artefacts;
#[cfg(test)]
mod envelopes;
#[cfg(test)]
mod examples;
#[cfg(test)]
mod topology;

/// The project's root.
#[cfg(test)]
fn root() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
