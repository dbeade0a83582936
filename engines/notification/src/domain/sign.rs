//! Signatures of webhooks after Standard Webhooks 1.0.0: what is signed is `id.timestamp.body`, by
//! HMAC-SHA256 (`v1`) and by Ed25519 (`v1a`).
//!
//! The receiver is given the secret of the first and the public key of the second, and checks whichever it
//! likes. While a rotation lasts, earlier secrets sign as well.

use std::fmt::{self, Write};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use deltran_kernel::Timestamp;
use ring::hmac;
use ring::signature::{Ed25519KeyPair, KeyPair};

/// Bytes of each of the two secrets.
pub const SECRET_BYTES: usize = 32;

/// The secrets of an endpoint that sign at one time: an HMAC key and the seed of an Ed25519 key.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    hmac: [u8; SECRET_BYTES],
    seed: [u8; SECRET_BYTES],
}

impl Secret {
    /// From random bytes.
    pub fn new(hmac: [u8; SECRET_BYTES], seed: [u8; SECRET_BYTES]) -> Self {
        Self { hmac, seed }
    }

    /// All its bytes, to be stored encrypted.
    pub fn to_bytes(&self) -> [u8; 2 * SECRET_BYTES] {
        let mut bytes = [0; 2 * SECRET_BYTES];
        bytes[..SECRET_BYTES].copy_from_slice(&self.hmac);
        bytes[SECRET_BYTES..].copy_from_slice(&self.seed);
        bytes
    }

    /// What [`Secret::to_bytes`] gave; none where the length differs.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (hmac, seed) = bytes.split_at_checked(SECRET_BYTES)?;
        Some(Self { hmac: hmac.try_into().ok()?, seed: seed.try_into().ok()? })
    }

    /// The secret of `v1` as its owner is told once: `whsec_…`.
    pub fn shared(&self) -> String {
        format!("whsec_{}", BASE64_STANDARD.encode(self.hmac))
    }

    /// The key that signs.
    pub fn signer(&self) -> Signer {
        let pair = Ed25519KeyPair::from_seed_unchecked(&self.seed).ok();
        Signer { hmac: hmac::Key::new(hmac::HMAC_SHA256, &self.hmac), pair }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Signs on behalf of one secret.
pub struct Signer {
    hmac: hmac::Key,
    // Every seed of 32 bytes is a key; the library's answer is kept rather than assumed.
    pair: Option<Ed25519KeyPair>,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer(…)")
    }
}

impl Signer {
    /// The public key of `v1a`: `whpk_…`.
    pub fn public_key(&self) -> String {
        let key = self.pair.as_ref().map(|pair| BASE64_STANDARD.encode(pair.public_key().as_ref()));
        key.map(|key| format!("whpk_{key}")).unwrap_or_default()
    }

    fn write(&self, content: &[u8], header: &mut String) {
        let mut push = |version: &str, signature: &[u8]| {
            let separator = if header.is_empty() { "" } else { " " };
            // Writing to a String does not fail.
            let _ = write!(header, "{separator}{version},{}", BASE64_STANDARD.encode(signature));
        };
        push("v1", hmac::sign(&self.hmac, content).as_ref());
        if let Some(pair) = &self.pair {
            push("v1a", pair.sign(content).as_ref());
        }
    }
}

/// The value of `webhook-timestamp`: seconds since 1970.
pub fn timestamp(at: Timestamp) -> i64 {
    at.micros().div_euclid(1_000_000)
}

