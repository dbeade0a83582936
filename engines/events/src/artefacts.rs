//! The files that are generated from the catalog and committed: schemas, the AsyncAPI document, and
//! the broker's configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::catalog::EVENTS;
use crate::topology::{self, CONSUMERS, Profile, STREAMS};
use crate::{Domain, asyncapi, compat, schema, text};

/// Files by their path from the project's root, with forward slashes.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Why files could not be generated or written.
#[derive(Debug, thiserror::Error)]
pub enum ArtefactError {
    /// A value that cannot be written as JSON.
    #[error("{path}: {source}")]
    Json {
        /// The file.
        path: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A file that cannot be read, written or removed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// Schemas that would break readers or old events within their major version.
    #[error("incompatible within the major version, so nothing was written:\n  {}", .0.join("\n  "))]
    Incompatible(Vec<String>),
}

/// Everything that is generated.
///
/// # Errors
/// [`ArtefactError::Json`].
pub fn all() -> Result<Files, ArtefactError> {
    let mut files = Files::new();
    let mut json = |path: String, value: &Value| -> Result<(), ArtefactError> {
        let content = text::json(value).map_err(|source| ArtefactError::Json { path: path.clone(), source })?;
        files.insert(path, content);
        Ok(())
    };
    json("schemas/envelope.schema.json".to_owned(), &schema::envelope_document())?;
    for spec in EVENTS {
        json(format!("schemas/{}/{}.schema.json", spec.domain.name(), spec.event_type()), &schema::document(spec))?;
    }
    for spec in STREAMS {
        json(format!("setup/streams/{}.json", spec.name), &spec.config_json(Profile::Development))?;
    }
    for spec in CONSUMERS {
        json(format!("setup/consumers/{}.{}.json", spec.stream, spec.name), &spec.config_json(Profile::Development))?;
    }
    for profile in Profile::ALL {
        json(format!("setup/overlays/{}.json", profile.name()), &topology::overlay_json(profile))?;
    }
    files.insert("schemas/asyncapi.yaml".to_owned(), text::yaml(&asyncapi::document()));
    files.insert("schemas/README.md".to_owned(), readme().into_bytes());
    Ok(files)
}

/// Brings the tree under `root` into line with [`all`] and says what was done, one line per file.
///
/// # Errors
/// [`ArtefactError::Incompatible`], before anything is written, where a schema would be replaced by one
/// of the same major version that breaks it; otherwise what the file system says.
pub fn write(root: &Path) -> Result<Vec<String>, ArtefactError> {
    let files = all()?;
    let (changed, superfluous) = compare(root, &files)?;
    let breaks: Vec<String> = changed
        .iter()
        .filter_map(|(path, old)| Some((path, old.as_deref()?, files.get(*path)?)))
        .flat_map(|(path, old, new)| incompatibilities(path, old, new))
        .collect();
    if !breaks.is_empty() {
        return Err(ArtefactError::Incompatible(breaks));
    }

    let mut done = Vec::new();
    for path in changed.into_keys() {
        let target = root.join(path);
        let content = files.get(path).map(Vec::as_slice).unwrap_or_default();
        let folder = target.parent().unwrap_or(root);
        fs::create_dir_all(folder).and_then(|()| fs::write(&target, content)).map_err(at(&target))?;
        done.push(format!("wrote {path}"));
    }
    for path in superfluous {
        let target = root.join(&path);
        fs::remove_file(&target).map_err(at(&target))?;
        done.push(format!("removed {path}"));
    }
    Ok(done)
}

/// What differs between the tree under `root` and [`all`], one line per file; empty where nothing does.
pub fn differences(root: &Path) -> Vec<String> {
    match all().and_then(|files| {
        let (changed, superfluous) = compare(root, &files)?;
        let changed = changed.into_iter().map(|(path, old)| match old {
            Some(_) => format!("{path} differs"),
            None => format!("{path} is missing"),
        });
        Ok(changed.chain(superfluous.into_iter().map(|path| format!("{path} is superfluous"))).collect())
    }) {
        Ok(lines) => lines,
        Err(e) => vec![e.to_string()],
    }
}

/// The files that are missing or differ, with what is there; and the generated files that are no longer produced.
type Comparison<'a> = (BTreeMap<&'a str, Option<Vec<u8>>>, BTreeSet<String>);

