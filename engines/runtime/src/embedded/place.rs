//! Where the cluster lies and as whom Postgres runs: it refuses to run as root, and its user must reach the folder.

use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::{User, geteuid};

use super::error::{At, EmbeddedError};
use super::postgres::owner_of;
use super::process::Owner;

const SPARE: &str = "/var/tmp";

/// The folder that holds the cluster, and the user it is run as where that is another than ours.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) base: PathBuf,
    pub(super) owner: Option<Owner>,
}

impl Place {
    pub(super) fn cluster(&self) -> PathBuf {
        self.base.join("cluster")
    }

    /// Hands a file or folder over to the user that Postgres runs as.
    pub(super) fn give(&self, path: &Path) -> Result<(), EmbeddedError> {
        match &self.owner {
            Some(owner) => {
                std::os::unix::fs::chown(path, Some(owner.uid), Some(owner.gid)).at("hand over to Postgres' user", path)
            }
            None => Ok(()),
        }
    }
}

/// The place for the cluster of the data folder, with notes on what is unusual about it.
pub(super) fn choose(data: &Path, home: &Path, password: &Path) -> Result<(Place, Vec<String>), EmbeddedError> {
    if !geteuid().is_root() {
        return Ok((Place { base: home.to_owned(), owner: None }, Vec::new()));
    }
    let spare = Path::new(SPARE).join(format!("deltran-{:016x}", fnv1a(data.as_os_str().as_encoded_bytes())));
    choose_as_root(home, &spare, password)
}

fn choose_as_root(home: &Path, spare: &Path, password: &Path) -> Result<(Place, Vec<String>), EmbeddedError> {
    let made = |base: &Path| base.join("cluster/PG_VERSION").exists();
    let existing = [home, spare].into_iter().find(|base| made(base));
    let owner = match existing.and_then(|base| owner_of(&base.join("cluster"))) {
        Some(owner) => owner,
        None => unprivileged()?,
    };
    let mut notes = vec![format!("running as root: Postgres runs as user {}", owner.name)];
    let closed = closed_to(home, &owner);

    if made(home) {
        if let Some(closed) = closed {
            return Err(EmbeddedError::Unreachable { user: owner.name, cluster: home.join("cluster"), closed });
        }
        return Ok((Place { base: home.to_owned(), owner: Some(owner) }, notes));
    }
    if made(spare) && !password.exists() {
        // The data folder it belonged to was removed: begin empty, but lose nothing yet.
        let old = spare.with_extension("old");
        if old.exists() {
            std::fs::remove_dir_all(&old).at("remove", &old)?;
        }
        std::fs::rename(spare, &old).at("move away", spare)?;
        notes.push(format!("{} belonged to a data folder that is gone: it is now {}", spare.display(), old.display()));
    }
    let Some(closed) = closed.or_else(|| made(spare).then(|| home.to_owned())) else {
        return Ok((Place { base: home.to_owned(), owner: Some(owner) }, notes));
    };
    own_folder(spare)?;
    notes.push(format!("{} is closed to user {}: the cluster is in {}", closed.display(), owner.name, spare.display()));
    Ok((Place { base: spare.to_owned(), owner: Some(owner) }, notes))
}

fn unprivileged() -> Result<Owner, EmbeddedError> {
    let user = ["postgres", "nobody"].iter().find_map(|name| User::from_name(name).ok().flatten());
    let user = user.ok_or(EmbeddedError::NoUser)?;
    Ok(Owner { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw() })
}

/// The first folder on the way to `path` that the user may not pass through.
fn closed_to(path: &Path, owner: &Owner) -> Option<PathBuf> {
    let mut way: Vec<&Path> = path.ancestors().collect();
    way.reverse();
    way.into_iter()
        .find(|folder| !folder.metadata().is_ok_and(|meta| passes(meta.mode(), meta.uid(), meta.gid(), owner)))
        .map(Path::to_owned)
}

fn passes(mode: u32, uid: u32, gid: u32, owner: &Owner) -> bool {
    let needed = if uid == owner.uid {
        0o100
    } else if gid == owner.gid {
        0o010
    } else {
        0o001
    };
    mode & needed != 0
}

/// In a folder that everybody may write to, the name may have been taken by somebody else.
fn own_folder(folder: &Path) -> Result<(), EmbeddedError> {
    match std::fs::DirBuilder::new().mode(0o711).create(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let meta = folder.symlink_metadata().at("look at", folder)?;
            if !meta.is_dir() || meta.uid() != geteuid().as_raw() {
                return Err(EmbeddedError::Foreign(folder.to_owned()));
            }
        }
        other => other.at("create", folder)?,
    }
    // Whatever the umask took away.
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o711)).at("open", folder)
}

/// Names the spare folder after the data folder, the same in every build.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> Owner {
        Owner { name: "postgres".into(), uid: 101, gid: 104 }
    }

    #[test]
    fn the_closest_of_owner_group_and_others_decides() {
        let rows = [
            (0o711, 0, 0, true),
            (0o700, 0, 0, false),
            (0o700, 101, 0, true),
            (0o677, 101, 0, false),
            (0o710, 0, 104, true),
            (0o701, 0, 104, false),
        ];
        for (mode, uid, gid, expected) in rows {
            assert_eq!(passes(mode, uid, gid, &owner()), expected, "{mode:o} {uid} {gid}");
        }
    }

    #[test]
    fn the_first_closed_folder_is_named() {
        let stranger = Owner { name: "stranger".into(), uid: 4_000_000_001, gid: 4_000_000_001 };
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b");
        std::fs::create_dir_all(&inner).unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(closed_to(&inner, &stranger), Some(folder.path().to_owned()));
    }

    #[test]
    fn as_root_a_closed_data_folder_gets_a_spare_place_and_a_stale_one_is_set_aside() {
        if !geteuid().is_root() || unprivileged().is_err() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let (home, spare) = (folder.path().join("home"), folder.path().join("spare"));
        let password = folder.path().join("password");
        std::fs::create_dir(&home).unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let base = |notes: &mut Vec<String>| {
            let (place, found) = choose_as_root(&home, &spare, &password).unwrap();
            *notes = found;
            place.base
        };
        let mut notes = Vec::new();

        std::fs::set_permissions(&home, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!((base(&mut notes), notes.len()), (home.clone(), 1), "{notes:?}");

        std::fs::set_permissions(&home, std::fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!((base(&mut notes), notes.len()), (spare.clone(), 2), "{notes:?}");

        std::fs::create_dir(spare.join("cluster")).unwrap();
        std::fs::write(spare.join("cluster/PG_VERSION"), "15").unwrap();
        std::fs::write(&password, "secret").unwrap();
        std::fs::set_permissions(&home, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(base(&mut notes), spare, "an existing cluster is not left behind");

        std::fs::remove_file(&password).unwrap();
        assert_eq!((base(&mut notes), notes.len()), (home.clone(), 2), "{notes:?}");
        assert!(folder.path().join("spare.old/cluster").exists() && !spare.exists());

        std::fs::create_dir(home.join("cluster")).unwrap();
        std::fs::write(home.join("cluster/PG_VERSION"), "15").unwrap();
        std::fs::set_permissions(&home, std::fs::Permissions::from_mode(0o700)).unwrap();
        assert!(matches!(choose_as_root(&home, &spare, &password), Err(EmbeddedError::Unreachable { .. })));
    }
}
