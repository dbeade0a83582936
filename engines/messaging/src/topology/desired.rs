//! What is wanted: from the catalog, or from a folder like `setup/`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use deltran_events::topology::{CONSUMERS, Profile, STREAMS};
use serde_json::{Map, Value};

use super::{Target, TopologyError};

/// Streams, sourcing ones last, then consumers.
type Desired = Vec<(Target, Value)>;

pub(super) fn catalog(profile: Profile) -> Desired {
    let streams = STREAMS.iter().map(|s| (Target::Stream(s.name.to_owned()), s.config_json(profile)));
    let consumers =
        CONSUMERS.iter().map(|c| (Target::Consumer(c.stream.to_owned(), c.name.to_owned()), c.config_json(profile)));
    ordered(streams.chain(consumers).collect())
}

/// `streams/<NAME>.json`, `consumers/<STREAM>.<name>.json`, and over them what `overlays/<profile>.json` names.
pub(super) fn files(dir: &Path, profile: Profile) -> Result<Desired, TopologyError> {
    let mut streams: BTreeMap<String, Value> = read_folder(&dir.join("streams"))?;
    let consumers = read_folder(&dir.join("consumers"))?;

    let path = dir.join("overlays").join(format!("{}.json", profile.name()));
    let overlay = Value::Object(read(&path)?);
    if let Some(changes) = overlay.get("streams").and_then(Value::as_object) {
        for (name, change) in changes {
            let (Some(config), Some(change)) =
                (streams.get_mut(name).and_then(Value::as_object_mut), change.as_object())
            else {
                return Err(wrong(
                    &path,
                    format!("stream {name} has no file in streams/, or its changes are no object"),
                ));
            };
            config.extend(change.clone());
        }
    }
    if let Some(key) =
        overlay.as_object().and_then(|o| o.keys().find(|k| !["profile", "streams"].contains(&k.as_str())))
    {
        return Err(wrong(&path, format!("unknown key {key:?}: expected \"profile\" and \"streams\"")));
    }

    let mut desired = Vec::new();
    for (stem, config) in streams {
        let path = dir.join("streams").join(format!("{stem}.json"));
        name_of(&path, &config, "name", &stem)?;
        desired.push((Target::Stream(stem), config));
    }
    for (stem, config) in consumers {
        let path = dir.join("consumers").join(format!("{stem}.json"));
        let Some((stream, name)) = stem.split_once('.') else {
            return Err(wrong(&path, "is not called <STREAM>.<consumer>.json"));
        };
        name_of(&path, &config, "durable_name", name)?;
        if !desired.iter().any(|(target, _)| *target == Target::Stream(stream.to_owned())) {
            return Err(wrong(&path, format!("stream {stream} has no file in streams/")));
        }
        desired.push((Target::Consumer(stream.to_owned(), name.to_owned()), config));
    }
    Ok(ordered(desired))
}

/// A sourcing stream comes after the streams that it sources: those that were there first are copied
/// from their first message on.
fn ordered(mut desired: Desired) -> Desired {
    desired.sort_by_key(|(target, config)| match target {
        Target::Stream(_) if config.get("sources").is_none() => 0,
        Target::Stream(_) => 1,
        Target::Consumer(..) => 2,
    });
    desired
}

fn read_folder(folder: &Path) -> Result<BTreeMap<String, Value>, TopologyError> {
    let entries = std::fs::read_dir(folder).map_err(|e| wrong(folder, e))?;
    let mut configs = BTreeMap::new();
    for entry in entries {
        let path: PathBuf = entry.map_err(|e| wrong(folder, e))?.path();
        if path.extension().is_some_and(|e| e == "json")
            && let Some(stem) = path.file_stem().and_then(|s| s.to_str())
        {
            configs.insert(stem.to_owned(), Value::Object(read(&path)?));
        }
    }
    if configs.is_empty() {
        return Err(wrong(folder, "holds no .json file"));
    }
    Ok(configs)
}

fn read(path: &Path) -> Result<Map<String, Value>, TopologyError> {
    let text = std::fs::read(path).map_err(|e| wrong(path, e))?;
    serde_json::from_slice(&text).map_err(|e| wrong(path, e))
}

/// The name inside must be the one of the file, and one that can stand in a subject.
fn name_of(path: &Path, config: &Value, key: &str, stem: &str) -> Result<(), TopologyError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if stem.is_empty() || !stem.chars().all(fits) {
        return Err(wrong(path, format!("{stem:?} is no name: letters, digits, '_' and '-' are allowed")));
    }
    match config.get(key).and_then(Value::as_str) {
        Some(name) if name == stem => Ok(()),
        Some(name) => Err(wrong(path, format!("{key} is {name:?}, but the file says {stem:?}"))),
        None => Err(wrong(path, format!("{key} is missing"))),
    }
}

fn wrong(path: &Path, cause: impl std::fmt::Display) -> TopologyError {
    TopologyError::Configuration { origin: path.display().to_string(), cause: cause.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_come_before_the_stream_that_reads_them() {
        let desired = catalog(Profile::Development);
        let place = |name: &str| desired.iter().position(|(t, _)| *t == Target::Stream(name.into())).unwrap();
        let audit = place("AUDIT");
        for stream in STREAMS.iter().filter(|s| s.name != "AUDIT") {
            assert!(place(stream.name) < audit, "{}", stream.name);
        }
        assert!(matches!(desired[audit + 1].0, Target::Consumer(..)));
    }
}
