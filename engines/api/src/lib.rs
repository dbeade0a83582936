//! The compiled gRPC contract (`proto/deltran/<engine>/v1`). It only parses: what a message means
//! is decided by the engine that receives it.

#![allow(clippy::doc_lazy_continuation, clippy::large_enum_variant, missing_docs)]

macro_rules! package {
    ($($module:ident)+) => {$(
        #[allow(clippy::all, clippy::pedantic, clippy::disallowed_methods)]
        pub mod $module {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/deltran.", stringify!($module), ".v1.rs"));
            }
        }
    )+};
}

package! { common token compliance risk clearing settlement notification reporting audit platform }

/// The descriptors of every service, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
