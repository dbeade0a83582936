//! Keeps the secrets of endpoints: encrypted by a master key that is not in the database.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use deltran_kernel::EndpointId;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde::Deserialize;

use super::random::{NoRandom, Random};
use crate::domain::sign::{SECRET_BYTES, Secret};

/// Bytes of the master key.
const KEY_BYTES: usize = 32;

/// A master key as it is written: base64 of 32 bytes. It shows itself to nobody.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct KeyText(String);

impl KeyText {
    /// From text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Whether none is given.
    pub fn is_empty(&self) -> bool {
        self.0.trim().is_empty()
    }
}

impl fmt::Debug for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "none" } else { "(given)" })
    }
}

/// A fresh master key, as it is written.
///
/// # Errors
/// [`NoRandom`].
pub fn fresh_key(random: &dyn Random) -> Result<String, NoRandom> {
    let mut key = [0; KEY_BYTES];
    random.fill(&mut key)?;
    Ok(BASE64_STANDARD.encode(key))
}

/// Why a secret is not made or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// No master key is set.
    #[error(
        "no master key is set: name a file with notification.master_key_file, or set DELTRAN_NOTIFICATION_MASTER_KEY to \
         base64 of 32 random bytes"
    )]
    NoKey,
    /// It was encrypted by another master key, or changed since.
    #[error("a stored secret cannot be decrypted: the master key is another one, or the row was changed")]
    WrongKey,
    /// There is no randomness.
    #[error(transparent)]
    Random(#[from] NoRandom),
}

/// Encrypts and decrypts secrets.
pub struct Vault {
    key: Option<LessSafeKey>,
    random: Arc<dyn Random>,
}

impl Vault {
    /// A vault with the key that is given, or the one in a file; without either it makes and reads nothing.
    ///
    /// # Errors
    /// Where the file cannot be read, or the key has not the right form. The key itself is not shown.
    pub fn open(key: &KeyText, file: &str, random: Arc<dyn Random>) -> Result<Self, String> {
        let (origin, text) = match (key.is_empty(), file.is_empty()) {
            (true, true) => return Ok(Self { key: None, random }),
            (false, _) => ("notification.master_key".to_owned(), key.0.clone()),
            (true, false) => {
                let text = std::fs::read_to_string(file)
                    .map_err(|e| format!("notification.master_key_file = {file:?} cannot be read: {e}"))?;
                (format!("notification.master_key_file = {file:?}"), text)
            }
        };
        let bytes = BASE64_STANDARD.decode(text.trim()).ok().filter(|bytes| bytes.len() == KEY_BYTES);
        let bytes = bytes.ok_or_else(|| format!("{origin}: expected base64 of {KEY_BYTES} random bytes"))?;
        let key = UnboundKey::new(&CHACHA20_POLY1305, &bytes).map_err(|_| format!("{origin} is no key"))?;
        Ok(Self { key: Some(LessSafeKey::new(key)), random })
    }

    /// Whether there is a master key.
    pub fn is_open(&self) -> bool {
        self.key.is_some()
    }

    /// A fresh secret, and its encrypted form for the row of this endpoint and number.
    ///
    /// # Errors
    /// [`VaultError::NoKey`], [`VaultError::Random`].
    pub fn fresh(&self, endpoint: EndpointId, number: u32) -> Result<(Secret, Vec<u8>), VaultError> {
        let key = self.key.as_ref().ok_or(VaultError::NoKey)?;
        let (mut hmac, mut seed, mut nonce) = ([0; SECRET_BYTES], [0; SECRET_BYTES], [0; NONCE_LEN]);
        for bytes in [&mut hmac[..], &mut seed[..], &mut nonce[..]] {
            self.random.fill(bytes)?;
        }
        let secret = Secret::new(hmac, seed);
        let mut sealed = nonce.to_vec();
        let mut content = secret.to_bytes().to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        key.seal_in_place_append_tag(nonce, place(endpoint, number), &mut content).map_err(|_| VaultError::WrongKey)?;
        sealed.extend(content);
        Ok((secret, sealed))
    }