fn compare<'a>(root: &Path, files: &'a Files) -> Result<Comparison<'a>, ArtefactError> {
    let mut changed = BTreeMap::new();
    for (path, content) in files {
        let target = root.join(path);
        match fs::read(&target) {
            Ok(found) if found == *content => {}
            Ok(found) => drop(changed.insert(path.as_str(), Some(found))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => drop(changed.insert(path.as_str(), None)),
            Err(e) => return Err(at(&target)(e)),
        }
    }
    let superfluous = generated(root)?.into_iter().filter(|path| !files.contains_key(path)).collect();
    Ok((changed, superfluous))
}

/// The files in the folders that hold nothing but generated files of one kind.
fn generated(root: &Path) -> Result<Vec<String>, ArtefactError> {
    let schemas = Domain::ALL.map(|domain| (format!("schemas/{}", domain.name()), ".schema.json"));
    let setup = ["streams", "consumers", "overlays"].map(|folder| (format!("setup/{folder}"), ".json"));
    let mut found = Vec::new();
    for (folder, ending) in schemas.into_iter().chain(setup) {
        let place = root.join(&folder);
        let entries = match fs::read_dir(&place) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(at(&place)(e)),
        };
        for entry in entries {
            let name = entry.map_err(at(&place))?.file_name().to_string_lossy().into_owned();
            if name.ends_with(ending) {
                found.push(format!("{folder}/{name}"));
            }
        }
    }
    Ok(found)
}

/// What a schema would break that replaces the one that is there. What is there and is no schema breaks nothing.
fn incompatibilities(path: &str, old: &[u8], new: &[u8]) -> Vec<String> {
    let read = |content: &[u8]| serde_json::from_slice::<Value>(content).ok();
    let (true, Some(old), Some(new)) = (path.ends_with(".schema.json"), read(old), read(new)) else {
        return Vec::new();
    };
    if major(&old).is_none() || major(&old) != major(&new) {
        return Vec::new();
    }
    let breaks = compat::check(&old, &new).err().unwrap_or_default();
    breaks.into_iter().map(|line| format!("{path}: {line}")).collect()
}

/// The major version in the id of a schema.
fn major(schema: &Value) -> Option<&str> {
    let (_, version) = schema.get("$id")?.as_str()?.rsplit_once(':')?;
    version.split('.').next()
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> ArtefactError {
    move |source| ArtefactError::Io { path: path.to_owned(), source }
}

fn readme() -> String {
    let mut text = String::from(
        "# The event contract\n\n\
         Written by `make gen` from `engines/events`, except `examples/`; how to add an event stands in `engines/events/README.md`.\n\n\
         | file | holds |\n|---|---|\n\
         | `envelope.schema.json` | the envelope of every event |\n\
         | `<domain>/<entity>.<action>.schema.json` | the `data` of one event |\n\
         | `asyncapi.yaml` | subjects, messages, who publishes and who reads |\n\
         | `examples/<domain>/<entity>.<action>/<version>.json` | one event of every version ever published, by hand; it is read for ever |\n\n\
         An event `<entity>.<action>` is published on `events.<domain>.<entity>.<action>`. Amounts are decimal strings with exactly the\n\
         minor digits of their currency; that, and the limit of 65,535 bytes, no schema can say.\n\n\
         | event | domain | version | stream |\n|---|---|---|---|\n",
    );
    for spec in EVENTS {
        let (event_type, domain) = (spec.event_type(), spec.domain);
        text.push_str(&format!(
            "| [`{event_type}`]({0}/{event_type}.schema.json) | {0} | {1} | {2} |\n",
            domain.name(),
            spec.version,
            domain.stream(),
        ));
    }
    text
}
