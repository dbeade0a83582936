//! What requests to an object store are signed with, over the cryptography that the platform has already.

use object_store::Error;
use object_store::client::{
    CryptoProvider, DigestAlgorithm, DigestContext, HmacContext, Signer as Signs, SigningAlgorithm,
};
use ring::digest::{self, Digest};
use ring::hmac::{self, Tag};

/// SHA-256 and HMAC with it. There are no keys to sign with otherwise.
#[derive(Debug, Clone, Copy)]
pub struct Crypto;

impl CryptoProvider for Crypto {
    fn digest(&self, algorithm: DigestAlgorithm) -> object_store::Result<Box<dyn DigestContext>> {
        match algorithm {
            DigestAlgorithm::Sha256 => {
                Ok(Box::new(Hashing { context: digest::Context::new(&digest::SHA256), out: None }))
            }
            _ => Err(absent("another digest than SHA-256")),
        }
    }

    fn hmac(&self, algorithm: DigestAlgorithm, secret: &[u8]) -> object_store::Result<Box<dyn HmacContext>> {
        match algorithm {
            DigestAlgorithm::Sha256 => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
                Ok(Box::new(Mac { context: hmac::Context::with_key(&key), out: None }))
            }
            _ => Err(absent("HMAC with another digest than SHA-256")),
        }
    }

    fn sign(&self, _algorithm: SigningAlgorithm, _pem: &[u8]) -> object_store::Result<Box<dyn Signs>> {
        Err(absent("a signature with a private key"))
    }
}

fn absent(what: &str) -> Error {
    Error::NotSupported { source: format!("{what} is asked for").into() }
}

struct Hashing {
    context: digest::Context,
    out: Option<Digest>,
}

impl DigestContext for Hashing {
    fn update(&mut self, data: &[u8]) {
        self.context.update(data);
    }

    fn finish(&mut self) -> object_store::Result<&[u8]> {
        Ok(Digest::as_ref(self.out.insert(self.context.clone().finish())))
    }
}

struct Mac {
    context: hmac::Context,
    out: Option<Tag>,
}

impl HmacContext for Mac {
    fn update(&mut self, data: &[u8]) {
        self.context.update(data);
    }

    fn finish(&mut self) -> object_store::Result<&[u8]> {
        Ok(Tag::as_ref(self.out.insert(self.context.clone().sign())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The second case of RFC 4231, and the second of FIPS 180-2, in pieces.
    #[test]
    fn it_gives_what_the_standards_give() {
        let mut mac = Crypto.hmac(DigestAlgorithm::Sha256, b"Jefe").unwrap();
        mac.update(b"what do ya want ");
        mac.update(b"for nothing?");
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(hex::encode(mac.finish().unwrap()), expected);
        let mut digest = Crypto.digest(DigestAlgorithm::Sha256).unwrap();
        digest.update(b"abcdbcdecdefdefgefghfghighijhijk");
        digest.update(b"ijkljklmklmnlmnomnopnopq");
        let expected = "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1";
        assert_eq!(hex::encode(digest.finish().unwrap()), expected);
    }
}
