//! Bytes on the wire that are no message.

use bytes::{Buf, BufMut, Bytes};
use deltran_tests::As;
use deltran_tests::node::Deltran;
use http::uri::PathAndQuery;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Request, Status};

/// Sends and receives bytes as they are.
#[derive(Debug, Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// A frame that is no protobuf ends its call and nothing else.
pub async fn a_frame_that_is_no_message(node: &Deltran) {
    let path = |rpc: &str| -> PathAndQuery { format!("/deltran.token.v1.TokenService/{rpc}").parse().unwrap() };
    let frames: [&[u8]; 3] = [b"\xff\xff\xff\xff", b"\x0a\x7f\x00", b"not a message at all"];
    for frame in frames {
        let mut client = tonic::client::Grpc::new(node.as_caller(As::bank("ALFAAEXX")));
        client.ready().await.unwrap();
        let request = Request::new(Bytes::from_static(frame));
        let refused = client.unary(request, path("SubmitTransaction"), Raw).await.unwrap_err();
        assert!(matches!(refused.code(), Code::InvalidArgument | Code::Internal), "{frame:?}: {refused}");
        assert!(refused.message().contains("decode"), "{frame:?}: {refused}");
    }
    let mut client = tonic::client::Grpc::new(node.as_caller(As::bank("ALFAAEXX")));
    client.ready().await.unwrap();
    let unknown = client.unary(Request::new(Bytes::new()), path("NoSuchThing"), Raw).await.unwrap_err();
    assert_eq!(unknown.code(), Code::Unimplemented, "{unknown}");
}
