//! Signed notes (C2SP `signed-note`) with Ed25519 keys, and the cosignatures of witnesses (C2SP `tlog-cosignature`).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};

/// Bytes of the longest note that is read.
pub const MAX_NOTE: usize = 64 * 1024;
/// Signature lines that are read of one note.
const MAX_SIGNATURES: usize = 64;

/// How the text form of a secret key begins.
const SECRET: &str = "PRIVATE+KEY+";

/// What a signature says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The text, as it stands.
    Ed25519,
    /// A witness saw the checkpoint to be consistent with all that it saw before, at a time.
    Cosignature,
}

impl Kind {
    /// The signature type's byte.
    const fn byte(self) -> u8 {
        match self {
            Self::Ed25519 => 0x01,
            Self::Cosignature => 0x04,
        }
    }
}

/// Why a note or a key is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// It is no note.
    #[error("this is no signed note: {0}")]
    Malformed(&'static str),
    /// It is no key.
    #[error("this is no verifier key: {0}")]
    Key(&'static str),
    /// A signature under a known key is wrong.
    #[error("the signature of {0} is wrong")]
    Forged(String),
    /// None of the known keys signed it.
    #[error("no known key has signed it: it is signed by {0}")]
    Unknown(String),
}

/// The name of a key: not empty, without spaces and plus signs.
fn name_is_valid(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c == '+' || c.is_control())
}

fn key_id(name: &str, kind: Kind, public: &[u8; 32]) -> [u8; 4] {
    let digest = Sha256::new().chain_update(name).chain_update([b'\n', kind.byte()]).chain_update(public).finalize();
    [digest[0], digest[1], digest[2], digest[3]]
}

/// A key that checks signatures: `<name>+<id in hexadecimal>+<base64 of type and key>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verifier {
    name: String,
    kind: Kind,
    id: [u8; 4],
    public: VerifyingKey,
}

impl Verifier {
    /// A key of a name.
    ///
    /// # Errors
    /// Where the name or the key is not valid.
    pub fn new(name: &str, kind: Kind, public: &[u8; 32]) -> Result<Self, NoteError> {
        if !name_is_valid(name) {
            return Err(NoteError::Key("the name is empty, or has a space or a plus sign"));
        }
        let id = key_id(name, kind, public);
        let public = VerifyingKey::from_bytes(public).map_err(|_| NoteError::Key("no point of the curve"))?;
        Ok(Self { name: name.to_owned(), kind, id, public })
    }

    /// Reads the text form.
    ///
    /// # Errors
    /// Where it is none, or its id is not that of the key.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let mut parts = text.trim().splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NoteError::Key("expected <name>+<id>+<key>"));
        };
        let key = STANDARD.decode(key).map_err(|_| NoteError::Key("the key is not base64"))?;
        let kind = match key.first() {
            Some(0x01) => Kind::Ed25519,
            Some(0x04) => Kind::Cosignature,
            _ => return Err(NoteError::Key("the type of signature is not known")),
        };
        let public = key[1..].try_into().map_err(|_| NoteError::Key("the key does not have 32 bytes"))?;
        let verifier = Self::new(name, kind, &public)?;
        if hex::encode(verifier.id) != id {
            return Err(NoteError::Key("its id is not that of name and key"));
        }
        Ok(verifier)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn checks(&self, text: &str, signature: &[u8]) -> bool {
        let (message, signature) = match self.kind {
            Kind::Ed25519 => (text.as_bytes().to_vec(), signature),
            Kind::Cosignature => {
                let Some((time, signature)) = signature.split_at_checked(8) else { return false };
                let time = time.try_into().map_or(0, u64::from_be_bytes);
                (cosigned(text, time), signature)
            }
        };
        Signature::from_slice(signature).is_ok_and(|s| self.public.verify_strict(&message, &s).is_ok())
    }
}

impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = [&[self.kind.byte()], self.public.as_bytes().as_slice()].concat();
        write!(f, "{}+{}+{}", self.name, hex::encode(self.id), STANDARD.encode(key))
    }
}

/// What a witness signs.
fn cosigned(text: &str, time: u64) -> Vec<u8> {
    format!("cosignature/v1\ntime {time}\n{text}").into_bytes()
}

/// A key that signs. Its secret appears in no text.
pub struct Signer {
    secret: SigningKey,
    verifier: Verifier,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({})", self.verifier)
    }
}

impl Signer {
    /// A key out of its 32 secret bytes.
    ///
    /// # Errors
    /// Where the name is not valid.
    pub fn new(name: &str, kind: Kind, seed: &[u8; 32]) -> Result<Self, NoteError> {
        let secret = SigningKey::from_bytes(seed);
        let verifier = Verifier::new(name, kind, secret.verifying_key().as_bytes())?;
        Ok(Self { secret, verifier })
    }