/// The value of `webhook-signature`: a `v1` and a `v1a` signature of each signer, in their order, with a space
/// between.
pub fn signature<'a>(signers: impl IntoIterator<Item = &'a Signer>, id: &str, timestamp: i64, body: &[u8]) -> String {
    let mut content = format!("{id}.{timestamp}.").into_bytes();
    content.extend_from_slice(body);
    let mut header = String::new();
    for signer in signers {
        signer.write(&content, &mut header);
    }
    header
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signature, VerifyingKey};
    use http::HeaderMap;

    use super::*;

    fn secret(hmac: &str, seed: &str) -> Secret {
        let bytes = |text: &str| {
            let mut bytes = [0; SECRET_BYTES];
            let decoded = BASE64_STANDARD.decode(text).unwrap();
            bytes[..decoded.len()].copy_from_slice(&decoded);
            bytes
        };
        Secret::new(bytes(hmac), bytes(seed))
    }

    /// The vector of the reference implementation in Rust has a key of 24 bytes: HMAC pads it with zeros, as here.
    #[test]
    fn v1_is_that_of_the_reference_implementation() {
        let body = br#"{"email":"test@example.com","username":"test_user"}"#;
        let signer = secret("C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "").signer();
        let header = signature([&signer], "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", 1_649_367_553, body);
        assert_eq!(header.split(' ').next().unwrap(), "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=");
    }

    /// The vector of the reference implementation in Go.
    #[test]
    fn v1a_is_that_of_the_reference_implementation() {
        let signer = secret("", "VEVTVFNJR05JTkdLRVlET05PVFVTRVRISVNGT1JBTlk=").signer();
        let header = signature([&signer], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        let expected = "v1a,tQ9V2XOqn7jL/DQenEFpqIugdBVtiMmER5mhSkXBNwM0mkATuDe6KYYUuxqtaiHeYGb7KaaBRdM5WqyeFiL8Ag==";
        assert_eq!(header.split(' ').nth(1).unwrap(), expected);
    }

    /// As a receiver would: the published library for `v1`, Ed25519 by itself for `v1a`.
    #[test]
    fn receivers_verify_both_over_a_rotation() {
        let (old, new) = (Secret::new([1; 32], [2; 32]), Secret::new([3; 32], [4; 32]));
        let (signer, former) = (new.signer(), old.signer());
        let body = br#"{"type":"payment.received"}"#;
        let now = timestamp(deltran_kernel::Clock::now(&deltran_kernel::SystemClock));
        let header = signature([&signer, &former], "0190c3d5-0000-7000-8000-000000000001", now, body);
        assert_eq!(header.split(' ').count(), 4);

        let mut headers = HeaderMap::new();
        headers.insert("webhook-id", "0190c3d5-0000-7000-8000-000000000001".parse().unwrap());
        headers.insert("webhook-timestamp", now.to_string().parse().unwrap());
        headers.insert("webhook-signature", header.parse().unwrap());
        for shared in [old.shared(), new.shared()] {
            let receiver = standardwebhooks::Webhook::new(&shared).unwrap();
            receiver.verify(body, &headers).unwrap();
            assert!(receiver.verify(b"{}", &headers).is_err());
        }
        let stranger = Secret::new([9; 32], [9; 32]).shared();
        assert!(standardwebhooks::Webhook::new(&stranger).unwrap().verify(body, &headers).is_err());

        for key in [signer.public_key(), former.public_key()] {
            let raw = BASE64_STANDARD.decode(key.strip_prefix("whpk_").unwrap()).unwrap();
            let key = VerifyingKey::from_bytes(&raw.try_into().unwrap()).unwrap();
            let content = [format!("0190c3d5-0000-7000-8000-000000000001.{now}.").as_bytes(), body].concat();
            let verified = header.split(' ').filter_map(|part| part.strip_prefix("v1a,")).any(|signature| {
                let raw = BASE64_STANDARD.decode(signature).unwrap();
                key.verify_strict(&content, &Signature::from_slice(&raw).unwrap()).is_ok()
            });
            assert!(verified);
        }
    }

    #[test]
    fn secrets_are_stored_whole_and_not_shown() {
        let secret = Secret::new([7; 32], [8; 32]);
        assert_eq!(Secret::from_bytes(&secret.to_bytes()), Some(secret.clone()));
        assert_eq!(Secret::from_bytes(&[0; 63]), None);
        assert_eq!(Secret::from_bytes(&[0; 65]), None);
        assert_eq!(Secret::from_bytes(&[0; 5]), None);
        assert_eq!(format!("{secret:?} {:?}", secret.signer()), "Secret(…) Signer(…)");
        assert!(secret.shared().starts_with("whsec_"));
    }
}