    /// The secret of a row.
    ///
    /// # Errors
    /// [`VaultError::NoKey`], [`VaultError::WrongKey`].
    pub fn read(&self, endpoint: EndpointId, number: u32, sealed: &[u8]) -> Result<Secret, VaultError> {
        let key = self.key.as_ref().ok_or(VaultError::NoKey)?;
        let (nonce, content) = sealed.split_at_checked(NONCE_LEN).ok_or(VaultError::WrongKey)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| VaultError::WrongKey)?;
        let mut content = content.to_vec();
        let bytes =
            key.open_in_place(nonce, place(endpoint, number), &mut content).map_err(|_| VaultError::WrongKey)?;
        Secret::from_bytes(bytes).ok_or(VaultError::WrongKey)
    }
}

/// Binds a secret to its row, so that it opens in no other.
fn place(endpoint: EndpointId, number: u32) -> Aad<Vec<u8>> {
    let mut bytes = endpoint.uuid().as_bytes().to_vec();
    bytes.extend(number.to_be_bytes());
    Aad::from(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::random::SystemRandom;
    use super::*;

    fn vault(byte: u8) -> Vault {
        let key = KeyText::new(BASE64_STANDARD.encode([byte; KEY_BYTES]));
        Vault::open(&key, "", Arc::new(SystemRandom::default())).unwrap()
    }

    fn id(text: &str) -> EndpointId {
        text.parse().unwrap()
    }

    #[test]
    fn a_secret_opens_with_its_key_in_its_row_only() {
        let (one, two) = (id("0190c3d5-0000-7000-8000-000000000001"), id("0190c3d5-0000-7000-8000-000000000002"));
        let (secret, sealed) = vault(1).fresh(one, 1).unwrap();
        assert_eq!(vault(1).read(one, 1, &sealed).unwrap(), secret);
        assert_eq!(vault(2).read(one, 1, &sealed), Err(VaultError::WrongKey));
        assert_eq!(vault(1).read(two, 1, &sealed), Err(VaultError::WrongKey));
        assert_eq!(vault(1).read(one, 2, &sealed), Err(VaultError::WrongKey));
        for place in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[place] ^= 1;
            assert_eq!(vault(1).read(one, 1, &changed), Err(VaultError::WrongKey));
            assert_eq!(vault(1).read(one, 1, &sealed[..place]), Err(VaultError::WrongKey));
        }
        assert!(!sealed.windows(8).any(|w| secret.to_bytes().windows(8).any(|s| s == w)), "nothing stands in the open");
        let (other, again) = vault(1).fresh(one, 1).unwrap();
        assert_ne!((other, again), (secret, sealed));
    }

    #[test]
    fn a_key_comes_from_the_environment_or_a_file_or_not_at_all() {
        let random: Arc<dyn Random> = Arc::new(SystemRandom::default());
        let closed = Vault::open(&KeyText::default(), "", random.clone()).unwrap();
        let one = id("0190c3d5-0000-7000-8000-000000000001");
        assert!(!closed.is_open());
        assert_eq!(closed.fresh(one, 1).unwrap_err(), VaultError::NoKey);
        assert_eq!(closed.read(one, 1, &[0; 92]).unwrap_err(), VaultError::NoKey);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        std::fs::write(&file, format!("{}\n", BASE64_STANDARD.encode([1; KEY_BYTES]))).unwrap();
        let opened = Vault::open(&KeyText::default(), file.to_str().unwrap(), random.clone()).unwrap();
        let (secret, sealed) = vault(1).fresh(one, 1).unwrap();
        assert_eq!(opened.read(one, 1, &sealed), Ok(secret));
        for (text, file) in [("short", ""), ("c2hvcnQ=", ""), ("", "/nowhere/at/all")] {
            let error = Vault::open(&KeyText::new(text), file, random.clone()).err().unwrap();
            assert!(error.starts_with("notification.master_key") && !error.contains("c2hvcnQ"), "{error}");
        }
        assert_eq!(format!("{:?}", KeyText::new("c2hvcnQ=")), "(given)");
        let fresh = fresh_key(&*random).unwrap();
        assert!(Vault::open(&KeyText::new(fresh.clone()), "", random.clone()).unwrap().is_open());
        assert_ne!(fresh, fresh_key(&*random).unwrap());
    }
}