    /// Reads the text form of a secret key: `PRIVATE+KEY+<name>+<id in hexadecimal>+<base64 of type and seed>`, as Go's
    /// `golang.org/x/mod/sumdb/note` writes it. What is wrong is said without showing it.
    ///
    /// # Errors
    /// Where it is none, or its id is not that of the key.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let malformed = NoteError::Key("expected PRIVATE+KEY+<name>+<id>+<key>");
        let rest = text.trim().strip_prefix(SECRET).ok_or(malformed.clone())?;
        let mut parts = rest.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(malformed);
        };
        let key = STANDARD.decode(key).map_err(|_| NoteError::Key("the key is not base64"))?;
        let kind = match key.first() {
            Some(0x01) => Kind::Ed25519,
            Some(0x04) => Kind::Cosignature,
            _ => return Err(NoteError::Key("the type of signature is not known")),
        };
        let seed = key[1..].try_into().map_err(|_| NoteError::Key("the key does not have 32 bytes"))?;
        let signer = Self::new(name, kind, &seed)?;
        if hex::encode(signer.verifier.id) != id {
            return Err(NoteError::Key("its id is not that of name and key"));
        }
        Ok(signer)
    }

    /// The text form of the secret key, for the file that keeps it.
    pub fn secret_text(&self) -> String {
        let Verifier { name, kind, id, .. } = &self.verifier;
        let key = [&[kind.byte()], self.secret.as_bytes().as_slice()].concat();
        format!("{SECRET}{name}+{}+{}", hex::encode(id), STANDARD.encode(key))
    }

    /// Its public half.
    pub fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// The signature line of a text. `time` is that of a cosignature, in seconds since 1970; a plain signature has none.
    pub fn sign(&self, text: &str, time: u64) -> String {
        use ed25519_dalek::Signer as _;
        let signature = match self.verifier.kind {
            Kind::Ed25519 => self.secret.sign(text.as_bytes()).to_bytes().to_vec(),
            Kind::Cosignature => {
                [time.to_be_bytes().as_slice(), &self.secret.sign(&cosigned(text, time)).to_bytes()].concat()
            }
        };
        let bytes = [self.verifier.id.as_slice(), &signature].concat();
        format!("\u{2014} {} {}\n", self.verifier.name, STANDARD.encode(bytes))
    }

    /// A text with its signature.
    pub fn note(&self, text: &str) -> String {
        format!("{text}\n{}", self.sign(text, 0))
    }
}

/// A note: its text, and who is said to have signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note<'a> {
    /// The text, with the newline at its end.
    pub text: &'a str,
    signatures: Vec<(&'a str, [u8; 4], Vec<u8>)>,
}

impl<'a> Note<'a> {
    /// Takes a note apart; checks no signature.
    ///
    /// # Errors
    /// Where it is no note.
    pub fn parse(note: &'a str) -> Result<Self, NoteError> {
        if note.len() > MAX_NOTE {
            return Err(NoteError::Malformed("it is too long"));
        }
        if note.chars().any(|c| c < ' ' && c != '\n') {
            return Err(NoteError::Malformed("it has a control character"));
        }
        let at = note.rfind("\n\n").ok_or(NoteError::Malformed("it has no signatures"))?;
        let (text, lines) = (&note[..=at], &note[at + 2..]);
        let lines = lines.strip_suffix('\n').ok_or(NoteError::Malformed("its last line does not end"))?;
        let mut signatures = Vec::new();
        for line in lines.split('\n') {
            let parts = line.strip_prefix("\u{2014} ").and_then(|rest| rest.split_once(' '));
            let (name, signature) = parts.ok_or(NoteError::Malformed("a signature line is not `— <name> <base64>`"))?;
            let bytes = STANDARD.decode(signature).map_err(|_| NoteError::Malformed("a signature is not base64"))?;
            let (id, bytes) = bytes.split_first_chunk().ok_or(NoteError::Malformed("a signature is too short"))?;
            if !name_is_valid(name) || bytes.is_empty() {
                return Err(NoteError::Malformed("a signature has no valid name, or is empty"));
            }
            signatures.push((name, *id, bytes.to_vec()));
            if signatures.len() > MAX_SIGNATURES {
                return Err(NoteError::Malformed("it has too many signatures"));
            }
        }
        Ok(Self { text, signatures })
    }

