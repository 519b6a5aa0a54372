//! What tonic says on streams, each brought about.

use std::collections::BTreeSet;

use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use micro::{Request, Status, Streaming};

use super::{PAGE, TONICS, rows_of};

#[tokio::test]
async fn the_section_on_tonic_has_what_tonic_says() {
    let (_, section) = PAGE.split_once(TONICS).expect("the section");
    let rows = rows_of(section.split_once("\n### ").expect("a section after it").0);
    let whole = frame(0, b"\x0a\x03one");
    let ok = [("grpc-status", "0")];
    let mut statuses = vec![
        answered(&[], &whole, &[]).await,
        answered(&[], b"", &ok).await,
        answered(&[], &frame(0, b"\xff"), &ok).await,
        answered(&[("grpc-encoding", "gzip")], &whole, &ok).await,
        answered(&[], &frame(1, b""), &ok).await,
        answered(&[], &frame(7, b""), &ok).await,
        answered(&[("grpc-status", "5"), ("grpc-message", "%ff")], b"", &[]).await,
        answered(&[], &whole[..7], &[]).await,
        answered(&[], &frame(0, &[0; LIMIT + 1]), &ok).await,
        call("x".repeat(LIMIT + 1), http::Response::default()).await,
    ];
    let request = Full::new(Bytes::from(frame(7, b"")));
    let decoder = tonic::codec::Codec::decoder(&mut Codec::default());
    let mut requests = Streaming::new_request(decoder, request, None, None);
    statuses.push(requests.message().await.expect_err("no flag"));

    let mut said = BTreeSet::new();
    for status in statuses {
        let is_of = |text: &&String| is_filled_in(text, status.message());
        let text = rows.keys().find(is_of).unwrap_or_else(|| panic!("no row has it: {status:?}"));
        assert!(rows[text].contains(&format!("{:?}", status.code())), "{text}: {status:?}");
        said.insert(text);
    }
    let unsaid: Vec<_> = rows.keys().filter(|text| !said.contains(text)).collect();
    assert!(
        unsaid.is_empty(),
        "src/guide/errors.md has texts that tonic does not say: {unsaid:#?}"
    );
}

/// How large the messages of [`answered`] may be.
const LIMIT: usize = 100;

type Codec = tonic_prost::ProstCodec<String, String>;

/// What tonic makes of a response, to a call with a stream of requests.
async fn answered(
    headers: &[(&'static str, &str)],
    body: &[u8],
    trailers: &[(&'static str, &str)],
) -> Status {
    let map = |pairs: &[(&'static str, &str)]| {
        let pair = |&(name, value): &(_, &str)| {
            (http::HeaderName::from_static(name), value.parse().expect("a value"))
        };
        pairs.iter().map(pair).collect::<http::HeaderMap>()
    };
    let trailers = Some(map(trailers)).filter(|trailers| !trailers.is_empty());
    let body = Full::new(Bytes::copy_from_slice(body));
    let body = body.with_trailers(std::future::ready(trailers.map(Ok)));
    let mut response = http::Response::new(tonic::body::Body::new(body));
    *response.headers_mut() = map(headers);
    call("one".to_owned(), response).await
}

async fn call(message: String, response: http::Response<tonic::body::Body>) -> Status {
    let mut response = Some(response);
    let answers = tower::service_fn(move |request: http::Request<tonic::body::Body>| {
        let response = response.take().expect("one call");
        async move { request.into_body().collect().await.map(|_| response) }
    });
    let mut grpc = tonic::client::Grpc::new(answers)
        .max_decoding_message_size(LIMIT)
        .max_encoding_message_size(LIMIT);
    let path = http::uri::PathAndQuery::from_static("/test.Echo/Up");
    let requests = Request::new(tokio_stream::iter([message]));
    let answer = grpc.client_streaming(requests, path, Codec::default()).await;
    answer.map(|answer: micro::Response<String>| answer.into_inner()).expect_err("it fails")
}

fn frame(flag: u8, message: &[u8]) -> Vec<u8> {
    let mut frame = BytesMut::new();
    frame.put_u8(flag);
    frame.put_u32(u32::try_from(message.len()).expect("it is small"));
    frame.put_slice(message);
    frame.to_vec()
}

/// Whether `said` is the text with something for each `..`.
fn is_filled_in(text: &str, said: &str) -> bool {
    let mut rest = said;
    let mut parts = text.split("..");
    let starts = parts.next().is_some_and(|first| rest.starts_with(first));
    starts
        && parts.all(|part| match rest.find(part) {
            Some(at) => {
                rest = &rest[at + part.len()..];
                true
            }
            None => false,
        })
}