    /// The known keys that signed it. Signatures under unknown keys are passed over.
    ///
    /// # Errors
    /// Where one under a known key is wrong, or there is none.
    pub fn verify<'k>(&self, known: &'k [Verifier]) -> Result<Vec<&'k Verifier>, NoteError> {
        let mut signed = Vec::new();
        for (name, id, signature) in &self.signatures {
            let Some(key) = known.iter().find(|k| k.name == *name && k.id == *id) else { continue };
            if !key.checks(self.text, signature) {
                return Err(NoteError::Forged(key.to_string()));
            }
            signed.push(key);
        }
        if signed.is_empty() {
            let names: Vec<_> =
                self.signatures.iter().map(|(name, id, _)| format!("{name}+{}", hex::encode(id))).collect();
            return Err(NoteError::Unknown(names.join(", ")));
        }
        Ok(signed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification.
    const SALVATORE: &str = "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned è subito sera.\n\n\u{2014} quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n";

    fn signer() -> Signer {
        Signer::new("deltran/test/audit", Kind::Ed25519, &[9; 32]).unwrap()
    }

    #[test]
    fn the_example_of_the_specification_is_read() {
        let note = Note::parse(SALVATORE).unwrap();
        assert!(note.text.ends_with("ed è subito sera.\n"), "the text has an empty line of its own");
        assert_eq!(note.signatures.len(), 1);
        assert_eq!(note.signatures[0].0, "quasimodo.example/salvatore");
        assert_eq!((note.signatures[0].1, note.signatures[0].2.len()), ([0x36, 0x7b, 0xa0, 0x4b], 64));
    }

    /// The key of Go's checksum database and its published text form (golang.org/x/mod/sumdb/note).
    #[test]
    fn a_published_key_is_read_and_written() {
        let text = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8";
        assert_eq!(Verifier::parse(text).unwrap().to_string(), text);
        for bad in [
            "sum.golang.org+033de0af+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8",
            "sum golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8",
            "sum.golang.org+033de0ae+As4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8",
            "sum.golang.org+033de0ae",
            "",
        ] {
            assert!(Verifier::parse(bad).is_err(), "{bad}");
        }
    }

    /// The key of the example in the documentation of golang.org/x/mod/sumdb/note.
    #[test]
    fn a_published_secret_key_is_read_and_written() {
        let text = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
        let signer = Signer::parse(text).unwrap();
        assert_eq!(signer.secret_text(), text);
        let public = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        assert_eq!(signer.verifier().to_string(), public);
        for bad in [
            "PRIVATE+KEY+PeterNeumann+c74f20a4+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz",
            "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
            "PRIVATE+KEY+PeterNeumann+c74f20a3",
            "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr",
            "",
        ] {
            let refused = Signer::parse(bad).unwrap_err().to_string();
            assert!(!refused.contains("AYEK"), "{refused}");
        }
    }

    #[test]
    fn what_is_signed_is_verified_and_nothing_else() {
        let signer = signer();
        let witness = Signer::new("witness.example/w1", Kind::Cosignature, &[7; 32]).unwrap();
        let text = "deltran/test/audit\n3\nAAAA\n";
        let note = signer.note(text) + &witness.sign(text, 1_700_000_000);
        let keys = [signer.verifier().clone(), witness.verifier().clone()];
        let read = Note::parse(&note).unwrap();
        assert_eq!(read.text, text);
        assert_eq!(read.verify(&keys).unwrap().len(), 2);
        assert_eq!(read.verify(&keys[1..]).unwrap(), [&keys[1]]);
        assert!(matches!(read.verify(&[]), Err(NoteError::Unknown(_))));

        let forged = note.replacen("\n3\n", "\n4\n", 1);
        assert!(matches!(Note::parse(&forged).unwrap().verify(&keys), Err(NoteError::Forged(_))));
        // The same key under another name is another key.
        let other = Verifier::new("deltran/other", Kind::Ed25519, signer.verifier().public.as_bytes()).unwrap();
        assert!(matches!(read.verify(&[other]), Err(NoteError::Unknown(_))));
        assert!(!format!("{signer:?}").contains(&hex::encode([9; 32])));
    }

    #[test]
    fn what_is_no_note_is_refused() {
        let good = signer().note("a\n");
        for bad in [
            "",
            "a\n",
            "a\n\n",
            &good[..good.len() - 1],
            &good.replace('\u{2014}', "-"),
            &good.replace("a\n\n", "a\tb\n\n"),
            &good.replace("deltran/test/audit", "deltran test"),
            &"a".repeat(MAX_NOTE + 1),
        ] {
            assert!(Note::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Note::parse(&good).is_ok());
    }
}
